"""`--init`: what a fine-tuning starts from, and what it keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read, write
from torch_geometric.data import Data

from pyg_cgconv import ASECalculator, RadiusGraph
from pyg_cgconv.potential import with_species
from train.checkpoints import BEST, LAST
from train.cli import main, parse
from train.fine_tuning import LR
from train.frames import FramesOptions, read_splits
from train.freezing import names_of_frozen
from train.initial_energies import initial_energies
from train.trained import load_trained

from .conftest import plots_left_out
from .test_isolated_atoms import alloys, isolated
from .test_resume import PowerCut, assert_same_end, cut_after  # noqa: F401  # a fixture

pytestmark = [pytest.mark.usefixtures("no_plots"), pytest.mark.slow]

QUIET = "--device cpu --progress false --threads 1"
TINY = "--cutoff 4 --channels 4 --lmax 1 --layers 2 --radial_hidden [8] --products false --batch_size 4"


def written(path, images) -> str:
    write(path, images)
    return str(path)


def copper(count: int, seed: int, shift: float = 0.0, factor: float = 1.0) -> list[Atoms]:
    """Crystals of copper, with energies of another level of theory if ``shift`` is not 0."""
    made = [atoms for atoms in alloys(3 * count, seed) if set(atoms.symbols) == {"Cu"}]
    return [leveled(atoms, shift, factor) for atoms in made]


def leveled(atoms: Atoms, shift: float, factor: float = 1.0) -> Atoms:
    results = atoms.calc.results
    bound = results["energy"] + 1000.0 * sum(atoms.symbols == "Cu") + 500.0 * sum(atoms.symbols == "Al")
    results["energy"] += (factor - 1) * bound + shift * len(atoms)
    results["forces"] = factor * results["forces"]
    results["stress"] = factor * results["stress"]
    return atoms


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A potential of copper, trained on files in its folder."""
    folder = tmp_path_factory.mktemp("base")
    train = written(folder / "copper.xyz", copper(24, seed=0))
    with plots_left_out():
        command = (
            f"frames --train_file {train} --run_dir {folder / 'run'} --max_epochs 40 --warmup_steps 10 {TINY} {QUIET}"
        )
        main(command.split())
    return folder / "run"


def tuned(tmp_path, base, images, *options: str, epochs: int = 1, name: str = "tuned"):
    train = written(tmp_path / f"{name}.xyz", images)
    command = f"frames --train_file {train} --init {base} --run_dir {tmp_path / name} --max_epochs {epochs}"
    command += f" --warmup_steps 5 --batch_size 4 {QUIET}"
    return main([*command.split(), *options]), tmp_path / name


# === where it starts ===


@pytest.mark.parametrize("file", ["", "potential.pt", BEST])
def test_it_starts_from_the_weights(tmp_path, base, file):
    """With a rate of nearly nothing it ends where it began."""
    images = copper(8, seed=1)
    _, folder = tuned(tmp_path, base / file, images, "--lr", "1e-30", "--init_atom_energies", "potential")
    old, new = (ASECalculator(path / "potential.pt") for path in (base, folder))
    for atoms in images:
        assert new.get_potential_energy(atoms) == pytest.approx(old.get_potential_energy(atoms), abs=1e-5)
        np.testing.assert_allclose(new.get_forces(atoms), old.get_forces(atoms), atol=1e-5)


@pytest.mark.slow
def test_energies_of_another_level_of_theory_begin_where_they_are(tmp_path, base, capsys):
    """A shift for each atom is no error of the potential: bonds are what it knew."""
    shifted = [leveled(atoms, shift=-321.0) for atoms in copper(12, seed=1)]
    plain, _ = tuned(tmp_path, base, copper(12, seed=1), "--lr", "1e-30", name="plain")
    metrics, folder = tuned(tmp_path, base, shifted, "--lr", "1e-30")
    assert metrics["test"]["energy_mae_meV"] == pytest.approx(plain["test"]["energy_mae_meV"], abs=0.5)
    old, new = load_trained(base), load_trained(folder)
    assert (new.shift - old.shift).item() == pytest.approx(-321.0, abs=0.1)
    assert new.scale.tolist() == old.scale.tolist()
    assert "energies of atoms for these frames (eV): Cu -" in capsys.readouterr().out


