"""The private interfaces of PyTorch that this project relies on."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_cgconv import TensorProductConv, _torch
from pyg_cgconv.nn import NodeProducts


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_tensors_are_plain_where_nothing_replaces_operations():
    x, seen = torch.ones(3), []

    def look(t):
        seen.append(_torch.is_plain(t))
        return t.sum()

    look(x)
    look(torch.nn.Parameter(x))
    torch.func.grad(look)(x)
    with FakeTensorMode():
        look(torch.ones(3))
    torch.vmap(look)(x.expand(2, 3))
    assert seen == [True, True, False, False, False]


def test_compiled_tensors_are_not_plain():
    compiled = torch.compile(lambda t: t + 1 if _torch.is_plain(t) else t + 2, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.zeros(1)), torch.full((1,), 2.0))


def test_recorded_functions_have_derivatives():
    x = torch.ones(3, requires_grad=True)
    _torch.recorder(Double)(x).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_a_false_condition_fails_with_its_message():
    with pytest.raises(RuntimeError, match="told so"):
        _torch.assert_on_device(torch.tensor(False), "told so")
    _torch.assert_on_device(torch.tensor(True), "told so")


def test_tensors_made_without_modes_have_numbers():
    with FakeTensorMode(), _torch.without_modes():
        assert torch.ones(2).sum().item() == 2


def test_a_storage_knows_whether_others_use_it():
    storage = torch.UntypedStorage(16)
    assert _torch.storage_is_shared_by_nobody(storage)
    tensor = torch.empty(0).set_(storage, 0, (4,))
    assert not _torch.storage_is_shared_by_nobody(storage)
    del tensor
    assert _torch.storage_is_shared_by_nobody(storage)


class Nested(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *arguments):
        return self.inner(*arguments)


CONV = TensorProductConv("2x0e", "0e", "2x0e")
ARGUMENTS = torch.randn(3, 2), torch.zeros(2, 5, dtype=torch.long), torch.randn(5, 1), torch.randn(5, 2)
PRODUCTS = NodeProducts("2x0e", 2, "2x0e")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (CONV, ARGUMENTS),
        (TensorProductConv("2x0e", "0e", "2x0e", backend="reference"), ARGUMENTS),
        (PRODUCTS, (torch.randn(3, 2),)),
    ],
)
@pytest.mark.parametrize("wrap", [lambda module: module, Nested, lambda module: Nested(Nested(module))])
def test_torchscript_is_refused_by_name(module, arguments, wrap):
    words = f"^{type(module).__name__}: TorchScript has no place for generated kernels .* torch.export"
    with pytest.raises(TypeError, match=words):
        torch.jit.trace(wrap(module), arguments)
    with pytest.raises(TypeError, match=words):
        torch.jit.script(wrap(module))
    module(*arguments)  # no trace of a trace is left


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_current_device_and_stream_are_torchs():
    assert _torch.current_device() == torch.cuda.current_device()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        assert _torch.current_stream(torch.cuda.current_device()) == stream.cuda_stream
