"""Interrupted dynamics go on: each file is that of a run that was not interrupted."""

import json
import signal
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.io.trajectory import Trajectory

from train.cli import main

from .conftest import start_of_dynamics
from .processes import forked, wait_for

FILES = ("log.csv", "trajectory.xyz")


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """With energies that are small beside kT."""
    return start_of_dynamics(tmp_path_factory.mktemp("md"), scale=2.0)


ENSEMBLES = {
    "nve": "--structure molecule.xyz --ensemble nve",
    "nvt": "--structure molecule.xyz --ensemble nvt",
    "isotropic": "--structure crystal.xyz --ensemble npt --pressure 1 --barostat_time 0.1",
    "anisotropic": "--structure crystal.xyz --ensemble npt --barostat anisotropic --barostat_time 0.1",
    "replicas": "--structure molecule.xyz --ensemble nvt --replicas 3",
}


def md(place, options: str, run_dir, **more) -> dict:
    words = options.replace("--structure ", f"--structure {place}/").split()
    return main(["md", str(place / "model.pt"), *words, "--run_dir", str(run_dir), *RECORD.split(), "--device", "cpu"])


RECORD = "--log_interval 2 --trajectory_interval 3 --temperature 600 --skin 0.05 --seed 3 --time 0.02"  # 40 steps
SUMMARY_DEPENDS_ON_TIME = ("seconds", "steps_per_second")


