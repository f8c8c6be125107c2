import pytest
import torch
from e3nn import o3

from pyg_cgconv.nn import harmonic_slopes, spherical_harmonics


@pytest.mark.parametrize("lmax", range(7))
def test_equal_to_e3nn(lmax):
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    expected = o3.spherical_harmonics(list(range(lmax + 1)), directions, normalize=False, normalization="component")
    torch.testing.assert_close(spherical_harmonics(directions, lmax), expected, rtol=1e-13, atol=1e-13)


def test_float32_is_as_exact_as_float32_can_be():
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    single = spherical_harmonics(directions.float(), 4)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), spherical_harmonics(directions, 4), rtol=0, atol=5e-6)


def test_second_derivatives():
    directions = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: spherical_harmonics(v, 3), directions)


def test_no_edges():
    assert spherical_harmonics(torch.zeros(0, 3), 2).shape == (0, 9)


@pytest.mark.parametrize("lmax", range(5))
def test_slopes(lmax):
    """By e3nn's harmonics of vectors of any length, which it normalises, and by autograd."""
    vectors = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=-1)

    def e3nns(vector):
        return o3.spherical_harmonics(list(range(lmax + 1)), vector, normalize=True, normalization="component")

    expected = torch.stack([torch.autograd.functional.jacobian(e3nns, vector) for vector in vectors])
    found = harmonic_slopes(spherical_harmonics(vectors, lmax), vectors, lmax)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
