import pytest
import torch
from e3nn import o3

from pyg_cgconv.nn import InteractionBlock, wanted_irreps
from pyg_cgconv.nn._blocks import reachable
from pyg_cgconv.tensor_product import shape, to_ir_mul, to_mul_ir

IRREPS, SH = o3.Irreps("4x0e+3x1o"), o3.Irreps("0e+1o")


@pytest.fixture(params=[{}, {"products": True, "num_radial_species": 2}], ids=["plain", "products"], scope="module")
def block(request):
    torch.manual_seed(0)
    size = {"num_basis": 3, "radial_hidden": (4,), "avg_num_neighbors": 2.0, "num_species": 2}
    return InteractionBlock(IRREPS, SH, "4x0e+2x0o+3x1o+2x1e", **size, **request.param).double()


def inputs(n=5, edges=12):
    x = torch.randn(n, IRREPS.dim, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(torch.arange(n) % 2, 2).double()
    edge_index = torch.randint(n, (2, edges))
    return x, one_hot, edge_index, torch.randn(edges, SH.dim).double(), torch.rand(edges, 3).double()


def species_of_edges(block, one_hot, edge_index):
    return [] if block.radial.factors is None else [one_hot[edge_index[0]]]


def test_rotation_and_inversion(block):
    x, one_hot, edge_index, sh, radial = inputs()
    edges = [radial, *species_of_edges(block, one_hot, edge_index)]
    out = to_mul_ir(block(to_ir_mul(x, shape(IRREPS)), one_hot, edge_index, sh, *edges), shape(block.irreps_out))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    for rotation in (o3.rand_matrix(), -o3.rand_matrix()):
        turn_x, turn_sh, turn_out = (i.D_from_matrix(rotation).mT for i in (IRREPS, SH, block.irreps_out))
        turned = block(to_ir_mul(x @ turn_x, shape(IRREPS)), one_hot, edge_index, sh @ turn_sh, *edges)
        torch.testing.assert_close(to_mul_ir(turned, shape(block.irreps_out)), out @ turn_out)
    torch.set_default_dtype(before)


def test_irreps_out_of_reach_are_left_out(block):
    assert block.irreps_out == o3.Irreps("4x0e+3x1o+2x1e")
    assert reachable("8x0e", "0e+1o+2e", "4x0e+4x0o+4x1o+4x1e") == o3.Irreps("4x0e+4x1o")


def test_irreps_that_lead_nowhere_are_left_out():
    hidden = o3.Irreps("4x0e+4x0o+3x1o+3x1e")
    assert wanted_irreps(hidden, "4x0e", SH, 3) == [
        o3.Irreps("4x0e+3x1o+3x1e"),  # 0o would need two more products
        o3.Irreps("4x0e+3x1o"),
        o3.Irreps("4x0e"),
    ]
    assert wanted_irreps(hidden, "4x0e", SH, 1) == [o3.Irreps("4x0e")]


def test_without_messages_and_self_connection_nothing_is_left(block):
    lonely = InteractionBlock(IRREPS, SH, "4x0e+3x1o+2x1e", num_basis=3, radial_hidden=(4,)).double()
    x, one_hot, edge_index, sh, radial = inputs(edges=0)
    assert (lonely(x, one_hot, edge_index, sh, radial) == 0).all()
    assert (block(x, one_hot, edge_index, sh, radial, *species_of_edges(block, one_hot, edge_index)) != 0).any()


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [((IRREPS, SH, "4x3o"), {}, "irreps_out"), ((IRREPS, SH, "4x0e"), {"avg_num_neighbors": 0.0}, "avg_num_neighbors")],
)
def test_mistakes_are_named(arguments, options, named):
    with pytest.raises(ValueError, match=f"^{named}:"):
        InteractionBlock(*arguments, **options)
