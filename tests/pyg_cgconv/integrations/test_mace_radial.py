"""MACE's radial functions and the networks that make weights of them, accelerated, against themselves as they were."""

import pytest
import torch

from tests.drop_ins import as_captured, assert_agree, loss_gradients, operations  # noqa: F401  (a fixture)

pytest.importorskip("mace", reason="mace-torch is not installed")

from mace import modules

from pyg_cgconv.integrations import _mace_radial, mace
from tests.mace_models import float64, model  # noqa: F401  (a fixture)


def radial(fast, power=5, **options):
    block = modules.RadialEmbeddingBlock(3.0, 4, power, **options)
    return mace.accelerate(block) if fast else block


def functions(block, distance):
    return block(distance, None, None, None)[0]


@pytest.mark.usefixtures("as_captured")
@pytest.mark.parametrize("power", [1, 2, 5, 6])
def test_radial_functions_and_their_derivatives(power):
    """The third one as well, which a loss on Hessians asks for."""
    distance = torch.tensor([0.3, 0.9, 1.7, 2.6, 2.99999]).view(-1, 1).requires_grad_()
    weights = torch.randn(3, 4)
    results = []
    for fast in (True, False):
        values = [functions(radial(fast, power), distance)]
        for weight in weights:
            values += torch.autograd.grad((values[-1] * weight).sum(), distance, create_graph=True)
        results.append({str(order): each for order, each in enumerate(values)})
    assert_agree(*results, 1e-12)


@pytest.mark.usefixtures("as_captured")
def test_radial_functions_vanish_beyond_the_cutoff_and_are_finite_where_atoms_meet():
    distance = torch.tensor([3.0, 3.0001, 6.0, 1e300]).view(-1, 1).requires_grad_()
    values = functions(radial(True), distance)
    (slopes,) = torch.autograd.grad(values.sum(), distance, create_graph=True)
    (curvature,) = torch.autograd.grad(slopes.sum(), distance)
    assert not any(each.any() for each in (values, slopes, curvature))
    near = torch.tensor([0.0, 1e-300, 1e-12, 1e-7]).view(-1, 1).requires_grad_()
    values = functions(radial(True), near)
    limit = radial(False).bessel_fn
    assert_agree({"": values}, {"": (limit.prefactor * limit.bessel_weights).expand(4, 4)}, 1e-12)
    assert torch.autograd.grad(values.sum(), near)[0].isfinite().all()


@pytest.mark.usefixtures("as_captured")
def test_radial_functions_are_those_of_the_buffers():
    """Which a state dict, a conversion or MACE's fine-tuning may change."""
    distance = torch.rand(7, 1).mul(4).requires_grad_()
    pair = [radial(fast).float().double() for fast in (True, False)]
    assert_agree(*[{"": functions(each, distance)} for each in pair], 1e-12)
    other = modules.RadialEmbeddingBlock(2.0, 4, 7).state_dict()
    for each in pair:
        each.load_state_dict(other, strict=True)
    assert_agree(*[{"": functions(each, distance)} for each in pair], 1e-12)
    for each in pair:
        each.bessel_fn.bessel_weights = torch.nn.Parameter(1.1 * each.bessel_fn.bessel_weights, requires_grad=False)
    assert_agree(*[{"": functions(each, distance)} for each in pair], 1e-12)
    for each in pair:
        each.requires_grad_(True)
    assert_agree(*[loss_gradients(each, functions(each, distance).square().sum()) for each in pair], 1e-12)
    assert "weights are trained" in mace.report(mace.restore(pair[0])).left[""]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"radial_type": "gaussian"}, "GaussianBasis"),
        ({"distance_transform": "Agnesi"}, "AgnesiTransform"),
        ({"apply_cutoff": False}, "without the cutoff"),
    ],
    ids=str,
)
def test_other_radial_functions_are_left_and_named(options, why):
    fast = model()
    fast.radial_embedding = radial(False, **options)
    assert why in mace.report(mace.accelerate(fast)).left["radial_embedding"]
    assert type(fast.radial_embedding) is modules.RadialEmbeddingBlock


@pytest.mark.usefixtures("as_captured")
def test_radial_parts_are_few_operations(monkeypatch):
    """And none of them is for gradients that nobody has asked for."""
    monkeypatch.setattr(_mace_radial, "is_plain", lambda tensor: True)  # though operations are counted
    original, accelerated = model(), mace.accelerate(model())
    distance, basis = torch.rand(9, 1, requires_grad=True), torch.rand(9, 4, requires_grad=True)

    def both_ways(call, by):
        return operations(lambda: torch.autograd.grad(call().sum(), by)) - 2  # the sum and its gradient

    def counts(model):
        network = model.interactions[0].conv_tp_weights
        return [
            both_ways(lambda: functions(model.radial_embedding, distance), distance),
            both_ways(lambda: network(basis), basis),
        ]

    assert all(parameter.requires_grad for parameter in accelerated.interactions[0].conv_tp_weights.parameters())
    assert counts(accelerated) == [10 + 2, 6 + 5]
    assert all(count > 20 for count in counts(original))
