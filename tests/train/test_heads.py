"""Several levels of theory: from files to errors, energies of atoms and weights of each head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write
from torch_geometric.data import Batch

from pyg_cgconv import ASECalculator, Potential
from pyg_cgconv.potential import with_heads
from train.cli import main, parse
from train.committee import report
from train.data import Splits
from train.fine_tuning import with_heads_of
from train.frames import FramesOptions, read_splits
from train.freezing import names_of_frozen
from train.heads import levels_of, statistics_of
from train.metrics import MEV_PER_EV
from train.module import new_module
from train.padded_frames import PaddedFrames
from train.trained import ComputeOptions, ModelFiles

from .conftest import plots_left_out
from .test_isolated_atoms import CUTOFF, TINY, alloys, isolated

pytestmark = pytest.mark.usefixtures("no_plots")

SOFTER, SHIFT = 0.8, -3.0  # of the second level of theory: forces, and the energy of each atom in eV
EPOCHS = "--max_epochs 3 --warmup_steps 5 --lr 0.03"


def level(images: list[Atoms], factor: float = 1.0, shift: float = 0.0) -> list[Atoms]:
    for atoms in images:
        results = atoms.calc.results
        bound = results["energy"] + sum(1000.0 if symbol == "Cu" else 500.0 for symbol in atoms.symbols)
        results["energy"] += (factor - 1) * bound + shift * len(atoms)
        results |= {name: factor * results[name] for name in ("forces", "stress")}
    return images


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Files of each level, one of both with the names of the heads, and test files."""
    folder = tmp_path_factory.mktemp("files")
    images = {
        "pbe": [*alloys(10), isolated("Cu", -1000.1)],
        "r2scan": [*level(alloys(10, seed=1), SOFTER, SHIFT), isolated("Al", -503.1)],
        "test_pbe": alloys(4, seed=2),
        "test_r2scan": level(alloys(4, seed=3), SOFTER, SHIFT),
    }
    images["both"] = []
    for head in ("pbe", "r2scan"):
        for atoms in images[head]:
            images["both"].append(atoms.copy())
            images["both"][-1].calc, images["both"][-1].info["head"] = atoms.calc, head
    for name, frames in images.items():
        write(folder / f"{name}.xyz", frames)
    return {name: str(folder / f"{name}.xyz") for name in images}


def by_head(files, prefix="") -> dict[str, str]:
    return {head: files[prefix + head] for head in ("pbe", "r2scan")}


def table(files: dict) -> str:
    return "{" + ", ".join(f"{head}: {file}" for head, file in files.items()) + "}"


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads") / "run"
    with plots_left_out():
        command = ["frames", "--train_file", table(by_head(files)), "--test_file", table(by_head(files, "test_"))]
        return folder, main([*command, "--run_dir", str(folder), *TINY.split(), *EPOCHS.split()])


def test_a_training_has_a_head_for_each_level(trained):
    folder, metrics = trained
    potential = Potential.load(folder)
    assert potential.hyperparameters["heads"] == ["pbe", "r2scan"]
    assert metrics["test"]["heads"].keys() == {"pbe", "r2scan"}
    for errors, baseline in zip(metrics["test"]["heads"].values(), metrics["baseline"]["heads"].values(), strict=True):
        assert errors["frames"] == 4
        assert errors["forces_mae_meV_per_A"] > 0
        assert baseline["energy_mae_meV"] < 1000  # energies of atoms of each level, not of both


def test_errors_of_each_head_are_those_of_its_calculator(trained, files):
    folder, metrics = trained
    for head in ("pbe", "r2scan"):
        calculator, found = ASECalculator(folder, head=head), []
        for atoms in read(files[f"test_{head}"], ":"):
            expected = atoms.get_forces()
            found.append(np.abs(calculator.get_forces(atoms) - expected).mean())
        assert MEV_PER_EV * np.mean(found) == pytest.approx(
            metrics["test"]["heads"][head]["forces_mae_meV_per_A"], rel=1e-3
        )


def test_energies_of_atoms_and_scales_are_those_of_each_head(files):
    splits = read_splits(FramesOptions(by_head(files), val_size=2, test_size=2), CUTOFF)
    found = statistics_of(levels_of(splits, None))
    assert (found.species, found.heads) == ((13, 29), ("pbe", "r2scan"))
    assert (found.shift[0][1], found.shift[1][0]) == (-1000.1, -503.1)  # isolated atoms of their own levels
    for number, part in enumerate(splits.by_head()):
        forces = torch.cat([frame.forces for frame in part.train])
        assert found.scale[number] == pytest.approx(forces.square().mean().sqrt().item())
        assert len(part.validation) >= 1
    given = statistics_of(levels_of(splits, {"r2scan": {"Al": -1.0, "Cu": -2.0}}))
    assert given.shift == (found.shift[0], (-1.0, -2.0))


