"""Models of SevenNet, accelerated, against themselves as they were."""

import copy
import logging
import pickle
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from tests.drop_ins import (
    TOLERANCES,
    as_captured,  # noqa: F401  (a fixture)
    assert_agree,
    assert_captured_training,
    default_dtype,
    filled,
    hessian,
    in_fresh_process,
    loss_gradients,
    own_rows,
)
from tests.lammps_data import LAMMPSData

pytest.importorskip("sevenn", reason="sevenn is not installed")

import sevenn._const
import sevenn._keys as key
from ase.build import bulk
from ase.data import chemical_symbols
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.model_build import build_E3_equivariant_model
from sevenn.nn import convolution
from sevenn.train.dataload import unlabeled_atoms_to_graph
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.loader.dataloader import Collater

from pyg_cgconv.integrations import sevennet
from pyg_cgconv.integrations._self_connection import SelfConnection

CONVOLUTIONS = ["0_convolution", "1_convolution"]
CONNECTIONS = ["0_self_connection_intro.fc_tensor_product", "1_self_connection_intro.fc_tensor_product"]
NETWORKS = ["0_convolution.weight_nn", "1_convolution.weight_nn"]
REPLACED = {*CONVOLUTIONS, *NETWORKS, *CONNECTIONS}
RESULTS = [key.PRED_TOTAL_ENERGY, key.PRED_FORCE, key.PRED_STRESS]


def structure(seed=1):
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.numbers[::2] = 8
    return atoms


def model(**options):
    torch.manual_seed(0)
    config = sevenn._const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG | {
        key.CHEMICAL_SPECIES: ["C", "O"],
        key.NUM_SPECIES: 2,
        key.TYPE_MAP: {6: 0, 8: 1},
        key.CUTOFF: 3.0,
        key.LMAX: 2,
        key.NODE_FEATURE_MULTIPLICITY: 4,
        key.NUM_CONVOLUTION: 2,
        key.CONV_DENOMINATOR: 8.0,
        key.SHIFT: -1.0,
        key.SCALE: 1.5,
        key.CONVOLUTION_WEIGHT_NN_HIDDEN_NEURONS: [8, 8],
    }
    return build_E3_equivariant_model(copy.deepcopy(config | options)).to(torch.get_default_dtype())


def batch(seeds=(1, 2)):
    graphs = [AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(structure(seed), 3.0)) for seed in seeds]
    given = Collater([])(graphs)
    for name in (key.EDGE_VEC, key.POS, key.CELL_VOLUME):
        given[name] = given[name].to(torch.get_default_dtype())
    return given


@pytest.fixture(scope="module", autouse=True)
def float64():
    """SevenNet makes its one-hot species in float32; a model in float64 makes of it what it needs."""
    with default_dtype(torch.float64):
        yield


@pytest.fixture
def calls_of_e3nn(monkeypatch):
    """Grows with each self-connection that e3nn computes."""
    calls, own = [], SelfConnection.original.forward
    monkeypatch.setattr(SelfConnection.original, "forward", lambda *given: calls.append(given) or own(*given))
    return calls


@pytest.fixture(scope="module")
def original():
    return model()


@pytest.fixture
def accelerated(original):
    return sevennet.accelerate(copy.deepcopy(original))


def all_of(model, given, with_hessian=True):
    """Energy, forces, stress, Hessian by the edges' vectors, and a gradient of a loss on them."""
    out = model.train()(given.clone())
    results = {name: out[name] for name in RESULTS}
    loss = sum(result.square().sum() for result in results.values())
    if with_hessian:
        results["hessian"] = hessian(out[key.PRED_FORCE], out[key.EDGE_VEC])
    return results | loss_gradients(model, loss)


def in_float(model):
    """The one-hot species are float32."""
    original = model.onehot_idx_to_onehot.forward

    def forward(data):
        data = original(data)
        for name in (key.NODE_FEATURE, key.NODE_ATTR):
            data[name] = data[name].to(torch.get_default_dtype())
        return data

    model.onehot_idx_to_onehot.forward = forward
    return model


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("options", [{}, {key.IS_PARITY: True, key.LMAX: 1}], ids=["so3", "o3"])
def test_derivatives_agree(dtype, options):
    with default_dtype(dtype):
        original, given = model(**options), batch()
        fast = sevennet.accelerate(copy.deepcopy(original))
        assert set(sevennet.report(fast).replaced) == REPLACED
        results = [all_of(in_float(each), given) for each in (fast, original)]
        assert_agree(*results, TOLERANCES[dtype])


