"""Kernels for NVIDIA GPUs.

    schedule      a pass cut into segments whose numbers fit registers and shared memory
    path_group    what one kernel does: which numbers it reads and writes
    segment       how it is launched, and what that takes of registers and shared memory
    staging       which bytes of an edge are copied to shared memory ahead of their use
    kernel        the loop: stage, contract, scatter
    parts         what the loop is written with, generated for one segment
    features      of them those for gradients of edge features
    rows          where a lane finds its numbers; lists: and which sites it walks
    warp_sum      sums over the lanes of a warp
    fold          sums of nodes whose edges several blocks walked
    linear        matrix products of linear maps; linear_parts: their pieces
    maps          linear maps with weights of each site; maps_parts: what it is written with; maps_path: one path
    powers        polynomials of features; powers_parts: what it is written with; powers_sites: what a block does with
                  sites
    gate          activations and what they multiply, with derivatives
    loops         loops in LLVM IR; vectors: several numbers at once, to and from memory
    ptx           instructions that LLVM has no words for
    compile       from a Python kernel to machine code; numpy_compat: one name that the compiler misses
    binary        what is kept of a compiled kernel
    driver        the CUDA driver: load and launch
    launch        compiled once an architecture, kept on disk, launched by handle

`launch` is the door. Only it and `driver` need a GPU; only `kernel`, `fold`, `gate`, `linear`, `maps` and `powers`
need the compiler.
"""
