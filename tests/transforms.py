"""Derivatives as transforms of functions: each by a name, so that tests can draw some of them.

A transform takes a function of tensors, the tensors, a change of each, and a cotangent of the result. It gives tensors
that do not depend on how the function is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, jvp, linearize, vjp, vmap

Function = Callable[..., Tensor]
Tensors = Sequence[Tensor]


def squared(f: Function) -> Function:
    return lambda *x: f(*x).square().sum()


def all_of(x: Tensors) -> tuple[int, ...]:
    return tuple(range(len(x)))


def pairs(x: Tensors, changes: Tensors, dim: int = 0) -> list[Tensor]:
    """Two of each: the tensor, and the tensor with its change."""
    return [torch.stack([value, value + change], dim) for value, change in zip(x, changes, strict=True)]


def leaves(x: Tensors) -> list[Tensor]:
    return [value.clone().requires_grad_() for value in x]


def reverse(f, x, changes, cotangent):
    return grad(squared(f), all_of(x))(*x)


def pulled_back(f, x, changes, cotangent):
    out, pullback = vjp(f, *x)
    return [out, *pullback(cotangent)]


def forward(f, x, changes, cotangent):
    return jvp(f, tuple(x), tuple(changes))


def linearized(f, x, changes, cotangent):
    out, push = linearize(f, *x)
    return [out, push(*changes)]


def dual_numbers(f, x, changes, cotangent):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(value, change) for value, change in zip(x, changes, strict=True)]
        return list(forward_ad.unpack_dual(f(*duals)))


def dual_numbers_over_reverse(f, x, changes, cotangent):
    with forward_ad.dual_level():
        x = leaves(x)
        duals = [forward_ad.make_dual(value, change) for value, change in zip(x, changes, strict=True)]
        gradients = torch.autograd.grad(squared(f)(*duals), x)
        return [forward_ad.unpack_dual(gradient).tangent for gradient in gradients]


def forward_over_reverse(f, x, changes, cotangent):
    return jvp(grad(squared(f), all_of(x)), tuple(x), tuple(changes))[1]


def reverse_over_forward(f, x, changes, cotangent):
    return grad(lambda *x: jvp(squared(f), x, tuple(changes))[1], all_of(x))(*x)


def reverse_over_reverse(f, x, changes, cotangent):
    def slope(*x):
        gradients = grad(squared(f), all_of(x))(*x)
        return sum((gradient * change).sum() for gradient, change in zip(gradients, changes, strict=True))

    return grad(slope, all_of(x))(*x)


def forward_over_forward(f, x, changes, cotangent):
    def slope(*x):
        return jvp(squared(f), x, tuple(changes))[1]

    return [jvp(slope, tuple(x), tuple(changes))[1]]


def mapped(f, x, changes, cotangent):
    return [vmap(f)(*pairs(x, changes))]


def mapped_by_the_last_dimension(f, x, changes, cotangent):
    return [vmap(f, in_dims=-1, out_dims=1)(*pairs(x, changes, -1))]


def mapped_in_chunks(f, x, changes, cotangent):
    return [vmap(f, chunk_size=1, randomness="same")(*pairs(x, changes))]


def mapped_once_more(f, x, changes, cotangent):
    first, *others = pairs(x, changes)
    return [vmap(lambda a: vmap(lambda *b: f(a, *b))(*others) if others else f(a))(first)]


def mapped_reverse(f, x, changes, cotangent):
    return vmap(grad(squared(f), all_of(x)))(*pairs(x, changes))


def reverse_of_mapped(f, x, changes, cotangent):
    two = pairs(x, changes)
    return grad(squared(vmap(f)), all_of(two))(*two)


def mapped_forward(f, x, changes, cotangent):
    return vmap(lambda *x: jvp(f, x, tuple(changes))[1])(*pairs(x, changes)).unbind()


def forward_of_mapped(f, x, changes, cotangent):
    return jvp(vmap(f), tuple(pairs(x, changes)), tuple(pairs(changes, changes)))


def mapped_forward_over_reverse(f, x, changes, cotangent):
    return vmap(lambda *c: jvp(grad(squared(f), all_of(x)), tuple(x), c)[1])(*pairs(changes, changes))


def mapped_cotangents(f, x, changes, cotangent):
    """As MACE makes its Hessians."""
    x = leaves(x)
    gradients = torch.autograd.grad(squared(f)(*x), x, create_graph=True)
    return vmap(lambda *c: torch.autograd.grad(gradients, x, c, retain_graph=True))(*pairs(changes, changes))


def batched_cotangents(f, x, changes, cotangent):
    x = leaves(x)
    out = f(*x)
    return torch.autograd.grad(out, x, torch.stack([cotangent, 2 * cotangent]), is_grads_batched=True)


def batched_second_derivatives(f, x, changes, cotangent):
    x = leaves(x)
    gradients = torch.autograd.grad(squared(f)(*x), x, create_graph=True)
    return torch.autograd.grad(gradients, x, pairs(changes, changes), is_grads_batched=True)


TRANSFORMS = {
    transform.__name__: transform
    for transform in (
        reverse,
        pulled_back,
        forward,
        linearized,
        dual_numbers,
        dual_numbers_over_reverse,
        forward_over_reverse,
        reverse_over_forward,
        reverse_over_reverse,
        forward_over_forward,
        mapped,
        mapped_by_the_last_dimension,
        mapped_in_chunks,
        mapped_once_more,
        mapped_reverse,
        reverse_of_mapped,
        mapped_forward,
        forward_of_mapped,
        mapped_forward_over_reverse,
        mapped_cotangents,
        batched_cotangents,
        batched_second_derivatives,
    )
}
