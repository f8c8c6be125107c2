"""What captured models ask before a graph serves a call, on a CPU: a replay computes what the function would."""

import logging
import threading
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from pyg_cgconv.integrations import _replay
from pyg_cgconv.integrations._captured import Captured
from pyg_cgconv.integrations._gradients import Backward, Differentiable, Turns


class Springs(nn.Module):
    """Energies of atoms on springs, of structures."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Sequential(nn.Linear(1, 1, bias=False))

    def forward(self, data):
        source, target = data["edges"]
        pairs = self.scale((data["positions"][source] - data["positions"][target]).square().sum(1, keepdim=True))
        energies = pairs.new_zeros(len(data["batch"])).index_add(0, target, pairs.squeeze(1))
        sums = energies.new_zeros(len(data["cell"])).index_add(0, data["batch"], energies)
        return {"energy": sums, "energies": energies}


class CapturedSprings(Captured, Springs):
    original = Springs
    by_edge: ClassVar = {"edges": 1, "images": 0}
    by_atom = "batch", "positions"
    by_structure = ("cell",)
    read = "positions", "edges", "cell"

    def longest_edge(self):
        return 1.0

    def structures(self, data):
        return len(data["cell"])

    @staticmethod
    def completed(data, count, cutoff):
        return data | {"edges": torch.where(torch.arange(data["edges"].shape[1]) < count, data["edges"], 0)}


class Emulated:
    """A graph that computes its function where it lies."""

    def __init__(self, run, results):
        self.run, self.results = run, results

    def replay(self):
        for name, value in self.run().items():
            self.results[name].copy_(value)


@pytest.fixture
def model(monkeypatch):
    def capture(replay, function, completed, tensors, rooms, parameters, by_atom):
        given = {name: replay._with_room(name, value, rooms, by_atom) for name, value in tensors.items()}
        counts = torch.zeros(2, dtype=torch.int64)
        captured = _replay._Captured(None, given, counts, {}, rooms, None)
        replay._fill(captured, tensors, replay._sizes(tensors, by_atom))
        weights = dict(made.named_parameters())  # as they lie, whatever the model has later

        def run():
            replaced = {name: value.detach() for name, value in weights.items()}
            data = completed(given, *counts)
            return torch.func.functional_call(plain, replaced, (data,))

        replay.captures += 1
        results = {name: torch.zeros_like(value) for name, value in run().items()}
        return captured._replace(graph=Emulated(run, results), results=results)

    monkeypatch.setattr(_replay.Replay, "_capture", capture)
    torch.manual_seed(0)
    plain = Springs()
    made = Springs()
    made.__class__ = CapturedSprings
    made.prepare()
    return made.eval()


def chain(atoms, structures=1):
    """Atoms in a row, all in the last structure."""
    number = torch.arange(atoms - 1)
    return {
        "edges": torch.stack([number, number + 1]),
        "images": torch.zeros(atoms - 1, 3),
        "positions": torch.rand(atoms, 3),
        "batch": torch.full((atoms,), structures - 1),
        "cell": torch.ones(structures, 3, 3),
    }


def assert_served(model, data):
    found, expected = model._captured(data, {}), Springs.forward(model, data)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach())


@pytest.mark.parametrize("structures", [1, 3, 4, 5])
def test_structures_without_atoms(model, structures):
    for atoms in (2, 3, 4):
        assert_served(model, chain(atoms, structures))


def test_another_module_in_the_place_of_one(model):
    assert_served(model, chain(4))
    model.scale[0] = nn.Linear(1, 1, bias=False)
    assert_served(model, chain(4))
    model.scale = nn.Sequential(nn.Linear(1, 1, bias=False))
    assert_served(model, chain(4))


def test_a_parameter_that_is_added(model):
    before = model._replay
    model.scale.register_parameter("other", nn.Parameter(torch.ones(1)))
    model._captured(chain(4), {})
    assert model._replay is not before


@pytest.mark.parametrize(("name", "what"), [("images", "edges"), ("positions", "atoms")])
def test_numbers_that_differ_are_refused(model, name, what):
    data = chain(6)
    with pytest.raises(ValueError, match=f"{name}: expected the {what} of (edges|batch), .*got"):
        model._captured(data | {name: data[name][:1]}, {})


def test_deterministic_algorithms_have_a_graph_of_their_own(model):
    model._captured(chain(4), {})
    torch.use_deterministic_algorithms(True)
    try:
        model._captured(chain(4), {})
    finally:
        torch.use_deterministic_algorithms(False)
    assert model._replay.captures == 2


@pytest.mark.parametrize("by_backend", [False, True])
def test_the_precision_of_matrix_products_has_a_graph_of_its_own(model, by_backend):
    model._captured(chain(4), {})
    if by_backend:
        torch.backends.cuda.matmul.allow_tf32 = True
    else:
        torch.set_float32_matmul_precision("high")
    try:
        model._captured(chain(4), {})
    finally:
        torch.set_float32_matmul_precision("highest")
    model._captured(chain(4), {})
    assert model._replay.captures == 2


def test_modules_in_another_mode_have_a_graph_of_their_own(model):
    model._captured(chain(4), {})
    model.scale.train()
    model._captured(chain(4), {})
    model.scale.eval()
    model._captured(chain(4), {})
    assert model._replay.captures == 2


def test_what_no_graph_knows_of_is_an_obstacle(model):
    data = chain(4)
    assert "on a CPU" in model._obstacle(data, {})
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in model._obstacle(data, {})
    with torch.autograd.forward_ad.dual_level():
        assert "transformed" in model._obstacle(data, {})
    seen = []
    make_fx(lambda positions: seen.append(model._obstacle(data | {"positions": positions}, {})))(data["positions"])
    assert "traced" in seen[0]
    hook = model.scale[0].register_forward_hook(lambda *_: None)
    assert "hooks" in model._obstacle(data, {})
    hook.remove()
    own = model.register_forward_hook(lambda *_: None)  # which is called with the results of a graph
    assert "on a CPU" in model._obstacle(data, {})
    own.remove()
    assert "replica" in model._replicate_for_data_parallel()._obstacle(data, {})
    data["cell"].requires_grad_()
    assert "cell" in model.train()._obstacle_to_training(data, model._trained())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_calls_that_torch_computes_again_run_as_usual(model, use_reentrant, monkeypatch, caplog):
    """Under torch.utils.checkpoint, where a graph would be asked for twice, and saves other tensors the second time."""
    monkeypatch.setattr(model, "_obstacle", lambda data, options: "")
    monkeypatch.setattr(model, "_captured", lambda *_: pytest.fail("a graph was asked for"))
    model.cuda_graphs = True
    data, leaf = chain(4), torch.ones(1, requires_grad=True)

    def energy(model, factor):
        return (factor * model(dict(data))["energy"]).sum()

    with caplog.at_level(logging.INFO, "pyg_cgconv.integrations"):
        if use_reentrant:
            with torch.no_grad():  # as its first call is
                energy(model.train(), leaf)
        else:
            checkpoint(energy, model.train(), leaf, use_reentrant=False).backward()
            found = model.scale[0].weight.grad.clone()
            model.zero_grad()
            plain = Springs()
            plain.load_state_dict(model.state_dict())
            energy(plain, leaf).backward()
            torch.testing.assert_close(found, plain.scale[0].weight.grad)
    assert ("gradients are off" if use_reentrant else "as in torch.utils.checkpoint") in caplog.text


def test_threads_take_turns(model, monkeypatch):
    """Two threads with their own data, whose numbers meet in the memory of one graph."""
    monkeypatch.setattr(model, "_obstacle", lambda data, options: "")
    model.cuda_graphs = True
    replay, wait = Emulated.replay, threading.Event()

    def slow(graph):
        wait.wait(0.02)
        replay(graph)

    monkeypatch.setattr(Emulated, "replay", slow)
    given = [chain(4) for _ in range(4)]
    found = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: model(given[n])})) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for number, data in enumerate(given):
        torch.testing.assert_close(found[number]["energy"], Springs.forward(model, data)["energy"].detach())


def test_parameters_that_change_before_the_backward_are_an_error():
    """The graph of the gradients would read the new ones."""
    weight = torch.ones(1, requires_grad=True)
    result, gradient = torch.ones(1), torch.zeros(1)

    class Nothing:
        def replay(self):
            pass

    def call():
        backward = Backward(Nothing(), ["energy"], [torch.zeros(1)], [gradient])
        return Differentiable.apply(Nothing(), [result], backward, Turns().begin(), weight)[0]

    call().backward()
    found = call()
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()
