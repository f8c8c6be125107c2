"""CUDA graphs without a GPU: a capture records what is done, and a replay does it again in the same memory."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyg_cgconv.potential import _replay

# A capture refuses what the host has to wait for.
WAITING = ("_local_scalar_dense", "nonzero", "_unique2", "is_nonzero")


class RecordedGraph(TorchDispatchMode):
    """In place of :class:`torch.cuda.CUDAGraph`."""

    def __init__(self):
        super().__init__()
        self._recorded = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name in WAITING:
            raise RuntimeError(f"{name}: the host would wait, which a capture refuses")
        result = operation(*args, **(kwargs or {}))
        self._recorded.append((operation, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for operation, args, kwargs, result in self._recorded:
            again = operation(*args, **kwargs)
            for before, after in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(before, torch.Tensor) and before.data_ptr() != after.data_ptr():
                    before.detach().copy_(after)


@contextmanager
def capturing(stream, pool=None) -> Iterator[RecordedGraph]:
    with RecordedGraph() as graph:
        yield graph


@contextmanager
def recorded_graphs() -> Iterator[None]:
    """Replays of potentials work on a CPU, with the backend "reference"."""
    with (
        patch.object(_replay, "capturing", capturing),
        patch.object(_replay, "rehearsing", lambda stream: nullcontext()),
        patch.object(torch.cuda, "Stream", lambda device: None),
    ):
        yield
