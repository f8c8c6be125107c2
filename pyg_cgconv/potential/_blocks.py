"""The network of a potential: embedding of species, rounds of message passing, readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from e3nn import o3
from torch import nn

from ..nn import Gate, InteractionBlock, Linear, wanted_irreps
from ._arguments import outputs_of, readout_features
from ._heads import Readouts


def network(given: Mapping[str, Any], irreps_sh: o3.Irreps) -> tuple[Linear, nn.ModuleList, nn.Module]:
    """Embedding, blocks and readout, or :class:`Readouts`, of a potential.

    Args:
        given: Its hyperparameters.
        irreps_sh: Irreps of the spherical harmonics.
    """
    hidden, outputs, heads = o3.Irreps(given["hidden_irreps"]), outputs_of(given), given["heads"]
    fused = given["backend"] != "reference"
    linear = partial(Linear, layout="ir_mul", fused=fused)  # the faster layout
    scalars = o3.Irreps([(hidden.count("0e"), "0e")])
    embedding = linear([(len(given["species"]), "0e")], scalars)
    wanted = wanted_irreps(hidden, readout_features(hidden, outputs), irreps_sh, given["layers"])
    blocks = interaction_blocks(given, scalars, irreps_sh, wanted)
    irreps = readout_features(blocks[-1].irreps_out, outputs)

    def readout() -> nn.Module:
        gate = Gate([(max(1, mul // 2), ir) for mul, ir in irreps], layout="ir_mul", fused=fused)
        return nn.Sequential(linear(irreps, gate.irreps_in), gate, linear(gate.irreps_out, outputs))

    return embedding, blocks, readout() if heads is None else Readouts(readout() for _ in heads)


def interaction_blocks(
    given: Mapping[str, Any], irreps: o3.Irreps, irreps_sh: o3.Irreps, wanted: Sequence[o3.Irreps]
) -> nn.ModuleList:
    """A block for each of the wanted features, the first of which reads ``irreps``.

    Args:
        given: The potential's hyperparameters.
        irreps_sh: Irreps of the spherical harmonics.
    """
    species, blocks = len(given["species"]), nn.ModuleList()
    for irreps_out in wanted:
        block = InteractionBlock(
            irreps,
            irreps_sh,
            irreps_out,
            num_basis=given["num_radial"],
            radial_hidden=given["radial_hidden"],
            avg_num_neighbors=given["avg_num_neighbors"],
            num_species=species if len(blocks) else None,  # so that an isolated atom's energy is its shift
            num_radial_species=species if given["radial_species"] else None,
            products=given["products"],
            layout="ir_mul",
            backend=given["backend"],
        )
        blocks.append(block)
        irreps = block.irreps_out
    return blocks
