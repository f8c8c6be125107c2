"""Tensor products of published models: (node irreps, edge irreps, irreps kept in the output)."""

_NEQUIP = {
    "nequip-lips": ("32x0o+32x0e+32x1o+32x1e+32x2o+32x2e", "0e+1o+2e"),
    "nequip-aspirin": ("64x0o+64x0e+64x1o+64x1e", "0e+1o"),
    "nequip-toluene": ("64x0o+64x0e+64x1o+64x1e+64x2o+64x2e", "0e+1o+2e"),
    "nequip-benzene": ("64x0o+64x0e+64x1o+64x1e+64x2o+64x2e+64x3o+64x3e", "0e+1o+2e+3o"),
    "nequip-water": ("32x0o+32x0e+32x1o+32x1e", "0e+1o"),
}

PROBLEMS = {
    "mace-large": ("128x0e+128x1o+128x2e", "0e+1o+2e+3o", "128x0e+128x1o+128x2e+128x3o"),
    "mace-medium": ("128x0e+128x1o", "0e+1o+2e+3o", "128x0e+128x1o+128x2e"),
    **{name: (irreps, edge, irreps) for name, (irreps, edge) in _NEQUIP.items()},
    "sevennet-l3i5": ("128x0e+64x1e+32x2e+32x3e", "0e+1e+2e+3e", "0e+1e+2e+3e"),
    "nequix": ("128x0e+64x1o+32x2e+32x3o", "0e+1o+2e+3o", "0e+1o+2e+3o"),
}
