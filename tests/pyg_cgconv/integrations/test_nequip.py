"""Models of NequIP, accelerated, against themselves as they were."""

import copy
import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.drop_ins import (
    TOLERANCES,
    assert_agree,
    assert_captured_training,
    filled,
    hessian,
    in_fresh_process,
    loss_gradients,
    own_rows,
)
from tests.lammps_data import LAMMPSData

pytest.importorskip("nequip", reason="nequip is not installed")

from ase.build import bulk
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict, deregister_fields, from_ase, register_fields
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import NequIPGNNModel
from nequip.model.modify_utils import get_all_modifiers, modify
from nequip.scripts import compile
from nequip.utils.global_state import set_global_state

from pyg_cgconv.integrations import nequip
from pyg_cgconv.integrations._self_connection import SelfConnection

SMALL = {"l_max": 1, "num_features": 2}
"""Of models that are traced and compiled, which takes long."""
CONVOLUTIONS = [f"model.func.layer{n}_convnet.conv.tp_scatter" for n in (0, 1)]
CONNECTION = "model.func.layer1_convnet.conv.sc"
REPLACED = [*CONVOLUTIONS, CONNECTION]
SPECIES = ["C", "O"]


@pytest.fixture(scope="module", autouse=True)
def state():
    before = torch.get_default_dtype()
    set_global_state()
    yield
    torch.set_default_dtype(before)


def model(dtype=torch.float64, compile_mode="eager", types=SPECIES, **options):
    made = NequIPGNNModel(
        seed=1,
        model_dtype=str(dtype).removeprefix("torch."),
        type_names=types,
        r_max=3.0,
        num_bessels=4,
        polynomial_cutoff_p=6,
        num_layers=2,
        parity=True,
        radial_mlp_depth=1,
        radial_mlp_width=8,
        avg_num_neighbors=8.0,
        per_type_energy_shifts=dict.fromkeys(types, -1.0),
        compile_mode=compile_mode,
        **({"l_max": 2, "num_features": [6, 4, 2]} | options),
    )
    return made["sole_model"] if isinstance(made, torch.nn.ModuleDict) else made


def structure(seed):
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.numbers[::2] = 8
    return atoms


def frames(count=1):
    found = []
    for seed in range(count):
        frame = from_ase(structure(seed))
        for transform in (ChemicalSpeciesToAtomTypeMapper(SPECIES), NeighborListTransform(3.0)):
            frame = transform(frame)
        found.append(frame)
    return AtomicDataDict.batched_from_list(found)


@pytest.fixture(scope="module")
def original():
    return model()


@pytest.fixture
def accelerated(original):
    return nequip.accelerate(copy.deepcopy(original))


def all_of(model, given, with_hessian=True):
    """Energy, forces, stress, Hessian, and a gradient of a loss on them."""
    given = dict(given)
    given["pos"] = given["pos"].clone().requires_grad_()
    out = model.train()(given)
    results = {name: out[name] for name in ("total_energy", "forces", "stress")}
    loss = out["total_energy"].sum() + out["forces"].square().sum() + out["stress"].square().sum()
    if with_hessian:
        results["hessian"] = hessian(out["forces"], given["pos"])
    return results | loss_gradients(model, loss)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_derivatives_agree(dtype):
    """With another number of channels for each l, as NequIP's instructions are not sorted by their slots."""
    original = model(dtype)
    fast = nequip.accelerate(copy.deepcopy(original))
    assert list(nequip.report(fast).replaced) == REPLACED
    assert_agree(all_of(fast, frames(2)), all_of(original, frames(2)), TOLERANCES[dtype])


def calls_of_e3nn(monkeypatch):
    """Grows with each self-connection that e3nn computes."""
    calls, own = [], SelfConnection.original.forward
    monkeypatch.setattr(SelfConnection.original, "forward", lambda *given: calls.append(given[0]) or own(*given))
    return calls


