"""`--preset auto`: what it takes, and that a run says and keeps it."""

import pytest
import yaml
from ase.build import bulk, molecule
from ase.io import write

from train.cli import parse
from train.preset_choice import Amount, amount_in, choose
from train.tasks import read_preset


@pytest.mark.parametrize(
    ("amount", "preset"),
    [
        (None, "small"),
        (Amount(frames=100, atoms=1900, elements=3), "small"),
        (Amount(frames=950, atoms=19_950, elements=3), "medium"),
        (Amount(frames=5000, atoms=300_000, elements=5), "medium"),
        (Amount(frames=5000, atoms=300_000, elements=5, more=True), "large"),
        (Amount(frames=5000, atoms=90_000, elements=5, more=True), "medium"),
        (Amount(frames=2000, atoms=40_000, elements=40), "large"),
    ],
)
def test_the_more_there_is_to_learn_the_larger(amount, preset):
    assert choose(amount)[0] == preset


def test_what_files_hold_is_counted(tmp_path, monkeypatch):
    files = [tmp_path / "a.xyz", tmp_path / "b.xyz", tmp_path / "missing.xyz"]
    write(files[0], [molecule("H2O"), molecule("CH4")])
    write(files[1], [bulk("NaCl", "rocksalt", a=5.6)] * 3)
    assert amount_in(files, None) == Amount(frames=5, atoms=14, elements=5)
    for limit, more in ((5, False), (4, True)):
        monkeypatch.setattr("train.preset_choice.FRAMES_LOOKED_AT", limit)
        assert amount_in(files, None).more is more
    assert amount_in(files, None).frames == 4


@pytest.mark.slow
def test_a_run_says_which_and_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.frames.amount_in", lambda *_: Amount(950, 19_950, 3))
    monkeypatch.setattr("train.options.RunOptions.accelerator", "gpu")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    _, (_, model, fit, *_), config = parse(["frames", "--train_file", "a.xyz", "--lr", "0.5"])
    medium = read_preset("frames", "medium")
    assert capsys.readouterr().out == "preset medium: 950 frames, 19950 atoms in them, of 3 elements, on a GPU\n"
    assert (model.channels, fit.max_epochs, fit.lr) == (medium["channels"], medium["max_epochs"], 0.5)
    assert yaml.safe_load(config)["preset"] == "medium"
    (tmp_path / "config.yaml").write_text(config)
    assert parse(["frames", "--config", str(tmp_path / "config.yaml")])[1][1:3] == [model, fit]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("given", [[], ["--preset", "auto"]])
def test_without_a_gpu_files_need_not_be_read(given, capsys):
    _, (_, model, *_), config = parse(["frames", "--train_file", "nowhere.xyz", "--device", "cpu", *given])
    assert model.channels == read_preset("frames", "small")["channels"]
    assert yaml.safe_load(config)["preset"] == "small"
    assert "preset small: there is no GPU" in capsys.readouterr().out


def test_a_name_beats_the_choice(capsys):
    assert yaml.safe_load(parse(["frames", "--train_file", "a.xyz", "--preset", "large"])[2])["preset"] == "large"
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "known"), [("frames", "auto, large, medium, small"), ("md17", "large, medium, small")]
)
def test_an_unknown_preset_is_named(task, known):
    required = ["--train_file", "a.xyz"] if task == "frames" else []
    with pytest.raises(ValueError, match=f"preset='huge': unknown for {task}, expected one of {known}"):
        parse([task, "--preset", "huge", *required])