@pytest.mark.slow
def test_given_and_isolated_energies_go_first(tmp_path, base):
    frames = [*copper(12, seed=1), isolated("Cu", -1000.25)]
    _, folder = tuned(tmp_path, base, frames)
    assert load_trained(folder).shift.tolist() == [-1000.25]
    _, folder = tuned(tmp_path, base, frames, "--atom_energies", "{Cu: -999.0}", name="given")
    assert load_trained(folder).shift.tolist() == [-999.0]
    _, folder = tuned(tmp_path, base, copper(12, seed=1), "--init_atom_energies", "potential", name="kept")
    assert load_trained(folder).shift.tolist() == load_trained(base).shift.tolist()


@pytest.mark.parametrize(("off", "warns"), [(0.0, False), (0.1, False), (3.0, True)])
def test_given_energies_that_do_not_fit_what_it_knows_of_bonds_are_noticed(base, off, warns):
    """Such as those of isolated atoms, for a potential whose energies of atoms were fitted."""
    potential, level, random = load_trained(base), -5.0, torch.Generator().manual_seed(0)
    frames = []
    for _ in range(3):
        pos = 2.5 * torch.eye(3, dtype=torch.float64) + torch.randn(3, 3, generator=random)
        frame = RadiusGraph(4.0)(Data(z=torch.full((3,), 29), pos=pos))
        frame.energy = potential(frame)["energy"] + 3 * level
        frames.append(frame)
    given = {"Cu": potential.shift.item() + level + off}
    shift, warning = initial_energies(potential, [29], [], frames, given)
    assert shift.tolist() == [given["Cu"]]
    assert ("lie -3.00 eV/atom from what the potential says" in warning) == warns == bool(warning)
    assert initial_energies(potential, [29], [], frames, {})[1] == ""


@pytest.mark.slow
def test_new_elements_are_learned(tmp_path, base, capsys):
    """Copper keeps what it was, aluminium gets an energy and weights; frames of copper alone may be left out."""
    metrics, folder = tuned(tmp_path, base, alloys(18, seed=2), epochs=15)
    printed = capsys.readouterr().out
    assert "which knows Cu" in printed
    assert "new elements: Al; their rows" in printed
    potential = load_trained(folder)
    assert potential.hyperparameters["species"] == [29, 13]
    assert potential.shift[1].item() == pytest.approx(-500.0, abs=10.0)
    assert potential.shift[0].item() == pytest.approx(-1000.0, abs=10.0)
    assert metrics["test"]["forces_mae_percent"] < 80


@pytest.mark.thorough
def test_it_is_better_than_a_start_at_random(tmp_path, base):
    """A softer level of theory, few frames: as many steps at the rates that each has by default."""
    few = copper(12, seed=3, shift=7.0, factor=0.9)
    metrics, _ = tuned(tmp_path, base, few, "--test_size", "4", epochs=5)
    train = tmp_path / "tuned.xyz"
    command = f"frames --train_file {train} --run_dir {tmp_path / 'fresh'} --max_epochs 5 --test_size 4"
    command += f" --warmup_steps 5 {TINY} {QUIET}"
    fresh = main(command.split())
    assert metrics["test"]["forces_mae_meV_per_A"] < 0.5 * fresh["test"]["forces_mae_meV_per_A"]


# === options ===


