"""Random products of every mode of e3nn, and random derivatives of them."""

from __future__ import annotations

from itertools import combinations, product
from random import Random
from typing import NamedTuple

import torch
from e3nn import o3
from hypothesis import strategies as st

from pyg_cgconv.tensor_product._summands import MANY, OF_MANY
from tests.problems import Case, fill

OF_LEFT, OF_RIGHT, OF_BOTH = ("uvu", "uvw", "uvuv"), ("uvv",), ("uuu", "uuw", "uvu<v", "u<vw")
"""Modes whose channels are those of x, of y, and of both."""

MODES = OF_LEFT + OF_RIGHT + OF_BOTH
ON_GRAPHS = OF_LEFT + OF_BOTH
PAIRS = ("uvu<v", "u<vw")
ALWAYS_WEIGHTED = ("uvw", "u<vw")

_CHANNELS = (1, 2, 3, 5, 7, 16, 32, 33, 48, 64, 70)
_MIXED = (1, 4, 17, 40)
"""Channels of the results of "uvw", "uuw" and "u<vw"."""

_COPIES = (1, 1, 2, 3)
"""Of a factor without channels. Each is a path of its own, which takes time to compile."""

_OF_MANY = (MANY + 1, MANY + 4)
"""Copies whose products are computed otherwise, in the modes `OF_MANY`."""

_MOST_CHANNELS_OF_PAIRS = 33

_HALF = (torch.bfloat16, torch.float16)

_SEEDS = st.integers(0, 2**63)
"""Of Python's generator. Hypothesis repeats itself and prefers edge cases: of its own draws two in five had no edges,
and 60 lacked a mode."""


def cases(**options) -> st.SearchStrategy[Case]:
    return _SEEDS.map(lambda seed: _case(Random(seed), **options))


def problems(**options) -> st.SearchStrategy[tuple[Case, Derivatives]]:
    def problem(seed: int) -> tuple[Case, Derivatives]:
        random = Random(seed)
        case = _case(random, **options)
        return case, _derivatives(random, has_weight=case.weight.shape[-1] > 0)

    return _SEEDS.map(problem)


class Derivatives(NamedTuple):
    """Which derivatives of a product are computed, and with which numbers.

    Attributes:
        dtypes: of x, edge_attr and weight; the first one is computed with.
        orders: For each order the variables that are differentiated by: the inputs, then the cotangents of the orders
            before.
        deterministic: An option of convolutions.
    """

    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype]
    orders: tuple[tuple[int, ...], ...]
    deterministic: bool = False


def _case(random: Random, *, most: int = 70, most_paths: int = 2, max_l: int = 3, on_graph: bool | None = None) -> Case:
    """A product of rows, or on a bipartite graph, of one or two modes, of up to so many channels and paths.

    Paths share slots of the result where they can; one slot is left without a path.
    """
    on_graph = random.random() < 0.5 if on_graph is None else on_graph
    modes = random.choices(ON_GRAPHS if on_graph else MODES, k=random.choice([1, 1, 1, 2]))
    weights = random.choice(["shared", "own"] if {*modes} & {*ALWAYS_WEIGHTED} else ["none", "shared", "own"])
    irreps_in, irreps_edge = _factors(random, modes, most, max_l)
    modes += random.choices(modes, k=random.randint(0, most_paths - len(modes)))
    slots: list = [(3, o3.Irrep("7e"))]
    instructions: list[tuple] = []
    for mode in modes:
        i, j, ir = random.choice(_paths(mode, irreps_in, irreps_edge))
        has_weight = weights != "none" and (mode in ALWAYS_WEIGHTED or not instructions or random.random() < 0.5)
        mixed = random.choice(_MIXED) if has_weight else 1
        slot = (_multiplicity(mode, irreps_in[i].mul, irreps_edge[j].mul, mixed), ir)
        fitting = [n for n, other in enumerate(slots) if other == slot]
        if not fitting or random.random() < 0.5:
            fitting = [len(slots)]
            slots.append(slot)
        instructions.append((i, j, random.choice(fitting), mode, has_weight, random.choice([1.0, 0.3])))
    case = Case(
        irreps_in,
        irreps_edge,
        o3.Irreps(slots),
        instructions,
        random.choice(["mul_ir", "ir_mul"]) if on_graph else "mul_ir",
        weights == "shared",
        *[None] * 4,
        targets=random.randint(1, 9),
        on_graph=on_graph,
    )
    fill(case, random.randint(1, 9), random.choice([0, *range(1, 31)]), random.getrandbits(31))
    return case


def _derivatives(random: Random, has_weight: bool) -> Derivatives:
    stored = [*product((torch.float32, *_HALF), repeat=2)][1:]
    dtypes = random.choice([(torch.float64,) * 3, (torch.float32,) * 3, (torch.float32, *random.choice(stored))])
    variables, outputs, orders = 3 if has_weight else 2, 1, []
    for _ in range(random.choice([1, 1, 1, 1, 2, 2, 3])):
        by = random.choice([subset for n in range(variables) for subset in combinations(range(variables), n + 1)])
        orders.append(by)
        variables, outputs = variables + outputs, len(by)
    return Derivatives(dtypes, tuple(orders), deterministic=random.random() < 0.5)


def _factors(random: Random, modes: list[str], most: int, max_l: int) -> tuple[o3.Irreps, o3.Irreps]:
    """Irreps of both factors: for each mode a slot that has paths of it, and perhaps one more, in any order."""

    def slot(multiplicity: int) -> tuple[int, tuple[int, int]]:
        return multiplicity, (min(random.choice([0, 0, 1, 1, 1, 2, 2, 3]), max_l), random.choice([-1, 1]))

    left, right = [], []
    for mode in modes:
        highest = min(most, _MOST_CHANNELS_OF_PAIRS) if mode in PAIRS else most
        channels = random.choice([n for n in _CHANNELS if n <= highest and (n > 1 or mode not in PAIRS)])
        left.append(slot(random.choice(_COPIES) if mode in OF_RIGHT else channels))
        right.append(slot(random.choice(_copies(mode)) if mode in OF_LEFT else channels))
    for factor in (left, right):
        if random.random() < 0.5:
            factor.append(slot(random.choice([1, 2, factor[0][0]])))
        random.shuffle(factor)
    return o3.Irreps(left), o3.Irreps(right)


def _copies(mode: str) -> tuple[int, ...]:
    return _COPIES + _OF_MANY if mode in OF_MANY else _COPIES


def _paths(mode: str, irreps_in: o3.Irreps, irreps_edge: o3.Irreps) -> list[tuple[int, int, o3.Irrep]]:
    """Slots and irreps of the result that a mode allows."""

    def fits(u: int, v: int) -> bool:
        if mode in OF_BOTH:
            return u == v and (mode not in PAIRS or 1 < u <= _MOST_CHANNELS_OF_PAIRS)
        return (u if mode in OF_RIGHT else v) in _copies(mode)

    return [
        (i, j, ir)
        for i, a in enumerate(irreps_in)
        for j, b in enumerate(irreps_edge)
        if fits(a.mul, b.mul)
        for ir in a.ir * b.ir
    ]


def _multiplicity(mode: str, u: int, v: int, mixed: int) -> int:
    """Channels of the result."""
    others = {"uvv": v, "uvuv": u * v, "uvu<v": u * (u - 1) // 2, "uvw": mixed, "uuw": mixed, "u<vw": mixed}
    return others.get(mode, u)
