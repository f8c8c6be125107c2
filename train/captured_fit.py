"""Training by captured steps: what Lightning's loop needs to drive them."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from train.captured_step import CapturedStep
from train.columns import num_atoms, num_edges
from train.module import PotentialModule
from train.options import FitOptions, ModelOptions, RunOptions
from train.padded_frames import PaddedFrames
from train.padding import PaddedSizes
from train.schedule import training_progress

# Of the device's memory: the frames that lie there leave the rest to the training.
LARGEST_PART_FOR_FRAMES = 0.25


class CapturedStrategy(SingleDeviceStrategy):
    """Each training step is a :class:`CapturedStep` on ``module.loss(batch, weights)``; the module stays as it is.

    Lightning's loop, logs, checkpoints, schedules, averages of weights, validation and predictions do not notice. Its
    hooks between forward and optimiser step (``on_before_backward``, ``on_after_backward``,
    ``on_before_optimizer_step``) are not called, because nothing of Python runs there.

    The training frames are moved to the device once. What the loader of training batches gives are the numbers of
    frames, in the order in which it would have given the frames.

    Args:
        device: where the training runs.
        capture: False runs the same steps without graphs, so on a CPU.

    Raises:
        ValueError: the trainer accumulates gradients or has mixed precision; training frames do not fit together, see
            :class:`train.padded_frames.PaddedFrames`.
    """

    strategy_name = "captured"

    def __init__(self, device: torch.device | str, capture: bool = True):
        super().__init__(device)
        self.capture = capture
        self._frames: Sequence[Data] = ()
        self._step: CapturedStep | None = None

    @property
    def _module(self) -> PotentialModule:
        return cast(PotentialModule, self.lightning_module)

    def process_dataloader(self, dataloader: object) -> object:
        if not self._module.trainer.training:
            return dataloader
        loader = cast(DataLoader, dataloader)
        self._frames = cast(Sequence[Data], loader.dataset)
        numbers: Any = range(len(self._frames))  # serves as a Dataset
        return DataLoader(numbers, batch_size=loader.batch_size, sampler=loader.sampler)

    def batch_to_device(
        self, batch: Data | Tensor, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Data | Tensor:
        numbers = isinstance(batch, Tensor)  # they stay on the host, which chooses a size by them
        return batch if numbers else super().batch_to_device(batch, device, dataloader_idx)

    def training_step(self, numbers: Tensor, batch_idx: int) -> Tensor:
        module = self._module
        if self._step is None:
            self._step = self._new_step()
        weights = module.loss_weights(training_progress(module.trainer, module.trainer.global_step))
        return self._step(numbers, tuple(weights.items()))

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args, **kwargs) -> Tensor:
        return closure_loss  # done in the step

    def optimizer_step(self, optimizer: Optimizer, closure, model=None, **kwargs):
        return closure()  # the optimiser's part is done in the step, too

    def teardown(self) -> None:
        self._frames, self._step = (), None  # graphs and frames give their memory back
        super().teardown()

    def _new_step(self) -> CapturedStep:
        module, (optimizer,) = self._module, self.optimizers
        trainer = module.trainer
        if trainer.accumulate_grad_batches > 1:
            raise ValueError(
                f"accumulate={trainer.accumulate_grad_batches}: a captured step takes a whole step's frames, raise "
                "batch_size instead or choose --capture false"
            )
        if type(self.precision_plugin) is not Precision:
            raise ValueError(
                f"precision={trainer.precision!r}: a captured step computes in the dtype of the model; leave it out "
                "or choose --capture false"
            )
        return CapturedStep(
            lambda batch, weights: module.loss(batch, dict(weights)),
            module.prepare,
            lambda: module.configure_gradient_clipping(
                optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
            ),
            optimizer,
            PaddedFrames(self._frames, module.potential.cutoff, self.root_device),
            capture=self.capture,
        )


def padding_percent(frames: Sequence[Data], batch_size: int) -> float:
    """The part of the edges of padded batches that is padding, in percent."""
    sizes = PaddedSizes(num_atoms(frames), num_edges(frames))
    return 100 * sizes.waste(batch_size)


def captures(model: ModelOptions, fit: FitOptions, run: RunOptions, frames: Sequence[Data]) -> bool:
    """Whether the training on ``frames`` runs by captured steps: where they can, unless ``run.capture`` says no.

    Raises:
        ValueError: ``run.capture`` is True, and they cannot; the reason is named.
    """
    reason = _obstacle(model, fit, run, frames) if run.capture else None
    if reason and run.capture is True:
        raise ValueError(f"capture=True: {reason}; choose --capture auto")
    return bool(run.capture) and reason is None


def _obstacle(model: ModelOptions, fit: FitOptions, run: RunOptions, frames: Sequence[Data]) -> str | None:
    """Why steps on ``frames`` cannot be captured."""
    if run.accelerator != "gpu":
        return "CUDA graphs need a GPU"
    if run.devices * run.nodes > 1:
        return f"devices={run.devices} and nodes={run.nodes}, a step of several devices is not captured"
    if fit.accumulate > 1:
        return f"accumulate={fit.accumulate}, a captured step takes a whole step's frames"
    if model.backend == "reference":
        return "backend='reference', only steps of the fused kernels are captured"
    needed, memory = PaddedFrames.bytes_needed(frames), torch.cuda.get_device_properties(0).total_memory
    if needed > LARGEST_PART_FOR_FRAMES * memory:
        return f"the training frames take {needed / 1e9:.1f} GB, more than a quarter of the GPU's {memory / 1e9:.0f} GB"
    return None
