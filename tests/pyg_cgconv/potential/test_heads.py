"""Several heads on one body, against potentials without heads that have the same weights."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import Potential, RadiusGraph
from pyg_cgconv.potential import with_heads, with_species

CUTOFF = 4.0
SPECIES = ["O", "H"]
SHIFT = {"pbe": [-2040.0, -13.0], "r2scan": {"H": -14.0, "O": -2050.0}}


def make(**options) -> Potential:
    torch.manual_seed(0)
    size = dict(channels=4, lmax=1, layers=2, radial_hidden=(6,), dtype="float64")
    return Potential(SPECIES, CUTOFF, **{**size, **options})


def molecule(numbers: list[int], seed: int = 0, **labels) -> Data:
    random = torch.Generator().manual_seed(seed)
    pos = 1.5 * torch.randn(len(numbers), 3, generator=random, dtype=torch.float64)
    return RadiusGraph(CUTOFF)(Data(z=torch.tensor(numbers), pos=pos, **labels))


def batch(*heads: int) -> Batch:
    return Batch.from_data_list([molecule([8, 1, 1], n, head=torch.tensor([head])) for n, head in enumerate(heads)])


def close(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return make(heads=("pbe", "r2scan"), shift=SHIFT, scale=[2.0, [1.0, 3.0]]).eval()


def single(potential: Potential, number: int) -> Potential:
    """The head of that number, put together from the weights by hand."""
    alone = make(shift=potential.shift[number].tolist(), scale=potential.scale[number].tolist())
    weights = potential.state_dict()
    readout = f"readout.{number}."
    own = {name.replace(readout, "readout."): w for name, w in weights.items() if name.startswith(readout)}
    body = {name: w for name, w in weights.items() if not name.startswith(("readout.", "shift", "scale"))}
    alone.load_state_dict(own | body | {"shift": potential.shift[number], "scale": potential.scale[number]})
    return alone.eval()


def test_arguments_by_head(potential):
    assert potential.shift.tolist() == [[-2040.0, -13.0], [-2050.0, -14.0]]
    assert potential.scale.tolist() == [[2.0, 2.0], [1.0, 3.0]]
    assert make(heads=("a", "b"), shift={"O": 1.0, "H": 2.0}).shift.tolist() == [[1.0, 2.0]] * 2
    assert make(heads=("a", "b"), shift=[[1.0, 2.0], [3.0, 4.0]]).shift.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_each_structure_has_its_head(potential):
    data = batch(0, 1, 1)
    found = potential(data)
    for number in range(3):
        alone = single(potential, data.head[number].item())(data[number])
        close({"energy": found["energy"][number : number + 1]}, {"energy": alone["energy"]})
        close({"forces": found["forces"][data.batch == number]}, {"forces": alone["forces"]})
    assert (potential(batch(0, 0, 0))["forces"] - found["forces"])[data.batch > 0].abs().min() > 1e-6


def test_a_head_by_name_goes_before_that_of_the_data(potential):
    for number, head in enumerate(("pbe", "r2scan")):
        close(potential(batch(0, 1), head=head), potential(batch(number, number)))
        close(
            {"": potential.atomic_outputs(batch(0, 1), head=head)},
            {"": single(potential, number).atomic_outputs(batch(0, 1))},
        )


def test_without_a_word_it_is_the_first(potential):
    close(potential(molecule([8, 1, 1])), potential(molecule([8, 1, 1]), head="pbe"))


def test_with_head_is_that_head_without_the_others(potential):
    alone = potential.with_head("r2scan")
    close(alone(batch(0, 0)), single(potential, 1)(batch(0, 0)))
    assert alone.hyperparameters["heads"] is None
    assert alone.hyperparameters["shift"] == [-2050.0, -14.0]
    assert alone.state_dict().keys() == make().state_dict().keys()
    assert potential.with_head().hyperparameters["shift"] == [-2040.0, -13.0]


def test_losses_reach_the_own_readout_only(potential):
    made = make(heads=("pbe", "r2scan"))
    made(batch(1, 1), compute_forces=True)["forces"].square().sum().backward()
    of_readouts = [sum(p.grad.abs().sum().item() for p in readout.parameters()) for readout in made.readout]
    assert of_readouts[0] == 0
    assert of_readouts[1] > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.embedding.parameters())


def test_a_file_keeps_them(potential, tmp_path):
    potential.save(tmp_path / "heads.pt")
    loaded = Potential.load(tmp_path / "heads.pt")
    close(loaded(batch(0, 1)), potential(batch(0, 1)))
    assert loaded.hyperparameters == potential.hyperparameters


def test_new_heads_start_from_old_ones(potential):
    more = with_heads(potential, ["r2scan", "mine"])
    close(more(batch(0, 1), head="r2scan"), potential(batch(0, 1), head="r2scan"))
    close(more(batch(0, 1), head="mine"), potential(batch(0, 1), head="pbe"))
    named = with_heads(potential, {"mine": "r2scan"})
    close(named(batch(0, 0)), potential(batch(1, 1)))
    first = with_heads(make().eval(), ["a", "b"])
    close(first(batch(0, 1)), make().eval()(batch(0, 1)))
    readouts = [next(readout.parameters()) for readout in first.readout]
    assert readouts[0].data_ptr() != readouts[1].data_ptr()


def test_new_elements_with_heads(potential):
    extended = with_species(potential, ["C"], shift=-1030.0)
    close(extended(batch(0, 1)), potential(batch(0, 1)))
    assert extended.shift.tolist() == [[-2040.0, -13.0, -1030.0], [-2050.0, -14.0, -1030.0]]


def test_engines_take_a_head(potential, tmp_path):
    pytest.importorskip("ase")
    from ase import Atoms

    from pyg_cgconv import ASECalculator, CommitteeCalculator
    from pyg_cgconv.potential import LAMMPSPotential

    data = molecule([8, 1, 1])
    atoms = Atoms(data.z.tolist(), data.pos.numpy())
    potential.save(tmp_path / "heads.pt")
    for head, expected in (("r2scan", single(potential, 1)), ("pbe", single(potential, 0))):
        energy = expected(data)["energy"].item()
        atoms.calc = ASECalculator(tmp_path / "heads.pt", head=head)
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        atoms.calc = CommitteeCalculator([potential, potential], head=head)
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        assert LAMMPSPotential(potential, head=head).potential.shift.tolist() == expected.shift.tolist()


def test_the_first_head_is_taken_with_a_warning(potential):
    pytest.importorskip("ase")
    from pyg_cgconv import ASECalculator, CommitteeCalculator

    other = with_heads(potential, ["r2scan", "pbe"])
    said, shift = "head: none is given, so pbe is taken, the first of pbe, r2scan", single(potential, 0).shift.tolist()
    with pytest.warns(UserWarning, match=said) as warned:
        alone = ASECalculator(potential)
    assert [warning.filename for warning in warned] == [__file__]
    assert alone.potential.shift.tolist() == shift
    with pytest.warns(UserWarning, match=said) as warned:
        committee = CommitteeCalculator([potential, other])
    assert [warning.filename for warning in warned] == [__file__]
    assert [member.potential.shift.tolist() for member in committee.members] == [shift, shift]
    with pytest.raises(ValueError, match="head='pbe': the heads are r2scan, mine"):
        CommitteeCalculator([potential, with_heads(potential, ["r2scan", "mine"])], head="pbe")


def test_mistakes_are_named(potential):
    data = batch(0, 1)
    for wrong in (lambda: potential(data, head="pbesol"), lambda: potential.with_head("pbesol")):
        with pytest.raises(ValueError, match="head='pbesol': the heads are pbe, r2scan"):
            wrong()
    with pytest.raises(ValueError, match="head='pbe': this potential has no heads"):
        make()(data, head="pbe")
    data.head = torch.tensor([0, 2])
    with pytest.raises(
        ValueError, match=r"data.head: expected numbers from 0 to 1, of the heads \['pbe', 'r2scan'\], got \[0, 2\]"
    ):
        potential(data)
    for wrong in (torch.tensor([0]), torch.tensor([0.0, 1.0]), "pbe"):
        data.head = wrong
        with pytest.raises(ValueError, match=r"data.head: expected integers \(2,\), for each structure"):
            potential(data)
    for heads in ("pbe", (), ("a", "a"), (1, 2)):
        with pytest.raises(ValueError, match="heads: expected different names"):
            make(heads=heads)
    with pytest.raises(ValueError, match=r"shift: expected values for each of the 2 heads \['a', 'b'\]"):
        make(heads=("a", "b"), shift=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="shift of head 'b': expected a value for each of the species"):
        make(heads=("a", "b"), shift={"a": 0.0, "b": {"O": 1.0}})
    with pytest.raises(ValueError, match="head='spice': the heads are pbe, r2scan"):
        with_heads(potential, {"mine": "spice"})
