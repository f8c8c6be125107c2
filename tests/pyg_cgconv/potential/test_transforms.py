"""Transforms of torch.func of the potential's energy, forces and stress, against its reference backend."""

import pytest
import torch
from torch.autograd import functional
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vmap

from pyg_cgconv.potential import Potential
from tests.pyg_cgconv.ops.test_transforms import assert_equal
from tests.pyg_cgconv.potential.small_systems import crystal, make, molecule

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def potentials():
    """The potential, and the same on the reference backend."""
    fused = make(products=True).eval()
    reference = Potential(**{**fused.hyperparameters, "backend": "reference"}).eval()
    reference.load_state_dict(fused.state_dict())
    return fused, reference


def at(data, pos, **others):
    """The same atoms and edges, elsewhere."""
    data = data.clone()
    data.pos = pos
    for name, value in others.items():
        data[name] = value
    return data


def energy(potential, data):
    return lambda pos: potential(at(data, pos), compute_forces=False)["energy"].sum()


def forces(potential, data):
    return lambda pos: potential(at(data, pos))["forces"]


def stress(potential, data):
    return lambda pos: potential(at(data, pos), compute_stress=True)["stress"]


def mapped(f):
    return lambda pos: vmap(f)(torch.stack([pos, 1.01 * pos]))


def change(pos):
    return torch.randn(pos.shape, generator=torch.Generator().manual_seed(0), dtype=pos.dtype)


def tangent(f):
    return lambda pos: jvp(f, (pos,), (change(pos),))[1]


@pytest.mark.parametrize("what", [energy, forces, stress], ids=lambda what: what.__name__)
@pytest.mark.parametrize(
    "transform",
    [tangent, jacrev, jacfwd, mapped, lambda f: mapped(jacrev(f))],
    ids=["jvp", "jacrev", "jacfwd", "vmap", "vmap of jacrev"],
)
def test_transforms(potentials, what, transform):
    data = crystal()
    assert_equal(*[transform(what(potential, data))(data.pos) for potential in potentials], tolerance=1e-10)


@pytest.mark.parametrize("what", [energy, forces, stress], ids=lambda what: what.__name__)
def test_linearized_it_has_the_tangent(potentials, what):
    """torch takes twice as long to linearize the reference."""
    data, (fused, reference) = crystal(), potentials
    found = linearize(what(fused, data), data.pos)[1](change(data.pos))
    assert_equal(found, tangent(what(reference, data))(data.pos), 1e-10)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_forces_have_tangents_whatever_the_mode(potentials, mode):
    data = molecule(n=4)
    expected = tangent(forces(potentials[1], data))(data.pos)
    with mode():
        assert_equal(tangent(forces(potentials[0], data))(data.pos), expected, 1e-10)


def test_all_ways_to_a_hessian_agree(potentials):
    data = molecule(n=4)
    potential, reference = potentials
    f, pos, size = energy(potential, data), data.pos, data.pos.numel()
    expected = hessian(energy(reference, data))(pos).reshape(size, size)

    leaf = pos.clone().requires_grad_()
    slope = -potential(at(data, leaf), create_graph=True)["forces"].flatten()
    row = lambda v: torch.autograd.grad(slope, leaf, v, retain_graph=True)[0]  # noqa: E731
    unit = torch.eye(size, dtype=pos.dtype)
    ways = [
        hessian(f)(pos),
        jacrev(jacrev(f))(pos),
        -jacrev(forces(potential, data))(pos),
        vmap(row)(unit),
        vmap(row, chunk_size=5)(unit),
        torch.autograd.grad(slope, leaf, unit, is_grads_batched=True, retain_graph=True)[0],
        torch.stack([row(v) for v in unit]),
        functional.hessian(f, pos, vectorize=True),
    ]
    for way in ways:
        assert_equal(way.reshape(size, size), expected, 1e-10)


def test_gradients_of_each_structure_by_the_parameters(potentials):
    data = molecule(n=4)

    def gradients(potential):
        def loss(parameters, pos):
            return functional_call(potential, parameters, (at(data, pos),))["forces"].square().sum()

        positions = torch.stack([data.pos, 1.01 * data.pos])
        return vmap(grad(loss), (None, 0))(dict(potential.named_parameters()), positions).values()

    assert_equal(*map(gradients, potentials), tolerance=1e-9)


def test_vmap_over_neighbour_lists_is_refused_by_name(potentials):
    data = molecule(n=4)
    with pytest.raises(ValueError, match=r"data\.edge_index: torch\.vmap over graphs has no kernel"):
        vmap(lambda edges: potentials[0](at(data, data.pos, edge_index=edges))["energy"])(data.edge_index[None])


@pytest.mark.parametrize("transform", [grad, lambda f: lambda x: vmap(grad(f))(x[None])[0]], ids=["grad", "vmap"])
def test_the_first_call_may_be_one_of_a_transform(transform):
    """What it computes once and keeps serves later calls."""
    potential, data = make(lmax=2, hidden_irreps="3x0e+3x1o+3x2e").eval(), molecule(n=4)
    first = transform(energy(potential, data))(data.pos)
    assert_equal(-first, potential(data)["forces"])
    assert all(p.grad is not None for p in trained(potential, data))


def trained(potential, data):
    potential.train()(data)["energy"].sum().backward()
    return [p for name, p in potential.named_parameters() if name.startswith("embedding")]


@pytest.mark.cuda
@pytest.mark.parametrize("what", [energy, forces], ids=lambda what: what.__name__)
@pytest.mark.parametrize("transform", [hessian, mapped, lambda f: lambda x: jvp(f, (x,), (change(x.cpu()).to(x),))[1]])
def test_transforms_on_a_gpu(what, transform):
    """With the kernels of linear maps, which have numbers of channels in fours."""
    potential = make(channels=4, products=True).eval()
    data = molecule(n=4)
    expected = transform(what(potential, data))(data.pos)
    assert_equal(transform(what(potential.cuda(), data.to("cuda")))(data.pos.cuda()), expected, 1e-10)
