"""e3nn's layers with the weights of ours, in float64."""

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.math import normalize2mom
from torch import Tensor
from torch.nn.functional import silu

from pyg_cgconv.nn import Gate, Linear, SpeciesLinear
from pyg_cgconv.nn._gate import TANH_GAIN
from pyg_cgconv.nn._radial import SILU_GAIN

from .rotations import float64


def linear(layer: Linear) -> o3.Linear:
    with float64():
        theirs = o3.Linear(layer.irreps_in, layer.irreps_out)
    with torch.no_grad():
        for instruction, weight in zip(theirs.instructions, theirs.weight_views(), strict=True):
            slots = layer.slots[instruction.i_out]
            channels = [layer.irreps_in[k].mul for k in slots]
            start = sum(channels[: slots.index(instruction.i_in)])
            weight.copy_(layer.weights[instruction.i_out][start : start + len(weight)])
    return theirs


def species_linear(layer: SpeciesLinear) -> o3.FullyConnectedTensorProduct:
    """Of features and one-hot species times the root of their number, by which e3nn divides."""
    with float64():
        theirs = o3.FullyConnectedTensorProduct(layer.irreps_in, f"{layer.num_species}x0e", layer.irreps_out)
    with torch.no_grad():
        for instruction, weight in zip(theirs.instructions, theirs.weight_views(), strict=True):
            ours = layer.linear.weights[instruction.i_out].unflatten(0, (layer.num_species, -1))
            weight.copy_(ours.transpose(0, 1))
    return theirs


def gate(layer: Gate, x: Tensor) -> Tensor:
    """The result for features x in mul_ir, with the exact second moments of activations, which e3nn estimates."""
    scalars = o3.Irreps([slot for slot in layer.irreps_out if slot.ir.l == 0])
    gated = o3.Irreps([slot for slot in layer.irreps_out if slot.ir.l > 0])
    activations = {1: silu, -1: torch.tanh}
    with float64():
        theirs = e3nn_nn.Gate(
            scalars, [activations[ir.p] for _, ir in scalars], f"{gated.num_irreps}x0e", [silu], gated
        )
        estimates = {f: normalize2mom(f).cst for f in activations.values()}
    slots = dict(zip([ir for _, ir in layer.irreps_in], x.split([s.dim for s in layer.irreps_in], dim=1), strict=True))
    x = torch.cat([slots[ir] for _, ir in theirs.irreps_in], dim=1)  # of which e3nn sorts the slots
    gains = {1: SILU_GAIN / estimates[silu], -1: TANH_GAIN / estimates[torch.tanh]}
    columns = [gains[1 if ir.l > 0 else ir.p] for mul, ir in layer.irreps_out for _ in range(mul * ir.dim)]
    return theirs(x) * torch.tensor(columns, dtype=x.dtype)