def test_layers_that_are_not_instantiated_yet():
    given = dict(
        irreps_x=convolution.Irreps("4x0e+4x1o"),
        irreps_filter=convolution.Irreps("0e+1o"),
        irreps_out=convolution.Irreps("4x0e+4x1o"),
        weight_layer_input_to_hidden=[3, 5],
        weight_layer_act=torch.nn.functional.silu,
    )
    torch.manual_seed(0)
    original = convolution.IrrepsConvolution(**given, lazy_layer_instantiate=False)
    layers = sevennet.accelerate(torch.nn.ModuleList([convolution.IrrepsConvolution(**given)]))
    assert list(sevennet.report(layers).replaced) == ["0"]
    with pytest.raises(ValueError, match="not instantiated; call their instantiate"):
        layers[0]({})
    layers[0].instantiate()
    assert list(sevennet.report(layers).replaced) == ["0", "0.weight_nn"]
    layers[0].load_state_dict(original.state_dict(), strict=True)

    def data():
        torch.manual_seed(1)
        return {
            key.NODE_FEATURE: torch.randn(5, 16),
            key.EDGE_ATTR: torch.randn(9, 4),
            key.EDGE_EMBEDDING: torch.randn(9, 3),
            key.EDGE_IDX: torch.randint(5, (2, 9)),
        }

    found, expected = ({"x": layer.double()(data())[key.NODE_FEATURE]} for layer in (layers[0], original))
    assert_agree(found, expected, 1e-12)
    assert type(sevennet.restore(layers)[0]) is convolution.IrrepsConvolution


@pytest.mark.usefixtures("as_captured")
def test_what_a_graph_has_agrees(original, accelerated):
    given = batch((1,))
    models = in_float(accelerated), in_float(copy.deepcopy(original))
    assert_agree(*[all_of(each, given, with_hessian=False) for each in models], 1e-12)


def test_networks_with_another_activation_are_left_and_named():
    report = sevennet.report(sevennet.accelerate(model(**{key.ACTIVATION_RADIAL: "ssp"})))
    assert [report.left[name] for name in NETWORKS] == 2 * ["its activation is ShiftedSoftPlus, not SiLU"]


@pytest.mark.parametrize("species", [2, 20])
def test_self_connections_by_species(species, calls_of_e3nn):
    """In float32, as SevenNet has one-hot species."""
    names = ["C", "O", *chemical_symbols[20:50]][:species]
    with default_dtype(torch.float32):
        original = model(**{key.CHEMICAL_SPECIES: names, key.NUM_SPECIES: species})
        fast = sevennet.accelerate(copy.deepcopy(original))
        expected = all_of(original, batch())
        calls_of_e3nn.clear()
        assert_agree(all_of(fast, batch()), expected, 1e-5)
        assert not calls_of_e3nn


def test_self_connections_that_are_linear_maps_stay():
    original = model(**{key.SELF_CONNECTION_TYPE: "linear"})
    assert set(sevennet.report(sevennet.accelerate(original)).replaced) == {*CONVOLUTIONS, *NETWORKS}


def test_the_state_dict_stays(original, accelerated):
    assert list(accelerated.state_dict()) == list(original.state_dict())
    accelerated.load_state_dict(original.state_dict(), strict=True)
    copy.deepcopy(original).load_state_dict(accelerated.state_dict(), strict=True)


def test_restore_leaves_what_was(original, accelerated):
    def inside(model):
        return [(str(type(each)), sorted(each.__dict__)) for each in model.modules()]

    assert sevennet.restore(accelerated) is accelerated
    assert inside(accelerated) == inside(copy.deepcopy(original))
    assert not sevennet.report(sevennet.restore(accelerated)).replaced


def test_a_copy_stays_fast(accelerated):
    assert set(sevennet.report(copy.deepcopy(accelerated)).replaced) == REPLACED


def test_calculators_agree():
    results = []
    with default_dtype(torch.float32):
        original = model()
        for each in (copy.deepcopy(original), sevennet.accelerate(copy.deepcopy(original))):
            atoms = structure()
            atoms.calc = SevenNetCalculator(each, file_type="model_instance", device="cpu")
            results.append({"forces": torch.tensor(atoms.get_forces()), "stress": torch.tensor(atoms.get_stress())})
    assert_agree(results[1], results[0], 1e-5)


def test_torchscript_is_refused_by_what_to_do(accelerated):
    with pytest.raises(TypeError, match=r"torch\.export.*torch\.compile.*restore\(model\)"):
        torch.jit.script(accelerated)


