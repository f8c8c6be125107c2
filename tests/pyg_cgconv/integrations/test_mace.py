"""Models of MACE, accelerated, against themselves as they were."""

import copy
import logging
import pickle
from contextlib import nullcontext

import pytest
import torch

from tests.drop_ins import (
    TOLERANCES,
    as_captured,  # noqa: F401  (a fixture)
    assert_agree,
    assert_captured_training,
    default_dtype,
    filled,
    in_fresh_process,
    loss_gradients,
    own_rows,
)
from tests.lammps_data import LAMMPSData

pytest.importorskip("mace", reason="mace-torch is not installed")

from e3nn import o3
from e3nn.nn import FullyConnectedNet
from mace import data, modules, tools
from mace.calculators import MACECalculator
from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE
from mace.tools import torch_geometric
from mace.tools.scripts_utils import extract_config_mace_model
from torch.fx.experimental.proxy_tensor import make_fx
from torch.profiler import ProfilerActivity, profile

from pyg_cgconv.integrations import _mace_products, mace
from pyg_cgconv.integrations._mace_model import LookUps
from pyg_cgconv.ops import Groups
from tests.mace_models import USUAL, batch, float64, model, structure  # noqa: F401  (a fixture)

CONVOLUTIONS = ["interactions.0.conv_tp", "interactions.1.conv_tp"]
TRACED = {
    "spherical_harmonics",
    "node_embedding.linear",
    "readouts.0.linear",
    "readouts.1.linear_1",
    "readouts.1.linear_2",
}
"""Small maps in blocks that MACE traces by torch.fx before it compiles a model."""
MANY = tuple(range(1, 21))


@pytest.fixture(scope="module")
def original():
    return model()


def replaceable(model):
    """The names of the convolutions, symmetric contractions, linear maps, radial parts and spherical harmonics."""
    maps = o3.Linear, o3.FullyConnectedTensorProduct, FullyConnectedNet
    kinds = *maps, modules.SymmetricContraction, modules.RadialEmbeddingBlock, o3.SphericalHarmonics
    return {name for name, each in model.named_modules() if name.endswith("conv_tp") or type(each) in kinds}


@pytest.fixture
def accelerated(original):
    return mace.accelerate(copy.deepcopy(original))


def all_of(model, given, names=("energy", "forces", "stress", "hessian")):
    """Energy, forces, stress, Hessian, and a gradient of a loss on them."""
    results = model(given, training=True, compute_stress=True, compute_hessian="hessian" in names)
    results = {name: results[name] for name in names}
    loss = results["energy"].sum() + results["forces"].square().sum() + results["stress"].square().sum()
    return results | loss_gradients(model, loss)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "blocks",
    [
        USUAL,
        ("RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock"),
        ("RealAgnosticResidualNonLinearInteractionBlock", "RealAgnosticAttResidualInteractionBlock"),
    ],
    ids=lambda blocks: blocks[1],
)
def test_derivatives_agree(blocks, dtype):
    with default_dtype(dtype):
        original, given = model(*blocks), batch()
        fast = mace.accelerate(copy.deepcopy(original))
        assert set(mace.report(fast).replaced) == replaceable(original)
        assert_agree(all_of(fast, given), all_of(original, given), TOLERANCES[dtype])


@pytest.mark.usefixtures("as_captured")
def test_what_a_graph_has_agrees(original, accelerated):
    names = "energy", "forces", "stress"
    assert_agree(all_of(accelerated, batch(), names), all_of(original, batch(), names), 1e-12)


