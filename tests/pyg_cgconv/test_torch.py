"""The private interfaces of PyTorch that this project relies on."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from pyg_cgconv import TensorProductConv, _torch, nn
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


@pytest.mark.slow
def test_compiled_tensors_are_not_plain():
    compiled = torch.compile(lambda t: t + 1 if _torch.is_plain(t) else t + 2, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.zeros(1)), torch.full((1,), 2.0))


def test_recorded_functions_have_derivatives():
    x = torch.ones(3, requires_grad=True)
    _torch.recorder(Double)(x).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_transforms_and_forward_mode_are_seen():
    x, seen = torch.ones(3), []

    def look(t):
        seen.append((_torch.is_transformed(), _torch.in_forward_mode()))
        return t.sum()

    look(x)
    torch.func.grad(look)(x)
    torch.func.jvp(look, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        look(x)
    torch.compile(look, backend="eager", fullgraph=True)(x)
    assert seen == [(False, False), (True, False), (True, True), (False, True), (False, False)]


def test_integers_lose_the_wrapping_of_grad_but_not_of_vmap():
    n = torch.arange(3)

    def look(x, n):
        assert not torch._C._functorch.is_functorch_wrapped_tensor(_torch.untransformed("n", n))
        return x.sum()

    torch.func.grad(look)(torch.ones(3), n)
    torch.vmap(lambda x: torch.func.grad(look)(x, n))(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"^n: torch\.vmap over graphs has no kernel"):
        torch.vmap(look)(torch.ones(3, 3), n)


def test_tensors_made_without_transforms_outlive_them():
    kept = []

    def keep(x):
        with _torch.without_transforms():
            kept.append(torch.ones(3) * 2)
        kept.append(torch.ones(3) * 2)
        return x.sum()

    torch.func.grad(keep)(torch.ones(3))
    wrapped = [torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in kept]
    assert wrapped == [False, True]
    assert not torch._C._functorch.is_functorch_wrapped_tensor(_torch.unwrapped(kept[1]))


def test_batches_of_autograd_are_taken_off_and_put_back():
    seen = []

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, gradient):
            assert _torch.has_autograd_batch(gradient)
            level = _torch.autograd_batch_level(gradient)
            rows = _torch.remove_autograd_batch(gradient, level)
            seen.append(rows.shape)
            assert not _torch.has_autograd_batch(rows)
            assert _torch.remove_autograd_batch(torch.ones(3), level).shape == (1, 3)
            return _torch.add_autograd_batch(rows[:, None].expand(-1, 3), level)

    x = torch.ones(3, requires_grad=True)
    (rows,) = torch.autograd.grad(Sum.apply(x), x, torch.tensor([1.0, 2.0]), is_grads_batched=True)
    assert torch.equal(rows, torch.tensor([[1.0] * 3, [2.0] * 3]))
    assert seen == [(2,)]
    assert not _torch.has_autograd_batch(x)


@pytest.mark.parametrize("make", [lambda t: torch._efficientzerotensor(t.shape), torch._neg_view, lambda t: t])
def test_tensors_get_memory_with_their_numbers(make):
    tensor = make(torch.arange(3.0))
    result = _torch.with_memory(tensor)
    assert result.data_ptr()
    assert not result.is_neg()
    assert torch.equal(result, tensor.clone())


def test_an_operation_records_each_level_of_its_own():
    """An operation with `recorded_once` and `below_autograd` has derivatives under nested transforms."""
    library = torch.library.Library("pyg_cgconv_test", "FRAGMENT")
    library.define("double(Tensor x) -> Tensor")

    class Recorded(torch.autograd.Function):
        @staticmethod
        def forward(keys, x):
            return _torch.below_autograd(torch.ops.pyg_cgconv_test.double.default, keys, x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, gradient):
            return None, torch.ops.pyg_cgconv_test.double(gradient)

        @staticmethod
        def jvp(ctx, _, change):
            return torch.ops.pyg_cgconv_test.double(change)

    library.impl("double", lambda x: 2 * x, "CPU")
    library.impl("double", lambda keys, x: _torch.recorded_once(Recorded, keys, x), "Autograd", with_keyset=True)
    f = lambda x: torch.ops.pyg_cgconv_test.double(x).pow(3).sum()  # noqa: E731  (8 x^3)
    x = torch.tensor([1.0])
    assert torch.func.grad(f)(x) == 24
    assert torch.func.grad(lambda x: torch.func.grad(f)(x).sum())(x) == 48
    assert torch.func.jvp(torch.func.grad(f), (x,), (x,))[1] == 48
    assert torch.func.jvp(lambda x: torch.func.jvp(f, (x,), (x,))[1], (x,), (torch.ones(1),))[1] == 72


def test_a_false_condition_fails_with_its_message():
    with pytest.raises(RuntimeError, match="told so"):
        _torch.assert_on_device(torch.tensor(False), "told so")
    _torch.assert_on_device(torch.tensor(True), "told so")


def test_tensors_made_without_modes_have_numbers():
    with FakeTensorMode(), _torch.without_modes():
        assert torch.ones(2).sum().item() == 2


def test_tensors_made_without_modes_may_be_kept():
    kept = []

    def keep(x):
        with _torch.without_modes():
            kept.append(torch.ones(3) * 2)
        return x.sum()

    with torch.inference_mode():
        torch.func.grad(keep)(torch.ones(3))
    assert not kept[0].is_inference()
    assert not torch._C._functorch.is_functorch_wrapped_tensor(kept[0])


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


def test_compiled_graphs_are_kept():
    with torch._functorch.config.patch(donated_buffer=True):
        _torch.keep_compiled_graphs()
        assert torch._functorch.config.donated_buffer is False


NEVER_SCRIPTED = [
    nn.BesselBasis(5.0),
    nn.ElementwiseTensorProduct("2x0e", "2x0e"),
    nn.FullyConnectedTensorProduct("2x0e", "2x0e", "2x0e"),
    nn.Gate("2x0e"),
    nn.Linear("2x0e", "2x0e"),
    nn.PolynomialCutoff(5.0),
    nn.RadialNetwork(2, (2,), 2),
    nn.SpeciesLinear("2x0e", "2x0e", 2),
    nn.TensorProduct("2x0e", "0e", "2x0e", [(0, 0, 0, "uvu", False)]),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("module", NEVER_SCRIPTED, ids=lambda module: type(module).__name__)
def test_other_modules_are_not_scripted_either(module):
    for outer in (module, Nested(module)):
        with pytest.raises(TypeError, match=f"^{type(module).__name__}: TorchScript has no place .* torch.export"):
            torch.jit.script(outer)


def test_hooks_on_saved_tensors_are_seen():
    seen = [_torch.packs_saved_tensors()]

    def look(x):
        seen.append(_torch.packs_saved_tensors())
        return x.sin()

    checkpoint(look, torch.ones(1, requires_grad=True), use_reentrant=False).backward()
    with torch.autograd.graph.save_on_cpu():
        seen.append(_torch.packs_saved_tensors())
    assert seen == [False, True, True, True]


@pytest.mark.cuda
def test_the_current_device_and_stream_are_torchs():
    assert _torch.current_device() == torch.cuda.current_device()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        assert _torch.current_stream(torch.cuda.current_device()) == stream.cuda_stream


def test_a_backward_knows_which_gradients_are_asked_for():
    seen = []

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(x, y):
            return x * y

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, gradient):
            seen.append(_torch.asked_for(ctx, ctx.needs_input_grad))
            x, y = ctx.saved_tensors
            return gradient * y, gradient * x

    leaf = torch.ones(2, requires_grad=True)
    parameter = torch.ones(2, requires_grad=True)

    def product():
        return Product.apply(leaf.sin(), parameter).sum()

    torch.autograd.grad(product(), leaf)
    torch.autograd.grad(product(), parameter)
    product().backward()
    assert seen == [(True, False), (False, True), (True, True)]