def test_options_of_the_model_are_those_of_the_potential(base, tmp_path):
    _, (_, model, fit, tuning, _), config = parse(["frames", "--train_file", "a.xyz", "--init", str(base)])
    assert (model.channels, model.layers, model.radial_hidden, model.radial_species) == (4, 2, (8,), True)
    assert fit.lr == LR
    assert tuning.init == base
    assert parse(["frames", "--train_file", "a.xyz", "--init", str(base), "--lr", "0.5"])[1][2].lr == 0.5
    (tmp_path / "config.yaml").write_text(config)
    assert yaml.safe_load(config)["channels"] == 4
    again = parse(["frames", "--config", str(tmp_path / "config.yaml")])
    assert again[1] == [*parse(["frames", "--train_file", "a.xyz", "--init", str(base)])[1]]


def test_a_model_that_contradicts_is_named(base):
    command = ["frames", "--train_file", "a.xyz", "--init", str(base)]
    with pytest.raises(ValueError, match=r"cutoff=5.0 \(it has 4.0\), channels=8 \(it has 4\): the potential of init="):
        parse([*command, "--channels", "8", "--cutoff", "5.0"])
    parse([*command, "--channels", "4"])


@pytest.mark.parametrize("preset", ["small", "large"])
def test_a_preset_gives_all_but_the_model(base, preset):
    command = ["frames", "--train_file", "a.xyz", "--preset", preset]
    plain, tuned = parse(command)[1], parse([*command, "--init", str(base)])[1]
    assert tuned[2] == replace(plain[2], lr=LR)
    assert tuned[1] != plain[1]


def test_what_is_no_potential_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="init='nowhere': no such file or folder"):
        main(["frames", "--train_file", "a.xyz", "--init", "nowhere"])
    (tmp_path / "a.pt").write_text("nothing")
    with pytest.raises(ValueError, match=r"init: .*is not a file that Potential.save wrote"):
        main(["frames", "--train_file", "a.xyz", "--init", str(tmp_path / "a.pt")])


@pytest.mark.parametrize(
    "option", [["--freeze", "[embedding]"], ["--freeze", "embedding"], ["--init_atom_energies", "potential"]]
)
def test_options_that_need_a_start_are_named(option):
    with pytest.raises(ValueError, match=r"init"):
        main(["frames", "--train_file", "a.xyz", *option])


# === frozen parameters ===


def test_frozen_parameters_stay_and_others_do_not(tmp_path, base):
    metrics, folder = tuned(tmp_path, base, copper(12, seed=4), "--freeze", "[embedding, 'blocks.0.*']", epochs=2)
    old, new = (dict(load_trained(path).named_parameters()) for path in (base, folder))
    frozen = {name for name in old if name.startswith(("embedding.", "blocks.0."))}
    assert {name for name in old if torch.equal(old[name], new[name])} == frozen
    assert metrics["parameters"] == sum(w.numel() for name, w in old.items() if name not in frozen)


def test_a_single_name_needs_no_brackets(base):
    command = ["frames", "--train_file", "a.xyz", "--init", str(base), "--freeze"]
    for given in ("blocks.0.*", "[blocks.0.*]"):
        (_, _, _, tuning, _), config = parse([*command, given])[1:]
        assert tuning.freeze == ["blocks.0.*"]
        assert yaml.safe_load(config)["freeze"] in ("blocks.0.*", ["blocks.0.*"])


@pytest.mark.parametrize(("frozen", "warns"), [("embedding", True), ("readout", False)])
def test_frozen_rows_of_new_elements_are_noticed(tmp_path, base, capsys, frozen, warns):
    tuned(tmp_path, base, alloys(12, seed=2), "--freeze", f"[{frozen}]")
    assert ("new elements are frozen and stay random, in embedding" in capsys.readouterr().out) == warns


def test_patterns_name_parameters_and_modules(base):
    potential = load_trained(base)
    names = [name for name, _ in potential.named_parameters()]
    for pattern, prefix in (("blocks.1", "blocks.1."), ("read*", "readout."), ("*.radial", ("blocks.0.radial",))):
        found = names_of_frozen(potential, [pattern])
        assert found
        assert set(found) >= {name for name in names if name.startswith(prefix)}
    assert names_of_frozen(potential, []) == []


