"""Exponential moving average of the weights: what is validated, tested and kept."""

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ExponentialMovingAverage(WeightAveraging):
    r""":math:`\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta` after every step, with decay :math:`d`.

    Lightning's callback puts :math:`\bar\theta` into the model for validation and at the end, and into checkpoints as
    their ``state_dict``. Buffers are constants and left alone. One fused operation updates all weights.
    """

    def __init__(self, decay: float):
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))
