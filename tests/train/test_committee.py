"""`python -m train frames --committee N` on copper by ASE's EMT."""

import json
import shutil

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Data

from pyg_cgconv import CommitteeCalculator, Potential
from train.checkpoints import LAST
from train.cli import main
from train.committee import CommitteeOptions, spread_and_error
from train.data import Splits, quantities_of
from train.frames import FramesOptions
from train.metrics import Labels
from train.module import PotentialModule

from .conftest import plots_left_out

TINY = (
    "--cutoff 3.5 --channels 4 --lmax 1 --layers 1 --radial_hidden [8] --batch_size 4 --max_epochs 2 --device cpu "
    "--progress false --threads 1 --lr 0.05"
)


pytestmark = pytest.mark.usefixtures("no_plots")


def copper(count: int) -> list[Atoms]:
    frames = []
    for seed in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    ase.io.write(folder / "train.xyz", copper(16))
    ase.io.write(folder / "test.xyz", copper(20)[16:])
    return f"--train_file {folder / 'train.xyz'} --test_file {folder / 'test.xyz'}"


def trained(files: str, folder, options: str = "") -> dict:
    return main(["frames", *files.split(), *TINY.split(), "--run_dir", str(folder), *options.split()])


@pytest.fixture(scope="module")
def committee(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("committee") / "run"
    with plots_left_out("run"):
        metrics = trained(files, folder, "--committee 2 --committee_frames shuffle --seed 5")
    return folder, metrics


def weights(folder) -> list[torch.Tensor]:
    return list(Potential.load(folder).state_dict().values())


def same(left, right) -> bool:
    return all(torch.equal(one, other) for one, other in zip(weights(left), weights(right), strict=True))


@pytest.mark.slow
def test_folder_has_the_members(committee):
    folder, metrics = committee
    own = {"config.yaml", "metrics.json", "log.txt", "parity.png", "report.html"}
    assert {path.name for path in folder.iterdir()} == {*own, "member-0", "member-1"}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert [member["seed"] for member in metrics["members"]] == [5, 6]
    for number in range(2):
        own = json.loads((folder / f"member-{number}" / "metrics.json").read_text())
        assert metrics["members"][number]["test"] == own["test"]
    assert not same(folder / "member-0", folder / "member-1")


def test_errors_are_those_of_the_mean(committee):
    """By ASE's calculator, on the test frames as the file has them."""
    folder, metrics = committee
    calculator = CommitteeCalculator([folder / "member-0", folder / "member-1"])
    frames = copper(20)[16:]
    error, spread = [], []
    for atoms in frames:
        error.append(calculator.get_forces(atoms) - atoms.get_forces())
        spread.append(calculator.results["forces_std"])
    assert metrics["test"]["forces_mae_meV_per_A"] == pytest.approx(1000 * np.abs(error).mean(), rel=1e-3)
    found = metrics["spread"]["forces_rms_spread_meV_per_A"]
    assert found == pytest.approx(1000 * np.sqrt(np.square(spread).mean()), rel=1e-3)
    assert metrics["spread"]["forces_rms_error_meV_per_A"] > found / 10


@pytest.mark.parametrize("part", ["test", "validation"])
def test_evaluate_knows_the_frames_of_a_member(committee, tmp_path, part):
    member = committee[0] / "member-1"
    found = main(["evaluate", str(member), "--part", part, "--run_dir", str(tmp_path / "errors"), "--device", "cpu"])
    expected = json.loads((member / "metrics.json").read_text())[part]
    assert found["errors"]["forces_mae_meV_per_A"] == pytest.approx(expected["forces_mae_meV_per_A"], rel=1e-3)


@pytest.mark.slow
def test_a_member_alone_is_that_of_the_committee(committee, files, tmp_path):
    folder, _ = committee
    trained(files, tmp_path / "alone", "--committee 2 --committee_frames shuffle --seed 5 --member 1")
    assert same(tmp_path / "alone", folder / "member-1")
    assert yaml.safe_load((tmp_path / "alone" / "config.yaml").read_text())["member"] == 1


@pytest.mark.slow
def test_on_the_same_frames_a_member_is_a_run_with_its_seed(files, tmp_path):
    trained(files, tmp_path / "member", "--committee 3 --member 2 --seed 4")
    trained(files, tmp_path / "single", "--seed 6")
    assert same(tmp_path / "member", tmp_path / "single")


@pytest.mark.slow
def test_a_stopped_committee_goes_on(committee, tmp_path):
    folder, metrics = committee
    stopped = tmp_path / "run"
    shutil.copytree(folder, stopped)
    shutil.rmtree(stopped / "member-1")
    (stopped / "metrics.json").unlink()
    resumed = main(["frames", "--resume", str(stopped)])
    assert same(stopped / "member-1", folder / "member-1")
    assert resumed["test"] == metrics["test"]


def test_whoever_stops_a_member_is_told_how_the_committee_goes_on(committee, tmp_path, monkeypatch, capfd):
    stopped = tmp_path / "run"
    shutil.copytree(committee[0], stopped)
    shutil.rmtree(stopped / "member-1")
    step, left = PotentialModule.training_step, [6]

    def terminated(*arguments):
        if not left[0]:
            raise SystemExit(143)
        left[0] -= 1
        return step(*arguments)

    monkeypatch.setattr(PotentialModule, "training_step", terminated)
    with pytest.raises(SystemExit):
        main(["frames", "--resume", str(stopped)])
    assert (stopped / "member-1" / LAST).exists()
    told = [line for line in capfd.readouterr().err.splitlines() if "--resume" in line]
    assert told == [f"stopped; go on with --resume {stopped}"]


@pytest.mark.slow
def test_a_committee_and_a_member_go_on_to_a_later_end(committee, tmp_path):
    folder, _ = committee
    shutil.copytree(folder, tmp_path / "run")
    shutil.copytree(folder / "member-1", tmp_path / "member")
    main(["frames", "--resume", str(tmp_path / "run"), "--max_epochs", "3"])
    main(["frames", "--resume", str(tmp_path / "member"), "--max_epochs", "3"])
    assert same(tmp_path / "run" / "member-1", tmp_path / "member")
    assert not same(tmp_path / "member", folder / "member-1")


# Frames of the members


def splits(train: int = 20, validation: int = 5) -> Splits:
    frames = [Data(z=torch.tensor([29]), number=number) for number in range(train + validation + 3)]
    return Splits("copper", frames[:train], frames[train : train + validation], frames[train + validation :])


def numbers(frames) -> list[int]:
    return [frame.number for frame in frames]


def members(committee_frames: str, whole: Splits, count: int = 3) -> list[Splits]:
    given = [CommitteeOptions(committee=count, committee_frames=committee_frames, member=i) for i in range(count)]
    return [options.frames_of_member(whole) for options in given]


def test_shuffles_divide_the_frames_anew():
    found = members("shuffle", splits())
    for part in found:
        assert sorted(numbers(part.train) + numbers(part.validation)) == list(range(25))
        assert (len(part.train), numbers(part.test)) == (20, [25, 26, 27])
    assert len({tuple(numbers(part.validation)) for part in found}) == 3
    assert [numbers(part.train) for part in members("shuffle", splits())] == [numbers(part.train) for part in found]


def test_bootstraps_draw_with_replacement():
    found = members("bootstrap", splits())
    for part in found:
        assert len(part.train) == 20
        assert 8 < len(set(numbers(part.train))) < 18  # 1 - 1/e of them
        assert set(numbers(part.train)) <= set(range(20))
        assert numbers(part.validation) == [20, 21, 22, 23, 24]
    assert len({tuple(numbers(part.train)) for part in found}) == 3


def test_the_same_frames_stay():
    whole = splits()
    assert all(part is whole for part in members("same", whole))


def test_draws_have_all_elements():
    whole = splits()
    whole.train[7].z = torch.tensor([79])
    for part in members("bootstrap", whole, 6):
        assert 7 in numbers(part.train)
    for part in members("shuffle", whole, 6):
        assert 7 in numbers(part.train)


@pytest.mark.parametrize("committee_frames", ["shuffle", "bootstrap"])
def test_labels_of_few_frames_are_trained_on_and_validated_by_all_members(committee_frames):
    whole = splits()
    for frame in (whole.train[3], whole.train[11], whole.validation[2]):
        frame.forces = torch.zeros(1, 3)
    for part in members(committee_frames, whole, 6):
        assert all(quantities_of(frames) == ("forces",) for frames in (part.train, part.validation))


def test_spread_that_ranks_as_the_error_has_rank_one():
    reference = Labels(np.zeros(1), np.zeros((4, 3)), np.array([4]))
    error = np.array([0.1, 0.4, 0.2, 0.3])
    predicted = Labels(np.zeros(1), error[:, None] * [0.6, 0.8, 0.0], np.array([4]))
    found = spread_and_error(predicted, reference, error**2)
    assert found["forces_rank_correlation"] == pytest.approx(1.0)
    assert found["forces_rms_error_meV_per_A"] == pytest.approx(1000 * np.sqrt(np.square(error).mean()))
    assert spread_and_error(predicted, reference, -error)["forces_rank_correlation"] == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"committee": 1}, "committee=1: expected 2 or more members"),
        ({"committee_frames": "bootstrap"}, "committee_frames='bootstrap': there is no committee"),
        ({"member": 0}, "member=0: .*below committee=0; give --committee"),
        ({"committee": 3, "member": 3}, "member=3: expected a number from 0 to below committee=3"),
        ({"committee": 2, "committee_frames": "shuffle", "val_file": "v.xyz"}, "committee_frames='shuffle' .*val_file"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FramesOptions("train.xyz", **options)


def test_several_devices_are_for_single_members(files, tmp_path):
    with pytest.raises(ValueError, match=r"committee=2 with devices=2 .*--member 0"):
        trained(files, tmp_path / "run", "--committee 2 --devices 2")
    assert not (tmp_path / "run").exists()