def test_lists_of_frames_are_divided_by_head_as_tables_are(files):
    splits = read_splits(FramesOptions(by_head(files)), CUTOFF)
    listed = Splits("lists", *map(list, (splits.train, splits.validation, splits.test)), heads=splits.heads)
    assert [part.sizes() for part in listed.by_head()] == [part.sizes() for part in splits.by_head()]


def test_a_head_without_energies_and_forces_has_the_scale_of_the_others(files):
    """A weight of 0 takes its labels away; another way is a head of charges alone."""
    weighed = read_splits(FramesOptions(by_head(files), head_weights={"pbe": 0.0}), CUTOFF)
    found = statistics_of(levels_of(weighed, None))
    forces = torch.cat([frame.forces for frame in weighed.by_head()[1].train])
    assert found.scale == pytest.approx((forces.square().mean().sqrt().item(),) * 2)
    assert np.isfinite(found.numbers()).all()


def test_a_committee_is_compared_with_the_energies_of_atoms_of_each_head(files, tmp_path, capsys):
    splits = read_splits(FramesOptions(by_head(files)), CUTOFF)
    for number in range(2):
        torch.manual_seed(number)
        (tmp_path / f"member-{number}").mkdir()
        potential = Potential([13, 29], CUTOFF, channels=2, layers=1, heads=splits.heads)
        potential.save(tmp_path / f"member-{number}" / "potential.pt")
    told = [{"folder": f"member-{n}", "seed": n, "seconds": 0.0, "epochs": 0, "test": {}} for n in range(2)]
    baseline, expected = report(tmp_path, splits, told, 4)["baseline"], []
    for part in splits.by_head():
        counts = [
            torch.stack([(frame.z == number).sum() for number in (13, 29)]).double()
            for frame in (*part.train, *part.test)
        ]
        energy = torch.cat([frame.energy for frame in part.train])
        fitted = torch.linalg.lstsq(torch.stack(counts[: len(energy)]), energy[:, None], driver="gelsd").solution
        tested = torch.cat([frame.energy for frame in part.test])
        expected.append(torch.stack(counts[len(energy) :]) @ fitted[:, 0] - tested)
    assert baseline["energy_mae_meV"] == pytest.approx(MEV_PER_EV * torch.cat(expected).abs().mean().item(), rel=1e-6)


def test_heads_may_be_named_by_the_frames(files):
    sizes = dict(val_size=2, test_size=3)
    splits = read_splits(FramesOptions(files["both"], heads=["r2scan", "pbe"], **sizes), CUTOFF)
    assert splits.heads == ("r2scan", "pbe")
    counts = [len(part.train) + len(part.validation) + len(part.test) for part in splits.by_head()]
    assert counts == [10, 10]
    assert [(len(part.validation), len(part.test)) for part in splits.by_head()] == [(2, 3)] * 2  # of each
    energies = [torch.cat([frame.energy / frame.num_nodes for frame in part.train]) for part in splits.by_head()]
    assert [atom.symbol for part in splits.by_head() for atom in part.isolated] == ["Al", "Cu"]
    assert not torch.isclose(energies[0].mean(), energies[1].mean(), atol=0.5)


def test_frames_that_name_heads_are_noticed(files):
    with pytest.warns(
        UserWarning, match=r"head: frames name pbe, r2scan, but all are learned as one .*--heads \[pbe,r2scan\]"
    ):
        read_splits(FramesOptions(files["both"]), CUTOFF)


def test_weights_of_heads(files):
    options = FramesOptions(by_head(files), head_weights={"r2scan": 0.25})
    for part, weight in zip(read_splits(options, CUTOFF).by_head(), (1.0, 0.25), strict=True):
        assert {number for frame in part.train for number in frame.weight[0].tolist()} == {weight}


def test_captured_steps_know_heads(files, fit, run, model):
    """The same losses as by batches of PyG."""
    splits = read_splits(FramesOptions(by_head(files)), CUTOFF)
    assert {int(frame.head) for frame in splits.train} == {0, 1}

    module = new_module(model, fit, statistics_of(levels_of(splits, None)), "float64", ("energy", "forces", "stress"))
    numbers = torch.tensor([0, 3, 7, 9, 11])
    frames = PaddedFrames(splits.train, CUTOFF, "cpu")
    plain = module(Batch.from_data_list([splits.train[number] for number in numbers]))
    padded = module(frames.batch(numbers, frames.size_of(numbers)))
    torch.testing.assert_close(padded["energy"][:5], plain["energy"], rtol=0, atol=1e-9)


# === commands ===


def run_command(command: str, *arguments) -> dict:
    return main([command, *map(str, arguments), "--device", "cpu"])


