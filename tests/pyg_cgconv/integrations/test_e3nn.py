"""Modules of e3nn inside others, accelerated, against themselves as they were; also with e3nn 0.4.4."""

import copy
import io
import pickle

import pytest
import torch

from pyg_cgconv.integrations import e3nn  # before e3nn, which up to 0.5.4 does not load without it
from tests.drop_ins import TOLERANCES, as_captured, assert_agree, default_dtype, operations  # noqa: F401  (a fixture)

from e3nn import nn, o3  # isort: skip

pytestmark = pytest.mark.slow

IRREPS = "4x0e+3x1o"
PATHS = [(0, 0, 0, "uvu", True, 0.5), (0, 1, 1, "uvw", True), (1, 1, 0, "uvw", True), (1, 0, 1, "uvu", True, 3.0)]
NORMALISATIONS = [
    {"irrep_normalization": "norm", "path_normalization": "path"},
    {"irrep_normalization": "none", "path_normalization": "none"},
    {"in1_var": [2.0, 0.5], "in2_var": [1.0, 3.0], "out_var": [0.1, 4.0]},
]
REPLACED = {
    "product": "TensorProduct",
    "full": "FullyConnectedTensorProduct",
    "elementwise": "ElementwiseTensorProduct",
    "square": "TensorSquare",
    "linear": "Linear",
    "network": "FullyConnectedNet",
}


class Model(torch.nn.Module):
    """One of each."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.product = o3.TensorProduct(IRREPS, "2x0e+1o", IRREPS, PATHS, **options)
        self.full = o3.FullyConnectedTensorProduct(IRREPS, "3x0e+1o", IRREPS)
        self.elementwise = o3.ElementwiseTensorProduct(IRREPS, "4x0e+3x1o")
        self.square = o3.TensorSquare(self.elementwise.irreps_out, "2x0e+2x1o")
        self.linear = o3.Linear("2x0e+2x1o+4x0e+3x1o", "0e+1o")
        self.network = nn.FullyConnectedNet([4, 5, 6, 1], torch.nn.functional.silu, variance_in=2.0, variance_out=3.0)

    def forward(self, x, y, z):
        x = self.full(self.product(x, y), z)
        rows = torch.cat([self.square(self.elementwise(x, x)), x], -1)
        return self.linear(rows) * self.network(x[:, :4])


@pytest.fixture(autouse=True)
def float64():
    with default_dtype(torch.float64):
        yield


def rows():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, n, generator=generator, dtype=torch.get_default_dtype()) for n in (13, 5, 6)]


def derivatives(call, *inputs):
    """The output, gradients by inputs and parameters, and the gradients of their squares."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    out = call(*leaves)
    wanted = [*leaves, *call.parameters()]
    first = torch.autograd.grad(out.square().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), wanted)
    return {str(n): each for n, each in enumerate([out, *first, *second])}


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.thorough)], ids=str)
def test_derivatives_agree(dtype):
    with default_dtype(dtype):
        original = Model()
        fast = e3nn.accelerate(copy.deepcopy(original))
        assert e3nn.report(fast).replaced == REPLACED
        assert_agree(derivatives(fast, *rows()), derivatives(original, *rows()), TOLERANCES[dtype])


@pytest.mark.parametrize("widths", [[4, 3], [4, 5, 3], [4, 5, 6, 7, 3]])
@pytest.mark.usefixtures("as_captured")
def test_networks_of_a_graph_are_e3nns(widths):
    torch.manual_seed(0)
    original = nn.FullyConnectedNet(widths, torch.nn.SiLU(), variance_in=0.5)
    fast, x = e3nn.accelerate(copy.deepcopy(original)), torch.randn(5, 4)
    assert_agree(derivatives(fast, x), derivatives(original, x), 1e-12)
    again = pickle.loads(pickle.dumps(fast))
    assert_agree({"out": again(x)}, {"out": fast(x)}, 1e-15)


def test_what_is_put_into_a_network_later_is_computed():
    """And named: such as parametrizations and hooks."""
    original = nn.FullyConnectedNet([4, 5, 3], torch.nn.functional.silu)
    fast, x = e3nn.accelerate(copy.deepcopy(original)), torch.randn(5, 4)
    for each in (fast, original):
        each.layer0 = torch.nn.Sequential(each.layer0, torch.nn.Tanh())
    assert_agree({"out": fast(x)}, {"out": original(x)}, 1e-12)
    assert e3nn.report(fast).left == {"": "its layer0 is Sequential"}
    fast = e3nn.accelerate(nn.FullyConnectedNet([4, 5, 3], torch.nn.functional.silu))
    calls = []
    fast.layer1.register_forward_hook(lambda *given: calls.append(given))
    fast(x)
    assert calls
    assert e3nn.report(fast).left == {"": "its layer1 has hooks"}


@pytest.mark.parametrize("options", NORMALISATIONS, ids=str)
def test_normalisations_are_e3nns(options):
    original = Model(**options)
    fast = e3nn.accelerate(copy.deepcopy(original))
    assert_agree({"out": fast(*rows())}, {"out": original(*rows())}, 1e-12)


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out"),
    [("8x0e+4x1o+4x1o+8x0e+4x3e", "4x0e+8x1o+4x0e+4x2e"), ("8x0e", "4x0e"), ("4x0e+8x1o+4x2e", "4x0e+8x1o+4x2e")],
)
@pytest.mark.usefixtures("as_captured")
def test_captured_linear_maps_are_one_kernel(irreps_in, irreps_out):
    torch.manual_seed(0)
    original = o3.Linear(irreps_in, irreps_out)
    fast, x = e3nn.accelerate(copy.deepcopy(original)), torch.randn(2, 3, original.irreps_in.dim)
    expected = derivatives(original, x)
    assert_agree(derivatives(fast, x), expected, 1e-12)
    assert_agree(derivatives(copy.deepcopy(fast), x), expected, 1e-12)
    assert operations(lambda: fast(x)) <= 3  # the kernel, and at most an order of numbers on either side
    late = copy.deepcopy(original)
    with torch.inference_mode():
        e3nn.accelerate(late)
    assert_agree(derivatives(late, x), expected, 1e-12)


