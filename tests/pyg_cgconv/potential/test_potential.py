import copy
import pickle

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from pyg_cgconv.nn import Gate
from pyg_cgconv.potential import Potential, RadiusGraph, cell_volumes

from .small_systems import CARBON, CUTOFF, HYDROGEN, OXYGEN, SHIFT, close, crystal, make, molecule


@pytest.fixture(scope="module")
def potential():
    return make().eval()


@pytest.fixture(params=[{}, {"parity": True}, {"products": True, "radial_species": True}], ids=str, scope="module")
def either(request):
    return make(**request.param).eval()


def moved(data, pos, **others):
    """The same atoms elsewhere, with a neighbour list of their own."""
    kept = {key: data[key] for key in ("z", "cell", "pbc") if key in data}
    return RadiusGraph(CUTOFF)(Data(pos=pos, **{**kept, **others}))


def proper_rotation():
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    return rotation * torch.linalg.det(rotation).sign()


# Symmetry


@pytest.mark.parametrize("inverted", [1, -1])
def test_rotation_and_inversion(either, inverted):
    data = molecule()
    rotation = inverted * proper_rotation()
    out, turned = either(data), either(moved(data, data.pos @ rotation.T))
    close(turned["energy"], out["energy"])
    close(turned["forces"], out["forces"] @ rotation.T)


def test_rotation_of_a_crystal(potential):
    data = crystal()
    rotation = proper_rotation()
    out = potential(data, compute_stress=True)
    turned = potential(moved(data, data.pos @ rotation.T, cell=data.cell @ rotation.T), compute_stress=True)
    close(turned["energy"], out["energy"])
    close(turned["forces"], out["forces"] @ rotation.T)
    close(turned["stress"], rotation @ out["stress"] @ rotation.T)


def test_translation(potential):
    data = molecule()
    out, elsewhere = potential(data), potential(moved(data, data.pos + torch.tensor([7.0, -3.0, 100.0])))
    close(elsewhere["energy"], out["energy"])
    close(elsewhere["forces"], out["forces"], atol=1e-10)
    close(out["forces"].sum(0), torch.zeros(3, dtype=torch.float64))


def test_permutation_of_atoms(potential):
    data, order = molecule(), torch.tensor([3, 0, 5, 1, 4, 2])
    out, permuted = potential(data), potential(moved(data, data.pos[order], z=data.z[order]))
    close(permuted["energy"], out["energy"])
    close(permuted["forces"], out["forces"][order])


def test_edges_in_any_order(potential):
    data = crystal()
    order = torch.randperm(data.edge_index.shape[1])
    shuffled = data.clone()
    shuffled.edge_index, shuffled.edge_shift = data.edge_index[:, order], data.edge_shift[order]
    out, expected = potential(shuffled, compute_stress=True), potential(data, compute_stress=True)
    for name in expected:
        close(out[name], expected[name])


@pytest.mark.parametrize(
    "convert", [torch.Tensor.int, lambda edges: EdgeIndex(edges, sort_order="col", sparse_size=(6, 6))]
)
def test_kinds_of_edge_index(potential, convert):
    data = molecule()
    expected = potential(data)
    data.edge_index = convert(data.edge_index)
    for name, value in potential(data).items():
        close(value, expected[name])


def test_wrapping_atoms_into_the_cell(potential):
    data = crystal()
    lattice = torch.tensor([[2.0, -1, 0], [0, 0, 3], [1, 1, 1]], dtype=torch.float64) @ data.cell[0]
    out, wrapped = potential(data), potential(moved(data, data.pos + lattice))
    close(wrapped["energy"], out["energy"])
    close(wrapped["forces"], out["forces"], atol=1e-10)


