"""The table of models, with small models of the packages that are installed."""

import json
import subprocess
import sys

import pytest
import torch

from pyg_cgconv.benchmark import largest, model_rows, models, parts, timing
from pyg_cgconv.benchmark.__main__ import main
from pyg_cgconv.benchmark.measure import STEP
from pyg_cgconv.benchmark.model_rows import INFERENCE
from pyg_cgconv.benchmark.packages import COMPILED, GRAPHS, OURS, REFERENCE, load

CPU = torch.device("cpu")
SMALL = {
    "mace-medium": {"hidden_irreps": "2x0e+2x1o", "max_ell": 1, "correlation": 2, "radial_MLP": [4]},
    "nequip-m": {"l_max": 1, "num_features": [2, 2], "num_layers": 2, "radial_mlp_width": 4},
    "sevennet-l3i5": {"channel": 2, "lmax": 1, "num_convolution_layer": 2, "weight_nn_hidden_neurons": [4]},
}
NEEDS = {"mace": "mace", "nequip": "nequip", "sevennet": "sevenn"}
"""What Python imports of each package."""


@pytest.fixture(params=SMALL)
def name(request, monkeypatch):
    """The name of a model, which is small."""
    package = request.param.partition("-")[0]
    if package == "sevennet" and "nequip" in sys.modules:
        pytest.skip("SevenNet needs a process without NequIP: -k sevennet")
    pytest.importorskip(NEEDS[package], reason=f"{package} is not installed")
    own = type(load(package, torch.float32, CPU)).__module__
    monkeypatch.setitem(sys.modules[own].ARCHITECTURES, request.param, SMALL[request.param])
    monkeypatch.setattr(models, "TRAINED", [8, 10])
    return request.param


def package_of(name):
    return name.partition("-")[0]


def test_all_contenders_agree_or_say_why_they_did_not_run(name, tmp_path, capsys):
    before, file = torch.get_default_dtype(), tmp_path / "rows.json"
    options = ["--models", name, "--sizes", "10", "--seconds", "0", "--device", "cpu", "--dtype", "float64"]
    rows = main([*options, "--json", str(file)])
    printed = capsys.readouterr().out
    assert json.loads(file.read_text())["rows"] == rows
    assert torch.get_default_dtype() == before

    inference, step = ({row["peer"]: row for row in rows if row["structures"] == n} for n in (1, 2))
    assert list(inference) == list(step)
    assert {REFERENCE, OURS, "cuequivariance", "openequivariance"} <= set(inference)
    assert COMPILED not in inference
    for found, what, atoms in ((inference, INFERENCE, 10), (step, STEP, 18)):
        for row in found.values():
            assert (row["model"], row["package"], row["dtype"]) == (name, package_of(name), "float64")
            assert row["atoms"] == atoms
            assert ("missing" in row) != (what in row["ms"])
        assert found["openequivariance"]["missing"] == "openequivariance has no CPU kernels"
        for each in (REFERENCE, OURS):
            assert found[each]["us_per_atom"] == pytest.approx(1e3 * found[each]["ms"][what] / atoms)
            assert max(found[each]["error"].values()) < 1e-11
        assert found[REFERENCE]["ratio"] == 1
    assert set(step[OURS]["error"]) == {"energy", "forces", "gradients"}

    assert main(["--from-json", str(file)]) == rows
    assert capsys.readouterr().out == printed
    assert main(["--from-json", str(file), "--models", package_of(name)]) == rows


def test_where_the_time_goes(name):
    wanted = [REFERENCE, OURS]
    contenders = model_rows.Contenders(load(package_of(name), torch.float32, CPU), name, wanted)
    rows = contenders.rows([8], False, model_rows.Setting(seconds=0, profile=True))
    for row in rows:
        assert sum(row["parts"].values()) == pytest.approx(1)
        assert row["kernels_ms"] > 0
        assert row["error"]["forces"] < 1e-5
    assert "this project's kernels" not in rows[0]["parts"]
    assert rows[1]["parts"]["this project's kernels"] > 0


class Uncompiled(torch.nn.Module):
    """What torch.compile makes of a module, without the minutes that it takes."""

    def __init__(self, module, fullgraph):
        super().__init__()
        self._orig_mod = module

    def forward(self, data, training):
        assert training
        assert data["positions"].requires_grad
        return self._orig_mod(data, training=training)


def test_a_packages_own_compile_mode(name, monkeypatch):
    package = load(package_of(name), torch.float64, CPU)
    monkeypatch.setattr(torch, "compile", Uncompiled)
    if package_of(name) == "nequip":
        monkeypatch.setattr(sys.modules[type(package).__module__], "_program", lambda model, data, device: model)
    contenders = model_rows.Contenders(package, name, models.chosen_peers(package, [COMPILED]))
    rows = contenders.rows([8], False, model_rows.Setting(seconds=0, profile=False))
    (row,) = (row for row in rows if row["peer"] == COMPILED)
    if package_of(name) == "sevennet":
        assert row["missing"] == "SevenNet has no compile mode"
    else:
        assert row["ms"][INFERENCE] > 0
        assert max(row["error"].values()) < 1e-11


