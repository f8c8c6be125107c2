"""All layers in one network: in each layout it turns with its atoms, and both layouts give the same."""

import inspect

import pytest
import torch
from e3nn import o3
from torch import Tensor, nn

import pyg_cgconv.nn
from pyg_cgconv.nn import (
    BesselBasis,
    Gate,
    InteractionBlock,
    Linear,
    NodeProducts,
    PolynomialCutoff,
    RadialNetwork,
    SpeciesLinear,
    SymmetricContraction,
    TensorProductConv,
    spherical_harmonics,
)
from tests.rotations import in_layout, in_mul_ir, rotations, turned

LAYOUTS = ("mul_ir", "ir_mul")
LAYERS = {
    Linear: ("4x0e+2x1o", "2x0e+3x1o"),
    SpeciesLinear: ("4x0e+2x1o", "2x0e+3x1o", 3),
    Gate: ("4x0e+2x1o",),
    NodeProducts: ("4x0e+2x1o", 3, "2x0e+3x1o"),
    InteractionBlock: ("4x0e+2x1o", "0e+1o", "2x0e+3x1o"),
    TensorProductConv: ("4x0e+2x1o", "0e+1o", "2x0e+3x1o"),
}


class Network(nn.Module):
    """Features of atoms (n, irreps_out.dim) of their positions and one-hot species; every layer occurs."""

    irreps_hidden = o3.Irreps("4x0e+4x1o+4x1e")  # in fours: also for the fused kernels of linear maps
    irreps_sh = o3.Irreps.spherical_harmonics(1)

    def __init__(self, layout: str, species: int = 4, num_basis: int = 4):
        super().__init__()
        self.layout = layout
        self.basis, self.envelope = BesselBasis(5.0, num_basis), PolynomialCutoff(5.0)
        scalars = o3.Irreps("4x0e")
        self.embedding = Linear(f"{species}x0e", scalars, layout=layout, fused=True)
        sizes = {"num_basis": num_basis, "radial_hidden": (4,)}
        options = {"num_species": species, "num_radial_species": species, "products": True}
        self.block = InteractionBlock(
            scalars, self.irreps_sh, self.irreps_hidden, avg_num_neighbors=5.0, layout=layout, **sizes, **options
        )
        hidden = self.block.irreps_out
        self.gate = Gate(self.irreps_hidden, layout=layout)
        self.irreps_out, wanted = self.gate.irreps_out, self.gate.irreps_in
        self.conv = TensorProductConv(hidden, self.irreps_sh, self.irreps_hidden, layout=layout)
        self.radial = RadialNetwork(num_basis, (4,), self.conv.weight_numel)
        self.linear = Linear(self.conv.irreps_out, wanted, layout=layout, fused=True)
        self.products = NodeProducts(self.conv.irreps_out, 4, wanted, layout=layout)
        self.self_connection = SpeciesLinear(hidden, wanted, species, layout=layout, fused=True)

    def forward(self, positions: Tensor, one_hot: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        vectors = positions[source] - positions[target]
        distance = vectors.norm(dim=1)
        sh = spherical_harmonics(vectors / distance[:, None], self.irreps_sh.lmax)
        basis = self.basis(distance) * self.envelope(distance)[:, None]
        x = self.block(self.embedding(one_hot), one_hot, edge_index, sh, basis, one_hot[source])
        messages = self.conv(x, edge_index, sh, self.radial(basis))
        out = self.linear(messages) + 0.1 * self.products(messages) + self.self_connection(x, one_hot)
        return self.gate(out)

    def energy(self, out: Tensor) -> Tensor:
        """A number that does not turn: even scalars are the first, in both layouts."""
        return out[:, :4].sin().sum()


@pytest.fixture
def molecule(device) -> list[Tensor]:
    torch.manual_seed(0)
    n = 6
    positions = torch.randn(n, 3, dtype=torch.float64) * 1.5
    one_hot = nn.functional.one_hot(torch.arange(n) % 4, 4).double()
    edge_index = (~torch.eye(n, dtype=torch.bool)).nonzero().T.contiguous()
    return [tensor.to(device) for tensor in (positions, one_hot, edge_index)]


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    torch.manual_seed(0)
    networks = {layout: Network(layout).double() for layout in LAYOUTS}
    networks["ir_mul"].load_state_dict(networks["mul_ir"].state_dict())
    return networks


def derivatives(network: Network, positions: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Output, gradient of the energy by the positions, gradients of a function of the latter by the parameters."""
    positions = positions.clone().requires_grad_()
    out = network(positions, *others)
    (gradient,) = torch.autograd.grad(network.energy(out), positions, create_graph=True)
    loss = gradient.square().sum() + network.energy(out)
    parameters = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return out.detach(), gradient.detach(), [p for p in parameters if p is not None]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rotation_and_inversion(networks, layout, molecule):
    network, (positions, *others) = networks[layout].to(molecule[0].device), molecule
    out, gradient, _ = derivatives(network, positions, *others)
    assert out.abs().amax(0).min() > 1e-6
    assert gradient.abs().min() > 1e-9
    for rotation in rotations():
        matrix = rotation.to(positions.device)
        turned_out, turned_gradient, _ = derivatives(network, positions @ matrix.T, *others)
        torch.testing.assert_close(turned_out, turned(out, network.irreps_out, rotation, layout))
        torch.testing.assert_close(turned_gradient, gradient @ matrix.T)


def test_both_layouts_give_the_same(networks, molecule):
    out, *gradients = derivatives(networks["mul_ir"].to(molecule[0].device), *molecule)
    other, *other_gradients = derivatives(networks["ir_mul"].to(molecule[0].device), *molecule)
    torch.testing.assert_close(in_mul_ir(other, networks["ir_mul"].irreps_out, "ir_mul"), out)
    torch.testing.assert_close(other_gradients, gradients)


@pytest.mark.parametrize("layer", LAYERS)
def test_parameters_are_the_same_in_both_layouts(layer):
    states = []
    for layout in LAYOUTS:
        torch.manual_seed(0)
        states.append(layer(*LAYERS[layer], layout=layout).state_dict())
    assert list(states[0]) == list(states[1])
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_the_default_of_all_layers_is_mul_ir():
    values = [getattr(pyg_cgconv.nn, name) for name in pyg_cgconv.nn.__all__]
    layers = {value for value in values if inspect.isclass(value) and issubclass(value, nn.Module)}
    signatures = {layer: inspect.signature(layer).parameters for layer in layers}
    signatures = {layer: signature for layer, signature in signatures.items() if "irreps_out" in signature}
    assert set(signatures) == {*LAYERS, SymmetricContraction}  # which has a layout more, and tests of its own
    for signature in signatures.values():
        assert (signature["layout"].default, signature["layout"].kind) == ("mul_ir", inspect.Parameter.KEYWORD_ONLY)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_shown(layer, layout):
    made = layer(*LAYERS[layer], layout=layout)
    assert f"layout={layout!r}" in (made.extra_repr() or repr(made))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("layout", ["irmul", None])
def test_another_layout_is_refused(layer, layout):
    with pytest.raises(ValueError, match=rf"^layout: expected one of \('mul_ir', 'ir_mul'\), got {layout!r}$"):
        layer(*LAYERS[layer], layout=layout)


def test_spherical_harmonics_are_the_same_in_both_layouts():
    harmonics = spherical_harmonics(nn.functional.normalize(torch.randn(4, 3)), 3)
    assert torch.equal(in_layout(harmonics, o3.Irreps.spherical_harmonics(3), "ir_mul"), harmonics)
