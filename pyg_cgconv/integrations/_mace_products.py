"""MACE's products with the elements of atoms: its symmetric contraction as a generated kernel, with MACE's own weights,
and the self-connections of models of many elements."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from mace.modules import symmetric_contraction
from torch import Tensor

from .._functions import without_autocast
from .._torch import assert_on_device, is_traced, refuse_torchscript
from ..nn import checked_channels, contract_polynomial
from ..ops import DTYPES, Groups, checks_on_host, sorted_groups
from ..tensor_product import describe, polynomial_entries
from ._replacement import Replacement, logger
from ._self_connection import LookUp, SelfConnection, pays

_ZERO = 1e-5
"""Coefficients of MACE below this are rounding noise of float32; the smallest true one is above 1e-3."""


class SymmetricContraction(Replacement, *symmetric_contraction.SymmetricContraction.__bases__):  # type: ignore[misc]
    """The contraction of a product block. MACE's U matrices combine its weights to coefficients of monomials; there its
    paths that differ in the order of factors alone are added up.

    No subclass of MACE's, whose instances `MACECalculator(compile_mode=...)` traces by torch.fx.
    """

    original = symmetric_contraction.SymmetricContraction
    prepared = ("_combined", "_description", "_elements", "_told", "_versions")

    @classmethod
    def obstacle(cls, module: Any) -> str:
        if others := _others(module):
            return others
        orders = {contraction.correlation for contraction in module.contractions}
        if len(orders) != 1:
            return f"its outputs have different correlations, {sorted(orders)}"
        try:
            checked_channels(module.irreps_in, module.irreps_out, *orders)
        except ValueError as error:
            return str(error)
        known = coefficients_of_weights(module) is not None
        return "" if known else "its U matrices are not those of equivariant polynomials"

    def hindrance(self) -> str:
        return _others(self)

    def prepare(self) -> None:
        self._told = False
        self._versions: list[int] | None = None
        if self.hindrance():
            return
        correlation, layouts = self.contractions[0].correlation, ("mul_joined", "mul_ir")
        self._description = describe.polynomial(self.irreps_in, self.irreps_out, correlation, layouts)
        self._combined: Any = coefficients_of_weights(self)
        self._elements = self.contractions[0].weights_max.shape[0]
        self._versions = _versions(self)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Contractions (n, irreps_out.dim) of features (n, channels, components) of atoms with one-hot elements y."""
        refuse_torchscript(self)
        if self.hindrance() or not _serves(self, y):
            return self.original.forward(self, x, y)
        if not torch.compiler.is_compiling() and self._versions != _versions(self):
            self.prepare()  # a state dict has been loaded
        if x.dtype not in DTYPES:
            raise TypeError(f"x: dtype {x.dtype} has no kernel; convert the model to float32 or float64")
        return self._contracted(x, y)

    @without_autocast
    def _contracted(self, x: Tensor, y: Tensor) -> Tensor:
        weights = torch.cat([weight for _, weight, _ in _parts(self)], dim=1).to(x.dtype)
        coefficients = (self._combined @ weights).flatten(1)
        result = contract_polynomial(self._description, x.flatten(1), y, coefficients, self._elements)
        return result * y.sum(1, keepdim=True).to(x.dtype)  # which is 0 for atoms that others have been filled up with

    def _apply(self, *arguments: Any, **named: Any) -> Any:
        super()._apply(*arguments, **named)
        self.prepare()
        return self


class SkipConnection(SelfConnection):
    """The product `skip_tp` of an interaction block with one-hot elements, a linear map for each element."""

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        refuse_torchscript(self)
        if weight is None and not torch.compiler.is_compiling() and _serves(self, y):
            found = _elements(y)
            if pays(x, found, y.shape[1]):
                return self._by_species(x, found, y.shape[1]) * y.sum(1, keepdim=True).to(x.dtype)
        return self.original.forward(self, x, y, weight)


_looked_up: WeakKeyDictionary[Groups, LookUp] = WeakKeyDictionary()


def _elements(y: Tensor) -> LookUp:
    """Of which element each row is: found out once for all blocks, and in a CUDA graph once for each replay."""
    groups = sorted_groups(y, y.shape[1])
    if groups not in _looked_up:
        _looked_up[groups] = LookUp(groups.target.long(), None, 0)
    return _looked_up[groups]


def _others(module: Any) -> str:
    """What is in the place of one of MACE's contractions, as LoRA puts it there; empty if nothing is."""
    others = [each for each in module.contractions if type(each) is not symmetric_contraction.Contraction]
    return f"one of its contractions is {type(others[0]).__name__}" if others else ""


def _parts(module: Any) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(number of the output, weights, U matrix) of each output and each number of factors, the largest first."""
    for slot, contraction in enumerate(module.contractions):
        for n, weight in enumerate((contraction.weights_max, *contraction.weights)):
            yield slot, weight, getattr(contraction, f"U_matrix_{contraction.correlation - n}")


def _serves(module: Any, y: Tensor) -> bool:
    """Whether rows are of elements; the first time that they are not, the log says who computes instead."""
    if _is_of_elements(y):
        return True
    if not module._told:
        module._told = True
        logger.warning(
            "%s: computed by MACE itself: node_attrs require gradients, or have several elements in a row",
            type(module).__name__,
        )
    return False


_known_rows: WeakKeyDictionary[Groups, bool] = WeakKeyDictionary()


def _is_of_elements(y: Tensor) -> bool:
    """Whether each row has one element at most, and none is a variable: found out as often as :func:`_elements`."""
    if not torch.compiler.is_compiling() and y.requires_grad:
        return False
    if is_traced(y) or y.is_inference():  # whose groups nobody keeps
        return _has_single_elements(y)
    groups = sorted_groups(y, y.shape[1])
    if groups not in _known_rows:
        _known_rows[groups] = _has_single_elements(y)
    return _known_rows[groups]


def _has_single_elements(y: Tensor) -> bool:
    """Where the host cannot ask, on a GPU and in a compiled program, rows of several elements end the program."""
    single = ((y != 0).sum(1) <= 1).all()
    if not torch.compiler.is_compiling() and checks_on_host(y):
        return bool(single)
    assert_on_device(single, "node_attrs: several elements in a row, which MACE itself computes: mace.restore(model)")
    return True


def _versions(module: Any) -> list[int]:
    """What changes when U matrices do."""
    return [0 if u.is_inference() else u._version for _, _, u in _parts(module)]


def coefficients_of_weights(module: Any) -> Tensor | None:
    """(entries, paths): what makes coefficients of all weights; None if they would be of other monomials, too."""
    correlation = module.contractions[0].correlation
    found = polynomial_entries(module.irreps_in, module.irreps_out, correlation)
    features = [(slot, i) for slot, (_, ir) in enumerate(module.irreps_in) for i in range(ir.dim)]
    columns = []
    for slot, _, u in _parts(module):
        dim = module.irreps_out[slot].ir.dim
        degree = u.dim() - 1 - (dim > 1)
        places = {entry: n for n, entry in enumerate(found)}  # and after these those that must add up to zero
        into = [
            places.setdefault((tuple(sorted(features[i] for i in index)), slot, k), len(places))
            for k in range(dim)
            for index in product(range(len(features)), repeat=degree)
        ]
        rows = u.detach().double().cpu().reshape(len(into), -1)
        column = rows.new_zeros(len(places), rows.shape[1]).index_add_(0, torch.tensor(into), rows)
        if (column[len(found) :].abs() > _ZERO).any():
            return None
        columns.append(column[: len(found)])
    return torch.cat(columns, dim=1).to(module.contractions[0].weights_max)
