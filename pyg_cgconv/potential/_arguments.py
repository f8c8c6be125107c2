"""The arguments of a potential: checked, and made plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from e3nn import o3

from .._checks import whole_numbers

_BY_NUMBER = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv "
    "Ts Og"
)
SYMBOLS = _BY_NUMBER.split()
"""Chemical symbols by atomic number, X for none, as ASE has them. It is not needed where a potential is only used."""

PROPERTIES = ("energy", "charges", "dipole")
"""What a potential may give; with an energy come its derivatives."""

ENERGY = "1x0e"
"""The readout of an energy."""

MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1


def plain_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a potential as plain numbers, strings and lists, of which it can be made again.

    Raises:
        ValueError: an argument makes no sense; it is named.
    """
    numbers = atomic_numbers(given["species"])
    lmax, layers, hidden = given["lmax"], given["layers"], given["hidden_irreps"]
    if lmax < 0:
        raise ValueError(f"lmax: expected 0 or more, got {lmax}")
    hidden = hidden_irreps_of(given["channels"], lmax, given["parity"]) if hidden is None else o3.Irreps(hidden)
    if layers < 1:
        raise ValueError(f"layers: expected at least 1, got {layers}")
    if not hidden.count("0e"):
        raise ValueError(f"hidden_irreps: expected even scalars (0e), from which the energy is read, got {hidden}")
    outputs = str(o3.Irreps(given["readout_irreps"]))
    properties = checked_properties(given["properties"], outputs, lmax)
    if given["zbl"] and (outputs != ENERGY or "energy" not in properties):
        raise ValueError(
            f"zbl: a part of the energy, which a model of {outputs!r} and {properties} lacks; leave it out"
        )
    heads = head_names(given["heads"])
    return {
        "species": numbers,
        "cutoff": float(given["cutoff"]),
        "lmax": int(lmax),
        "layers": int(layers),
        "hidden_irreps": str(hidden),
        "products": bool(given["products"]),
        "radial_species": bool(given["radial_species"]),
        "num_radial": int(given["num_radial"]),
        "radial_hidden": whole_numbers("radial_hidden", given["radial_hidden"]),
        "cutoff_power": int(given["cutoff_power"]),
        "zbl": bool(given["zbl"]),
        "avg_num_neighbors": float(given["avg_num_neighbors"]),
        "readout_irreps": outputs,
        "properties": properties,
        "heads": heads,
        **{name: per_head(name, given[name], heads, numbers) for name in ("shift", "scale")},
        "dtype": str(floating_dtype(given["dtype"])).removeprefix("torch."),
        "backend": given["backend"],
    }


def floating_dtype(given: torch.dtype | str | None) -> torch.dtype:
    """float32 or float64, by dtype or name; torch's default if not given."""
    named = torch.get_default_dtype() if given is None else given
    dtype = getattr(torch, named, None) if isinstance(named, str) else named
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected float32 or float64, got {given}")
    return dtype


def atomic_numbers(species: Sequence[int | str]) -> list[int]:
    """Atomic numbers of elements given by number or symbol."""
    numbers = [_number(symbol) if isinstance(symbol, str) else int(symbol) for symbol in species]
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 < n <= MAX_ATOMIC_NUMBER for n in numbers):
        raise ValueError(f"species: expected different elements, as atomic numbers or symbols, got {list(species)}")
    return numbers


def _number(symbol: str) -> int:
    if symbol not in SYMBOLS:
        raise ValueError(f"species: {symbol!r} is no chemical symbol")
    return SYMBOLS.index(symbol)


def per_species(name: str, given: float | Sequence[float] | Mapping, numbers: list[int]) -> list[float]:
    """A value for each species, from one for all, one for each in order, or a dict by species."""
    if isinstance(given, Mapping):
        by_number = dict(zip(atomic_numbers(list(given)), given.values(), strict=True))
        if set(by_number) != set(numbers):
            raise ValueError(f"{name}: expected a value for each of the species {numbers}, got {by_number}")
        return [float(by_number[number]) for number in numbers]
    values = torch.as_tensor(given, dtype=torch.float64).flatten().tolist()
    if len(values) not in (1, len(numbers)):
        raise ValueError(f"{name}: expected one value or {len(numbers)}, one a species, got {len(values)}")
    return values * len(numbers) if len(values) < len(numbers) else values


def head_names(given: Sequence[str] | None) -> list[str] | None:
    """Names of heads; None of a potential without."""
    if given is None:
        return None
    names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"heads: expected different names such as ('pbe', 'r2scan'), or None, got {given!r}")
    return names


