"""Real spherical harmonics by recursion over their degree."""

from __future__ import annotations

from functools import cache

import torch
from e3nn import o3
from torch import Tensor

from .._functions import join
from .._torch import without_modes


def spherical_harmonics(directions: Tensor, lmax: int) -> Tensor:
    r"""The harmonics of degree 0 to ``lmax`` of unit vectors: those of :func:`e3nn.o3.spherical_harmonics`, its order
    of components and signs included, with normalisation "component" (:math:`|Y_l|^2 = 2l+1`).

    .. math::
        Y_0 = 1, \qquad Y_1 = \sqrt{3} \, \hat{\mathbf{r}}, \qquad
        Y_{l+1, k} = c_l \sum_{ij} C^{l,1,l+1}_{ijk} \, Y_{l,i} \, \hat r_j

    Each degree is one outer product and one matrix product, so that derivatives of any order are few operations as
    well.

    Args:
        directions: Unit vectors (E, 3); others give polynomials of their length.
        lmax: Highest degree.

    Returns:
        (E, (lmax + 1)^2) in the dtype of ``directions``. Each degree has multiplicity 1, so that the rows are the same
        in the layouts "mul_ir" and "ir_mul".
    """
    return join(harmonics_by_degree(directions, lmax))


def harmonics_by_degree(directions: Tensor, lmax: int) -> list[Tensor]:
    """(E, 2l+1) for each l."""
    degrees = [torch.ones_like(directions[:, :1])]
    for step in _steps(lmax, directions.dtype, directions.device):
        products = (degrees[-1][:, :, None] * directions[:, None, :]).flatten(1)
        degrees.append(products @ step)
    return degrees


def harmonic_slopes(harmonics: Tensor, directions: Tensor, lmax: int) -> Tensor:
    r"""Derivatives of the harmonics of unit vectors :math:`\hat{\mathbf{r}} = \mathbf{r} / r` by :math:`\mathbf{r}`, at
    r = 1:

    .. math::
        \frac{\partial Y_{l, k}}{\partial r_j} = g_l \sum_i C^{l,1,l-1}_{kji} \, Y_{l-1, i} - l \, Y_{l, k} \, \hat r_j

    since :math:`r^l Y_l` is a homogeneous polynomial, whose gradient is harmonic, too.

    Args:
        harmonics: Those of the ``directions`` (E, (lmax + 1)^2), as :func:`spherical_harmonics` gives them.
        directions: Unit vectors (E, 3).

    Returns:
        (E, (lmax + 1)^2, 3)
    """
    gradients, degrees = _gradients(lmax, harmonics.dtype, harmonics.device)
    outward = (harmonics * degrees)[:, :, None] * directions[:, None]
    return (harmonics @ gradients).view(-1, harmonics.shape[1], 3) - outward


# torch.compile names a constant tensor by the function that returns it, and two of one name are an error. Those in a
# tuple have names of their own: so this is one tuple, also where there is one step.
@torch.compiler.assume_constant_result
def _steps(lmax: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    return _computed_steps(lmax, dtype, device)


@cache
def _computed_steps(lmax: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    with without_modes():
        return tuple(_step(degree).to(device, dtype) for degree in range(lmax))


def _step(degree: int) -> Tensor:
    """c_l C as a matrix (3 (2l+1), 2l+3), from l = ``degree`` to l + 1."""
    coupling = o3.wigner_3j(degree, 1, degree + 1, dtype=torch.float64)
    # Along e3nn's axis, y, only the middle components are not zero: Y_l is sqrt(2l+1) there.
    on_axis = coupling[degree, 1, degree + 1] * (2 * degree + 1) ** 0.5
    return coupling.flatten(0, 1) * ((2 * degree + 3) ** 0.5 / on_axis)


@cache
def _gradients(lmax: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Harmonics to the gradients of all :math:`r^l Y_l`, as a matrix (K, 3 K), and the degree of each harmonic (K,)."""
    count = (lmax + 1) ** 2
    gradients = torch.zeros(count, count, 3, dtype=torch.float64)
    with without_modes():
        for degree in range(1, lmax + 1):
            coupling = o3.wigner_3j(degree - 1, degree, 1, dtype=torch.float64)
            # Along e3nn's axis the slope of r^l Y_l is l Y_l, and only middle components are not zero.
            on_axis = coupling[degree - 1, degree, 1] * (2 * degree - 1) ** 0.5
            slope = degree * (2 * degree + 1) ** 0.5
            before, of_degree = slice((degree - 1) ** 2, degree**2), slice(degree**2, (degree + 1) ** 2)
            gradients[before, of_degree] = coupling * (slope / on_axis)
        degrees = torch.arange(count, dtype=torch.float64).sqrt().floor()
        return gradients.flatten(1).to(device, dtype), degrees.to(device, dtype)
