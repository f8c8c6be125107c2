"""Which paths a tensor product has: e3nn's instruction lists, made or checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from operator import index
from typing import Any

from e3nn import o3

from .._checks import check_choice

MODE = "uvu"
MODES = (MODE, "uvw", "uvv", "uuw", "uuu", "uvuv", "uvu<v", "u<vw")
"""e3nn's ways in which a path connects channels; `_summands` says how each is computed."""


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
    """e3nn's tensor product of these instructions, with external weights; it checks them and normalises the paths.

    Instructions of an e3nn product or of a layer have seven fields: their path weights are the factors of the paths,
    and are not normalised again.
    """
    irreps = irreps_in, irreps_edge, irreps_out
    paths = paths_of(*irreps, instructions)
    if any(len(path) == _NORMALISED for path in paths):
        paths, options = _as_they_are(paths, options)
    with rejections_named(*irreps, instructions):
        product = o3.TensorProduct(*irreps, paths, internal_weights=False, **options)
    check_channels(product)
    return product


def paths_of(
    irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_out: o3.Irreps, instructions: Sequence[tuple], most: int = 7
) -> list[tuple]:
    """Instructions with plain numbers.

    Args:
        most: How many fields one may have.

    Raises:
        ValueError: one names a slot or a mode that there is not, or a field is wrong.
    """
    slots = len(irreps_in), len(irreps_edge), len(irreps_out)
    with rejections_named(irreps_in, irreps_edge, irreps_out, instructions):
        return [_path(instruction, slots, most) for instruction in instructions]


@contextmanager
def rejections_named(
    irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_out: o3.Irreps, instructions: object
) -> Iterator[None]:
    """Within it, what is wrong with instructions raises a ValueError that says so."""
    try:
        yield
    except (AssertionError, IndexError, TypeError) as error:
        raise _rejected(irreps_in, irreps_edge, irreps_out, instructions, why=error) from error


def check_channels(product: o3.TensorProduct) -> None:
    """Raises a ValueError unless the multiplicities of each path fit its mode: e3nn checks it when it generates code,
    and so not always."""
    for i in product.instructions:
        channels = product.irreps_in1[i.i_in1].mul, product.irreps_in2[i.i_in2].mul, product.irreps_out[i.i_out].mul
        if 0 not in i.path_shape and not _fits(i.connection_mode, *channels, i.has_weight):
            given = product.irreps_in1, product.irreps_in2, product.irreps_out, product.instructions
            raise _rejected(*given, why=f"mode {i.connection_mode!r} does not fit {tuple(i[:3])}")


def _fits(mode: str, u: int, v: int, w: int, has_weight: bool) -> bool:
    """Whether there is such a path from u and v to w channels."""
    return {
        "uvu": u == w,
        "uvv": v == w,
        "uvw": has_weight,
        "uuu": u == v == w,
        "uuw": u == v and (has_weight or w == 1),
        "uvuv": u * v == w,
        "uvu<v": u == v and u * (u - 1) // 2 == w,
        "u<vw": u == v and has_weight,
    }[mode]


_NORMALISED = 7
"""Fields of an instruction that e3nn has normalised."""


def _as_they_are(instructions: list[tuple], options: dict[str, Any]) -> tuple[list[tuple], dict[str, Any]]:
    """The instructions and options that make e3nn take these factors as they are: it takes the root of a weight."""
    if {len(instruction) for instruction in instructions} != {_NORMALISED}:
        raise ValueError(
            f"instructions: those of a product, with seven fields, are mixed with others: {instructions}; take the "
            "first six or five fields of each"
        )
    for name in ("irrep_normalization", "path_normalization"):
        if options.get(name) not in (None, "none"):
            raise ValueError(
                f"{name}: {options[name]!r}, but instructions with seven fields are normalised already; leave it out, "
                "or take the first six or five fields of each"
            )
    plain = [(*instruction[:5], instruction[5] ** 2) for instruction in instructions]
    return plain, options | {"irrep_normalization": "none", "path_normalization": "none"}


def _path(instruction: Sequence, slots: tuple[int, int, int], most: int) -> tuple:
    """The fields of an instruction as plain numbers.

    Raises:
        TypeError: there are too few or too many, or one is of another type.
        IndexError: there is no such slot.
        ValueError: e3nn has no such mode.
    """
    fields = tuple(instruction)
    if not 5 <= len(fields) <= most:
        normalised = "; the factors of a product's own instructions are normalised: take the first five fields"
        raise TypeError(f"{fields} has {len(fields)} fields" + normalised * (most < len(fields) == _NORMALISED))
    *numbers, mode, has_weight = fields[:5]
    check_choice("instructions: mode", mode, MODES)
    numbers = [index(number) for number in numbers]
    if not all(0 <= number < length for number, length in zip(numbers, slots, strict=True)):
        raise IndexError(f"{fields} names a slot that there is not")
    if not all(0 <= weight < inf for weight in fields[5:6]):
        raise TypeError(f"{fields} has a path weight that is not a number of 0 or more")
    return *numbers, mode, bool(has_weight), *map(float, fields[5:6]), *fields[6:]


def _rejected(irreps_in, irreps_edge, irreps_out, instructions, why: object = "") -> ValueError:
    return ValueError(
        f"instructions: e3nn rejects the paths of {irreps_in} x {irreps_edge} -> {irreps_out}; each must be (i_in1, "
        "i_in2, i_out, mode, has_weight[, path_weight]) with irreps that can be coupled and multiplicities that fit "
        f"the mode (for 'uvu', equal ones of irreps_in[i_in1] and irreps_out[i_out]). Given: {instructions}"
        + (f"; {why}" if str(why) else "")
    )
