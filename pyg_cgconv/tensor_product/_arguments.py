"""Arguments of e3nn's products, checked by their names: e3nn has assertions without a word for most of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from e3nn import o3

from .._checks import check_choice
from ._instructions import paths_of
from ._layout import irreps_of

NORMALIZATIONS = {
    "irrep_normalization": (None, "component", "norm", "none"),
    "path_normalization": (None, "element", "path", "none"),
}
"""e3nn's choices; None is the first."""


def checked_arguments(construct: Callable, args: Sequence, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a product's constructor by their names.

    Raises:
        ValueError: one is not what e3nn takes.
    """
    given = signature(construct).bind_partial(*args, **kwargs).arguments
    given |= given.pop("kwargs", {})
    for name in given:
        if name.startswith("irreps_") and given[name] is not None:
            given[name] = irreps_of(name, given[name])
    for name in NORMALIZATIONS.keys() & given.keys():
        check_choice(name, given[name], NORMALIZATIONS[name])
    if given.get("internal_weights") and given.get("shared_weights") is False:
        raise ValueError(
            "internal_weights: True with shared_weights=False; weights of the product's own are one row for all, so "
            "leave out one of the two"
        )
    if given.get("filter_ir_out") is not None:
        if given.get("irreps_out") is not None:
            raise ValueError("filter_ir_out: given beside irreps_out; leave out one of the two")
        given["filter_ir_out"] = _filter(given["filter_ir_out"])
    irreps = [given.get(name) for name in ("irreps_in1", "irreps_in2", "irreps_out")]
    for name, slots in zip(("in1_var", "in2_var", "out_var"), irreps, strict=True):
        if given.get(name) is not None and slots is not None and len(given[name]) != len(slots):
            raise ValueError(f"{name}: expected {len(slots)} numbers, one for each slot of {slots}, got {given[name]}")
    if "instructions" in given and None not in irreps:
        left, right, out = irreps
        given["instructions"] = paths_of(left, right, out, given["instructions"], most=6)
    return given


def check_equal_channels(irreps_in1: o3.Irreps, irreps_in2: o3.Irreps) -> None:
    """Raises a ValueError unless two inputs can be multiplied channel by channel."""
    if irreps_in1.num_irreps != irreps_in2.num_irreps:
        raise ValueError(
            f"irreps_in2: expected as many channels as irreps_in1 has, {irreps_in1.num_irreps} in {irreps_in1}, got "
            f"{irreps_in2.num_irreps} in {irreps_in2}"
        )


def _filter(given: Any) -> list[o3.Irrep]:
    try:
        return [o3.Irrep(ir) for ir in given]
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"filter_ir_out: expected a list of irreps such as ['0e', '1o'], got {given!r}") from error
