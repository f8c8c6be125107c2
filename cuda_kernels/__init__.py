"""Generator of fused kernels for equivariant networks.

    problem       a frozen description: operands (row, index, channels) and paths
    contraction   which derivatives of it are asked for, of any order
    polynomial    the arithmetic of one path, by sums over its coefficients; operations counts it
    passes        walks over the sites, so that each row has one owner
    linear        the tables of linear maps, whose weights mix channels
    maps          linear maps with weights of each site
    powers        the arithmetic of polynomials of features: monomials, their order; powers_walks: two ways to sum them
    gate          activations of rows, and what they multiply
    body          arithmetic as LLVM IR, the same for CPU and GPU
    cache         compiled kernels on disk; ownership: only where nobody else can change them; elf: their file format
    cpu, cuda     schedule, kernel and launch on each machine

The data's way: problem -> contraction -> passes -> (schedule) -> kernel with its body -> launch.

Knows neither PyTorch nor e3nn: addresses and numbers in, machine code out. `pyg_cgconv` is its front end.
"""
