"""Generator of fused kernels for equivariant convolutions: problem -> polynomial -> schedule -> body -> kernel ->
launch.

Knows neither PyTorch nor e3nn: addresses and numbers in, machine code out. `pyg_cgconv` is its front end.
"""
