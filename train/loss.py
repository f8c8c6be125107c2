"""The loss: errors of energy, forces and other labels without a unit, each averaged over the labels that there are."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import huber_loss
from torch_geometric.data import Batch

from datasets.atoms_labels import LABELS
from datasets.label_names import OF_ATOMS
from pyg_cgconv.potential import cell_volumes

QUANTITIES = LABELS
AXES = {"forces": 1, "stress": 2, "dipole": 1}  # of a label, beside that of atoms or frames


def difference(predicted: Tensor, label: Tensor) -> Tensor:
    """``predicted - label``: NaN where there is no label, infinite where the prediction is not a number."""
    return _Difference.apply(predicted, label)


class _Difference(Function):
    """Its gradient is that of a difference, which is one operation, and not that of what becomes infinite."""

    @staticmethod
    def forward(ctx, predicted, label):
        ctx.dtype = predicted.dtype
        return predicted.nan_to_num(torch.inf, torch.inf, -torch.inf) - label

    @staticmethod
    def backward(ctx, gradient):
        return gradient.to(ctx.dtype), None


def residuals(
    predicted: dict[str, Tensor], batch: Batch, force_scale: float, units: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    r"""Errors without a unit; :math:`\sigma` is the rms force in training, :math:`a` 1 Angstrom, :math:`V` the volume.

    .. math::
        r_E = \frac{E_b - \hat E_b}{n_b\, \sigma a} \qquad
        r_F = \frac{F_{ik} - \hat F_{ik}}{\sigma} \qquad
        r_S = \frac{V_b\, (\tau_{b,kl} - \hat\tau_{b,kl})}{n_b\, \sigma a} \qquad
        r_{E_i} = \frac{E_i - \hat E_i}{\sigma a}

    The stress enters as the virial of an atom, which is an energy like :math:`r_E` whatever the size of the cell.
    Errors of charges and dipoles are divided by ``units``.

    Args:
        predicted: some of ``energy`` (B,) in eV, ``forces`` (N, 3) in eV/Angstrom, ``stress`` (B, 3, 3) in
            eV/Angstrom^3, ``energies`` (N,) in eV, ``charges`` (N,) in e and ``dipole`` (B, 3) in e Angstrom.
        batch: the frames with labels of the same names and shapes; NaN where a frame has none.
        force_scale: :math:`\sigma`, eV/Angstrom.
        units: e and e Angstrom.

    Returns:
        Tensors like ``predicted``, NaN where there is no label, infinite where the prediction is not a number.
    """
    energy_scale = batch.ptr.diff() * force_scale
    scale = {"energy": energy_scale, "forces": force_scale, "energies": force_scale, **(units or {})}
    if "stress" in predicted:
        scale["stress"] = (energy_scale / cell_volumes(batch.cell))[:, None, None]
    return {name: difference(value, batch[name]) / scale[name] for name, value in predicted.items()}


def penalty(loss: str, huber_delta: float) -> Callable[[Tensor], Tensor]:
    r"""What an error :math:`r` costs.

    Args:
        loss: ``mse``, :math:`r^2`; or ``huber``, :math:`r^2 / 2` for :math:`|r| < \delta` and
            :math:`\delta (|r| - \delta / 2)` beyond, so that outliers pull with a force that stops growing.
        huber_delta: :math:`\delta`.
    """
    return torch.square if loss == "mse" else partial(_huber, delta=huber_delta)


def _huber(residual: Tensor, delta: float) -> Tensor:
    return huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=delta)


def label_weights(name: str, batch: Batch) -> Tensor | None:
    """How much labels ``name`` count, of a shape that goes with theirs; None, for all alike, if frames have no weights.

    Args:
        name: one of :data:`QUANTITIES`.
        batch: frames, perhaps with ``weight`` (B, 6), of the :data:`QUANTITIES` in their order.
    """
    if "weight" not in batch:
        return None
    weight = batch.weight[:, QUANTITIES.index(name)]
    weight = weight[batch.batch] if name in OF_ATOMS else weight
    return weight[(..., *[None] * AXES.get(name, 0))]


def sum_over_labels(
    residual: Tensor, cost: Callable[[Tensor], Tensor], weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum of ``cost`` over the numbers of ``residual`` that are not NaN, and how many they are; both are scalars.

    The cost of zero must be zero.

    Of a missing label nothing reaches the gradient. With a ``weight`` of finite numbers each cost is multiplied by its
    own; what is counted stays the same, so that a batch of light frames is light.
    """
    present = ~residual.isnan()
    costs = cost(torch.where(present, residual, 0.0))
    if weight is not None:
        costs = weight.to(costs.dtype) * costs
    return costs.sum(), present.sum().to(residual.dtype)
