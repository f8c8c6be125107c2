"""Kernels for CPUs.

    kernel   the loops: a thread owns a node and walks its edges, or walks rows where there is no graph
    parts    what the loops are written with, generated for one pass
    edge     one edge: a loop over channels for each path
    maps     one edge of linear maps with weights of each edge: a loop over input channels for each path
    powers   polynomials of features: loops and parts
    rows     rows in memory: loops over channels, and transpositions between layouts
    compile  by numba, kept on disk
    launch   compiled once, kept on disk, called with addresses

`launch` is the door.
"""
