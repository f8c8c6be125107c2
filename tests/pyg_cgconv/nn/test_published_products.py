"""Products that others publish: those of e3nn's own tests, and OpenEquivariance's benchmark; each once, on the CPU."""

import pytest
import torch
from e3nn import o3

from pyg_cgconv import TensorProductConv
from pyg_cgconv.benchmark.problems import FULLY_CONNECTED, PROBLEMS, SHARED
from tests.problems import Case, fill
from tests.pyg_cgconv.ops.test_derivatives import check
from tests.random_examples import only_long
from tests.random_products import Derivatives


def paths_of(product: o3.TensorProduct) -> tuple:
    irreps = product.irreps_in1, product.irreps_in2, product.irreps_out
    return *irreps, [(i.i_in1, i.i_in2, i.i_out, i.connection_mode, i.has_weight) for i in product.instructions]


def mixed_with_uvw(mode: str, x: str, y: str, out: str, has_weight: bool) -> tuple:
    """Two slots of each irrep; a path of the mode between the first ones and one between the others, and two of
    "uvw"."""
    wide, narrow = (n**2 if mode == "uvuv" else n for n in (25, 19))
    irreps = f"25x{x}+19x{x}", f"25x{y}+19x{y}", f"{wide}x{out}+{narrow}x{out}"
    others = [(0, 0, 1, "uvw", True, 0.5), (0, 1, 1, "uvw", True, 0.2)]
    return *irreps, [(0, 0, 0, mode, has_weight), (1, 1, 1, mode, has_weight), *others]


def nine_paths(mode: str) -> tuple:
    x, y = "4x0e+4x1e+4x2e", "5x0e+5x1e+5x2e"
    slots = [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1), (0, 2, 2), (2, 0, 2), (2, 2, 0), (2, 1, 1)]
    out = {"uvu": x, "uvv": y, "uvw": "6x0e+6x1e+6x2e"}[mode]
    return x, y, out, [(*slot, mode, True) for slot in slots]


_SPINS = "1e+2e+3x3o"
_ELASTICITY = o3.TensorSquare("1o").irreps_out

E3NN = {
    "scalars": paths_of(o3.FullyConnectedTensorProduct("3x0e+7x0e", "3x0e+7x0e", "0e")),
    "vectors": paths_of(o3.FullyConnectedTensorProduct("0e+1e", "0e+1e", "0e+1e")),
    "full": paths_of(o3.FullTensorProduct(_SPINS, "1e+2x2e+2x3o")),
    "fully connected": paths_of(o3.FullyConnectedTensorProduct(_SPINS, _SPINS, _SPINS)),
    "square": paths_of(o3.TensorSquare("0e+3x1e+3e")),
    "square with weights": paths_of(o3.TensorSquare("0e+3x1e+3e", "0e+3x1e+3e")),
    "elasticity": paths_of(o3.TensorSquare(_ELASTICITY)),
    "uvw, 25 and 19 channels": mixed_with_uvw("uvw", "1o", "2e", "1o", True),
    "uvu, 25 and 19 channels": mixed_with_uvw("uvu", "0e", "1o", "1o", True),
    "uvv, 25 and 19 channels": mixed_with_uvw("uvv", "1e", "1o", "0o", False),
    "uuw, 25 and 19 channels": mixed_with_uvw("uuw", "2e", "0o", "2o", True),
    "uuu, 25 and 19 channels": mixed_with_uvw("uuu", "1o", "1o", "2e", False),
    "uvuv, 25 and 19 channels": mixed_with_uvw("uvuv", "0o", "2e", "2o", False),
    **{f"{mode}, nine paths": nine_paths(mode) for mode in ("uvw", "uvu", "uvv")},
}

SINGLE = {
    f"{x} x {y} -> {out}": (x, y, out)
    for x, y, out in (
        ("1e", "1e", "1e"),
        ("2e", "1e", "2e"),
        ("3e", "1e", "3e"),
        ("5e", "1e", "3e"),
        ("5e", "3e", "5e"),
        ("6e", "3e", "6e"),
        ("7e", "4e", "7e"),
        ("7e", "7e", "7e"),
    )
}
"""Irreps of its products of one path: 128 channels of x and the result, one of y."""


def channelwise(*irreps: str) -> tuple:
    layer = TensorProductConv(*irreps)
    return layer.irreps_in, layer.irreps_edge, layer.irreps_out, [i[:5] for i in layer.instructions]


_NEQUIX, _SEVENNET = PROBLEMS["nequix"], PROBLEMS["sevennet-l3i5"]
OPENEQUIVARIANCE = {
    **PROBLEMS,
    "nequix, first": ("89x0e", *_NEQUIX[1:]),
    "nequix, last": (*_NEQUIX[:2], "0e"),
    "sevennet-l3i5, first": ("128x0e", *_SEVENNET[1:]),
    "sevennet-l3i5, last": (*_SEVENNET[:2], "0e"),
}


def check_gradients(arguments, shared_weights: bool, on_graph: bool) -> None:
    *irreps, instructions = arguments
    irreps = map(o3.Irreps, irreps)
    case = Case(*irreps, instructions, "mul_ir", shared_weights, *[None] * 4, targets=3, on_graph=on_graph)
    fill(case, sources=3, edges=5, seed=0)
    inputs = (0, 1, 2) if case.weight.shape[-1] else (0, 1)
    check(case, Derivatives((torch.float64,) * 3, (inputs,)), torch.device("cpu"))


QUICK = "scalars", "vectors", "elasticity", "nequip-water", "sevennet-l3i5, last", "tetris-poly-2", "1e x 1e -> 1e"
"""Those that take a second or two; to compile the kernels of others takes up to a minute."""


def each(names) -> list:
    return [name if name in QUICK else pytest.param(name, marks=only_long()) for name in names]


@pytest.mark.parametrize("name", each(E3NN))
def test_those_of_e3nns_tests(name):
    check_gradients(E3NN[name], shared_weights=True, on_graph=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scalars", *each(["square with weights", "fully connected"])])
def test_those_of_e3nns_tests_with_weights_of_each_row(name):
    check_gradients(E3NN[name], shared_weights=False, on_graph=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", each(OPENEQUIVARIANCE))
def test_channelwise_ones_of_openequivariance(name):
    check_gradients(channelwise(*OPENEQUIVARIANCE[name]), shared_weights=False, on_graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", each([*FULLY_CONNECTED, *SHARED]))
def test_fully_connected_ones_of_openequivariance(name):
    product = o3.FullyConnectedTensorProduct(*(FULLY_CONNECTED | SHARED)[name])
    check_gradients(paths_of(product), shared_weights=name in SHARED, on_graph=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", each(SINGLE))
def test_single_paths_of_openequivariance(name):
    x, y, out = SINGLE[name]
    check_gradients((f"128x{x}", y, f"128x{out}", [(0, 0, 0, "uvu", True)]), shared_weights=False, on_graph=False)