@pytest.mark.parametrize("types", [1, 2, 9, 16, 17])
def test_self_connections_by_type(types, monkeypatch):
    """Of few types by one-hot rows, of more with the atoms of each type together; with as many as atoms by e3nn."""
    original = model(types=[*SPECIES, *chemical_symbols[20:50]][:types], learnable_shift=True)
    fast = nequip.accelerate(copy.deepcopy(original))
    assert len(nequip.report(fast).replaced) == 4  # with the first layer's
    given = frames(2)
    given["atom_types"] = torch.arange(16).flip(0) % min(types, 11)
    expected = all_of(original, given, with_hessian=False)
    calls = calls_of_e3nn(monkeypatch)
    assert_agree(all_of(fast, given, with_hessian=False), expected, 1e-12)
    assert bool(calls) == (types > 16)


def test_attributes_that_are_not_those_of_types_alone_are_left_and_named():
    """A table by a structure's field beside them, a table of another class, one with hooks; a block without a table."""
    total = {"field": "fidelity", "num_features": 2, "min": 0, "max": 1}
    register_fields(graph_fields=["fidelity"])
    try:
        original = model(categorical_graph_field_embed=[total])
        fast = nequip.accelerate(copy.deepcopy(original))
        assert "8 attributes of an atom are not those of its type, 6" in nequip.report(fast).left[CONNECTION]
        given = frames(2) | {"fidelity": torch.tensor([[0], [1]])}
        assert_agree(all_of(fast, given, False), all_of(original, given, False), 1e-12)
    finally:
        deregister_fields("fidelity")
    other = model()
    other.model.func.type_embed.embed_module.__class__ = type("Adapted", (torch.nn.Embedding,), {})
    assert "torch.nn.Embedding" in nequip.report(nequip.accelerate(other)).left[CONNECTION]
    hooked = model()
    hooked.model.func.type_embed.embed_module.register_forward_hook(lambda *_: None)
    assert "hooks" in nequip.report(nequip.accelerate(hooked)).left[CONNECTION]
    block = model().model.func.layer1_convnet
    assert "no NodeTypeEmbed" in nequip.report(nequip.accelerate(block)).left["conv.sc"]


@pytest.mark.parametrize("change", ["new", "in place", "hook on the table"])
def test_attributes_that_something_changes_later_are_noticed(original, change, caplog):
    def changed(module, given, data):
        if change == "new":
            data["node_attrs"] = data["node_attrs"] * torch.linspace(1, 2, 8)[:, None].double()
        else:
            with torch.no_grad():
                data["node_attrs"].mul_(torch.linspace(1, 2, 8)[:, None])
        return data

    fast, original = nequip.accelerate(copy.deepcopy(original)), copy.deepcopy(original)
    for each in (fast, original):
        embedding = each.model.func.type_embed
        if change == "hook on the table":
            embedding.embed_module.register_forward_hook(lambda *given: 2 * given[2])
        else:
            embedding.register_forward_hook(changed)
    assert_agree(*[{"forces": each(frames(1))["forces"]} for each in (fast, original)], 1e-12)
    assert "computed by e3nn: its attributes are not those" in caplog.text


def test_energies_in_inference_mode(caplog):
    """Where nothing can be noted of attributes."""
    original = model(do_derivatives=False)
    fast = nequip.accelerate(copy.deepcopy(original))
    with torch.inference_mode():
        assert_agree(*[{"energy": each(frames(2))["total_energy"]} for each in (fast, original)], 1e-12)
    assert "inference mode" in caplog.text


def test_an_atom_without_neighbours(original, accelerated):
    given = frames(1)
    given["edge_index"] = given["edge_index"][:, :0]
    given["edge_cell_shift"] = given["edge_cell_shift"][:0]
    assert_agree(*[{"energy": each(dict(given))["total_energy"]} for each in (accelerated, original)], 1e-12)


def test_layers_share_one_sort(accelerated, monkeypatch):
    """NequIP gives each layer the two rows of one edge_index."""
    given, sorts = frames(1), []
    edges = nequip.sorted_neighbors

    def counted(*arguments):
        sorts.append(edges(*arguments))
        return sorts[-1]

    monkeypatch.setattr(nequip, "sorted_neighbors", counted)
    accelerated(given)
    assert len(sorts) == 2
    assert sorts[0] is sorts[1]