def test_a_pattern_without_a_match_is_named(base):
    with pytest.raises(ValueError, match=r"freeze: 'embeding' names no parameter.*there are embedding, blocks\.0"):
        names_of_frozen(load_trained(base), ["embeding"])
    with pytest.raises(ValueError, match="freeze") as mistake:
        names_of_frozen(load_trained(base), ["embeding"])
    named = str(mistake.value).split("there are ")[1].split(", ")
    assert len(named) == len(set(named))
    with pytest.raises(ValueError, match=r"freeze=\['\*'\] names all parameters"):
        names_of_frozen(load_trained(base), ["*"])


# === going on ===


@pytest.mark.thorough
def test_an_interrupted_fine_tuning_goes_on_without_the_file_it_began_with(tmp_path, base, cut_after):  # noqa: F811
    start = tmp_path / "start.pt"
    start.write_bytes((base / "potential.pt").read_bytes())
    options = ("--freeze", "[embedding]", "--ema_decay", "0.5")
    _, whole = tuned(tmp_path, start, alloys(14, seed=5), *options, epochs=3, name="whole")
    cut_after(4)
    with pytest.raises(PowerCut):
        tuned(tmp_path, start, alloys(14, seed=5), *options, epochs=3, name="cut")
    assert (tmp_path / "cut" / LAST).exists()
    start.unlink()
    main(["frames", "--resume", str(tmp_path / "cut")])
    assert_same_end(tmp_path / "cut", whole)


@pytest.mark.thorough
def test_its_configuration_gives_the_same_potential(tmp_path, base):
    _, folder = tuned(tmp_path, base, alloys(10, seed=6), "--freeze", "[embedding]")
    main(["frames", "--config", str(folder / "config.yaml"), "--run_dir", str(tmp_path / "again")])
    one, other = load_trained(folder).state_dict(), load_trained(tmp_path / "again").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


# === old frames ===


def replayed(tmp_path, base, new, old, *options: str, epochs: int = 1, name: str = "replayed"):
    file = written(tmp_path / f"{name}-old.xyz", old)
    return tuned(tmp_path, base, new, "--replay_file", file, *options, epochs=epochs, name=name)


def test_old_frames_are_trained_on_by_weight_and_tested_alone(tmp_path, base):
    new, old = tmp_path / "new.xyz", tmp_path / "old.xyz"
    options = FramesOptions(
        written(new, alloys(20, seed=2)), replay_file=written(old, copper(10, seed=3)), replay_weight=0.25
    )
    splits = read_splits(options, 4.0)
    assert splits.sizes() == {"train": 16 + 8, "validation": 2 + 1, "test": 2, "replay": 1}
    for frame in (*splits.train, *splits.validation):
        assert frame.weight.unique().tolist() == [0.25 if frame.replayed else 1.0]
    places = {round(atoms.positions.sum(), 4) for atoms in read(old, ":")}
    for part, frames in splits.parts().items():
        for frame in frames:
            assert frame.replayed == (round(frame.pos.sum().item(), 4) in places), part
    assert sum(frame.replayed for frame in splits.train) == 8


def test_errors_of_old_frames_are_told_apart(tmp_path, base, capsys):
    """Those of the frames that ASE finds at their place."""
    metrics, folder = replayed(tmp_path, base, alloys(12, seed=2), copper(12, seed=0))
    assert "this potential, old frames" in capsys.readouterr().out
    options = FramesOptions(str(tmp_path / "replayed.xyz"), replay_file=str(tmp_path / "replayed-old.xyz"))
    splits, calculator = read_splits(options, 4.0), ASECalculator(folder / "potential.pt")
    parts = {"replay": splits.replay, "test": splits.test}
    parts["validation"] = [frame for frame in splits.validation if not frame.replayed]
    for part, frames in parts.items():
        errors = []
        for frame in frames:
            atoms = Atoms(frame.z.numpy(), frame.pos.numpy(), cell=frame.cell[0].numpy(), pbc=True)
            errors.append(calculator.get_forces(atoms) - frame.forces.numpy())
        mean = 1000 * np.abs(np.concatenate(errors)).mean()
        assert metrics[part]["forces_mae_meV_per_A"] == pytest.approx(mean, rel=1e-3)


