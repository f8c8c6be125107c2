import math

import pytest
import torch

from pyg_cgconv.nn import BesselBasis, InteractionBlock, PolynomialCutoff, RadialNetwork, SpeciesLinear
from pyg_cgconv.nn._radial import SILU_GAIN

CUTOFF = 4.0


def derivatives(function, distance, orders):
    """function(distance) and its derivatives up to ``orders``, for one output a distance."""
    distance = distance.clone().requires_grad_()
    values = [function(distance)]
    for _ in range(orders):
        values.append(torch.autograd.grad(values[-1].sum(), distance, create_graph=True)[0])
    return [value.detach() for value in values]


def test_bessel_functions_are_orthonormal_on_the_ball():
    r = torch.linspace(0, CUTOFF, 20001, dtype=torch.float64)
    b = BesselBasis(CUTOFF, 6)(r)
    overlap = torch.trapezoid(b[:, :, None] * b[:, None, :] * r[:, None, None] ** 2, r, dim=0)
    torch.testing.assert_close(overlap, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)


def test_bessel_functions_vanish_at_the_cutoff():
    assert BesselBasis(CUTOFF, 8)(torch.tensor([CUTOFF], dtype=torch.float64)).abs().max() < 1e-14


def test_bessel_functions_are_exact_after_a_cast_to_float64():
    r = torch.rand(20, dtype=torch.float64) * CUTOFF
    n = torch.arange(1, 9, dtype=torch.float64)
    expected = math.sqrt(2 / CUTOFF) * torch.sin(n * math.pi * r[:, None] / CUTOFF) / r[:, None]
    torch.testing.assert_close(BesselBasis(CUTOFF, 8).float().double()(r), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bessel_functions_are_finite_at_zero(dtype):
    basis = BesselBasis(CUTOFF, 8)
    for value in derivatives(lambda r: basis(r).sum(-1), torch.tensor([0.0, 1e-12, 1e-6], dtype=dtype), 2):
        assert value.isfinite().all()
    limit = math.sqrt(2 / CUTOFF) * basis.order * math.pi / CUTOFF
    torch.testing.assert_close(basis(torch.zeros(1, dtype=dtype))[0], limit.to(dtype), rtol=1e-6, atol=0)


@pytest.mark.parametrize("power", [3, 5, 6, 9])
def test_cutoff_is_the_published_polynomial(power):
    r = torch.linspace(0, CUTOFF, 50, dtype=torch.float64)
    d, p = r / CUTOFF, power
    published = 1 - (p + 1) * (p + 2) / 2 * d**p + p * (p + 2) * d ** (p + 1) - p * (p + 1) / 2 * d ** (p + 2)
    torch.testing.assert_close(PolynomialCutoff(CUTOFF, power)(r), published, rtol=0, atol=1e-13)


@pytest.mark.parametrize("power", [3, 6])
def test_cutoff_has_two_continuous_derivatives(power):
    envelope = PolynomialCutoff(CUTOFF, power)
    step = 1e-7
    below, beyond = torch.tensor([CUTOFF - step]).double(), torch.tensor([CUTOFF, CUTOFF + step, 2 * CUTOFF]).double()
    for order, value in enumerate(derivatives(envelope, below, 2)):
        assert value.abs().max() < 100 * step ** (3 - order)
    for value in derivatives(envelope, beyond, 2):
        assert (value == 0).all()


def test_cutoff_does_not_cancel_in_float32():
    r = torch.linspace(0.9 * CUTOFF, 0.9999 * CUTOFF, 100)
    exact = PolynomialCutoff(CUTOFF)(r.double())
    assert ((PolynomialCutoff(CUTOFF)(r).double() - exact) / exact).abs().max() < 3e-3  # 1 - d itself is rounded
    assert (PolynomialCutoff(CUTOFF)(r).double() - exact).abs().max() < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [BesselBasis(CUTOFF, 8), PolynomialCutoff(CUTOFF, 3), PolynomialCutoff(CUTOFF, 6)])
