"""Exponential moving average of the weights: what is validated, tested and kept."""

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ExponentialMovingAverage(WeightAveraging):
    r""":math:`\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta` after every step, with decay :math:`d`.

    Lightning's callback puts :math:`\bar\theta` into the model for validation, into ``state_dict`` of the checkpoints and into
    the model at the end. Buffers (irreps, references) are constants and are left alone. One fused operation updates all weights.
    """

    def __init__(self, decay: float):
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))