@pytest.mark.thorough
def test_old_frames_are_remembered(tmp_path, base):
    """New frames of a much softer copper; the old ones hold the potential back."""
    new = copper(12, seed=3, factor=0.5)
    old = copper(24, seed=0)
    kept, _ = replayed(tmp_path, base, new, old, "--replay_weight", "3", epochs=8, name="kept")
    lost, _ = replayed(tmp_path, base, new, old, "--replay_weight", "1e-9", epochs=8, name="lost")
    assert kept["replay"]["forces_mae_meV_per_A"] < 0.7 * lost["replay"]["forces_mae_meV_per_A"]
    assert kept["test"]["forces_mae_meV_per_A"] > lost["test"]["forces_mae_meV_per_A"]


@pytest.mark.thorough
def test_old_frames_of_another_level_of_theory_are_noticed(tmp_path, base, capsys):
    """New ones alone tell the energies of atoms then."""
    replayed(tmp_path, base, copper(10, seed=3), copper(10, seed=0), name="same")
    assert "another level of theory" not in capsys.readouterr().out
    _, folder = replayed(tmp_path, base, copper(10, seed=3, shift=-50.0), copper(10, seed=0))
    assert (load_trained(folder).shift - load_trained(base).shift).item() == pytest.approx(-50.0, abs=0.2)
    assert "eV/atom from those of new ones, as of another level of theory" in capsys.readouterr().out


def test_a_number_of_old_frames(tmp_path):
    files = {"train_file": written(tmp_path / "new.xyz", copper(8, seed=1))}
    files["replay_file"] = written(tmp_path / "old.xyz", copper(12, seed=0))
    splits = read_splits(FramesOptions(**files, replay_size=6), 4.0)
    assert sum(frame.replayed for part in splits.parts().values() for frame in part) == 6
    with pytest.raises(ValueError, match="replay_size=40: replay_file has 12 frames"):
        read_splits(FramesOptions(**files, replay_size=40), 4.0)
    with pytest.raises(ValueError, match="replay_file: 2 frames, of which 2 are to be held out"):
        read_splits(FramesOptions(**files, replay_size=2), 4.0)
    with pytest.raises(ValueError, match="there are no old frames"):
        FramesOptions("a.xyz", replay_weight=0.1)


def test_energies_of_atoms_are_those_of_a_fit_by_hand(base):
    """Of copper; aluminium, of which no frame tells it apart, takes what copper, which is known, does not."""
    potential = with_species(load_trained(base), ["Al"])
    random = np.random.default_rng(0)
    frames = [
        RadiusGraph(4.0)(
            Data(
                z=torch.tensor([29, 29, 13]),
                pos=torch.from_numpy(random.normal(size=(3, 3)) + 2.5 * np.eye(3)),
                energy=torch.tensor([100.0 * number], dtype=torch.float64),
            )
        )
        for number in range(6)
    ]
    shift, warning = initial_energies(potential, [29, 13], [13], frames, {})
    left = [100.0 * n - potential(frame)["energy"].item() for n, frame in enumerate(frames)]
    assert warning == ""
    change = shift - potential.shift.numpy()
    assert 2 * change[0] + change[1] == pytest.approx(np.mean(left), rel=1e-6)
    assert abs(change[0]) < 1e-3 * abs(change[1])
    shift, _ = initial_energies(potential, [29, 13], [13], frames, {"Al": -500.0})
    assert shift[1] == -500.0
    assert 2 * (shift[0] - potential.shift[0].item()) - 500.0 == pytest.approx(np.mean(left), rel=1e-6)
    kept, _ = initial_energies(potential, [], [], frames, {})
    assert kept.tolist() == potential.shift.tolist()