def test_supercell(potential):
    data = crystal()
    shifts = torch.cartesian_prod(torch.arange(2.0), torch.arange(1.0), torch.arange(3.0)).double()
    pos = (data.pos[None] + (shifts @ data.cell[0])[:, None]).flatten(0, 1)
    cell = data.cell * torch.tensor([2.0, 1.0, 3.0]).double()[:, None]
    large = potential(moved(data, pos, cell=cell, z=data.z.repeat(6)), compute_stress=True)
    small = potential(data, compute_stress=True)
    close(large["energy"], 6 * small["energy"])
    close(large["forces"], small["forces"].repeat(6, 1))
    close(large["stress"], small["stress"])


# Derivatives


@pytest.mark.parametrize("data", [molecule(), crystal()], ids=["molecule", "crystal"])
def test_forces_are_finite_differences(either, data):
    forces, step = either(data)["forces"], 1e-4
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        energy = []
        for sign in (1, -1):
            pos = data.pos.clone()
            pos[atom, axis] += sign * step
            energy.append(either(moved(data, pos), compute_forces=False)["energy"].item())
        assert forces[atom, axis].item() == pytest.approx((energy[1] - energy[0]) / (2 * step), rel=1e-5, abs=1e-7)


def test_stress_is_a_finite_difference_of_strain(potential):
    data, step = crystal(), 1e-4
    stress, volume = potential(data, compute_stress=True)["stress"][0], torch.linalg.det(data.cell[0]).abs()
    for a, b in ((0, 0), (1, 1), (0, 1), (2, 1)):
        energy = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = moved(data, data.pos @ strain, cell=data.cell @ strain)
            energy.append(potential(strained, compute_forces=False)["energy"].item())
        expected = (energy[0] - energy[1]) / (2 * step) / volume
        assert stress[a, b].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-8)
    close(stress, stress.T)


def test_smooth_when_an_atom_crosses_the_cutoff(potential):
    """Energy, force and its slope along a line, on both sides of the cutoff: no jump larger than the step explains."""
    step = 1e-3
    distance = CUTOFF + step * torch.arange(-20, 21, dtype=torch.float64)
    pos = torch.zeros(len(distance), 3, 3, dtype=torch.float64)
    pos[:, 1, 1], pos[:, 2, 0] = 1.0, distance  # the third atom also stays beyond the reach of the second
    frames = [moved(Data(z=torch.tensor([OXYGEN, HYDROGEN, CARBON])), p) for p in pos]
    out = potential(Batch.from_data_list(frames))
    energy, force = out["energy"], out["forces"].view(-1, 3, 3)[:, 2, 0]
    assert (energy.diff().abs() < 1e-6).all()
    assert (force.diff().abs() < 1e-4).all()
    curvature = force.diff() / step
    assert (curvature.diff().abs() < 0.02).all()
    assert curvature[0].abs() > 1e-4
    assert (force[distance >= CUTOFF] == 0).all()


def test_force_loss_trains(potential):
    """The gradient of a loss on energies, forces and stress, by autograd and by finite differences of a weight."""
    data, step = crystal(), 1e-5
    target = torch.randn(3, 3, dtype=torch.float64)

    def loss():
        out = potential(data, compute_stress=True, create_graph=True)
        return (
            (out["forces"] - target).square().sum() + out["stress"].square().sum() + 1e-3 * out["energy"].square().sum()
        )

    gradients = torch.autograd.grad(loss(), list(potential.parameters()))
    for weight, gradient in zip(potential.parameters(), gradients, strict=True):
        entry = gradient.abs().argmax()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[entry] += sign * step
                values.append(loss().item())
                weight.view(-1)[entry] -= sign * step
        assert gradient.view(-1)[entry].item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-6
        )