def test_the_two_rows_may_be_of_other_tensors(original, accelerated):
    layer, expected = (each.model.func.layer1_convnet.conv.tp_scatter for each in (accelerated, original))
    edges = torch.randint(5, (2, 12), generator=torch.Generator().manual_seed(0))
    given = torch.randn(5, layer.tp.irreps_in1.dim), torch.randn(12, layer.tp.irreps_in2.dim)
    weight = torch.randn(12, layer.tp.weight_numel)
    for target, source in ((edges[1], edges[0]), (edges[0].clone(), edges[1].clone()), edges.repeat(2, 1)[:2]):
        found, known = (each(*(t.double() for t in (*given, weight)), target, source) for each in (layer, expected))
        torch.testing.assert_close(found, known)


def test_the_state_dict_stays(original, accelerated):
    assert list(accelerated.state_dict()) == list(original.state_dict())
    accelerated.load_state_dict(original.state_dict(), strict=True)
    copy.deepcopy(original).load_state_dict(accelerated.state_dict(), strict=True)


def test_restore_leaves_what_was(original, accelerated):
    def inside(model):
        return [(str(type(each)), sorted(each.__dict__)) for each in model.modules()]

    assert nequip.restore(accelerated) is accelerated
    assert inside(accelerated) == inside(copy.deepcopy(original))
    assert not nequip.report(nequip.restore(accelerated)).replaced


def test_a_copy_stays_fast(accelerated):
    assert list(nequip.report(copy.deepcopy(accelerated)).replaced) == REPLACED


def test_the_modifier_is_one_of_nequip(original):
    assert "enable_pyg_cgconv" in get_all_modifiers(original)
    fast = modify(copy.deepcopy(original), [{"modifier": "enable_pyg_cgconv"}])
    assert list(nequip.report(fast).replaced) == REPLACED
    assert "enable_pyg_cgconv" in get_all_modifiers(fast)
    captured = modify(copy.deepcopy(original), [{"modifier": "enable_pyg_cgconv", "cuda_graphs": True}])
    assert (captured.cuda_graphs, fast.cuda_graphs) == (True, False)
    results = [{"forces": each(frames(1))["forces"]} for each in (fast, original)]
    assert_agree(*results, 1e-12)


def test_nequips_compile_mode(monkeypatch):
    """NequIP traces the model with its forces, and compiles what it traced (here by another backend, as inductor takes
    minutes); training runs in it, too."""
    by_inductor = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: by_inductor(model, backend="aot_eager", **options))
    original = model(**SMALL)
    fast = modify(model(compile_mode="compile", **SMALL), [{"modifier": "enable_pyg_cgconv"}])
    expected = all_of(original, frames(2), with_hessian=False)
    calls = calls_of_e3nn(monkeypatch)
    found = all_of(fast, frames(2), with_hessian=False)
    assert fast._compiled_cache[0], "the model ran uncompiled"
    assert not calls
    assert_agree(found, expected, 1e-11)


@pytest.mark.slow
def test_nequip_compile_makes_a_package_for_another_process(monkeypatch, tmp_path):
    """The command nequip-compile, of a model that is not read from a checkpoint."""
    original = model(**SMALL)
    monkeypatch.setattr(compile, "load_saved_model", lambda *_, **options: (copy.deepcopy(original), frames(1)))
    package, expected = tmp_path / "model.nequip.pt2", original(frames(1))
    options = "--mode aotinductor --device cpu --target ase --modifiers enable_pyg_cgconv"
    compile.main(["checkpoint", str(package), *options.split()])
    torch.save([expected[name].detach() for name in ("total_energy", "forces", "stress")], tmp_path / "expected.pt")
    script = """
import sys, torch
from nequip.integrations.ase import NequIPCalculator
from tests.pyg_cgconv.integrations.test_nequip import structure
atoms = structure(0)
atoms.calc = NequIPCalculator.from_compiled_model(sys.argv[1], chemical_species_to_atom_type_map=True)
energy, forces, stress = torch.load(sys.argv[2])
assert abs(atoms.get_potential_energy() - float(energy)) < 1e-11
assert abs(atoms.get_forces() - forces.numpy()).max() < 1e-12
assert abs(atoms.get_stress(voigt=False) - stress.numpy()).max() < 1e-12
"""
    in_fresh_process(script, package, tmp_path / "expected.pt")