def test_the_layout_of_cuequivariance_around_it(original, tmp_path):
    """There features are ir_mul. MACE itself does not have such a model with the products of e3nn."""
    pytest.importorskip("cuequivariance_torch", reason="cuequivariance is not installed")
    from mace.cli.convert_e3nn_cueq import run

    whole = run(copy.deepcopy(original), device="cpu")
    config = modules.wrapper_ops.CuEquivarianceConfig(
        enabled=True,
        layout="ir_mul",
        group="O3_e3nn",
        optimize_linear=True,
        optimize_symmetric=True,
        optimize_fctp=True,
    )
    fast = mace.accelerate(type(whole)(**extract_config_mace_model(original) | {"cueq_config": config}))
    assert {name for name in mace.report(fast).replaced if name.endswith("conv_tp")} == set(CONVOLUTIONS)
    missing, _ = fast.load_state_dict(whole.state_dict(), strict=False)
    assert all(".conv_tp." in name for name in missing)
    torch.save(fast, tmp_path / "whole.model")
    expected = all_of(original, batch())
    names = "energy", "forces", "stress", "hessian"
    for each in (fast, torch.load(tmp_path / "whole.model", weights_only=False)):
        assert_agree(all_of(each, batch()), {name: expected[name] for name in names}, 1e-12)
    report = mace.report(whole)
    assert "ChannelWiseTensorProduct, not e3nn's" in report.left[CONVOLUTIONS[0]]


def test_an_atom_without_neighbours(original, accelerated):
    atoms = structure()[:1]
    atoms.pbc = False
    assert_agree(*[{"energy": each(batch(atoms))["energy"]} for each in (accelerated, original)], 1e-12)


def test_the_state_dict_stays(original, accelerated):
    assert list(accelerated.state_dict()) == list(original.state_dict())
    accelerated.load_state_dict(model().state_dict(), strict=True)
    copy.deepcopy(original).load_state_dict(accelerated.state_dict(), strict=True)


def test_restore_leaves_what_was(original, accelerated):
    def inside(model):
        changed = [model, *model.interactions, *(block.conv_tp for block in model.interactions)]
        return [(type(each), sorted(each.__dict__)) for each in changed]

    assert mace.restore(accelerated) is accelerated
    assert inside(accelerated) == inside(copy.deepcopy(original))
    assert mace.restore(accelerated) is accelerated
    assert not mace.report(accelerated).replaced


def test_accelerated_twice_is_accelerated_once(original, accelerated):
    assert mace.accelerate(accelerated) is accelerated
    assert set(mace.report(accelerated).replaced) == replaceable(original)


def test_a_copy_and_another_dtype_stay_fast(original, accelerated):
    other = copy.deepcopy(accelerated).float().double()
    assert set(mace.report(other).replaced) == replaceable(original)
    assert_agree(other(batch()), {"energy": original.float().double()(batch())["energy"]}, 1e-6)


def test_a_saved_model_works_in_another_process(accelerated, tmp_path):
    file = tmp_path / "whole.model"
    torch.save(accelerated, file)
    torch.save((batch(), accelerated(batch())["energy"].detach()), tmp_path / "expected.pt")
    script = """
import sys, torch
model = torch.load(sys.argv[1], weights_only=False)
given, energy = torch.load(sys.argv[2], weights_only=False)
assert abs(model(given)["energy"] - energy) < 1e-12
from pyg_cgconv.integrations import mace
from pyg_cgconv.integrations._mace_model import Model
assert len(mace.report(model).replaced) == 20
assert "torch_geometric" not in sys.modules
"""
    in_fresh_process(script, file, tmp_path / "expected.pt")


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_a_calculator_that_compiles_keeps_what_was_replaced(original, accelerated, mode):
    """It builds the model anew, from its configuration."""
    calculator = MACECalculator(models=accelerated, default_dtype="float64", compile_mode=mode)
    (compiled,) = calculator.models
    replaced = {name.removeprefix("_orig_mod.") for name in mace.report(compiled).replaced}
    assert replaceable(original) - replaced <= TRACED
    assert len(mace.report(mace.restore(compiled)).replaced) == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_calculators_agree(original, accelerated, compiled, monkeypatch):
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, mode, fullgraph: compile(model, backend="aot_eager"))
    results = []
    for each, mode in ((copy.deepcopy(original), None), (accelerated, "default" if compiled else None)):
        atoms = structure()
        atoms.calc = MACECalculator(models=each, default_dtype="float64", compile_mode=mode)
        results.append({"forces": torch.tensor(atoms.get_forces()), "stress": torch.tensor(atoms.get_stress())})
    assert_agree(results[1], results[0], 1e-12)


