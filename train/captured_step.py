"""One optimiser step as a CUDA graph: a small molecule's kernels take less time than their launches from Python."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch_geometric.data import Batch

from pyg_cgconv.cuda_graphs import beside, capturing, rehearsing
from train.padded_frames import PaddedFrames
from train.padding import PaddedSize
from train.soap import Soap


class CapturedStep:
    """From the numbers of some frames to updated weights: batch, loss, gradients, clipping and optimiser in one graph.

    The first step of each size runs as usual, on the stream of the capture, so that kernels get compiled and the
    optimiser gets its state; the second is captured, and from then on a step is one launch. Each of them is a step of
    the training like every other one.

    Args:
        loss: ``loss(batch, constants)``, a scalar, from operations that a CUDA graph can hold. What it keeps beside its
            result, such as means over an epoch, it must write to memory that stays.
        clip: called between gradients and optimiser step; scales ``param.grad`` in place.
        optimizer: one whose learning rate, which may change with each step, a graph can read from memory:
            :class:`train.soap.Soap` or a fused one of PyTorch, such as ``torch.optim.Adam(..., fused=True)``.
        frames: where the batches come from.
        capture: False runs every step as the first one, without a graph; so on a CPU.

    Raises:
        ValueError: the optimiser is another one, or there is no GPU to capture on.
    """

    def __init__(
        self,
        loss: Callable[[Batch, Any], Tensor],
        clip: Callable[[], None],
        optimizer: Optimizer,
        frames: PaddedFrames,
        *,
        capture: bool = True,
    ):
        fused = all(group.get("fused") and "capturable" in group for group in optimizer.param_groups)
        if not (fused or isinstance(optimizer, Soap)):
            raise ValueError(
                f"optimizer: a captured step needs Soap or a fused one that can be captured, got "
                f"{type(optimizer).__name__} with fused={optimizer.param_groups[0].get('fused')}; use "
                "torch.optim.Adam(..., fused=True)"
            )
        if capture and frames.device.type != "cuda":
            raise ValueError(f"capture: the frames lie on {frames.device}, CUDA graphs need a GPU; use capture=False")
        self.loss, self.clip, self.optimizer, self.frames = loss, clip, optimizer, frames
        self.capture = capture
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._weights = [weight for weight in weights if weight.requires_grad]
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}  # None: the first step is done
        self._numbers: dict[int, Tensor] = {}
        self._rates = [torch.zeros((), device=frames.device) for _ in optimizer.param_groups]
        self._result = torch.zeros((), dtype=torch.float64, device=frames.device)
        self._observed = optimizer if capture and isinstance(optimizer, Soap) else None
        if isinstance(optimizer, Soap):
            optimizer.captures = capture
        if capture:
            self._side = torch.cuda.Stream(frames.device)
            self._stream, self._pool = torch.cuda.Stream(frames.device), torch.cuda.graph_pool_handle()

    def __call__(self, numbers: Tensor, constants: Hashable = None) -> Tensor:
        """The optimiser step on the frames with these ``numbers`` (B,) int64, on the host.

        ``constants`` is what the loss reads from Python. A graph keeps it as it was when captured: each value that it
        takes, which should be few, gets graphs of its own.

        Returns:
            The loss before the step, a scalar in float64 that the next step overwrites.
        """
        size = self.frames.size_of(numbers)
        if size.frames not in self._numbers:
            self._numbers[size.frames] = torch.empty_like(numbers, device=self.frames.device)
        # Numbers in pageable memory would make the host wait for the steps before.
        pinned = numbers.pin_memory() if self.frames.device.type == "cuda" else numbers
        self._numbers[size.frames].copy_(pinned, non_blocking=True)
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        if self.capture:
            self._captured(size, constants)
        else:
            self._step(size, constants)
        return self._result

    def _captured(self, size: PaddedSize, constants: Hashable) -> None:
        key = (size, constants)
        if key not in self.graphs:
            self.graphs[key] = None
            with rehearsing(self._stream):
                self._step(size, constants)
            return
        graph = self.graphs[key]
        if graph is None:
            self.optimizer.zero_grad()  # so that gradients get memory of the graph's
            with capturing(self._stream, self._pool) as graph:
                self._step(size, constants, capturable=True)
            self.graphs[key] = graph
        graph.replay()

    def _step(self, size: PaddedSize, constants: Hashable, capturable: bool = False) -> None:
        self.optimizer.zero_grad()
        if self._observed is not None:
            with beside(self._side):
                self._observed.observe()
        with torch.enable_grad():
            loss = self.loss(self.frames.batch(self._numbers[size.frames], size), constants)
        loss.backward(inputs=self._weights)  # and by nothing else that was differentiated on the way
        self.clip()
        if self._observed is not None:  # before there are other gradients
            torch.cuda.current_stream(self.frames.device).wait_stream(self._side)
        with self._rates_on_device(capturable):
            self.optimizer.step()
        self._result.copy_(loss.detach())

    @contextmanager
    def _rates_on_device(self, capturable: bool) -> Iterator[None]:
        """The optimiser reads its learning rates from the device; schedules and checkpoints still see numbers."""
        groups = self.optimizer.param_groups
        seen: list[dict[str, Any]] = [
            {name: group[name] for name in ("lr", "capturable") if name in group} for group in groups
        ]
        for rate, group, values in zip(self._rates, groups, seen, strict=True):
            group.update({name: {"lr": rate, "capturable": capturable}[name] for name in values})
        try:
            yield
        finally:
            for group, values in zip(groups, seen, strict=True):
                group.update(values)
