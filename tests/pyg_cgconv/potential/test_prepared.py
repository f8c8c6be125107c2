"""Prepared batches against the batches themselves."""

import pytest
import torch
from torch_geometric.data import Batch

from pyg_cgconv.potential import Potential, prepared
from pyg_cgconv.potential._edge_functions import EdgeFunctions

from ...drop_ins import operations
from .small_systems import close, crystal, make, molecule


def gradients(potential, out):
    loss = sum(value.square().sum() for value in out.values() if value.isfinite().all())
    return torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(products=True, radial_species=True, zbl=True),
        dict(heads=("a", "b")),
        dict(properties=("energy", "charges", "dipole")),
        dict(species_count=12),
    ],
    ids=str,
)
@pytest.mark.parametrize("structures", [[molecule(0), molecule(1, 4)], [crystal(0), crystal(2)]], ids=["mol", "solid"])
@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
def test_values_and_derivatives_are_those_of_the_batch(options, structures, is_training):
    options = dict(options)
    if options.pop("species_count", 0):  # more than have one-hot rows
        options |= dict(shift=0.0, scale=1.0, species=range(1, 13))
    potential = make(**options).train(is_training)
    head = dict(head="b") if "heads" in options else {}
    batch = Batch.from_data_list(structures)
    asked = dict(compute_stress="cell" in batch, compute_energies=True)
    expected = potential(batch, **asked, **head)
    for forces in (True, False):
        found = potential(prepared(potential, batch, forces=forces, **head), **asked)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            close(found[name], value, equal_nan=True)  # the dipoles of periodic structures
        if is_training:
            for one, other in zip(gradients(potential, found), gradients(potential, expected), strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    close(one, other)
        expected = potential(batch, **asked, **head)


def test_it_serves_again_and_saves_operations():
    potential, batch = make().train(), molecule()
    ready = prepared(potential, batch)
    first, again = (potential(ready)["forces"] for _ in range(2))
    assert torch.equal(first, again)
    with torch.no_grad():
        for weight in potential.parameters():
            weight.mul_(1.1)
    close(potential(ready)["forces"], potential(batch)["forces"])
    assert not torch.allclose(potential(ready)["forces"], first)
    assert operations(lambda: potential(ready)) < operations(lambda: potential(batch)) - 30
    close(potential.atomic_outputs(ready), potential.atomic_outputs(batch))


def test_what_is_asked_of_it_too_late_is_refused():
    potential, data = make(heads=("a", "b")), molecule()
    with pytest.raises(ValueError, match=r"head: 'b', but the batch was prepared with 'a'"):
        potential(prepared(potential, data, head="a"), head="b")
    data.pos.requires_grad_()
    with pytest.raises(ValueError, match=r"data\.pos: asks for gradients"):
        prepared(potential, data)
    data = crystal()
    data.edge_shift.requires_grad_()
    with pytest.raises(ValueError, match=r"data\.edge_shift: asks for gradients"):
        prepared(potential, data)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dtype", lambda: make().float()),
        ("species", lambda: make(species=(1, 6, 9), shift=0.0, scale=1.0)),
        ("cutoff", lambda: Potential(**{**make().hyperparameters, "cutoff": 2.5})),
        ("cutoff_power", lambda: make(cutoff_power=4)),
        ("radial_species", lambda: make(radial_species=True)),
        ("heads", lambda: make(heads=("a", "b"))),
    ],
)
def test_potentials_that_read_a_batch_otherwise_are_refused(name, other):
    ready = prepared(make(), molecule())
    with pytest.raises(ValueError, match=rf"^data: prepared for a potential with {name}=.*; give it prepared\("):
        other()(ready)


def test_it_serves_a_copy_with_other_weights():
    potential, other, batch = make(), make(channels=3), molecule()
    close(other(prepared(potential, batch))["forces"], other(batch)["forces"])


@pytest.mark.parametrize("structure", [molecule, crystal])
def test_it_is_made_in_inference_mode(structure):
    potential, batch = make().train(), structure()
    with torch.inference_mode():
        ready = prepared(potential, structure())
    for _ in range(2):
        close(potential(ready)["forces"], potential(batch)["forces"])
        with torch.inference_mode():
            close(potential.eval()(ready)["forces"], potential(batch)["forces"])
        potential.train()


def test_it_is_made_without_autocast():
    potential, data = make(dtype="float32"), crystal()
    data.pos, data.cell, data.edge_shift = data.pos.float(), data.cell.float(), data.edge_shift.float()
    with torch.autocast("cpu", torch.bfloat16):
        ready = prepared(potential, data)
    torch.testing.assert_close(potential(ready)["forces"], potential(data)["forces"])


def test_what_was_made_is_not_made_again_in_training(monkeypatch):
    potential = make().train()
    ready, expected = prepared(potential, molecule()), potential(molecule())["forces"]
    potential.eval()(ready)  # which differentiates by the vectors
    potential.train()
    for name in ("__call__", "slopes"):
        monkeypatch.setattr(EdgeFunctions, name, lambda *arguments: pytest.fail("made again"))
    close(potential(ready)["forces"], expected)
