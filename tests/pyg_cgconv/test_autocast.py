"""torch.autocast: what needs single precision computes in it, and networks of mixed precision train."""

import warnings

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from pyg_cgconv import Potential, RadiusGraph, TensorProductConv
from pyg_cgconv.nn import InteractionBlock, Linear, NodeProducts
from tests.orders import INPUTS, IRREPS, SOURCES, TARGETS

X, EDGE_INDEX, EDGE_ATTR, WEIGHT = (t.float() if t.is_floating_point() else t for t in INPUTS)
LAYERS = {backend: TensorProductConv(*IRREPS, backend=backend) for backend in ("auto", "reference")}
HALF = torch.bfloat16


def autocast():
    return torch.autocast("cpu", dtype=HALF)


@pytest.mark.parametrize("backend", LAYERS)
@pytest.mark.parametrize("name", ["x", "edge_attr", "weight"])
def test_the_layer_takes_what_autocast_has_made(backend, name):
    layer, given = LAYERS[backend], {"x": X, "edge_attr": EDGE_ATTR, "weight": WEIGHT}
    halved = given[name].to(HALF)
    with autocast():
        found = layer(edge_index=EDGE_INDEX, **{**given, name: halved})
    assert torch.equal(found, layer(edge_index=EDGE_INDEX, **{**given, name: halved.float()}))


@pytest.mark.parametrize("backend", LAYERS)
def test_pairs(backend):
    layer, size = LAYERS[backend], (SOURCES, TARGETS)
    with autocast():
        found = layer((X.to(HALF), None), EDGE_INDEX, EDGE_ATTR, WEIGHT, size=size)
    assert torch.equal(found, layer((X.to(HALF).float(), None), EDGE_INDEX, EDGE_ATTR, WEIGHT, size=size))


@pytest.mark.parametrize("backend", LAYERS)
def test_double_precision_stays(backend):
    with autocast():
        found = LAYERS[backend](*INPUTS)
    assert torch.equal(found, LAYERS[backend](*INPUTS))


def test_derivatives_have_the_dtype_of_their_input():
    inputs = [t.to(HALF).requires_grad_() for t in (X, EDGE_ATTR, WEIGHT)]
    exact = [t.detach().float().requires_grad_() for t in inputs]
    with autocast():
        out = LAYERS["auto"](inputs[0], EDGE_INDEX, *inputs[1:])
        found = torch.autograd.grad(out.square().sum(), inputs)
    wanted = torch.autograd.grad(LAYERS["auto"](exact[0], EDGE_INDEX, *exact[1:]).square().sum(), exact)
    for gradient, expected in zip(found, wanted, strict=True):
        assert torch.equal(gradient, expected.to(HALF))


def test_hooks_are_called_once():
    layer, calls = TensorProductConv(*IRREPS), []
    layer.register_forward_hook(lambda *arguments: calls.append(arguments))
    with autocast():
        layer(X, EDGE_INDEX, EDGE_ATTR, WEIGHT)
    assert len(calls) == 1


def test_a_subclass_with_other_arguments():
    class Packed(TensorProductConv):
        def forward(self, x, graph):
            return super().forward(x, *graph)

    with autocast():
        assert Packed(*IRREPS)(X, (EDGE_INDEX, EDGE_ATTR, WEIGHT.to(HALF))).dtype == torch.float32


def test_without_autocast_features_in_half_precision_are_refused():
    with pytest.raises(TypeError, match=r"^x: dtype torch.bfloat16 "):
        LAYERS["auto"](X.to(HALF), EDGE_INDEX, EDGE_ATTR, WEIGHT)
    with autocast(), torch.autocast("cpu", enabled=False), pytest.raises(TypeError, match=r"^x: dtype"):
        LAYERS["auto"](X.to(HALF), EDGE_INDEX, EDGE_ATTR, WEIGHT)


def relative_error(found, wanted):
    return ((found.float() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("fused", [False, True])
def test_products_of_features(fused):
    torch.manual_seed(0)
    products, x = NodeProducts("4x0e+4x1o", 4, "4x0e+4x1o", fused=fused), torch.randn(6, 16)
    with autocast():
        found, halved = products(x), products.multiplied(products.linear_in(products._rows_in.to_ir_mul(x)))
    assert halved.dtype == torch.float32
    assert relative_error(found, products(x)) < 0.03
    found.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in products.parameters())


def test_the_fused_linear_map():
    linear, x = Linear("4x0e+4x1o", "4x0e+4x1o", fused=True), torch.randn(6, 16)
    with autocast():
        found = linear._fused(linear._description, x.to(HALF))
    assert torch.equal(found, linear._fused(linear._description, x.to(HALF).float()))


def test_an_interaction():
    torch.manual_seed(0)
    block = InteractionBlock("4x0e+4x1o", "0e+1o", "4x0e+4x1o", num_basis=5, num_species=3, products=True)
    one_hot = torch.eye(3)[torch.arange(SOURCES) % 3]
    arguments = torch.randn(SOURCES, 16), one_hot, EDGE_INDEX, EDGE_ATTR, torch.randn(len(EDGE_ATTR), 5)
    with autocast():
        found = block(*arguments)
    assert relative_error(found, block(*arguments)) < 0.03


FRAME = RadiusGraph(3.0)(Data(z=torch.tensor([1, 8, 1]), pos=2 * torch.eye(3), cell=6 * torch.eye(3)))


@pytest.mark.parametrize("backend", LAYERS)
def test_a_potential_is_as_exact_as_without(backend):
    potential = Potential(["H", "O"], 3.0, channels=4, lmax=1, layers=2, backend=backend)
    wanted = potential(FRAME, compute_stress=True)
    with autocast():
        found = potential(FRAME, compute_stress=True)
        energy = potential(FRAME, compute_forces=False)["energy"]
    assert {name: value.dtype for name, value in found.items()} == {n: value.dtype for n, value in wanted.items()}
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert torch.equal(energy, wanted["energy"])


def test_outputs_of_atoms_are_as_exact_as_without():
    potential = Potential(["H", "O"], 3.0, channels=4, lmax=1, layers=2, readout_irreps="1o")
    with autocast():
        found = potential.atomic_outputs(FRAME)
    assert torch.equal(found, potential.atomic_outputs(FRAME))


def test_lightning_trains_in_mixed_precision(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")

    class Network(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv = LAYERS["auto"]
            self.radial, self.readout = nn.Linear(3, self.conv.weight_numel), nn.Linear(self.conv.irreps_out.dim, 1)
            self.dtypes = []

        def training_step(self, radial, _):
            weight = self.radial(radial)
            out = self.conv(X, EDGE_INDEX, EDGE_ATTR, weight)
            self.dtypes.append((weight.dtype, out.dtype))
            return self.readout(out).float().square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    torch.manual_seed(0)
    network = Network()
    before = network.radial.weight.detach().clone()
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(network, torch.utils.data.DataLoader(torch.randn(2, len(EDGE_ATTR), 3), batch_size=None))
    assert network.dtypes == [(HALF, torch.float32)] * 2
    assert network.radial.weight.isfinite().all()
    assert not torch.equal(network.radial.weight, before)
