"""Prepared batches against the batches themselves."""

import pytest
import torch
from torch_geometric.data import Batch

from pyg_cgconv.potential import prepared

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
