"""How many rows the operands of a contraction have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction
from cuda_kernels.problem import Channels, Index, Operand, Problem

from ._edges import Graph

ROWS = {Index.TARGET: 0, Index.SOURCE: 1, Index.EDGE: 2, Index.ONE: 2}
"""Where the number of an operand's rows stands in what `Shapes.rows` returns: a gradient by a row that all sites share
has a row for each site, until these are summed."""

STORED = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Dtypes of operands that are only stored so."""


class Output(NamedTuple):
    """An output of a contraction: its name, where its number of rows stands, the length of a row, whether there is one
    row for all, and its dtype."""

    name: str
    rows: int
    length: int
    is_shared: bool
    dtype: torch.dtype


class Shapes:
    """What is known of a contraction's shapes before there are tensors."""

    def __init__(self, problem: Problem, contraction: Contraction):
        if not problem.has_graph:
            by_site = (n for n, name in enumerate(contraction.inputs) if problem.operand(name).index is Index.EDGE)
            self._site_operand = next(by_site)
        self.outputs = outputs(problem, contraction.outputs)
        of_all = [problem.operand(name) for name in contraction.outputs]
        self.summed = [n for n, o in enumerate(of_all) if o.index is Index.ONE and o.channels is not Channels.PAIRS]

    def rows(self, operands: Sequence[Tensor], graph: Graph | None) -> tuple[int, int, int]:
        """Rows by target, by source and by site."""
        if graph is None:
            return 0, 0, operands[self._site_operand].shape[0]
        lists = graph.by_target
        return lists.nodes, graph.sources, lists.edges.shape[0]

    def result(self, output: Output, rows: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of an output: one row, or one for each of its nodes or sites."""
        return (output.length,) if output.is_shared else (rows[output.rows], output.length)

    def sum_shared(self, results: list[Tensor]) -> list[Tensor]:
        """The results, gradients by a row that all sites share summed over these."""
        for n in self.summed:
            results[n] = results[n].sum(0)
        return results


def outputs(problem: Problem, names: Sequence[str]) -> list[Output]:
    return [_output(problem.operand(name), name, problem.dtype) for name in names]


def _output(operand: Operand, name: str, computed: str) -> Output:
    dtype = STORED[operand.stored] if operand.stored else getattr(torch, computed)
    return Output(name, ROWS[operand.index], operand.row.length, operand.index is Index.ONE, dtype)
