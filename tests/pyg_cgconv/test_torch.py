"""The private interfaces of PyTorch that this project relies on."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_cgconv import _torch


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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_current_device_and_stream_are_torchs():
    assert _torch.current_device() == torch.cuda.current_device()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        assert _torch.current_stream(torch.cuda.current_device()) == stream.cuda_stream
