"""Products of every mode of e3nn, and lists that mix modes, against e3nn in float64; random ones are in
test_derivatives.py."""

import pytest
import torch
from e3nn import o3

from pyg_cgconv import TensorProduct, TensorProductConv
from tests.problems import Case, error, fill
from tests.pyg_cgconv.ops.test_derivatives import compare
from tests.random_products import MODES, ON_GRAPHS
from tests.rotations import rotations, turned

pytestmark = pytest.mark.filterwarnings("error:.*which is slow")

IRREPS = "3x0e+3x1o", "3x1o+3x0e"
ROWS_AND_GRAPHS = [(mode, False) for mode in MODES] + [(mode, True) for mode in ON_GRAPHS]


def case_of(mode: str, on_graph: bool) -> Case:
    """Paths of a mode: two slots have two each, which are not side by side, and a third one a cross product."""
    paths = [(1, 0, 0), (0, 0, 1), (1, 1, 1), (0, 1, 0), (1, 0, 2)]
    channels = {"uvw": 2, "uuw": 2, "u<vw": 2, "uvuv": 9}.get(mode, 3)
    out = o3.Irreps(f"{channels}x0e+{channels}x1o+{channels}x1e+2x2e")
    return of_paths((*IRREPS, out), [(*path, mode, True) for path in paths], on_graph=on_graph)


def of_paths(irreps, instructions, shared_weights: bool = True, on_graph: bool = False) -> Case:
    layout = "ir_mul" if on_graph else "mul_ir"
    irreps = map(o3.Irreps, irreps)
    case = Case(*irreps, instructions, layout, shared_weights, *[None] * 4, targets=4, on_graph=on_graph)
    fill(case, sources=3, edges=6, seed=0)
    return case


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "on_graph"), ROWS_AND_GRAPHS)
def test_each_mode(device, mode, on_graph):
    compare(case_of(mode, on_graph), device, torch.float64)


@pytest.mark.parametrize(("mode", "on_graph"), ROWS_AND_GRAPHS)
def test_each_mode_turns_and_inverts_with_its_inputs(device, mode, on_graph):
    case = case_of(mode, on_graph)
    product, (x, y, weight) = case.computed(device), (t.detach() for t in case.inputs(device))
    out = product(x, y, weight)
    for rotation in rotations():
        factors = zip((x, y), (case.irreps_in, case.irreps_edge), strict=True)
        found = product(*(turned(t, irreps, rotation, case.layout) for t, irreps in factors), weight)
        assert error(found, turned(out, case.irreps_out, rotation, case.layout)) < 1e-8  # e3nn's matrices have 1e-10


@pytest.mark.parametrize("mode", ["uvu<v", "u<vw"])
def test_one_channel_has_no_pairs(mode):
    product = TensorProduct(
        "1x0e", "1x0e", "1x0e", [(0, 0, 0, mode, True), (0, 0, 0, "uuu", False)], path_normalization="none"
    )
    assert product.weight_numel == 0
    assert product(torch.tensor([[2.0]]), torch.tensor([[3.0]])).item() == 6


@pytest.mark.parametrize("mode", MODES)
def test_channels_that_do_not_fit_the_mode_are_named(mode):
    """Kernels would read beyond the rows."""
    irreps = "5x0e", "4x0e", "6x0e"
    weighted = mode not in ("uvw", "u<vw")
    with pytest.raises(ValueError, match=r"^instructions: e3nn rejects the paths .*mode '.*' does not fit \(0, 0, 0\)"):
        TensorProductConv(*irreps, [(0, 0, 0, mode, weighted)], shared_weights=True)
    with pytest.raises(ValueError, match=r"^instructions: e3nn rejects the paths"):
        TensorProduct(*irreps, [(0, 0, 0, mode, weighted)])
    with pytest.raises(ValueError, match=r"^instructions: e3nn rejects the paths"):
        TensorProduct(*irreps, [(0, 0, 0, mode, weighted)], compile_left_right=False)


def test_a_path_without_weights_beside_mixing_weights_of_each_row(device):
    paths = [(0, 0, 0, "uuw", True), (0, 0, 1, "uuw", False), (0, 0, 0, "uuw", True)]
    compare(of_paths(("3x0e", "3x0e", "4x0e+1x0e"), paths, shared_weights=False), device, torch.float64)


def test_mode_uvv_has_no_kernel_on_graphs():
    paths = [(0, 0, 0, "uvu", True), (0, 0, 1, "uvv", True)]
    arguments = "2x0e", "3x1o", "2x1o+3x1o", paths
    with pytest.warns(UserWarning, match=r"modes \['uvv'\] have no fused kernel on a graph; .*TensorProduct") as said:
        assert TensorProductConv(*arguments).backend == "reference"
    assert len(said) == 1
    with pytest.raises(ValueError, match=r"uvv.*backend='cpu' cannot run it"):
        TensorProductConv(*arguments, backend="cpu")


def test_weights_in_turns_are_those_of_their_paths():
    """Weights of a mode that are not side by side in the row."""
    paths = [(0, 0, n, mode, True) for n, mode in enumerate(("uvu", "uuu", "uvu", "uvuv"))]
    compare(of_paths(("3x0e", "3x0e", "3x0e+3x0e+3x0e+9x0e"), paths), torch.device("cpu"), torch.float64)


def test_slots_that_no_path_leads_to_are_zero():
    case = case_of("u<vw", on_graph=False)
    found = case.computed()(*case.inputs())
    assert not found[:, -case.irreps_out[-1].dim :].any()
    assert found.any()


@pytest.mark.parametrize("mode", ["uvw", "uvuv"])
@pytest.mark.parametrize("shared_weights", [True, False])
def test_many_copies_make_no_long_kernels(device, mode, shared_weights):
    """Their channels are gathered before, and a path is one path of the kernel."""
    w = 34 if mode == "uvuv" else 3
    paths = [(0, 0, 0, mode, True), (1, 1, 0, mode, True), (0, 0, 0, mode, mode == "uvw"), (1, 0, 1, mode, True)]
    irreps = "2x0e+2x1o", "17x0e+17x1o", f"{w}x0e+{w}x1o"
    case = of_paths(irreps, paths, shared_weights, on_graph=not shared_weights)
    known = TensorProductConv(*irreps, paths, shared_weights=shared_weights).problem
    assert len(known.paths) == len(paths)
    compare(case, device, torch.float64)