def test_nothing_to_replace_is_an_error_that_names_what_was_looked_for():
    with pytest.raises(ValueError, match=r"nothing that can be replaced; looked for the IrrepsConvolution"):
        sevennet.accelerate(torch.nn.Linear(2, 2))


def test_another_accelerator_is_named(original):
    fast = copy.deepcopy(original)
    other = convolution.IrrepsScatterGatterFusedConvolution.from_irreps_convolution(fast._modules["1_convolution"])
    fast.replace_module("1_convolution", other)
    report = sevennet.report(sevennet.accelerate(fast))
    assert set(report.replaced) == REPLACED - {CONVOLUTIONS[1]}
    assert "another accelerator" in report.left[CONVOLUTIONS[1]]


def test_importing_it_does_not_import_pyg():
    """SevenNet's own data do."""
    in_fresh_process("import sys, pyg_cgconv.integrations.sevennet; assert 'torch_geometric' not in sys.modules")


def test_lammps_with_ghost_atoms(monkeypatch, calls_of_e3nn):
    """By SevenNet's own wrapper for ML-IAP, which builds its model from a file when it is first called."""
    unified = SimpleNamespace(MLIAPUnified=type("MLIAPUnified", (), {}))
    for name, module in (("lammps", None), ("lammps.mliap", None), ("lammps.mliap.mliap_unified_abc", unified)):
        monkeypatch.setitem(sys.modules, name, module or SimpleNamespace())
    from sevenn.mliap import SevenNetMLIAPWrapper

    with default_dtype(torch.float32):
        original = model()
        wrapper = SevenNetMLIAPWrapper.__new__(SevenNetMLIAPWrapper)
        wrapper.model, wrapper.modal, wrapper.device = None, None, torch.device("cpu")
        wrapper.use_cueq = wrapper.use_flash = wrapper.use_oeq = False
        wrapper.cp = SimpleNamespace(build_model=lambda **_: copy.deepcopy(original))
        wrapper._ensure_model_initialized()
        sevennet.accelerate(wrapper.model)
        wrapper.cp = None
        expected = original.eval()(batch((1,)))
        for each in (wrapper, pickle.loads(pickle.dumps(wrapper))):
            kinds = "FullyConnectedNet", "FullyConnectedTensorProduct", "IrrepsConvolution"
            assert Counter(sevennet.report(each.model).replaced.values()) == dict.fromkeys(kinds, 2)
            given = LAMMPSData(structure(), list(range(119)), 3.0)
            calls_of_e3nn.clear()
            each.compute_forces(given)
            assert given.exchanges == 2
            assert not calls_of_e3nn
            found = {key.PRED_TOTAL_ENERGY: given.energy.view(1), key.PRED_FORCE: given.forces}
            assert_agree(found, {name: expected[name] for name in found}, 1e-5)


