"""Derivatives of the linear maps' operations, which only a GPU has, with matrix products in place of its kernels."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from cuda_kernels.mixing import FORWARD, TRANSPOSED, WEIGHTS
from pyg_cgconv._mixing import mix, mixing
from pyg_cgconv.equivariant import Linear

NAMES = "4x0e+4x1o+8x1o", "8x0e+4x1o+4x2e"


@pytest.fixture
def operations_on_a_cpu():
    library = torch.library.Library("pyg_cgconv", "IMPL")
    for name, part in (("mix", FORWARD), ("mix_transposed", TRANSPOSED), ("mix_weights", WEIGHTS)):
        library.impl(name, lambda *arguments, part=part: by_matrix_products(part, *arguments), "CPU")
    yield
    library._destroy()


def by_matrix_products(part, irreps_in, irreps_out, left, right):
    """The trilinear form's derivative, slot by slot."""
    m = mixing(irreps_in, irreps_out)
    out, starts, weight = left.new_zeros(m.shape(part, len(left))), [0], 0
    for dim, channels in m.inputs:
        starts.append(starts[-1] + dim * channels)
    end = 0
    for (dim, v), sources, factor in zip(m.outputs, m.sources, m.factors, strict=True):
        begin, end = end, end + dim * v
        for source in sources:
            u = m.inputs[source][1]
            x, g, w = slice(starts[source], starts[source + 1]), slice(begin, end), slice(weight, weight + u * v)
            weight += u * v
            if part == FORWARD:
                out[:, g] += factor * (left[:, x].unflatten(1, (dim, u)) @ right[w].view(u, v)).flatten(1)
            elif part == TRANSPOSED:
                out[:, x] += factor * (left[:, g].unflatten(1, (dim, v)) @ right[w].view(u, v).T).flatten(1)
            else:
                rows, columns = left[:, x].unflatten(1, (dim, u)), right[:, g].unflatten(1, (dim, v))
                out[w] += factor * torch.einsum("ndu,ndv->uv", rows, columns).flatten()
    return out


@pytest.mark.usefixtures("operations_on_a_cpu")
def test_the_map_and_its_derivatives_are_those_of_the_layer():
    torch.manual_seed(0)
    layer = Linear(*NAMES).double()
    weights = torch.cat([weight.detach().flatten() for weight in layer.weights]).requires_grad_()
    x = torch.randn(6, layer.irreps_in.dim, dtype=torch.float64, requires_grad=True)
    found, expected = mix(*NAMES, x, weights), layer(x)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(found)
    by_x, by_weights = torch.autograd.grad(found, [x, weights], g)
    expected_by_x, *by_each = torch.autograd.grad(expected, [x, *layer.weights], g, allow_unused=True)
    torch.testing.assert_close(by_x, expected_by_x)
    torch.testing.assert_close(by_weights, torch.cat([gradient.flatten() for gradient in by_each]))


@pytest.mark.usefixtures("operations_on_a_cpu")
@pytest.mark.parametrize(
    ("name", "lengths"), [("mix", (40, 80)), ("mix_transposed", (40, 80)), ("mix_weights", (40, 40))]
)
@pytest.mark.slow
def test_each_operation_is_differentiated_by_the_others(name, lengths):
    torch.manual_seed(0)
    operation = getattr(torch.ops.pyg_cgconv, name).default
    shapes = [(3, lengths[0]), (lengths[1],) if name != "mix_weights" else (3, lengths[1])]
    operands = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert gradcheck(lambda left, right: operation(*NAMES, left, right), operands)
    assert gradgradcheck(lambda left, right: operation(*NAMES, left, right), operands)
    torch.library.opcheck(operation, (*NAMES, *operands))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 40, device="meta"), ValueError, "^x: on meta, but the weights are on cpu"),
        (torch.zeros(3, 40, dtype=torch.float64), TypeError, "^x: dtype torch.float64 differs .* torch.float32"),
    ],
)
def test_what_the_kernels_would_misread_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        mix(*NAMES, x, torch.zeros(80))


def test_a_dtype_without_a_kernel_is_refused():
    with pytest.raises(TypeError, match=r"^x: dtype torch.float16 has no kernel"):
        mix(*NAMES, torch.zeros(3, 40, dtype=torch.float16), torch.zeros(80, dtype=torch.float16))
