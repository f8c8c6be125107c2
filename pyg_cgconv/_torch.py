"""The private interfaces of PyTorch that this project uses: all of them, so that an upgrade is checked in one place.

`tests/pyg_cgconv/test_torch.py` has a test for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_PLAIN = (Tensor, torch.nn.Parameter)


def is_plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with memory, and nothing records or replaces the operations on them: no compilation, no
    dispatch mode, no transform of torch.func."""
    return not is_traced(*tensors) and not is_transformed()


def is_traced(*tensors: Tensor) -> bool:
    """Whether operations on these tensors are recorded or replaced: by a compiler, by a dispatch mode, or because they
    are of another class."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    return any([type(tensor) not in _PLAIN for tensor in tensors])  # noqa: C419  (the faster; asked at each call)


def is_transformed() -> bool:
    """Whether this is called by a function that torch.func transforms (not by a program that is compiled)."""
    return not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None


def in_forward_mode() -> bool:
    """Whether tensors may have tangents."""
    return torch.autograd.forward_ad._current_level >= 0


def is_recorded(tensors: Sequence[Tensor]) -> bool:
    """Whether gradients by one of the tensors may be asked for."""
    return torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors])  # noqa: C419  (the faster)


def untransformed(name: str, tensor: Tensor) -> Tensor:
    """The tensor of integers that transforms of torch.func have wrapped, which they do not differentiate.

    Raises:
        ValueError: torch.vmap gives each call a tensor of its own; `name` is that of the argument.
    """
    while not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            raise ValueError(
                f"{name}: torch.vmap over graphs has no kernel; put the graphs side by side in one batch "
                "(torch_geometric.data.Batch), and give vmap in_dims=None for their edges"
            )
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def without_transforms() -> AbstractContextManager:
    """A context in which torch.func does not wrap what is made of tensors that it has not wrapped."""
    return torch._C._DisableFuncTorch() if is_transformed() else nullcontext()


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor itself, where a transform of torch.func that has ended had wrapped it."""
    return torch._C._functorch.unwrap_if_dead(tensor)


def has_autograd_batch(tensor: Tensor) -> bool:
    """Whether the tensor is a batch of those that autograd's own vmap (``is_grads_batched``, ``vectorize=True``)
    speaks of."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def autograd_batch_level(tensor: Tensor) -> int:
    """The outermost of autograd's vmaps that the tensor has a batch of. On a GPU autograd has threads of its own, which
    do not know how many vmaps there are."""
    return next(level for level in count(1) if _has_level(tensor, level))


def _has_level(tensor: Tensor, level: int) -> bool:
    """Whether the length of the batch is that of the tensor, not that which others are given."""
    one, two = (torch._remove_batch_dim(tensor, level, length, 0).shape[0] for length in (1, 2))
    return one == two


def remove_autograd_batch(tensor: Tensor, level: int) -> Tensor:
    """The tensor with the batch of this level as its first dimension, of length 1 if it has no such batch."""
    return torch._remove_batch_dim(tensor, level, 1, 0)


def add_autograd_batch(tensor: Tensor, level: int) -> Tensor:
    """The way back from :func:`remove_autograd_batch`."""
    return torch._add_batch_dim(tensor, 0, level)


def with_memory(tensor: Tensor) -> Tensor:
    """The tensor with its numbers in memory: autograd makes zeros that have none, and negatives of others' memory."""
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def packs_saved_tensors() -> bool:
    """Whether hooks replace what autograd saves, as those of torch.utils.checkpoint do."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def recorder(function: type[torch.autograd.Function]) -> Callable:
    """`function.apply` without torch.func's part of it, which plain tensors do not need and which takes longer than a
    small kernel."""
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]  # torch's types lack the class in C


def asked_for(node: Any, needed: Sequence[bool]) -> tuple[bool, ...]:
    """Of the gradients by tensors that a backward may return, those that this run of autograd goes on with: forces are
    gradients by positions alone, though weights require gradients, too. `needed` is what autograd itself tells."""
    following = getattr(node, "next_functions", ())
    if len(following) != len(needed):  # torch.func has its own
        return tuple(needed)
    return tuple(is_needed and _goes_on(next) for is_needed, (next, _) in zip(needed, following, strict=True))


def _goes_on(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf that autograd.grad is asked for: of these alone it does not tell
        return True


def recorded_once(function: type[torch.autograd.Function], *arguments):
    """`function.apply` where an operation is asked for one of torch.func's levels: others ask for theirs."""
    allowed = torch._C._functorch.get_single_level_autograd_function_allowed()
    torch._C._functorch.set_single_level_autograd_function_allowed(True)
    try:
        return recorder(function)(*arguments)
    finally:
        torch._C._functorch.set_single_level_autograd_function_allowed(allowed)


def below_autograd(operation: torch._ops.OpOverload, keys, *arguments):
    """What serves an operation after autograd, in a dispatch with these keys. Those are torch.func's other levels, too:
    they record whatever this one does."""
    recording = torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True)
    with recording[0], recording[1], torch._C._AutoDispatchBelowAutograd():
        return operation.redispatch(keys & torch._C._after_autograd_keyset, *arguments)


def refuse_torchscript(module: torch.nn.Module, is_scripted: bool = False) -> None:
    """Raises a TypeError while torch.jit traces, or if it scripts the module; it says what the module has as
    `instead`."""
    if is_scripted or torch._C._get_tracing_state() is not None:
        instead = getattr(module, "instead", NotScripted.instead)
        raise TypeError(
            f"{type(module).__name__}: TorchScript has no place for generated kernels (torch.jit.trace and "
            f"torch.jit.script); {instead}"
        )


class NotScripted:
    """What is no module of TorchScript, and says so in a sentence instead of TorchScript's own about its code."""

    instead = "export the model with torch.export, or compile it with torch.compile"

    def __prepare_scriptable__(self):
        refuse_torchscript(self, is_scripted=True)  # type: ignore[arg-type]


def assert_on_device(condition: Tensor, message: str) -> None:
    """Fail where the tensor is, without waiting for it; the message must not change from call to call."""
    torch._assert_async(condition, message)


@contextmanager
def without_modes() -> Iterator[None]:
    """A context in which tensors are made that may be kept: they have numbers, also while a compiler traces with
    tensors that have none, and no transform of torch.func wraps them."""
    with _disable_current_modes(), torch.inference_mode(False), without_transforms():
        yield


def storage_is_shared_by_nobody(storage: torch.UntypedStorage) -> bool:
    """Whether this object is the only one that refers to the memory."""
    return torch._C._storage_Use_Count(storage._cdata) == 1


def current_device() -> int:
    """The number of the current GPU."""
    return torch._C._cuda_getDevice()


def current_stream(device: int) -> int:
    """The handle of a GPU's current stream."""
    return torch._C._cuda_getCurrentRawStream(device)


def keep_compiled_graphs() -> None:
    """From now on, torch.compile makes backward passes that can be called again (`retain_graph`). Those that it makes
    otherwise free what was saved."""
    torch._functorch.config.donated_buffer = False