def test_linear_maps_that_are_built_by_the_class_of_another():
    """As MACE's LoRA builds them."""
    original = o3.Linear("4x0e+8x1o", "4x0e+2x1o")
    fast, x = type(e3nn.accelerate(copy.deepcopy(original)))("4x0e+8x1o", "4x0e+2x1o"), torch.randn(2, 28)
    fast.load_state_dict(original.state_dict())
    assert_agree(derivatives(fast, x), derivatives(original, x), 1e-12)
    assert type(e3nn.restore(fast)) is o3.Linear


@pytest.mark.usefixtures("as_captured")
def test_linear_maps_that_are_built_without_memory():
    """On the device "meta", which no kernel reads: there too where only the features are elsewhere."""
    original = o3.Linear("4x0e+8x1o", "4x0e+8x1o")
    with torch.device("meta"):
        fast = e3nn.accelerate(o3.Linear("4x0e+8x1o", "4x0e+8x1o"))
    moved, x = copy.deepcopy(fast), torch.randn(2, 28)
    fast.load_state_dict(original.state_dict(), assign=True)
    moved.weight = original.weight
    for each in (fast, moved):
        assert_agree({"out": each(x)}, {"out": original(x)}, 1e-12)
    assert operations(lambda: fast(x)) <= 3  # the kernel, as if it had been built here


@pytest.mark.parametrize(
    "options",
    [{"biases": True}, {"path_normalization": "path"}, {"instructions": [(0, 0), (2, 1), (3, 2)], "biases": True}],
    ids=str,
)
def test_linear_maps_are_e3nns(options):
    torch.manual_seed(0)
    original = o3.Linear("4x0e+3x1o+2x1o+5x0e", "6x0e+7x1o+2x0e+3x2e", **options)
    if original.bias_numel:
        torch.nn.init.normal_(original.bias)
    fast, x = e3nn.accelerate(copy.deepcopy(original)), torch.randn(2, 3, original.irreps_in.dim)
    assert_agree(derivatives(fast, x), derivatives(original, x), 1e-12)
    weight, bias = torch.randn_like(original.weight), torch.randn_like(original.bias)
    assert_agree({"out": fast(x, weight, bias)}, {"out": original(x, weight, bias)}, 1e-12)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (lambda: o3.Linear("4x0e", "4x0e", f_in=2, f_out=3), "further dimension"),
        (lambda: o3.Linear("4x0e", "4x0e", internal_weights=False), "no weights of its own"),
        (lambda: o3.FullyConnectedTensorProduct("4x0e", "40x0e", "4x0e"), "40 copies"),
        (lambda: o3.FullTensorProduct("1o", "1o"), "FullTensorProduct is another class"),
        (lambda: nn.FullyConnectedNet([2, 3, 4], torch.tanh), "its activation is tanh, not SiLU"),
        (lambda: nn.FullyConnectedNet([2, 3, 4]), "its activation is NoneType, not SiLU"),
        (lambda: nn.FullyConnectedNet([2, 3], torch.nn.functional.silu, out_act=True), "its output has an activation"),
        (lambda: nn.FullyConnectedNet([2]), "it has no layers"),
    ],
)
def test_what_is_left_is_named(module, why):
    model = torch.nn.ModuleDict({"left": module(), "replaced": o3.Linear("4x0e", "4x0e")})
    report = e3nn.report(e3nn.accelerate(model))
    assert list(report.replaced) == ["replaced"]
    assert why in report.left["left"]
    assert why in str(report)


def test_the_state_dict_stays():
    original, fast = Model(), e3nn.accelerate(Model())
    assert list(fast.state_dict()) == list(original.state_dict())
    fast.load_state_dict(original.state_dict(), strict=True)
    original.load_state_dict(fast.state_dict(), strict=True)


def test_restore_leaves_what_was():
    fast = e3nn.accelerate(Model())
    assert e3nn.restore(fast) is fast
    before = {name: sorted(each.__dict__) for name, each in Model().named_modules() if name in REPLACED}
    assert {name: type(getattr(fast, name)).__name__ for name in REPLACED} == REPLACED
    assert {name: sorted(getattr(fast, name).__dict__) for name in REPLACED} == before


def test_copies_and_pickles_stay_fast():
    fast, file = e3nn.accelerate(Model()), io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for other in (copy.deepcopy(fast), torch.load(file, weights_only=False)):
        assert e3nn.report(other).replaced == REPLACED
        assert_agree({"out": other(*rows())}, {"out": fast(*rows())}, 1e-15)


def test_torchscript_is_refused_by_what_to_do():
    with pytest.raises(TypeError, match=r"torch\.export.*torch\.compile.*restore\(model\)"):
        torch.jit.script(e3nn.accelerate(Model()))
    with pytest.raises(TypeError, match=r"restore\(model\)"):
        torch.jit.trace(e3nn.accelerate(Model()).linear, torch.randn(2, 21))


def test_nothing_to_replace_is_an_error_that_names_what_was_looked_for():
    with pytest.raises(ValueError, match=r"nothing that can be replaced; looked for modules of e3nn \(TensorProduct"):
        e3nn.accelerate(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="is a module of TorchScript"):
        e3nn.accelerate(torch.jit.script(torch.nn.Linear(2, 2)))