def per_head(name: str, given: Any, heads: list[str] | None, numbers: list[int]) -> list[float] | list[list[float]]:
    """What :func:`per_species` makes of ``given``; with heads a list for each, from one for all or one for each."""
    if heads is None:
        return per_species(name, given, numbers)
    if isinstance(given, Mapping) and set(given) == set(heads):
        given = [given[head] for head in heads]
    elif not isinstance(given, Sequence) or not any(isinstance(each, (Sequence, Mapping)) for each in given):
        given = [given] * len(heads)
    if len(given) != len(heads):
        raise ValueError(f"{name}: expected values for each of the {len(heads)} heads {heads}, got {given}")
    return [per_species(f"{name} of head {head!r}", each, numbers) for head, each in zip(heads, given, strict=True)]


def hidden_irreps_of(channels: int | Sequence[int], lmax: int, parity: bool) -> o3.Irreps:
    """``channels`` of every l up to ``lmax``: of the spherical harmonics' parity, or of both."""
    channels = [channels] * (lmax + 1) if isinstance(channels, int) else list(channels)
    if len(channels) != lmax + 1 or min(channels) < 1:
        raise ValueError(
            f"channels: expected a positive number, or {lmax + 1} of them for l = 0 ... {lmax}, got {channels}"
        )
    parities = (1, -1) if parity else (1,)
    return o3.Irreps([(mul, (degree, p * (-1) ** degree)) for degree, mul in enumerate(channels) for p in parities])


def readout_features(irreps: o3.Irreps, readout_irreps: o3.Irreps | str) -> o3.Irreps:
    """The features that a readout of ``readout_irreps`` is made of, and the scalars for its gates.

    Raises:
        ValueError: ``irreps`` has none for one of them.
    """
    outputs = {ir for _, ir in o3.Irreps(readout_irreps)}
    if not outputs or not outputs <= {ir for _, ir in irreps}:
        raise ValueError(
            f"readout_irreps: expected some of the irreps of the last features, {irreps}, got {str(readout_irreps)!r}; "
            "a larger lmax, parity=True or more layers give more of them"
        )
    return o3.Irreps([(mul, ir) for mul, ir in irreps if ir in outputs or ir == o3.Irrep("0e")])


def positive_or_none(name: str, given: int | None) -> int | None:
    """The number; raises a ValueError unless it is a positive whole one, or None."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
        raise ValueError(f"{name}: expected a positive whole number, or None, got {given!r}")
    return int(given)


def checked_properties(given: Sequence[str], readout_irreps: str, lmax: int) -> list[str]:
    """What a potential gives, in the order of :data:`PROPERTIES`."""
    if isinstance(given, str) or not given or not set(given) <= set(PROPERTIES):
        raise ValueError(f"properties: expected a list of some of {PROPERTIES}, got {given!r}")
    properties = [name for name in PROPERTIES if name in given]
    if properties != ["energy"] and readout_irreps != ENERGY:
        raise ValueError(
            f"properties: {properties} have a readout of their own, leave readout_irreps={readout_irreps!r} out"
        )
    if "dipole" in properties and lmax < 1:
        raise ValueError("properties: a dipole is made of vectors, of l = 1, but lmax=0; expected lmax=1 or more")
    return properties


def outputs_of(hyperparameters: Mapping[str, Any]) -> o3.Irreps:
    """What the readout gives each atom: an energy, then a scalar for its charge, then a vector for its dipole."""
    properties = hyperparameters["properties"]
    if properties == ["energy"]:
        return o3.Irreps(hyperparameters["readout_irreps"])
    scalars = 1 + ("energy" in properties)
    return o3.Irreps(f"{scalars}x0e + 1x1o" if "dipole" in properties else f"{scalars}x0e")


def check_readout(hyperparameters: Mapping[str, Any], energy: bool = True) -> None:
    """Raises a ValueError unless a model has the readout of a potential, and of an ``energy``, if there must be one."""
    if (readout_irreps := hyperparameters["readout_irreps"]) != ENERGY:
        raise ValueError(
            f"readout_irreps: an energy is a single scalar, '0e', but this model gives each atom {readout_irreps!r}; "
            "call atomic_outputs"
        )
    if energy and "energy" not in (properties := hyperparameters["properties"]):
        raise ValueError(f"properties: this potential has no energy and no derivatives of one, it gives {properties}")