def test_lammps_with_ghost_atoms(original, monkeypatch):
    """By NequIP's own wrapper for ML-IAP, which asks for a model from a file."""
    unified = SimpleNamespace(MLIAPUnified=type("MLIAPUnified", (), {}))
    for name, module in (("lammps", None), ("lammps.mliap", None), ("lammps.mliap.mliap_unified_abc", unified)):
        monkeypatch.setitem(sys.modules, name, module or SimpleNamespace())
    from nequip.integrations.lammps_mliap.lmp_mliap_wrapper import NequIPLAMMPSMLIAPWrapper

    wrapper = NequIPLAMMPSMLIAPWrapper.__new__(NequIPLAMMPSMLIAPWrapper)
    wrapper.model, wrapper.nl_pruner, wrapper.tf32, wrapper.compile = None, None, False, False
    wrapper.modifiers = ["enable_pyg_cgconv"]
    wrapper._load_model_from_bytes = lambda: copy.deepcopy(original)
    given = LAMMPSData(structure(0), [6, 8], 3.0)
    expected = original(frames(1))
    calls = calls_of_e3nn(monkeypatch)
    wrapper.compute_forces(given)
    assert len(nequip.report(wrapper.model).replaced) == 3
    assert given.exchanges == 1
    assert not calls
    found = {"total_energy": torch.tensor([[float(given.energy)]]).double(), "forces": given.forces}
    assert_agree(found, {name: expected[name] for name in found}, 1e-12)


def without_cell(given):
    """The atoms of a cell as a molecule."""
    inside = given["edge_cell_shift"].abs().sum(1) == 0
    edges = {"edge_index": given["edge_index"][:, inside], "edge_cell_shift": given["edge_cell_shift"][inside]}
    return given | edges | {"cell": torch.zeros_like(given["cell"])}


RESULTS = ["total_energy", "atomic_energy", "forces", "stress", "virial"]


@pytest.mark.parametrize("atoms", [0, 5])
@pytest.mark.parametrize("case", ["several", "one", "no batch", "molecule"])
def test_what_fills_a_graph_up_counts_nothing(original, case, atoms):
    """For several structures with cells of their own, for one, and for one without a cell."""
    given = frames(2 if case == "several" else 1)
    if case == "no batch":
        del given["batch"], given["num_atoms"]
    if case == "molecule":
        given = without_cell(given)
    fast = nequip.accelerate(copy.deepcopy(original))
    found, expected = (original.eval()(dict(each)) for each in (filled(fast, given, 57, atoms), given))
    assert len(found["total_energy"]) == len(expected["total_energy"]) + bool(atoms)
    names = RESULTS[:3] + RESULTS[4:] if case == "molecule" else RESULTS
    expected = {name: expected[name] for name in names}
    assert_agree(own_rows(found, expected), expected, 1e-12)


def test_calls_that_no_cuda_graph_serves_run_as_usual_and_say_why(original, caplog):
    fast = nequip.accelerate(copy.deepcopy(original), cuda_graphs=True)
    leaf = frames(1) | {"pos": frames(1)["pos"].requires_grad_()}
    with caplog.at_level(logging.INFO, "pyg_cgconv.integrations"):
        for given in (frames(1), leaf):
            found, expected = (each.eval()(dict(given)) for each in (fast, original))
            assert_agree({"forces": found["forces"]}, {"forces": expected["forces"]}, 1e-12)
    for reason in ("data are on a CPU", "gradients may be asked of"):
        assert reason in caplog.text
    assert copy.deepcopy(fast).cuda_graphs
    assert not nequip.accelerate(fast).cuda_graphs
    with pytest.raises(ValueError, match=r"cuda_graphs: \w+ is none of GraphModel, nor has it one"):
        nequip.accelerate(fast.model, cuda_graphs=True)