@pytest.mark.slow
def test_evaluate_repeats_the_errors_of_all_heads(trained, files, tmp_path):
    folder, metrics = trained
    found = run_command("evaluate", folder, "--run_dir", tmp_path / "all")["errors"]
    assert found["heads"] == metrics["test"]["heads"]
    alone = run_command("evaluate", folder, "--run_dir", tmp_path / "one", "--head", "r2scan")["errors"]
    expected = metrics["test"]["heads"]["r2scan"]
    numbers = {name: value for name, value in alone.items() if name != "species"}
    assert numbers == {name: pytest.approx(expected[name], rel=1e-5) for name in numbers}
    data = run_command("evaluate", folder, "--run_dir", tmp_path / "data", "--data", files["test_pbe"], "--head", "pbe")
    assert data["errors"]["energy_mae_meV"] == pytest.approx(
        metrics["test"]["heads"]["pbe"]["energy_mae_meV"], rel=1e-5
    )
    with pytest.raises(ValueError, match=r"frame 0 has head='Default', but the heads of the potential are pbe, r2scan"):
        run_command("evaluate", folder, "--run_dir", tmp_path / "none", "--data", files["test_pbe"])


def test_other_commands_take_a_head(trained, files, tmp_path, capsys):
    folder, _ = trained
    data = ["--data", files["test_pbe"]]
    for head in ("pbe", "r2scan"):
        run_command("predict", folder, *data, "--output", tmp_path / f"{head}.xyz", "--head", head)
        first, calculator = read(tmp_path / f"{head}.xyz", 0), ASECalculator(folder, head=head)
        assert first.get_potential_energy() == pytest.approx(calculator.get_potential_energy(first), abs=1e-4)
    capsys.readouterr()
    run_command("predict", folder, *data, "--output", tmp_path / "first.xyz")
    assert "head pbe, of pbe, r2scan: --head takes another one" in capsys.readouterr().out
    assert (tmp_path / "first.xyz").read_text() == (tmp_path / "pbe.xyz").read_text()
    main(["export", str(folder), "--output", str(tmp_path / "r2scan.pt"), "--head", "r2scan"])
    assert Potential.load(tmp_path / "r2scan.pt").hyperparameters["heads"] is None
    main(["export", str(folder), "--output", str(tmp_path / "all.pt")])
    assert Potential.load(tmp_path / "all.pt").metadata["heads"] == ["pbe", "r2scan"]
    with pytest.raises(ValueError, match="head='spice': the heads are pbe, r2scan"):
        run_command("predict", folder, *data, "--output", tmp_path / "x.xyz", "--head", "spice")


def test_members_of_a_committee_take_the_same_head(trained, tmp_path, capsys):
    """Whatever the order of their heads."""
    potential = Potential.load(trained[0] / "potential.pt")
    for name, heads in (("other", ["r2scan", "pbe"]), ("foreign", ["r2scan", "mine"])):
        with_heads(potential, heads).save(tmp_path / f"{name}.pt")
    compute = ComputeOptions(device="cpu")
    both, head = ModelFiles([trained[0], tmp_path / "other.pt"]).load_with_head(compute)
    assert head == "pbe"
    assert both[0].shift.tolist() == both[1].shift.tolist()
    assert capsys.readouterr().out == "head pbe, of pbe, r2scan: --head takes another one\n"
    with pytest.raises(ValueError, match="head='pbe': the heads are r2scan, mine"):
        ModelFiles([trained[0], tmp_path / "foreign.pt"]).load_with_head(compute)


def test_predictions_are_compared_with_labels_of_their_head(trained, files, tmp_path, capsys):
    folder, _ = trained
    data = ["--data", files["both"]]
    for head, given in (("pbe", []), ("r2scan", ["--head", "r2scan"])):
        found = run_command("predict", folder, *data, "--output", tmp_path / f"{head}.xyz", *given)["errors"]
        expected = run_command("evaluate", folder, *data, "--head", head, "--run_dir", tmp_path / head)["errors"]
        assert found["energy_mae_meV"] == pytest.approx(expected["energy_mae_meV"], rel=1e-5)
        assert "nothing is learned" not in capsys.readouterr().out


# === fine-tuning ===


def test_a_potential_becomes_one_of_other_heads(trained, files, tmp_path, capsys):
    """With a rate of nearly nothing each head is what it began as; a new level gets its energies of atoms."""
    folder, _ = trained
    write(tmp_path / "mine.xyz", level(alloys(8, seed=5), shift=7.0))
    options = "--max_epochs 1 --warmup_steps 1 --lr 1e-30 --batch_size 4 --device cpu --progress false --threads 1"
    command = ["frames", "--init", str(folder), *options.split(), "--init_head", "pbe"]
    train = table({"mine": tmp_path / "mine.xyz", "r2scan": files["r2scan"]})
    main([*command, "--train_file", train, "--run_dir", str(tmp_path / "two")])
    printed = capsys.readouterr().out
    assert "heads: mine starts as head pbe, r2scan starts as head r2scan" in printed
    assert "heads that are left out, as there are no frames of them: pbe" in printed
    old, new = Potential.load(folder), Potential.load(tmp_path / "two")
    for number, start in ((0, 0), (1, 1)):
        weights = [list(potential.readout[n].parameters()) for potential, n in ((old, start), (new, number))]
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*weights, strict=True))
    assert (new.shift[0] - old.shift[0]).mean().item() == pytest.approx(7.0, abs=1.0)


