"""A potential for more elements against the one that it is made of."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import Potential, RadiusGraph
from pyg_cgconv.potential import with_species

CUTOFF = 4.0


def molecule(numbers: list[int], seed: int = 0) -> Data:
    random = torch.Generator().manual_seed(seed)
    pos = 1.5 * torch.randn(len(numbers), 3, generator=random, dtype=torch.float64)
    return RadiusGraph(CUTOFF)(Data(z=torch.tensor(numbers), pos=pos))


@pytest.fixture(scope="module", params=[True, False], ids=["radial species", "plain"])
def potential(request) -> Potential:
    """Its weights by species are not of their first size, as of a trained one."""
    torch.manual_seed(0)
    made = Potential(
        ["O", "H"], CUTOFF, channels=4, lmax=1, layers=2, radial_hidden=(6,), products=True,
        radial_species=request.param, shift=[-2040.0, -13.0], scale=[2.0, 1.0], dtype="float64",
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= 0.7
    return made


def test_known_elements_keep_energies_and_forces(potential):
    batch = Batch.from_data_list([molecule([8, 1, 1]), molecule([1, 1, 8, 8, 1], seed=1)])
    expected, found = potential(batch), with_species(potential, ["C", 7], shift=[-1030.0, -1480.0])(batch)
    torch.testing.assert_close(found["energy"], expected["energy"], rtol=0, atol=1e-9)
    torch.testing.assert_close(found["forces"], expected["forces"], rtol=1e-9, atol=1e-9)
    assert expected["forces"].abs().max() > 1e-2


def test_new_elements_have_energies_of_their_own(potential):
    extended = with_species(potential, ["C", 7], shift=[-1030.0, -1480.0])
    alone = Data(z=torch.tensor([6]), pos=torch.zeros(1, 3, dtype=torch.float64))
    assert extended(RadiusGraph(CUTOFF)(alone), compute_forces=False)["energy"].item() == -1030.0
    learned = [
        extended(molecule([8, 1, number]))["energy"].item() - shift
        for number, shift in ((6, -1030.0), (7, -1480.0), (1, -13.0))
    ]
    assert len({round(energy, 6) for energy in learned}) == 3
    assert extended.hyperparameters["species"] == [8, 1, 6, 7]
    assert extended.scale.tolist() == [2.0, 1.0, 1.5, 1.5]


def test_weights_of_new_elements_have_the_size_of_those_of_known_ones(potential):
    torch.manual_seed(1)
    extended = with_species(potential, list(range(10, 60)))
    weight = extended.embedding.weights[0]
    assert weight[2:].square().mean().sqrt().item() == pytest.approx(weight[:2].square().mean().sqrt().item(), rel=0.2)
    for block in extended.blocks[1:]:
        for weight in block.self_connection.linear.weights:
            known, new = weight.unflatten(0, (52, -1)).split([2, 50])
            assert new.square().mean().sqrt().item() == pytest.approx(known.square().mean().sqrt().item(), rel=0.25)


def test_a_file_has_all_of_it(potential, tmp_path):
    extended = with_species(potential, ["C"])
    extended.save(tmp_path / "potential.pt")
    structure = molecule([8, 1, 6, 6])
    again = Potential.load(tmp_path / "potential.pt")
    assert again(structure)["energy"].item() == extended(structure)["energy"].item()


def test_an_element_that_is_known_already_is_named(potential):
    with pytest.raises(ValueError, match=r"species: expected different elements.*got \[8, 1, 1\]"):
        with_species(potential, ["H"])
