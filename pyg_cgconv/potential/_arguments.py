"""The arguments of a potential: checked, and made plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from e3nn import o3

_BY_NUMBER = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv "
    "Ts Og"
)
SYMBOLS = _BY_NUMBER.split()
"""Chemical symbols by atomic number, X for none, as ASE has them. It is not needed where a potential is only used."""

MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1


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
    if given is not None and (type(given) is not int or given < 1):
        raise ValueError(f"{name}: expected a positive whole number, or None, got {given!r}")
    return given


def check_energy_readout(readout_irreps: str) -> None:
    """Raises a ValueError unless a model's readout is an energy."""
    if readout_irreps != "1x0e":
        raise ValueError(
            f"readout_irreps: an energy is a single scalar, '0e', but this model gives each atom {readout_irreps!r}; "
            "call atomic_outputs"
        )