def test_heads_come_and_go(trained):
    potential = Potential.load(trained[0])
    alone, notes = with_heads_of(potential, None, "r2scan")
    assert alone.hyperparameters["heads"] is None
    assert alone.shift.tolist() == potential.shift[1].tolist()
    assert notes == ["  its head r2scan, of pbe, r2scan"]
    both, notes = with_heads_of(alone, ["a", "b"], None)
    assert both.shift.tolist() == [alone.shift.tolist()] * 2
    assert notes == ["  heads: a starts as it, b starts as it"]
    with pytest.raises(ValueError, match="init_head='spice': the potential of init has the heads pbe, r2scan"):
        with_heads_of(potential, ["a"], "spice")


def test_readouts_are_frozen_by_the_names_of_their_heads(trained):
    potential = Potential.load(trained[0])
    assert names_of_frozen(potential, ["readout.r2scan"]) == names_of_frozen(potential, ["readout.1"]) != []
    with pytest.raises(ValueError, match=r"'readout.spice' names no parameter.* readout\.pbe\.0, .*readout\.r2scan\.2"):
        names_of_frozen(potential, ["readout.spice"])


@pytest.mark.slow
def test_it_goes_on(trained, files):
    folder, before = trained
    after = main(["frames", "--resume", str(folder), "--max_epochs", "3"])
    assert after["test"] == before["test"]


# === mistakes ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(heads=["a", "a"]), r"heads=\['a', 'a'\]: expected different names"),
        (dict(heads=["pbe"]), "train_file: files of r2scan, but the heads are pbe"),
        (dict(test_file={"spice": "a.xyz"}), "test_file: files of spice, but the heads are pbe, r2scan"),
        (dict(replay_file="old.xyz"), "replay_file: with heads, old frames are those of a head"),
        (dict(head_weights={"spice": 1.0}), "head_weights: spice: the heads are pbe, r2scan"),
        (dict(head_weights={"pbe": -1.0}), "head_weights: pbe: -1.0, expected a number of 0 or more"),
    ],
)
def test_options_that_contradict_each_other_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FramesOptions({"pbe": "a.xyz", "r2scan": ["b.xyz"]}, **options)


@pytest.mark.slow
def test_frames_and_tables_without_their_head_are_named(files, tmp_path, fit):
    with pytest.raises(ValueError, match=r"pbe.xyz: frame 0 has head='Default', expected one of pbe, r2scan"):
        read_splits(FramesOptions(files["pbe"], heads=["pbe", "r2scan"]), CUTOFF)
    splits = read_splits(FramesOptions(by_head(files)), CUTOFF)
    with pytest.raises(ValueError, match="atom_energies: expected a table for each of the heads pbe, r2scan, got"):
        levels_of(splits, {"Al": -1.0})
    with pytest.raises(ValueError, match="atom_energies: expected one table, as there are no heads"):
        levels_of(replace(splits, heads=()), {"pbe": {"Al": -1.0}})
    write(tmp_path / "one.xyz", alloys(1))
    few = table({"pbe": files["pbe"], "r2scan": tmp_path / "one.xyz"})
    with pytest.raises(ValueError, match=r"train_file of head r2scan: 1 frames, of which 2 are to be held out"):
        main(["frames", "--train_file", few, "--run_dir", str(tmp_path / "run"), *TINY.split()])
    validation = table({"pbe": files["test_pbe"]})
    with pytest.raises(ValueError, match=r"val_file: no frame is of head r2scan.*some of each head, or leave val_file"):
        main(
            [
                "frames",
                "--train_file",
                table(by_head(files)),
                "--val_file",
                validation,
                "--run_dir",
                str(tmp_path / "run"),
                *TINY.split(),
            ]
        )
    with pytest.raises(ValueError, match="train_file: no frame is of head spice"):
        read_splits(FramesOptions(files["both"], heads=["pbe", "r2scan", "spice"]), CUTOFF)


def test_options_of_the_command_line(files):
    _, (data, *_), config = parse(
        ["frames", "--train_file", table(by_head(files)), "--atom_energies", "{pbe: {Al: -1.0}}"]
    )
    assert data.train_file == by_head(files)
    assert data.head_names == ("pbe", "r2scan")
    assert "r2scan:" in config