def interrupted(monkeypatch, after: int) -> None:
    """Makes the next run end in the middle of a step, with the state of some steps before on disk."""
    from train.md_state import StateWriter

    calls, write = [], StateWriter.__call__

    def call(self):
        calls.append(self.dynamics.nsteps)
        if self.dynamics.nsteps == after - 5:
            self.write()
        if self.dynamics.nsteps == after:
            raise KeyboardInterrupt
        if self.dynamics.nsteps == 0:
            write(self)

    monkeypatch.setattr(StateWriter, "__call__", call)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in FILES}


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_files_are_those_of_a_run_without_interruption(place, tmp_path, monkeypatch, capsys, ensemble):
    whole = md(place, ENSEMBLES[ensemble], tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted(patch, after=23)
        with pytest.raises(KeyboardInterrupt):
            md(place, ENSEMBLES[ensemble], tmp_path / "run")
    assert f"stopped; go on with python -m train md --resume {tmp_path / 'run'}" in capsys.readouterr().err
    before = contents(tmp_path / "run")
    resumed = main(["md", "--resume", str(tmp_path / "run")])
    expected = contents(tmp_path / "whole")
    assert expected.keys() == before.keys()
    assert all(len(before[name]) < len(expected[name]) for name in expected)
    assert contents(tmp_path / "run") == expected
    for name in whole.keys() - set(SUMMARY_DEPENDS_ON_TIME):
        assert resumed[name] == whole[name], name
    assert json.loads((tmp_path / "run" / "md.json").read_text()) == resumed
    assert resumed["seconds"] > 0


@pytest.mark.slow
def test_a_run_that_was_stopped_at_once_begins_again(place, tmp_path, monkeypatch):
    md(place, ENSEMBLES["nvt"], tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted(patch, after=3)
        with pytest.raises(KeyboardInterrupt):
            md(place, ENSEMBLES["nvt"], tmp_path / "run")
    main(["md", "--resume", str(tmp_path / "run")])
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_ended_goes_on_to_a_later_end(place, tmp_path):
    whole = md(place, ENSEMBLES["nvt"], tmp_path / "whole")
    main(["md", *_short(place, tmp_path / "run", "--time 0.01")])
    resumed = main(["md", "--resume", str(tmp_path / "run"), "--steps", "40"])
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert (resumed["steps"], resumed["temperature_mean_K"]) == (40, whole["temperature_mean_K"])


def _short(place, folder, *more) -> list[str]:
    words = ENSEMBLES["nvt"].replace("--structure ", f"--structure {place}/").split()
    start = [str(place / "model.pt"), *words, "--run_dir", str(folder), *RECORD.split(), "--device", "cpu"]
    return [*start, *" ".join(more).split()]


@pytest.mark.slow
def test_binary_trajectories_go_on(place, tmp_path, monkeypatch):
    options = ENSEMBLES["nve"] + " --trajectory traj"
    md(place, options, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted(patch, after=23)
        with pytest.raises(KeyboardInterrupt):
            md(place, options, tmp_path / "run")
    with Trajectory(tmp_path / "run" / "trajectory.traj") as there:
        assert len(there) == 8  # steps 0 to 21; the state is that of step 18
    main(["md", "--resume", str(tmp_path / "run")])
    whole, found = (ase.io.read(tmp_path / name / "trajectory.traj", ":") for name in ("whole", "run"))
    assert len(found) == len(whole) == 14
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.get_momenta(), other.get_momenta())
        assert one.info["time_ps"] == other.info["time_ps"]


@pytest.mark.slow
def test_what_was_written_before_a_kill_is_there(place, tmp_path):
    """Of a process that gets no chance to close a file."""
    words = _short(place, tmp_path / "run", "--time 1000")
    process = forked(" ".join(["md", *words]))
    trajectory = tmp_path / "run" / "trajectory.xyz"
    wait_for(trajectory, process, size=20_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    steps = len((tmp_path / "run" / "log.csv").read_text().splitlines()) - 1
    whole = trajectory.read_text().rsplit("5\nProperties", 1)[0]  # the last structure may be cut
    (tmp_path / "whole.xyz").write_text(whole)
    assert len(ase.io.read(tmp_path / "whole.xyz", ":")) > 10
    assert steps > 15
    main(["md", "--resume", str(tmp_path / "run"), "--steps", str(2 * steps + 100)])
    times = [atoms.info["time_ps"] for atoms in ase.io.read(trajectory, ":")]
    np.testing.assert_allclose(np.diff(times), 3 * 0.0005, rtol=1e-6)
    log = np.loadtxt(tmp_path / "run" / "log.csv", delimiter=",", skiprows=1)
    assert log[:, 0].tolist() == list(range(0, 2 * steps + 101, 2))


@pytest.fixture(scope="module")
def ended(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.md.energy_plot", lambda *_: None)
        md(place, ENSEMBLES["nvt"], folder)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--timestep 1", r"timestep=1.0 \(it was 0.5\): a resumed run keeps its options"),
        ("--ensemble nve", r"ensemble='nve' \(it was 'nvt'\)"),
        ("--steps 20", "steps: the end, 20 steps, lies before what the run has done, 40"),
        ("--structure other.xyz", "structure='other.xyz': a resumed run has its own"),
        ("--config other.yaml", "config='other.yaml': a resumed run has its own"),
    ],
)
def test_mistakes_are_named(ended, options, message):
    before = contents(ended)
    with pytest.raises(ValueError, match=message):
        main(["md", "--resume", str(ended), *options.split()])
    assert contents(ended) == before


def test_a_model_beside_is_refused(ended):
    with pytest.raises(ValueError, match=r"model='other\.pt': a resumed run has its own"):
        main(["md", "other.pt", "--resume", str(ended)])


def test_folders_without_a_run_are_named(tmp_path, ended):
    with pytest.raises(FileNotFoundError, match=r"there is no config\.yaml"):
        main(["md", "--resume", str(tmp_path)])
    (tmp_path / "config.yaml").write_bytes((ended / "config.yaml").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"there is no state\.npz"):
        main(["md", "--resume", str(tmp_path)])
    (tmp_path / "state.npz").write_bytes((ended / "state.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"state\.npz' cannot be read"):
        main(["md", "--resume", str(tmp_path)])


def test_nothing_in_a_state_is_executed(tmp_path, ended):
    """An array of objects is a pickle, which could run anything."""
    (tmp_path / "config.yaml").write_bytes((ended / "config.yaml").read_bytes())
    with open(tmp_path / "state.npz", "wb") as file:
        np.savez(file, step=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        main(["md", "--resume", str(tmp_path)])


def test_other_atoms_are_refused(place, tmp_path, ended):
    for name in ("config.yaml", "state.npz", "log.csv", "trajectory.xyz"):
        (tmp_path / name).write_bytes((ended / name).read_bytes())
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["structure"] = str(place / "crystal.xyz")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="holds other atoms than the run began with"):
        main(["md", "--resume", str(tmp_path)])
