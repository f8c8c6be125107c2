"""The rounds of message passing of a potential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e3nn import o3
from torch import nn

from ..nn import InteractionBlock


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
