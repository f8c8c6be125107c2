"""Edge features and weights in bfloat16 or float16, against e3nn in float64 with the same numbers; random ones are in
test_derivatives.py."""

import pytest
import torch
from e3nn import o3

from pyg_cgconv import TensorProduct, TensorProductConv
from tests.problems import error

NODES, EDGES = 4, 9
HALF = [torch.bfloat16, torch.float16]
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-10, torch.float32: 3e-6}
"""Relative error of a number; of float32, of a sum."""
FULL = [
    (i.i_in1, i.i_in2, i.i_out, "uvw", True) for i in o3.FullyConnectedTensorProduct(*["2x0e+2x1o"] * 3).instructions
]
LAYERS = {
    "32 channels": (("32x0e+32x1o", "0e+1o", "0e+1o"), None),  # read by the kernels as they are
    "channels apart": (("5x0e+3x1o", "0e+1o+2e", "0e+1o"), None),  # converted before
    "uvw": (("2x0e+2x1o", "2x0e+2x1o", "2x0e+2x1o"), FULL),
    "uvw, odd": (("3x0e", "3x0e", "5x0e"), [(0, 0, 0, "uvw", True)]),
    "uuu": (("32x0e+32x1o", "32x0e+32x1o", "32x0e"), [(0, 0, 0, "uuu", True), (1, 1, 0, "uuu", False)]),
}


def derivatives(function, inputs, cotangents=None):
    """Output, gradients, and the gradients of those; cotangents are random ones in the dtypes of the results."""
    generator, results, outputs = torch.Generator().manual_seed(0), [], (function(*inputs),)
    made = []
    for order in range(3):
        results += outputs
        if order == 2:
            return results, made
        given = [torch.randn(o.shape, generator=generator).to(o) for o in outputs] if cotangents is None else None
        made.append([c.requires_grad_() for c in given or cotangents[order]])
        inputs, before = [*inputs, *made[-1]], inputs
        outputs = torch.autograd.grad(outputs, before, made[-1], create_graph=True)


def check(function, reference, inputs):
    found, cotangents = derivatives(function, [t.requires_grad_() for t in inputs])

    def exact(tensors):
        return [t.detach().cpu().double().requires_grad_() for t in tensors]

    expected, _ = derivatives(reference, exact(inputs), [exact(each) for each in cotangents])
    assert [t.dtype for t in found[1:4]] == [t.dtype for t in inputs]
    assert found[0].dtype == torch.float32
    for result, right in zip(found, expected, strict=True):
        assert error(result.detach().cpu().double(), right) < ROUNDING[result.dtype]


def each(*quick: str) -> list:
    """The layers; those that are not quick to compile are thorough."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.thorough) for name in LAYERS]


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.bfloat16, "mul_ir"), pytest.param(torch.float16, "ir_mul", marks=pytest.mark.thorough)],
    ids=str,
)
@pytest.mark.parametrize("name", each("32 channels", "channels apart", "uvw, odd"))
def test_on_graphs(device, name, dtype, layout):
    irreps, instructions = LAYERS[name]
    layer = TensorProductConv(*irreps, instructions, layout=layout)
    reference = TensorProductConv(*irreps, instructions, layout=layout, backend="reference")
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(0, NODES, (2, EDGES), generator=generator)
    shapes = (NODES, layer.irreps_in.dim), (EDGES, layer.irreps_edge.dim), (EDGES, layer.weight_numel)
    x, y, w = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    check(
        lambda x, y, w: layer(x, edge_index.to(device), y, w),
        lambda x, y, w: reference(x, edge_index, y, w),
        [x, y.to(dtype), w.to(dtype)],
    )


@pytest.mark.parametrize("name", each("32 channels", "uvw, odd"))
def test_on_rows_with_shared_weights(device, name):
    irreps, instructions = LAYERS[name]
    if instructions is None:
        layer = TensorProductConv(*irreps)
        irreps, instructions = (*irreps[:2], layer.irreps_out), [i[:5] for i in layer.instructions]
    options = dict(shared_weights=True, internal_weights=False)
    product = TensorProduct(*irreps, instructions, **options)
    reference = o3.TensorProduct(*irreps, instructions, **options).double()
    x, y = (torch.randn(EDGES, i.dim, device=device) for i in (product.irreps_in1, product.irreps_in2))
    w = torch.randn(product.weight_numel, device=device)
    check(product, reference, [x, y.bfloat16(), w.half()])


def test_one_of_both_may_be_stored_low(device):
    irreps, _ = LAYERS["32 channels"]
    layer, reference = TensorProductConv(*irreps), TensorProductConv(*irreps, backend="reference")
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    x, y, w = torch.randn(3, 128), torch.randn(3, 4), torch.randn(3, layer.weight_numel)
    for inputs in ([x, y.bfloat16(), w], [x, y, w.half()], [x, y.half(), w.bfloat16()]):
        check(
            lambda x, y, w: layer(x, edge_index.to(device), y, w),
            lambda x, y, w: reference(x, edge_index, y, w),
            [t.detach().to(device) for t in inputs],
        )


def test_the_reference_backend_takes_them():
    layer = TensorProductConv("2x0e", "0e", "0e", backend="reference")
    x, y, w = torch.randn(3, 2), torch.ones(2, 1, dtype=torch.bfloat16), torch.ones(2, 2, dtype=torch.bfloat16)
    out = layer(x, torch.tensor([[0, 1], [1, 2]]), y, w)
    torch.testing.assert_close(out, torch.cat([torch.zeros(1, 2), x[:2]]))


@pytest.mark.parametrize("mode", ["uvu", "uvw", "uuu"])
@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        (
            ("float64", "float64", "bfloat16"),
            "weight: dtype torch.bfloat16 differs from that of x, torch.float64; convert",
        ),
        (("float32", "float64", "float32"), "edge_attr: dtype torch.float64 differs from that of x, torch.float32; "),
        (("float32", "int8", "float32"), "edge_attr: dtype torch.int8 differs .*others may be bfloat16 or float16"),
        (("bfloat16", "bfloat16", "bfloat16"), "x: dtype torch.bfloat16 has no kernel; convert x to float32"),
        (("bfloat16", "float32", "float32"), "x: dtype torch.bfloat16 has no kernel; convert x to float32"),
    ],
)
def test_other_dtypes_are_refused(dtypes, words, mode):
    layer = TensorProductConv("2x0e", "2x0e", "2x0e", [(0, 0, 0, mode, True)])
    lengths = 2, 2, layer.weight_numel
    x, y, w = (torch.ones(1, n, dtype=getattr(torch, dtype)) for n, dtype in zip(lengths, dtypes, strict=True))
    with pytest.raises(TypeError, match=f"^{words}"):
        layer(x, torch.zeros(2, 1, dtype=torch.long), y, w)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("32 channels", dtype) for dtype in HALF),
        ("channels apart", torch.bfloat16),
        ("uvw", torch.float16),
        ("uvw, odd", torch.bfloat16),
    ],
    ids=str,
)
def test_on_a_gpus_emulator(name, dtype):
    pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")
    from tests.emulated import emulated_gpu

    with emulated_gpu():
        test_on_graphs(torch.device("cpu"), name, dtype, "mul_ir")
