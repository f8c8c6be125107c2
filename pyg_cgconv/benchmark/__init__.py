"""``python -m pyg_cgconv.benchmark``: this project and its peers, timed side by side in one process.

    graphs     what problems run on: graphs, and rows without a graph
    kind       what a kind of problem says of itself: its inputs, its reference, this project's way, its peers'
    cue        cuEquivariance's polynomials, which all kinds use
    products   tensor products of rows, and convolutions
    maps       linear maps, and products of rows with themselves
    symmetric  symmetric contractions; mace_contractions: MACE's own
    problems   the named problems of each kind
    peers      who is compared
    timing     time, memory, bandwidth
    measure    a row of the table
    plot       a picture of the table

And of whole models, by `--models`:

    structures  the crystals that they run on
    packages    what a package says of its models: mace_models, nequip_models, sevennet_models
    parts       what the time goes to, by names of kernels
    model_rows  rows of the table: contenders on the same structures
    largest     the largest system that a GPU has room for
    models      the table

And of neighbour lists, by `--neighbors`:

    lists  the table

Arrows of import go upwards in these lists. The packages are imported when their models are measured.
"""
