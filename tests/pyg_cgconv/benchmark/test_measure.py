import time
from dataclasses import replace

import pytest
import torch

from pyg_cgconv.benchmark import graphs, peers, timing
from pyg_cgconv.benchmark.__main__ import line
from pyg_cgconv.benchmark.kind import Contender, Form
from pyg_cgconv.benchmark.measure import (
    ORDERS,
    Setting,
    arranged,
    check,
    floor,
    host_cost,
    limit,
    measure,
    random_inputs,
    reference,
    step,
)
from pyg_cgconv.benchmark.problems import kind_of

CPU = Setting(torch.device("cpu"), torch.float32, bandwidth=1e6, arithmetic=1e6, seconds=0, steps=False)
FORM = Form("mul_ir", torch.float32, torch.device("cpu"))


def test_a_peer_that_is_missing_is_named():
    row = measure(peers.PEERS["openequivariance"], "ir_mul", "nequip-water", "molecule", CPU)
    assert row["missing"] == "openequivariance has no CPU kernels"
    row |= {"problem": "nequip-water", "graph": "molecule", "peer": "openequivariance"}
    assert line(row).endswith("openequivariance has no CPU kernels")


def test_what_a_peer_asserts_is_the_reason_that_is_given():
    def make(kind, form):
        raise AssertionError("modes are mixed")

    assert measure(make, "ir_mul", "nequip-water", "molecule", CPU)["missing"] == "modes are mixed"


def test_a_contender_keeps_the_times_that_it_had_when_its_memory_ran_out():
    def make(kind, form):
        right = peers.ours(kind, form)

        def forgetful(x, y, w):
            out = right.run(x, y, w)
            if out.requires_grad:
                out.register_hook(out_of_memory)
            return out

        return Contender(forgetful, form.layout)

    def out_of_memory(_):
        raise torch.OutOfMemoryError("too large")

    row = measure(make, "ir_mul", "nequip-water", "molecule", CPU)
    assert set(row["ms"]) == {"forward"}
    assert row["missing"] == "out of memory"


def test_the_floor_counts_each_number_once():
    assert floor(6, 4, 8, 1.0) == (80, 128, 208)


def test_the_limit_is_the_slower_of_memory_and_arithmetic():
    slow_memory, slow_arithmetic = (
        measure(peers.ours, "ir_mul", "nequip-water", "molecule", replace(CPU, bandwidth=b, arithmetic=a))
        for b, a in ((1.0, 1e9), (1e9, 1.0))
    )
    for order in ORDERS:
        assert limit(slow_memory, order) == slow_memory["floor_ms"][order] > slow_memory["arithmetic_ms"][order]
        assert limit(slow_arithmetic, order) == slow_arithmetic["arithmetic_ms"][order]
    assert limit({"floor_ms": {"forward": 2.0}}, "forward") == 2.0, "a row of an older file"


@pytest.mark.parametrize("problem", ["nequip-water", "e3tools-conv", "tetris-poly-2", "linear-nequip", "square-nequip"])
@pytest.mark.parametrize("graph", ["molecule", "rows-1k"])
def test_a_wrong_result_is_not_timed(problem, graph):
    def make(kind, form):
        right = kind.e3nn(form)
        return Contender(lambda *inputs: right.run(*inputs) * 1.001)

    row = measure(make, "mul_ir", problem, graph, CPU)
    assert row["ms"] == {}
    assert "differs from the reference by 1.0e-03" in row["missing"]


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_a_result_in_the_other_layout_is_wrong(layout):
    kind = kind_of("nequip-water", graphs.build("molecule"))
    right = kind.ours(FORM._replace(layout=layout))
    inputs = random_inputs(kind, CPU)
    expected = reference(kind, inputs)
    assert check(right, kind, arranged(right, kind, inputs), expected) < 1e-6
    wrong = replace(right, layout="ir_mul" if layout == "mul_ir" else "mul_ir")
    with pytest.raises(RuntimeError, match="differs from the reference"):
        check(wrong, kind, arranged(right, kind, inputs), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("graph", ["molecule", "rows-1k"])
def test_a_step_is_the_same_by_every_contender(graph):
    kind = kind_of("nequip-water", graphs.build(graph))
    inputs = [t.requires_grad_() for t in random_inputs(kind, CPU)]
    ours, e3nn = (make(kind, FORM) for make in (peers.ours, peers.PEERS["e3nn"]))
    for gradient, expected in zip(step(ours.run, *inputs), step(e3nn.run, *inputs), strict=True):
        assert (gradient - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.thorough
def test_float64_is_measured_with_coefficients_of_float64(monkeypatch):
    monkeypatch.setitem(graphs.ROWS, "few rows", 20)
    before = torch.get_default_dtype()
    for make in (peers.ours, peers.PEERS["e3nn"]):
        row = measure(make, "mul_ir", "nequip-water", "few rows", replace(CPU, dtype=torch.float64))
        assert row["error"] < 1e-14
    assert torch.get_default_dtype() == before


@pytest.mark.cuda
def test_working_memory_leaves_out_inputs_and_results():
    numbers = torch.ones(2**20, device="cuda")
    assert timing.working_memory(lambda: numbers + 1) == 0
    assert timing.working_memory(lambda: [(numbers + 1).sum()]) == pytest.approx(4.2, abs=0.1)


@pytest.mark.cuda
def test_a_host_that_is_slow_to_launch_does_not_count():
    number = torch.ones(1, device="cuda")

    def slow():
        for _ in range(10):
            time.sleep(1e-3)
            number.add_(1)

    assert timing.milliseconds(slow, number.device, seconds=0) < 1


@pytest.mark.slow
def test_the_hosts_cost_grows_with_the_order():
    cost = host_cost(torch.device("cpu"), seconds=0)
    assert list(cost) == list(ORDERS)
    assert 1 < cost["forward"] < cost["backward"] < cost["double_backward"] < 1e5