def test_parameters_that_others_replace_are_noticed(original):
    """Graphs would go on reading the old ones."""
    fast = nequip.accelerate(copy.deepcopy(original), cuda_graphs=True)
    around = torch.nn.ModuleList([fast])
    assert fast._read_at == fast._places()
    state = {name: value.clone() for name, value in around.state_dict().items()}
    around.load_state_dict(state, assign=True)
    assert fast._read_at != fast._places()
    fast.prepare()
    next(fast.parameters()).data = next(fast.parameters()).detach() * 2
    assert fast._read_at != fast._places()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_cuda_graphs_agree(dtype):
    original = model(dtype).cuda().eval()
    fast = nequip.accelerate(copy.deepcopy(original), cuda_graphs=True)
    molecule = without_cell(frames(1))
    for given in (frames(1), frames(2), frames(1), molecule):
        given = AtomicDataDict.to_(dict(given), "cuda")
        found, expected = (each(dict(given)) for each in (fast, original))
        volume = bool(given["cell"].any())
        names = RESULTS if volume else RESULTS[:3] + RESULTS[4:]
        assert_agree({name: found[name] for name in names}, {name: expected[name] for name in names}, TOLERANCES[dtype])
        assert bool(found["stress"].isnan().all()) == (not volume)
    assert (fast._replay.captures, fast._replay.replays) == (3, 4)  # the molecule has less than half of the edges


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_trained_by_cuda_graphs(dtype):
    original = model(dtype).cuda().train()
    fast = nequip.accelerate(copy.deepcopy(original), cuda_graphs=True)
    fewer = frames(2)
    for name, dim in (("edge_index", 1), ("edge_cell_shift", 0)):
        fewer[name] = fewer[name].narrow(dim, 8, fewer[name].shape[dim] - 8)
    batches = [AtomicDataDict.to_(dict(given), "cuda") for given in (frames(2), fewer, frames(1))]

    def evaluate(model, given):
        out = model(dict(given))
        return out["total_energy"], torch.cat([out["forces"], out["stress"].view(-1, 3)])

    assert_captured_training(fast, original, evaluate, batches, 10 * TOLERANCES[dtype])


def test_torchscript_is_refused_by_what_to_do(accelerated):
    with pytest.raises(TypeError, match=r"torch\.export.*torch\.compile.*restore\(model\)"):
        torch.jit.script(accelerated)


def test_an_original_is_still_scripted():
    """In a process of its own: another test may have imported PyTorch Geometric."""
    script = """
import copy
from e3nn.util.jit import script
from nequip.utils.global_state import set_global_state
from tests.pyg_cgconv.integrations.test_nequip import model, nequip
set_global_state()
original = model()
nequip.accelerate(copy.deepcopy(original))
script(original)
"""
    in_fresh_process(script)


def test_nothing_to_replace_is_an_error_that_names_what_was_looked_for():
    with pytest.raises(ValueError, match=r"nothing that can be replaced; looked for the TensorProductScatter"):
        nequip.accelerate(torch.nn.Linear(2, 2))


def test_another_accelerator_is_named(original):
    class Other(type(original.model.func.layer1_convnet.conv.tp_scatter)):
        pass

    fast = copy.deepcopy(original)
    fast.model.func.layer1_convnet.conv.tp_scatter.__class__ = Other
    report = nequip.report(nequip.accelerate(fast))
    assert list(report.replaced) == [CONVOLUTIONS[0], CONNECTION]
    assert "Other" in report.left[CONVOLUTIONS[1]]


def test_importing_it_does_not_import_pyg():
    in_fresh_process("import sys, pyg_cgconv.integrations.nequip; assert 'torch_geometric' not in sys.modules")
    in_fresh_process("import sys, nequip; assert 'torch_geometric' not in sys.modules")