INPUTS = key.EDGE_VEC, key.EDGE_IDX, key.ATOMIC_NUMBERS, key.NUM_ATOMS, key.BATCH, key.CELL_VOLUME


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["export", "aotinductor"])
@pytest.mark.parametrize("species", [2, 9])
def test_programs_work_in_a_fresh_process(kind, species, tmp_path):
    """With forces and stress, for other numbers of atoms and edges, where neither SevenNet nor PyG is imported."""
    names = ["C", "O", *chemical_symbols[20:50]][:species]

    def given(atoms):
        graph = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, 3.0))
        made = Collater([])([graph])
        return tuple(made[name].float() if made[name].is_floating_point() else made[name] for name in INPUTS)

    with default_dtype(torch.float32):
        original = model(**{key.CHEMICAL_SPECIES: names, key.NUM_SPECIES: species}).eval()
        fast = sevennet.accelerate(copy.deepcopy(original)).requires_grad_(False)

        def derivatives(*values, model=fast):
            data = dict(zip(INPUTS, values, strict=True))
            out = model(data | {key.EDGE_VEC: data[key.EDGE_VEC].detach()})
            return tuple(out[name] for name in RESULTS)

        arguments = given(structure()[:7])
        atoms, edges = torch.export.Dim("atoms", min=3), torch.export.Dim("edges", min=3)
        varied = {key.EDGE_VEC: {0: edges}, key.EDGE_IDX: {1: edges}, key.ATOMIC_NUMBERS: {0: atoms}}
        shapes = tuple((varied | {key.BATCH: {0: atoms}}).get(name) for name in INPUTS)
        graph = make_fx(derivatives, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
        program, file = torch.export.export(graph, arguments, dynamic_shapes=shapes), tmp_path / "program.pt2"
        if kind == "export":
            torch.export.save(program, file)
        else:
            torch._inductor.aoti_compile_and_package(program, package_path=str(file))
        others = given(structure() * (2, 1, 1))
        expected = [each.detach() for each in derivatives(*others, model=original)]
    torch.save((others, expected), tmp_path / "expected.pt")
    script = """
import sys, torch, pyg_cgconv
kind, file, expected = sys.argv[1:]
arguments, right = torch.load(expected)
program = torch.export.load(file).module() if kind == "export" else torch._inductor.aoti_load_package(file)
for found, wanted in zip(program(*arguments), right, strict=True):
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
assert not {"sevenn", "torch_geometric"}.intersection(sys.modules)
"""
    in_fresh_process(script, kind, file, tmp_path / "expected.pt")


@pytest.mark.parametrize("atoms", [0, 5])
def test_what_fills_a_graph_up_counts_nothing(original, atoms):
    given = {name: value for name, value in batch().to_dict().items() if isinstance(value, torch.Tensor)}
    roomy = filled(sevennet.accelerate(copy.deepcopy(original)), given, 57, atoms)
    found, expected = (in_float(copy.deepcopy(original)).eval()(dict(each)) for each in (roomy, given))
    assert len(found[key.PRED_TOTAL_ENERGY]) == 2 + bool(atoms)
    expected = {name: expected[name] for name in (*RESULTS, key.ATOMIC_ENERGY)}
    assert_agree(own_rows(found, expected), expected, 1e-12)


def test_calls_that_no_cuda_graph_serves_run_as_usual_and_say_why(original, caplog):
    fast, original = sevennet.accelerate(copy.deepcopy(original), cuda_graphs=True), copy.deepcopy(original)
    fast, original = in_float(fast), in_float(original)
    with caplog.at_level(logging.INFO, "pyg_cgconv.integrations"):
        found, expected = (each.eval()(batch()) for each in (fast, original))
        assert_agree({name: found[name] for name in RESULTS}, {name: expected[name] for name in RESULTS}, 1e-12)
    assert "data are on a CPU" in caplog.text
    assert copy.deepcopy(fast).cuda_graphs
    assert not sevennet.accelerate(fast).cuda_graphs
    with pytest.raises(ValueError, match="cuda_graphs: ModuleList is none of AtomGraphSequential"):
        sevennet.accelerate(torch.nn.ModuleList(fast), cuda_graphs=True)


@pytest.mark.parametrize("volume", [0.0, 40.0])
def test_energies_of_atoms_and_stresses_of_one_structure(original, volume):
    """As SevenNet's calculator asks for them, which has no batch."""
    results = []
    for each in (sevennet.accelerate(copy.deepcopy(original)), copy.deepcopy(original)):
        in_float(each).set_is_batch_data(False)
        each.force_output.use_atomic_virial = True
        given = batch((1,)).to_dict()
        del given["batch"], given["ptr"]
        given[key.CELL_VOLUME] = torch.tensor(volume).double()
        results.append(each.eval()(given))
    names = [*RESULTS, key.PRED_ATOMIC_VIRIAL, key.ATOMIC_ENERGY]
    assert_agree(*({name: each[name] for name in names} for each in results), 1e-12)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=["one", "two"])
def test_cuda_graphs_agree(dtype, seeds):
    with default_dtype(dtype):
        original = in_float(model()).cuda().eval()
        fast = sevennet.accelerate(copy.deepcopy(original), cuda_graphs=True)
        for shift in (0, 1, 2):
            given = batch([seed + shift for seed in seeds]).to("cuda")
            found, expected = (each(given.clone()) for each in (fast, original))
            names = [*RESULTS, key.ATOMIC_ENERGY]
            values = ({name: each[name] for name in names} for each in (found, expected))
            assert_agree(*values, TOLERANCES[dtype])
        assert (fast._replay.captures, fast._replay.replays) == (1, 3)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_trained_by_cuda_graphs(dtype):
    with default_dtype(dtype):
        original = in_float(model()).cuda().train()
        fast = sevennet.accelerate(copy.deepcopy(original), cuda_graphs=True)
        batches = [batch(seeds).to("cuda") for seeds in ((1, 2), (3, 4), (5,))]

        def evaluate(model, given):
            out = model(given.clone())
            return out[key.PRED_TOTAL_ENERGY], torch.cat(
                [out[key.PRED_FORCE].flatten(), out[key.PRED_STRESS].flatten()]
            )

        assert_captured_training(fast, original, evaluate, batches, 10 * TOLERANCES[dtype])
