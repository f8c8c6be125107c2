"""One optimiser step as a CUDA graph: a small molecule's kernels take less time than their launches from Python."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch_geometric.data import Batch

from pyg_cgconv.cuda_graphs import beside, capturing, rehearsing
from train.padded_frames import PaddedFrames
from train.padding import PaddedSize
from train.soap import Soap

TURNS = 2
"""While one step computes with its batch, that of the next is put together."""


class _Turn(NamedTuple):
    """The graphs of every second step of a size, and the memory that they share.

    Attributes:
        numbers: Of the frames (B,), which `gather` reads.
        batch: What `gather` writes and `step` reads.
        gather: Puts the batch together.
        step: From the batch to updated weights.
        gathered, done: When the one, and the other, has been done.
    """

    numbers: Tensor
    batch: Any
    gather: torch.cuda.CUDAGraph
    step: torch.cuda.CUDAGraph
    gathered: torch.cuda.Event
    done: torch.cuda.Event


class CapturedStep:
    """From the numbers of some frames to updated weights: loss, gradients, clipping and optimiser in one graph.

    The first step of each size runs as usual, on the stream of the capture, so that kernels get compiled and the
    optimiser gets its state; the next two are captured, and from then on a step is two launches: of a graph that puts
    its batch together, which a GPU does beside the step before, and of the step's own. Each of them is a step of the
    training like every other one.

    Args:
        loss: ``loss(batch, constants)``, a scalar, from operations that a CUDA graph can hold. What it keeps beside its
            result, such as means over an epoch, it must write to memory that stays.
        prepare: ``prepare(batch)``, what ``loss`` is given: the batch with what no weight changes.
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
        loss: Callable[[Any, Any], Tensor],
        prepare: Callable[[Batch], Any],
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
        self.loss, self.prepare, self.clip, self.optimizer, self.frames = loss, prepare, clip, optimizer, frames
        self.capture = capture
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._weights = [weight for weight in weights if weight.requires_grad]
        self.turns: dict[Hashable, list[_Turn]] = {}  # none of a size whose first step is done
        self._rates = [torch.zeros((), device=frames.device) for _ in optimizer.param_groups]
        self._result = torch.zeros((), dtype=torch.float64, device=frames.device)
        self._observed = optimizer if capture and isinstance(optimizer, Soap) else None
        if isinstance(optimizer, Soap):
            optimizer.captures = capture
        if capture:
            self._side, self._stream, self._ahead = (torch.cuda.Stream(frames.device) for _ in range(3))
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, numbers: Tensor, constants: Hashable = None) -> Tensor:
        """The optimiser step on the frames with these ``numbers`` (B,) int64, on the host.

        ``constants`` is what the loss reads from Python. A graph keeps it as it was when captured: each value that it
        takes, which should be few, gets graphs of its own.

        Returns:
            The loss before the step, a scalar in float64 that the next step overwrites.
        """
        size = self.frames.size_of(numbers)
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        if self.capture:
            self._captured(numbers, size, constants)
        else:
            self._step(self._batch(numbers.to(self.frames.device), size), constants)
        return self._result

    def _captured(self, numbers: Tensor, size: PaddedSize, constants: Hashable) -> None:
        key = (size, constants)
        if key not in self.turns:
            self.turns[key] = []
            with rehearsing(self._stream):
                self._step(self._batch(numbers.to(self.frames.device), size), constants)
            return
        turns = self.turns[key]
        turn = self._capture(numbers, size, constants) if len(turns) < TURNS else turns.pop(0)
        turns.append(turn)
        # Numbers in pageable memory would make the host wait for the steps before.
        pinned = numbers.pin_memory()
        with torch.cuda.stream(self._ahead):
            turn.done.wait()
            turn.numbers.copy_(pinned, non_blocking=True)
            turn.gather.replay()
            turn.gathered.record()
        turn.gathered.wait()
        turn.step.replay()
        turn.done.record()

    def _capture(self, numbers: Tensor, size: PaddedSize, constants: Hashable) -> _Turn:
        own = torch.empty_like(numbers, device=self.frames.device)
        with capturing(self._ahead) as gather:  # in memory of its own: others run while its results are read
            batch = self._batch(own, size)
        self.optimizer.zero_grad()  # so that gradients get memory of the graph's
        with capturing(self._stream, self._pool) as step:
            self._step(batch, constants, capturable=True)
        return _Turn(own, batch, gather, step, torch.cuda.Event(), torch.cuda.Event())

    def _batch(self, numbers: Tensor, size: PaddedSize) -> Any:
        return self.prepare(self.frames.batch(numbers, size))

    def _step(self, batch: Any, constants: Hashable, capturable: bool = False) -> None:
        self.optimizer.zero_grad()
        if self._observed is not None:
            with beside(self._side):
                self._observed.observe()
        with torch.enable_grad():
            loss = self.loss(batch, constants)
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
