"""Which paths a tensor product has: e3nn's instruction lists, made or checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e3nn import o3

MODE = "uvu"


def channelwise(irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_filter: o3.Irreps) -> tuple[o3.Irreps, list]:
    """Every path ``in1 x in2 -> out`` whose output irrep occurs in ``irreps_filter``, mode "uvu", one output slot a
    path.

    Returns the sorted output irreps (one slot a path, not merged) and the instructions sorted by output slot, the order
    that MACE and SevenNet use.

    Raises:
        ValueError: no path leads to any irrep of the filter.
    """
    slots: list[tuple[int, o3.Irrep]] = []
    instructions = []
    for i, (multiplicity, ir_in) in enumerate(irreps_in):
        for j, (_, ir_edge) in enumerate(irreps_edge):
            for ir_out in ir_in * ir_edge:
                if ir_out in irreps_filter:
                    instructions.append((i, j, len(slots), MODE, True))
                    slots.append((multiplicity, ir_out))
    if not instructions:
        raise ValueError(
            f"irreps_out: no path of {irreps_in} x {irreps_edge} leads to an irrep of {irreps_filter}; "
            f"the product reaches {sorted({ir for _, a in irreps_in for _, b in irreps_edge for ir in a * b})}"
        )
    irreps_out, position, _ = o3.Irreps(slots).sort()
    instructions = [(i, j, position[k], mode, has_weight) for i, j, k, mode, has_weight in instructions]
    return irreps_out, sorted(instructions, key=lambda instruction: instruction[2])


def tensor_product(
    irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_out: o3.Irreps, instructions: Sequence[tuple], **options: Any
) -> o3.TensorProduct:
    """e3nn's tensor product of these instructions, with external weights; it checks them and normalises the paths."""
    try:
        product = o3.TensorProduct(irreps_in, irreps_edge, irreps_out, instructions, internal_weights=False, **options)
    except (AssertionError, IndexError) as error:
        raise _rejected(irreps_in, irreps_edge, irreps_out, instructions) from error
    # e3nn checks this only when it generates code.
    if any(
        i.connection_mode == MODE and irreps_in[i.i_in1].mul != irreps_out[i.i_out].mul for i in product.instructions
    ):
        raise _rejected(irreps_in, irreps_edge, irreps_out, instructions)
    return product


def _rejected(irreps_in, irreps_edge, irreps_out, instructions) -> ValueError:
    return ValueError(
        f"instructions: e3nn rejects the paths of {irreps_in} x {irreps_edge} -> {irreps_out}; each must be (i_in1, "
        "i_in2, i_out, mode, has_weight[, path_weight]) with irreps that can be coupled and, for mode 'uvu', equal "
        f"multiplicities of irreps_in[i_in1] and irreps_out[i_out]. Given: {instructions}"
    )