def test_slopes_are_derivatives(function, dtype):
    r = torch.tensor([0.0, 1e-7, 0.3, 1.0, 2.5, 3.9, CUTOFF, 1.2 * CUTOFF], dtype=dtype)
    exact = r.double()
    values = function(exact).reshape(len(r), -1)
    columns = [
        derivatives(lambda r, n=n: function(r).reshape(len(r), -1)[:, n], exact, 1)[1] for n in range(values.shape[1])
    ]
    found = function.slope(r)
    assert found.dtype == dtype
    expected = torch.stack(columns, 1).reshape(found.shape).to(dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_silu_gain_normalises_the_second_moment():
    z = torch.linspace(-12, 12, 100001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    second_moment = torch.trapezoid((SILU_GAIN * torch.nn.functional.silu(z)) ** 2 * density, z)
    assert abs(second_moment - 1) < 1e-9


@pytest.mark.parametrize("hidden", [(), (16,), (64, 64)])
def test_network_keeps_the_variance(hidden):
    torch.manual_seed(0)
    out = RadialNetwork(64, hidden, 500)(torch.randn(500, 64))
    assert out.shape == (500, 500)
    assert 0.7 < out.square().mean() < 1.4


def test_network_of_nothing_is_nothing():
    assert (RadialNetwork(8, (16, 16), 30)(torch.zeros(3, 8)) == 0).all()
    assert RadialNetwork(8, (16, 16), 30)(torch.zeros(0, 8)).shape == (0, 30)


def test_species_scale_the_first_hidden_layer():
    torch.manual_seed(0)
    network, alone = RadialNetwork(8, (16,), 5, num_species=3), RadialNetwork(8, (16,), 5)
    basis, species = torch.randn(6, 8), torch.tensor([0, 2, 1, 2, 2, 0])
    out = network(basis, torch.nn.functional.one_hot(species, 3).float())
    torch.testing.assert_close(network(basis, species), out)
    for n in range(3):
        alone.weights[0].data = network.weights[0].data * network.factors.data[n]
        alone.weights[1].data = network.weights[1].data
        torch.testing.assert_close(out[species == n], alone(basis[species == n]))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: BesselBasis(0.0), "cutoff"),
        (lambda: BesselBasis(5.0, 0), "num_basis"),
        (lambda: PolynomialCutoff(-1.0), "cutoff"),
        (lambda: PolynomialCutoff(5.0, 2), "power"),
        (lambda: RadialNetwork(8, (0,), 3), "hidden"),
        (lambda: RadialNetwork(8, (4,), 3, num_species=0), "num_species"),
        (lambda: RadialNetwork(8, (4,), 3, num_species=2)(torch.zeros(1, 8)), "species"),
        (lambda: RadialNetwork(8, (4,), 3)(torch.zeros(1, 8), torch.zeros(1, 2)), "species"),
    ],
)
def test_mistakes_are_named(make, argument):
    with pytest.raises(ValueError, match=f"^{argument}:"):
        make()


@pytest.mark.parametrize("count", [2.0, "2", [2]])
@pytest.mark.parametrize(
    "make",
    [
        lambda count: RadialNetwork(8, (4,), 3, num_species=count),
        lambda count: SpeciesLinear("2x0e", "2x0e", count),
        lambda count: InteractionBlock("2x0e", "0e", "2x0e", num_species=count),
    ],
)
def test_numbers_of_species_are_whole(make, count):
    with pytest.raises(TypeError, match=r"^num_species: expected a whole number, 1 or more, got "):
        make(count)
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"^num_species: expected a whole number, 1 or more, got {number}"):
            make(number)


def test_numbers_of_species_of_edges_are_whole():
    with pytest.raises(ValueError, match=r"^num_radial_species: expected a whole number, 1 or more, got 0"):
        InteractionBlock("2x0e", "0e", "2x0e", num_radial_species=0)


@pytest.mark.parametrize(
    ("layer", "features"), [(RadialNetwork(8, (4,), 3, 2), 8), (SpeciesLinear("2x0e+1o", "2x0e", 2), 5)]
)
def test_one_hot_rows_of_another_dtype_are_named(layer, features):
    rows, one_hot = torch.randn(4, features), torch.eye(2).repeat(2, 1)
    with pytest.raises(
        TypeError, match=r"^species: one-hot rows in torch\.float64, but the features are in torch\.float32"
    ):
        layer(rows, one_hot.double())
    expected = layer(rows, one_hot)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which makes them alike
        torch.testing.assert_close(layer(rows, one_hot.bfloat16()).float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("hidden", [16, "16", (16.0,), None])
def test_other_things_than_widths_are_named(hidden):
    with pytest.raises(TypeError, match=r"^hidden: expected whole numbers such as \(64, 64\), got "):
        RadialNetwork(8, hidden, 32)


@pytest.mark.parametrize("shape", [(5, 7), (5,), (5, 8, 1)])
def test_a_wrong_width_of_the_basis_is_named(shape):
    with pytest.raises(ValueError, match=r"^basis: expected radial functions \(E, 8\), got "):
        RadialNetwork(8, (4,), 3)(torch.randn(shape))


@pytest.mark.parametrize("species", [torch.arange(5), torch.eye(5).long()[:, :2], torch.eye(5)[:, :3], torch.eye(4, 2)])
def test_what_is_no_species_is_named(species):
    network = RadialNetwork(8, (4,), 3, num_species=2)
    with pytest.raises(ValueError, match=r"^species: expected numbers"):
        network(torch.randn(5, 8), species)


def test_factors_of_many_species_are_looked_up():
    network = RadialNetwork(8, (16,), 5, num_species=30).double()
    basis, species = torch.randn(6, 8, dtype=torch.float64), torch.tensor([0, 29, 1, 2, 2, 0])
    one_hot = torch.nn.functional.one_hot(species, 30).double()
    torch.testing.assert_close(network(basis, species), network(basis, one_hot))
    weights = list(network.parameters())
    found, expected = (torch.autograd.grad(network(basis, s).sin().sum(), weights) for s in (species, one_hot))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
