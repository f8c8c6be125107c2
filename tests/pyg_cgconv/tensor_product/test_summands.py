"""Products of every mode of e3nn, and lists that mix modes, against e3nn in float64."""

import warnings

import pytest
import torch
from e3nn import o3
from hypothesis import given

from pyg_cgconv import TensorProduct, TensorProductConv
from tests.problems import MODES, Case, error, fill, mixtures
from tests.pyg_cgconv.ops.test_derivatives import compare
from tests.random_examples import examples
from tests.rotations import float64

IRREPS = "3x0e+3x1o", "3x1o+3x0e"
ON_GRAPHS = tuple(mode for mode in MODES if mode != "uvv")


def case_of(mode: str, has_weight: bool = True, layout: str = "mul_ir", shared_weights: bool = True) -> Case:
    """Paths of a mode: two slots have two each, which are not side by side, and a third one a cross product."""
    paths = [(1, 0, 0), (0, 0, 1), (1, 1, 1), (0, 1, 0), (1, 0, 2)]
    mixed = 2 if has_weight else 1
    channels = {"uvw": mixed, "uuw": mixed, "u<vw": mixed, "uvuv": 9}.get(mode, 3)
    out = o3.Irreps(f"{channels}x0e+{channels}x1o+{channels}x1e+2x2e")
    instructions = [(*path, mode, has_weight) for path in paths]
    case = Case(*map(o3.Irreps, IRREPS), out, instructions, layout, shared_weights, *[None] * 4, targets=4)
    fill(case, sources=3, edges=6, seed=0)
    return case


def of_rows(case: Case):
    """Ours and e3nn's product in float64, each of rows in e3nn's layout, and the rows."""
    arguments = case.irreps_in, case.irreps_edge, case.irreps_out, case.instructions
    options = {"shared_weights": case.shared_weights, "internal_weights": False}
    with float64(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        products = TensorProduct(*arguments, **options), o3.TensorProduct(*arguments, **options)
    x, y, weight = case.inputs()
    return *products, [x[case.edge_index[0]].detach(), y.detach(), weight.detach()]


def orders(product, inputs) -> list[torch.Tensor]:
    """The output, the gradients of its cubes, and the gradients of theirs."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = product(*leaves)
    first = torch.autograd.grad(out.pow(3).sum(), leaves, create_graph=True)
    return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), leaves)]


def assert_e3nns(device, case: Case) -> None:
    product, reference, inputs = of_rows(case)
    found = orders(product.to(device), [t.to(device) for t in inputs])
    for result, expected in zip(found, orders(reference, inputs), strict=True):
        assert error(result, expected) < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_of_rows(device, mode):
    assert_e3nns(device, case_of(mode))


@pytest.mark.parametrize("mode", ON_GRAPHS)
def test_each_mode_on_graphs(device, mode):
    compare(case_of(mode, layout="ir_mul"), device, torch.float64)


@examples(3)
@given(case=mixtures())
def test_random_products_of_rows(device, case):
    assert_e3nns(device, case)


@examples(3)
@given(case=mixtures(ON_GRAPHS))
def test_random_products_on_graphs(device, case):
    compare(case, device, torch.float64)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("uvw", "u<vw")])
def test_paths_without_weights(device, mode):
    case = case_of(mode, has_weight=False, shared_weights=False)
    product, reference, (x, y, _) = of_rows(case)
    torch.testing.assert_close(product.to(device)(x.to(device), y.to(device)).cpu(), reference(x, y))


@pytest.mark.parametrize("mode", MODES)
def test_rows_in_float32(device, mode):
    product, reference, inputs = of_rows(case_of(mode))
    found = product.float().to(device)(*[t.float().to(device) for t in inputs])
    assert found.dtype == torch.float32
    assert 1e-12 < error(found, reference(*inputs)) < 1e-6


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


@pytest.mark.parametrize("mode", ["uvw", "uuw", "u<vw"])
def test_mixing_weights_of_each_row_have_kernels(device, mode):
    paths = [(0, 0, 0, mode, True), (1, 1, 1, mode, True), (0, 0, 0, mode, True)]
    irreps = map(o3.Irreps, ("3x0e+3x1o", "3x0e+3x1o", "4x0e+5x1e"))
    case = Case(*irreps, paths, "mul_ir", False, *[None] * 4, targets=4)
    fill(case, sources=3, edges=6, seed=0)
    assert_e3nns(device, case)


def test_a_path_without_weights_beside_mixing_weights_of_each_row(device):
    paths = [(0, 0, 0, "uuw", True), (0, 0, 1, "uuw", False), (0, 0, 0, "uuw", True)]
    case = Case(*map(o3.Irreps, ("3x0e", "3x0e", "4x0e+1x0e")), paths, "ir_mul", False, *[None] * 4, targets=4)
    fill(case, sources=3, edges=6, seed=0)
    assert_e3nns(device, case)


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
    case = Case(
        *map(o3.Irreps, ("3x0e", "3x0e", "3x0e+3x0e+3x0e+9x0e")), paths, "mul_ir", False, *[None] * 4, targets=4
    )
    fill(case, sources=3, edges=5, seed=0)
    assert_e3nns(torch.device("cpu"), case)


def test_slots_that_no_path_leads_to_are_zero():
    case = case_of("u<vw")
    product, _, inputs = of_rows(case)
    found = product(*inputs)
    assert not found[:, -case.irreps_out[-1].dim :].any()
    assert found.any()


@pytest.mark.parametrize("mode", ["uvw", "uvuv"])
@pytest.mark.parametrize("shared_weights", [True, False])
def test_many_copies_make_no_long_kernels(device, mode, shared_weights):
    """Their channels are gathered before, and a path is one path of the kernel."""
    w = 34 if mode == "uvuv" else 3
    paths = [(0, 0, 0, mode, True), (1, 1, 0, mode, True), (0, 0, 0, mode, mode == "uvw"), (1, 0, 1, mode, True)]
    irreps = map(o3.Irreps, ("2x0e+2x1o", "17x0e+17x1o", f"{w}x0e+{w}x1o"))
    case = Case(*irreps, paths, "mul_ir", shared_weights, *[None] * 4, targets=4)
    fill(case, sources=3, edges=6, seed=0)
    product = case.layer()
    assert product.problem
    assert len(product.problem.paths) == len(paths)
    assert_e3nns(device, case)
    compare(case, device, torch.float64)
