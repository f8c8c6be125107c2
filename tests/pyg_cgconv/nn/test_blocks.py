import pytest
import torch
from e3nn import o3

from pyg_cgconv import Edges
from pyg_cgconv.nn import InteractionBlock, wanted_irreps
from pyg_cgconv.nn._blocks import reachable
from tests.rotations import in_layout, in_mul_ir, rotations, turned

IRREPS, SH = o3.Irreps("4x0e+3x1o"), o3.Irreps("0e+1o")


@pytest.fixture(params=["mul_ir", "ir_mul"], scope="module")
def layout(request) -> str:
    return request.param


@pytest.fixture(params=[{}, {"products": True, "num_radial_species": 2}], ids=["plain", "products"], scope="module")
def block(request, layout):
    torch.manual_seed(0)
    size = {"num_basis": 3, "radial_hidden": (4,), "avg_num_neighbors": 2.0, "num_species": 2}
    return InteractionBlock(IRREPS, SH, "4x0e+2x0o+3x1o+2x1e", **size, **request.param, layout=layout).double()


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
    out = block(x, one_hot, edge_index, sh, *edges)
    for rotation in rotations():
        turned_x, turned_sh = turned(x, IRREPS, rotation, block.layout), turned(sh, SH, rotation, block.layout)
        expected = turned(out, block.irreps_out, rotation, block.layout)
        torch.testing.assert_close(block(turned_x, one_hot, edge_index, turned_sh, *edges), expected)


def test_layouts_of_node_and_edge_features():
    torch.manual_seed(0)
    irreps_sh = o3.Irreps("2x0e+2x1o")
    blocks = {
        layout: InteractionBlock(IRREPS, irreps_sh, IRREPS, num_basis=3, num_species=2, layout=layout).double()
        for layout in ("mul_ir", "ir_mul")
    }
    blocks["ir_mul"].load_state_dict(blocks["mul_ir"].state_dict())
    x, one_hot, edge_index, _, radial = inputs()
    sh = torch.randn(len(radial), irreps_sh.dim, dtype=torch.float64)
    expected, found = (
        in_mul_ir(
            block(in_layout(x, IRREPS, layout), one_hot, edge_index, in_layout(sh, irreps_sh, layout), radial),
            block.irreps_out,
            layout,
        )
        for layout, block in blocks.items()
    )
    torch.testing.assert_close(found, expected)
    for block in blocks.values():
        with pytest.raises(ValueError, match=r"^(edge_sh|edge_attr): expected shape"):
            block(x, one_hot, edge_index, sh[:, :-1], radial)


def test_some_nodes_after_the_others(block):
    x, one_hot, edge_index, sh, radial = inputs()
    edges = [sh, radial, *species_of_edges(block, one_hot, edge_index)]
    expected, sent, found = block(x, one_hot, edge_index, *edges), block.send(x), []
    for nodes in (slice(0, 2), slice(2, 5)):
        ending = (edge_index[1] >= nodes.start) & (edge_index[1] < nodes.stop)
        source, target = edge_index[:, ending]
        graph = Edges((source, target - nodes.start), len(x), nodes.stop - nodes.start)
        found.append(block.receive(sent, x[nodes], one_hot[nodes], graph, *(each[ending] for each in edges)))
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=1e-12)


def test_features_of_another_shape_are_refused(block):
    x, one_hot, edge_index, sh, radial = inputs()
    edges = [radial, *species_of_edges(block, one_hot, edge_index)]
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 13\), features 4x0e\+3x1o, got \(5, 12\)"):
        block(x[:, :-1], one_hot, edge_index, sh, *edges)


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


def test_species_that_are_none_are_named():
    block = InteractionBlock("2x0e", "0e", "2x0e", num_species=2)
    edge_index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"^species: expected numbers from 0 to 1, got 1 to 2"):
        block(torch.randn(2, 2), torch.tensor([1, 2]), edge_index, torch.randn(2, 1), torch.randn(2, 8))


def test_other_things_than_widths_are_named():
    with pytest.raises(TypeError, match=r"^radial_hidden: expected whole numbers such as \(64, 64\), got 16"):
        InteractionBlock("2x0e", "0e", "2x0e", radial_hidden=16)


def test_sources_and_targets_of_their_own(block):
    x, one_hot, edge_index, sh, radial = inputs()
    edges = [radial, *species_of_edges(block, one_hot, edge_index)]
    expected = block(x, one_hot, edge_index, sh, *edges)[:2]
    kept = edge_index[1] < 2
    assert kept.any()
    found = block((x, x[:2]), one_hot[:2], edge_index[:, kept], sh[kept], *(each[kept] for each in edges))
    torch.testing.assert_close(found, expected)