@pytest.mark.parametrize("options", [{}, {"parity": True}, {"products": True}, {"radial_species": True}], ids=str)
def test_every_weight_is_trained(options):
    model = make(**options, layers=3).train()
    out = model(molecule())
    (out["forces"].square().sum() + out["energy"].sum()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any() or not weight.numel(), name


@pytest.mark.parametrize("options", [{"lmax": 3}, {"zbl": True}, {"products": True, "radial_species": True}], ids=str)
def test_weights_get_the_same_gradients_whether_positions_get_some(options):
    """Only where nobody differentiates by positions are the slopes of the edges' functions numbers."""
    model, found = make(**options).train(), []
    for asked in (False, True):
        data = Batch.from_data_list([crystal(0), crystal(1)])
        data.pos.requires_grad_(asked)
        out = model(data, compute_stress=True, compute_energies=True)
        loss = out["forces"].square().sum() + out["stress"].square().sum() + out["energies"].square().sum()
        found.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for direct, by_positions in zip(*found, strict=True):
        close(direct, by_positions, rtol=1e-10, atol=1e-10)


def test_hessian_through_the_positions(potential):
    data, step = molecule(n=3), 1e-5
    data.pos.requires_grad_()
    force = potential(data, create_graph=True)["forces"][0, 0]
    row = torch.autograd.grad(force, data.pos)[0]
    pos = data.pos.detach().clone()
    pos[1, 1] += step
    other = potential(moved(data, pos))["forces"][0, 0]
    assert row[1, 1].item() == pytest.approx((other - force).item() / step, rel=1e-3, abs=1e-5)


# Batches and special structures


def test_batch_is_one_at_a_time(potential):
    for singles in ([molecule(s, n) for s, n in ((0, 4), (1, 1), (2, 6))], [crystal(0), crystal(1)]):
        periodic = "cell" in singles[0]
        batch = potential(Batch.from_data_list(singles), compute_stress=periodic)
        alone = [potential(single, compute_stress=periodic) for single in singles]
        for name in batch:
            close(batch[name], torch.cat([out[name] for out in alone]))


def test_batch_vector_alone_is_enough(potential):
    batch = Batch.from_data_list([molecule(0, 4), molecule(1, 5)])
    bare = Data(z=batch.z, pos=batch.pos, edge_index=batch.edge_index, batch=batch.batch)
    close(potential(bare)["energy"], potential(batch)["energy"])


def test_isolated_atoms_have_their_shift(either):
    z = torch.tensor([OXYGEN, HYDROGEN, CARBON, HYDROGEN])
    out = either(RadiusGraph(CUTOFF)(Data(z=z, pos=100 * torch.eye(4, 3, dtype=torch.float64))))
    assert out["energy"].item() == SHIFT[OXYGEN] + 2 * SHIFT[HYDROGEN] + SHIFT[CARBON]
    assert (out["forces"] == 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_single_atom(training):
    single = make().train(training)
    out = single(RadiusGraph(CUTOFF)(Data(z=torch.tensor([HYDROGEN]), pos=torch.zeros(1, 3, dtype=torch.float64))))
    assert out["energy"].tolist() == [SHIFT[HYDROGEN]]
    assert out["forces"].tolist() == [[0.0, 0.0, 0.0]]


def test_coincident_atoms_give_numbers(potential):
    data = molecule()
    data.pos[1] = data.pos[0]
    assert all(value.isfinite().all() for value in potential(moved(data, data.pos)).values())


def test_longer_neighbour_lists_change_nothing(potential):
    data = crystal()
    longer = RadiusGraph(1.5 * CUTOFF)(data)
    assert longer.edge_index.shape[1] > data.edge_index.shape[1]
    expected = potential(data, compute_stress=True)
    for name, value in potential(longer, compute_stress=True).items():
        close(value, expected[name])


def test_a_cell_without_periodic_directions_is_a_molecule(potential):
    data = molecule()
    boxed = moved(
        data, data.pos, cell=torch.zeros(1, 3, 3, dtype=torch.float64), pbc=torch.zeros(1, 3, dtype=torch.bool)
    )
    close(potential(boxed)["forces"], potential(data)["forces"])


# Precision, modes, files


@pytest.mark.parametrize("derivatives", [True, False])
def test_energies_of_atoms_sum_to_those_of_structures(potential, derivatives):
    batch = Batch.from_data_list([molecule(), molecule(seed=1, n=4)])
    out = potential(batch, compute_forces=derivatives, compute_energies=True)
    assert (out["energies"].shape, out["energies"].dtype) == ((10,), torch.float64)
    close(torch.stack([part.sum() for part in out["energies"].split([6, 4])]), out["energy"])
    assert out["energies"].requires_grad != derivatives


def test_energy_is_summed_in_float64():
    single, double = make("float32").eval(), make("float64").eval()
    double.load_state_dict(single.state_dict())
    data = molecule()
    out, exact = single(data), double(data)
    assert out["energy"].dtype == torch.float64
    assert out["forces"].dtype == torch.float32
    assert abs(out["energy"].item() - exact["energy"].item()) < 1e-5  # of thousands of eV
    torch.testing.assert_close(out["forces"].double(), exact["forces"], rtol=1e-4, atol=1e-5)


def test_shift_stays_exact_when_the_model_is_cast(potential):
    cast = make(shift=-13.123456789012).float().double().half().double()
    assert cast.shift.tolist() == [-13.123456789012] * 3
    assert cast.dtype == torch.float64


def test_float32_positions_in_a_float32_model():
    data = molecule(dtype=torch.float32)
    out = make("float32").eval()(data)
    close(out["forces"].sum(0), torch.zeros(3), atol=1e-5)


def test_gradients_only_while_training(potential):
    data = molecule()
    assert not potential(data)["energy"].requires_grad
    assert potential(data, compute_forces=False)["energy"].requires_grad
    training = make().train()
    assert training(data)["forces"].requires_grad
    assert not training(data, create_graph=False)["forces"].requires_grad
    with torch.no_grad():
        assert not training(data)["forces"].requires_grad
        assert not training(data, compute_forces=False)["energy"].requires_grad


def test_forces_without_gradients_and_in_inference_mode(potential):
    data = crystal()
    expected = potential(data, compute_stress=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = potential(data.clone().apply(lambda t: t * 1), compute_stress=True)
        for name in expected:
            assert torch.equal(out[name], expected[name])


def test_backends_agree(potential):
    reference = make(backend="reference").eval()
    reference.load_state_dict(potential.state_dict())
    data = crystal()
    expected = reference(data, compute_stress=True)
    for name, value in potential(data, compute_stress=True).items():
        close(value, expected[name])


def test_the_reference_backend_has_no_kernels_of_gates():
    for backend in ("auto", "reference"):
        gates = [module for module in make(backend=backend, heads=("a", "b")).modules() if isinstance(module, Gate)]
        assert len(gates) > 2
        assert {gate.fused for gate in gates} == {backend == "auto"}


def test_saved_and_loaded(potential, tmp_path):
    potential.save(tmp_path / "potential.pt")
    loaded = Potential.load(tmp_path / "potential.pt")
    assert loaded.hyperparameters == potential.hyperparameters
    assert not loaded.training
    expected = potential(molecule())
    for name, value in loaded(molecule()).items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(potential, duplicate):
    assert torch.equal(duplicate(potential)(molecule())["forces"], potential(molecule())["forces"])


def test_devices_agree(potential, device):
    data = crystal()
    out = copy.deepcopy(potential).to(device)(data.clone().to(device), compute_stress=True)
    expected = potential(data, compute_stress=True)
    for name, value in out.items():
        assert value.device.type == device.type
        close(value.cpu(), expected[name])


def test_cell_volume_is_the_size_of_the_determinant():
    """Of left-handed lattice vectors, too."""
    cells = torch.randn(20, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    determinants = torch.linalg.det(cells)
    assert determinants.min() < 0 < determinants.max()
    torch.testing.assert_close(cell_volumes(cells), determinants.abs(), rtol=1e-12, atol=1e-12)