def test_another_models_results_are_refused(name, monkeypatch):
    package = load(package_of(name), torch.float32, CPU)

    def other(name, model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        return model

    monkeypatch.setattr(type(package), "peers", lambda self: {"other": other})
    contenders = model_rows.Contenders(package, name, [REFERENCE, "other"])
    _, row = contenders.rows([8], False, model_rows.Setting(seconds=0, profile=False))
    assert "differ from e3nn's by" in row["missing"]
    assert not row["ms"]


def test_graphs_on_a_cpu_are_missing_by_name():
    pytest.importorskip("mace", reason="mace is not installed")
    package = load("mace", torch.float32, CPU)
    with pytest.raises(RuntimeError, match="CUDA graphs need a GPU"):
        package.contenders()[GRAPHS]("mace-medium", torch.nn.Linear(1, 1))


def test_a_package_that_is_not_installed_is_named(monkeypatch, capsys):
    def missing(package, dtype, device):
        raise ImportError("mace-torch is not installed")

    monkeypatch.setattr(models, "load", missing)
    rows = main(["--models", "mace", "--device", "cpu"])
    assert [row["model"] for row in rows] == ["mace-large", "mace-medium"]
    assert {row["missing"] for row in rows} == {"mace-torch is not installed"}
    assert capsys.readouterr().out.count("did not run: mace-torch is not installed") == 2


def test_each_package_has_a_process(monkeypatch, tmp_path):
    """One that ends early is named; the rows of the others are there."""
    commands = []

    def run(command):
        commands.append(command)
        rows = [{"model": "nequip-m", "package": "nequip", "peer": REFERENCE, "ms": {}, "missing": "why"}]
        ok = "nequip-m" in command
        if ok:
            with open(command[-1], "w") as file:
                json.dump({"rows": rows}, file)
        return subprocess.CompletedProcess(command, 0 if ok else -11)

    monkeypatch.setattr(subprocess, "run", run)
    file = tmp_path / "rows.json"
    rows = main(["--models", "mace-large,nequip-m", "--device", "cpu", "--json", str(file)])
    assert [row["missing"] for row in rows] == ["its process ended with -11", "why"]
    assert json.loads(file.read_text())["rows"] == rows
    assert [command[command.index("--json") - 1 :][0] for command in commands] == ["cpu"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "mace-huge"], "mace-huge: expected some of mace, nequip, sevennet, mace-large"),
        (["--models", "mace", "--sizes", "64,7"], "64,7: expected positive even numbers of atoms"),
        (["--sizes", "64"], "--sizes: is of models and lists"),
        (["--models", "mace", "--problems", "mace-large"], "--models: has no --plot, --problems or --graphs"),
        (["--models", "mace", "--largest", "--device", "cpu"], "--largest: needs --device cuda, got cpu"),
    ],
)
def test_mistakes_are_named(options, message, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("atoms", [8, 50, 64, 1000, 2 * 17])
def test_rock_salt_has_as_many_atoms(atoms):
    pytest.importorskip("ase", reason="ase is not installed")
    from ase.neighborlist import neighbor_list

    from pyg_cgconv.benchmark.structures import CUTOFF, NEIGHBORS, rock_salt

    crystal = rock_salt(atoms)
    assert sorted(crystal.numbers) == [11] * (atoms // 2) + [17] * (atoms // 2)
    assert len(neighbor_list("i", crystal, CUTOFF)) / atoms == pytest.approx(NEIGHBORS, rel=0.05)
    with pytest.raises(ValueError, match=f"atoms: expected a positive even number.*got {atoms + 1}"):
        rock_salt(atoms + 1)


@pytest.mark.parametrize("limit", [0, 1024, 3000, 50_000, 10**9])
def test_the_largest_size_is_found_to_a_thirtysecond(limit):
    found = largest.search(lambda atoms: atoms <= limit, largest.FIRST, largest.LAST)
    assert found % largest.UNIT == 0
    if limit < largest.FIRST:
        assert found == 0
    elif limit >= largest.LAST:
        assert found == largest.LAST
    else:
        assert found <= limit < found + max(largest.UNIT, found * largest.RESOLUTION) + largest.UNIT


def test_calls_are_timed_in_turns_without_those_that_run_out_of_memory():
    order = []

    def full():
        order.append("full")
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = timing.alternating({"a": lambda: order.append("a"), "full": full, "b": lambda: order.append("b")}, CPU, 0)
    assert list(found) == ["a", "b"]
    assert order == ["a", "full", "b", *["a", "b"] * (timing.LEAST_CALLS - 1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("contraction", "this project's kernels"),
        ("sm90_xmma_gemm_f32f32_f32f32_f32_nn_n", "matrix products"),
        ("void at::native::indexFuncLargeIndex<float>", "gather and scatter"),
        ("void at::native::vectorized_elementwise_kernel<4>", "element by element"),
        ("double_backward_A", "openequivariance"),
        ("void at::native::reduce_kernel<512>", "sums"),
        ("ampere_unknown", parts.OTHERS),
    ],
)
def test_kernels_are_grouped_by_their_names(name, expected):
    assert parts.group(name, on_gpu=True) == expected


@pytest.mark.thorough
def test_importing_the_benchmark_imports_no_package_of_models():
    script = """
import sys
import pyg_cgconv.benchmark, pyg_cgconv.benchmark.__main__
assert not {"mace", "nequip", "sevenn", "ase"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