def test_lammps_with_ghost_atoms(original, accelerated):
    """By MACE's own wrapper for ML-IAP."""
    expected = original(batch())
    given = LAMMPSData(structure(), [6, 8], 3.0)
    LAMMPS_MLIAP_MACE(accelerated).compute_forces(given)
    assert given.exchanges == 1
    found = {"energy": torch.tensor([given.energy]), "forces": given.forces}
    assert_agree(found, {name: expected[name] for name in found}, 1e-12)


def test_a_model_of_another_class_is_accelerated():
    energies = model(kind=modules.MACE)
    expected = energies(batch())["energy"]
    assert_agree({"energy": mace.accelerate(energies)(batch())["energy"]}, {"energy": expected}, 1e-12)
    assert type(mace.restore(energies)) is modules.MACE


def test_torchscript_is_refused_by_what_to_do(accelerated):
    with pytest.raises(TypeError, match=r"torch\.export.*torch\.compile.*restore\(model\)"):
        torch.jit.script(accelerated)
    with pytest.raises(TypeError, match=r"torch\.export.*torch\.compile.*restore\(model\)"):
        torch.jit.script(accelerated.interactions[0].conv_tp)


def test_nothing_to_replace_is_an_error_that_names_what_was_looked_for():
    with pytest.raises(ValueError, match=r"nothing that can be replaced; looked for interaction blocks of MACE"):
        mace.accelerate(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got str"):
        mace.accelerate("medium")


def test_a_block_that_is_not_known_is_named(original):
    class Other(type(original.interactions[1])):
        pass

    fast = copy.deepcopy(original)
    fast.interactions[1].__class__ = Other
    report = mace.report(mace.accelerate(fast))
    assert replaceable(original) - set(report.replaced) == {"interactions.1.conv_tp"}
    assert "Other" in report.left["interactions.1.conv_tp"]
    assert_agree({"energy": fast(batch())["energy"]}, {"energy": original(batch())["energy"]}, 1e-12)


def test_the_log_says_what_was_replaced(original, caplog):
    with caplog.at_level(logging.INFO, "pyg_cgconv.integrations"):
        mace.accelerate(copy.deepcopy(original))
    assert (
        "20 modules replaced (2 TensorProduct, 10 Linear, 1 RadialEmbeddingBlock, 1 SphericalHarmonics, "
        "2 FullyConnectedNet, 2 FullyConnectedTensorProduct, 2 SymmetricContraction)" in caplog.text
    )


def test_importing_it_does_not_import_pyg():
    in_fresh_process("import sys, pyg_cgconv.integrations.mace; assert 'torch_geometric' not in sys.modules")


@pytest.mark.parametrize("atoms", [0, 5])
def test_what_fills_a_graph_up_counts_nothing(original, atoms):
    """For several structures with cells of their own, also under a strain."""
    configs = [structure(), structure() * (2, 1, 1), structure()[:3]]
    configs[2].set_cell([9.0, 8.0, 2.0])
    graphs = [
        data.AtomicData.from_config(data.config_from_atoms(each), z_table=tools.AtomicNumberTable([6, 8]), cutoff=3.0)
        for each in configs
    ]
    given = next(iter(torch_geometric.dataloader.DataLoader(graphs, batch_size=3))).to_dict()
    fast = mace.accelerate(copy.deepcopy(original))
    found, expected = (original(each, compute_stress=True) for each in (filled(fast, given, 57, atoms), given))
    assert len(found["energy"]) == 3 + bool(atoms)
    expected = {name: expected[name] for name in ("energy", "node_energy", "forces", "stress")}
    assert_agree(own_rows(found, expected), expected, 1e-12)


def test_calls_that_no_cuda_graph_serves_run_as_usual_and_say_why(original, caplog):
    fast = mace.accelerate(copy.deepcopy(original), cuda_graphs=True)
    with caplog.at_level(logging.INFO, "pyg_cgconv.integrations"):
        for options in ({}, dict(compute_hessian=True), dict(compute_force=False)):
            found, expected = (each(batch(), **options) for each in (fast, original))
            assert_agree({"energy": found["energy"]}, {"energy": expected["energy"]}, 1e-12)
    for reason in ("data are on a CPU", "compute_hessian is", "gradients may be asked of"):
        assert reason in caplog.text
    again = pickle.loads(pickle.dumps(fast))
    assert again.cuda_graphs
    assert not mace.accelerate(again).cuda_graphs
    assert "cuda_graphs" not in mace.restore(fast).__dict__


def test_cuda_graphs_of_what_is_no_model_are_refused(original):
    with pytest.raises(ValueError, match=r"cuda_graphs: ModuleList is none of MACE, ScaleShiftMACE"):
        mace.accelerate(copy.deepcopy(original.interactions), cuda_graphs=True)


INPUTS = "batch", "positions", "node_attrs", "edge_index", "shifts", "unit_shifts", "cell", "ptr", "head"


@pytest.mark.slow
def test_exported_programs_work_in_a_fresh_process(original, tmp_path):
    """With forces and stress, for other numbers of atoms and edges, where neither MACE nor PyG is imported."""
    fast = mace.accelerate(copy.deepcopy(original)).requires_grad_(False)

    def given(atoms):
        made = batch(atoms)
        return [made[name] for name in INPUTS]

    def derivatives(*values):
        data = dict(zip(INPUTS, values, strict=True))
        out = fast(data | {"positions": data["positions"].detach()}, compute_stress=True)
        return out["energy"], out["forces"], out["stress"]

    arguments = given(structure())
    atoms, edges = torch.export.Dim("atoms", min=3), torch.export.Dim("edges", min=3)
    varied = {"edge_index": {1: edges}, "shifts": {0: edges}, "unit_shifts": {0: edges}}
    varied |= {name: {0: atoms} for name in ("batch", "positions", "node_attrs")}
    graph = make_fx(derivatives, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
    program = torch.export.export(graph, tuple(arguments), dynamic_shapes=tuple(varied.get(name) for name in INPUTS))
    torch.export.save(program, tmp_path / "program.pt2")
    others = given(structure() * (2, 1, 1))
    torch.save((others, derivatives(*others)), tmp_path / "expected.pt")
    script = """
import sys, torch, pyg_cgconv
program, expected = sys.argv[1:]
arguments, right = torch.load(expected)
for found, wanted in zip(torch.export.load(program).module()(*arguments), right, strict=True):
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
assert not {"mace", "torch_geometric"}.intersection(sys.modules)
"""
    in_fresh_process(script, tmp_path / "program.pt2", tmp_path / "expected.pt")


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_cuda_graphs_agree(dtype):
    with default_dtype(dtype):
        original = model().cuda().requires_grad_(False)
        fast = mace.accelerate(copy.deepcopy(original), cuda_graphs=True)
        for scale, size in ((1.0, 1), (1.02, 1), (1.0, 2), (1.01, 1)):  # other edges, and other atoms
            atoms = structure() * (size, 1, 1)
            atoms.set_cell(atoms.cell * scale, scale_atoms=True)
            given = {name: value.cuda() if hasattr(value, "cuda") else value for name, value in batch(atoms).items()}
            for options in ({}, dict(compute_stress=True)):
                names = "energy", "forces", "stress"[: 6 * len(options)]
                found, expected = (each(dict(given), **options) for each in (fast, original))
                assert_agree(*[{name: r[name] for name in names if name} for r in (found, expected)], TOLERANCES[dtype])
        assert fast._replay.captures == 6  # with and without stress, for one size, for both, and again for one


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_trained_by_cuda_graphs(dtype):
    with default_dtype(dtype):
        original = model().cuda()
        fast = mace.accelerate(copy.deepcopy(original), cuda_graphs=True)
        wide = structure()
        wide.set_cell(wide.cell * 1.02, scale_atoms=True)
        batches = [
            {name: value.cuda() if hasattr(value, "cuda") else value for name, value in batch(atoms).items()}
            for atoms in (structure(), wide, structure() * (2, 1, 1))
        ]

        def evaluate(model, given):
            given = {name: value.detach() if hasattr(value, "detach") else value for name, value in given.items()}
            out = model(given, training=model.training, compute_stress=True)
            return out["energy"], torch.cat([out["forces"], out["stress"].view(-1, 3)])

        assert_captured_training(fast, original, evaluate, batches, 10 * TOLERANCES[dtype])


def adapted(model):
    """By MACE's LoRA, with weights as after a training, which begins with a B of zeros."""
    lora = pytest.importorskip("mace.modules.lora", reason="MACE has LoRA since 0.3.15")
    lora.inject_lora(model, rank=4, alpha=2.0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3, generator=generator)
    return model


@pytest.mark.parametrize("order", ["accelerated, then adapted", "adapted, then accelerated"])
@pytest.mark.parametrize(
    ("blocks", "captured"),
    [(USUAL, True), (("RealAgnosticDensityInteractionBlock", USUAL[1]), False)],
    ids=["as captured", "with the density"],
)
def test_lora_is_fast_and_agrees(blocks, captured, order, request):
    original = adapted(model(*blocks))
    calls = (mace.accelerate, adapted) if order.startswith("accelerated") else (adapted, mace.accelerate)
    fast = calls[1](calls[0](model(*blocks)))
    report = mace.report(fast)
    assert set(report.replaced) == replaceable(original)
    assert not report.left
    if captured:
        request.getfixturevalue("as_captured")
    names = ("energy", "forces", "stress", "hessian")[: 3 if captured else 4]
    expected = all_of(original, batch(), names)
    trained = {name for name, parameter in original.named_parameters() if parameter.requires_grad}
    assert trained == set(expected) - set(names)
    assert_agree(all_of(fast, batch(), names), expected, 1e-12)
    from mace.modules import lora

    assert_agree({"energy": lora.merge_lora_weights(fast)(batch())["energy"]}, {"energy": expected["energy"]}, 1e-12)
    assert set(mace.report(fast).replaced) == replaceable(model(*blocks))


def test_what_is_in_the_place_of_a_contraction_is_computed_and_named():
    """LoRA may come there, and others may ask it for what the contraction has."""
    original = model()

    class Doubled(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def __getattr__(self, name):
            return super().__getattr__(name) if name == "base" else getattr(self.base, name)

        def forward(self, *given):
            return 2 * self.base(*given)

    def doubled(whole):
        contractions = whole.products[0].symmetric_contractions.contractions
        contractions[0] = Doubled(contractions[0])
        return whole

    expected = all_of(doubled(copy.deepcopy(original)), batch())
    for fast in (
        doubled(mace.accelerate(copy.deepcopy(original))),
        mace.accelerate(doubled(copy.deepcopy(original))),
    ):
        fast = copy.deepcopy(fast).double()
        report = mace.report(fast)
        assert report.left == {"products.0.symmetric_contractions": "one of its contractions is Doubled"}
        assert_agree(all_of(fast, batch()), expected, 1e-12)
        contractions = fast.products[0].symmetric_contractions.contractions
        contractions[0] = contractions[0].base
        assert_agree(all_of(mace.accelerate(fast), batch()), all_of(original, batch()), 1e-12)
        assert set(mace.report(fast).replaced) == replaceable(original)


@pytest.mark.parametrize("blocks", [USUAL, (USUAL[1], "RealAgnosticDensityInteractionBlock")], ids=str)
def test_self_connections_of_many_elements_are_linear_maps(blocks, monkeypatch):
    original, given = model(*blocks, elements=MANY), batch(elements=MANY)
    monkeypatch.setattr(_mace_products, "pays", lambda *_: True)  # though there are fewer atoms than elements
    fast, found = mace.accelerate(copy.deepcopy(original)), []
    by_species = _mace_products.SkipConnection._by_species
    monkeypatch.setattr(
        _mace_products.SkipConnection, "_by_species", lambda *given: found.append(given) or by_species(*given)
    )
    assert {"interactions.0.skip_tp", "interactions.1.skip_tp"} <= set(mace.report(fast).replaced)
    assert_agree(all_of(fast, given), all_of(original, given), 1e-12)
    assert len({id(lookup) for _, _, lookup, _ in found}) == 1  # both blocks know the elements from one look
    empty = dict(given, node_attrs=torch.cat([torch.zeros(1, 20), given["node_attrs"][1:]]))
    assert_agree({"energy": fast(empty)["energy"]}, {"energy": original(empty)["energy"]}, 1e-12)
    others = given["node_attrs"].roll(1, dims=1).clone()
    given["node_attrs"].data.copy_(others)  # which torch does not count, as nobody counts what a graph is filled with
    assert_agree({"energy": fast(given)["energy"]}, {"energy": original(given)["energy"]}, 1e-12)
    mace.restore(fast)
    assert type(fast.interactions[1].skip_tp) is o3.FullyConnectedTensorProduct


def test_rows_are_looked_at_once_for_all_blocks(monkeypatch):
    """Of elements that do not change: not where groups are found anew, as in a CUDA graph after its warm-up."""
    looked_at, look = [], _mace_products._has_single_elements
    monkeypatch.setattr(_mace_products, "_has_single_elements", lambda y: looked_at.append(y) or look(y))
    monkeypatch.setattr(_mace_products, "pays", lambda *_: True)
    original, given = model(elements=MANY), batch(elements=MANY)
    fast = mace.accelerate(copy.deepcopy(original))
    for _ in range(2):
        fast(given)
    assert len(looked_at) == 1
    given["node_attrs"].data[0, :2] = 0.5  # which torch does not count
    assert_agree({"energy": fast(given)["energy"]}, {"energy": original(given)["energy"]}, 1e-12)
    assert len(looked_at) == 2
    monkeypatch.setattr(_mace_products, "sorted_groups", Groups.of)
    fast(given)
    assert len(looked_at) == 2 + 4


@pytest.mark.parametrize("attributes", ["mixed", "none", "half"])
def test_atoms_of_several_elements_or_of_none(original, accelerated, attributes, caplog):
    """MACE is linear in `node_attrs`; alchemical work has mixed ones, and gradients by them."""
    given = batch()
    rows = torch.eye(2)[torch.arange(len(given["node_attrs"])) % 2]
    rows[1] = torch.tensor({"mixed": [0.3, 0.7], "none": [0.0, 0.0], "half": [0.5, 0.0]}[attributes])
    results = []
    for each in (accelerated, original):
        leaf = rows.clone().requires_grad_()
        energy = each(dict(given, node_attrs=leaf))["energy"].sum()
        forces = each(dict(given, node_attrs=rows))["forces"]
        again = each(dict(given, node_attrs=leaf), compute_force=False)["interaction_energy"].sum()
        results.append({"energy": energy, "forces": forces, "gradient": torch.autograd.grad(again, leaf)[0]})
    assert_agree(*results, 1e-12)
    assert "computed by MACE itself" in caplog.text


@pytest.mark.parametrize("training", [False, True])
def test_look_ups_of_captured_models_have_no_sorts_in_gradients(training):
    """Values and gradients are those without it, and no operation adds numbers up by an index."""
    original = model()
    fast = mace.accelerate(copy.deepcopy(original))
    results = []
    for each, around in ((original, nullcontext()), (fast, LookUps())):
        with profile(activities=[ProfilerActivity.CPU]) as profiler, around:
            out = each(batch(), training=training, compute_stress=True)
            found = [out[name] for name in ("energy", "forces", "stress")]
            if training:
                loss = sum(value.square().sum() for value in found)
                found += torch.autograd.grad(loss, list(each.parameters()), allow_unused=True)
        results.append(found)
        names = {event.name for event in profiler.events()}
        assert ("aten::_index_put_impl_" in names) == (each is original)
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
