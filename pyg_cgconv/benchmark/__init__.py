"""``python -m pyg_cgconv.benchmark``: this project and its peers, timed side by side in one process.

    graphs    what problems run on: graphs, and rows without a graph
    kind      what a kind of problem says of itself: its inputs, its reference, this project's way, its peers'
    cue       cuEquivariance's polynomials, which all kinds use
    products  tensor products of rows, and convolutions
    maps      linear maps, and products of rows with themselves
    problems  the named problems of each kind
    peers     who is compared
    timing    time, memory, bandwidth
    measure   a row of the table
    plot      a picture of the table

Arrows of import go upwards in this list.
"""
