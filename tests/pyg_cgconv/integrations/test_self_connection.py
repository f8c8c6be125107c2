"""Self-connections by species against the products of e3nn that they replace."""

import copy

import pytest
import torch
from e3nn import o3
from torch.fx.experimental.proxy_tensor import make_fx

from pyg_cgconv.integrations._self_connection import SelfConnection, look_up, looked_up

IRREPS = "3x0e+2x1o+1x2e+2x0e", "4x0e+3x1o+2x0e+2x2e+3x1e+1x2o"
"""With an irrep in several slots, and outputs that are zero."""
ATOMS = 12


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def products(attributes):
    original = o3.FullyConnectedTensorProduct(IRREPS[0], f"{attributes}x0e", IRREPS[1])
    fast = o3.FullyConnectedTensorProduct(IRREPS[0], f"{attributes}x0e", IRREPS[1])
    fast.load_state_dict(original.state_dict())
    assert not SelfConnection.obstacle(fast)
    fast.__class__ = SelfConnection
    fast.prepare()
    return fast, original


def attributes_of(species, table):
    """Rows of a table, or one-hot."""
    rows = torch.eye(12, device=species.device)[species] if table is None else table[species]
    looked_up(rows, species, table)
    return rows


def derivatives(product, x, species, table):
    """The result, and first and second derivatives by all that it depends on."""
    leaves = [x, product.weight] + ([] if table is None else [table])
    out = product(x, attributes_of(species, table)[: len(x)])
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    return [out, *first, *torch.autograd.grad(sum(each.square().sum() for each in first), leaves)]


@pytest.mark.parametrize("atoms", [ATOMS, ATOMS - 3])
@pytest.mark.parametrize("count", [1, 3, 9, None], ids=str)
def test_derivatives_agree(count, atoms, monkeypatch):
    """Also of the first atoms, which are a process's own; None is for one-hot rows of 12 species."""
    table = None if count is None else torch.randn(count, 5, requires_grad=True)
    fast, original = products(12 if count is None else 5)
    x = torch.randn(atoms, fast.irreps_in1.dim, requires_grad=True)
    species = torch.randint(count or 12, (ATOMS,))
    expected = derivatives(original, x, species, table)
    monkeypatch.setattr(SelfConnection.original, "forward", None)
    for found, right in zip(derivatives(fast, x, species, table), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)


@pytest.mark.cuda
@pytest.mark.parametrize("count", [3, 9, None], ids=str)
def test_nothing_waits_for_a_gpu(count):
    table = None if count is None else torch.randn(count, 5, device="cuda", requires_grad=True)
    fast = products(12 if count is None else 5)[0].cuda()
    x = torch.randn(ATOMS, fast.irreps_in1.dim, device="cuda", requires_grad=True)
    species = torch.arange(ATOMS, device="cuda") % (count or 12)
    derivatives(fast, x, species, table)
    torch.cuda.set_sync_debug_mode("error")
    try:
        derivatives(fast, x, species, table)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_more_species_than_atoms_are_left_to_e3nn(monkeypatch):
    fast, original = products(5)
    table, x = torch.randn(ATOMS + 1, 5), torch.randn(ATOMS, fast.irreps_in1.dim)
    rows = attributes_of(torch.arange(ATOMS), table)
    assert torch.equal(fast(x, rows), original(x, rows))


def test_attributes_are_known_as_long_as_they_are_those_that_were_looked_up():
    species, table = torch.arange(ATOMS) % 3, torch.randn(3, 5)
    rows = attributes_of(species, table)
    assert look_up(rows) is look_up(rows[:4]) is look_up(rows.narrow(0, 0, 5)) is not None
    for other in (rows[1:], rows[::2], rows[:, :4], rows.T, rows + 0, rows.clone(), rows.flip(0), rows.view(-1)):
        assert look_up(other) is None
    rows[:4].mul_(2)
    assert look_up(rows) is None


def test_files_and_copies_of_attributes_are_plain_tensors(tmp_path):
    rows = attributes_of(torch.arange(ATOMS) % 3, torch.randn(3, 5))
    torch.save(rows, tmp_path / "rows.pt")
    for other in (torch.load(tmp_path / "rows.pt", weights_only=True), copy.deepcopy(rows)):
        assert torch.equal(other, rows)
        assert look_up(other) is None


def test_torch_compile_has_e3nns_product():
    fast, original = products(5)
    table, x, species = torch.randn(3, 5), torch.randn(ATOMS, fast.irreps_in1.dim), torch.arange(ATOMS) % 3
    compiled = torch.compile(lambda *given: fast(given[0], attributes_of(*given[1:])), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, species, table), original(x, table[species]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [3, 9])
def test_a_traced_program_serves_other_numbers_of_atoms_and_other_species(count):
    fast, original = products(5)
    table = torch.randn(count, 5)

    def function(x, species):
        return fast(x, attributes_of(species, table)[: x.shape[0]])

    def given(atoms):
        return torch.randn(atoms, fast.irreps_in1.dim), torch.randint(count, (atoms,))

    program = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*given(ATOMS))
    x, species = given(17)
    torch.testing.assert_close(program(x, species), original(x, table[species]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("product", "why"),
    [
        (lambda: o3.FullyConnectedTensorProduct("2x0e", "2x0e+1x1o", "2x0e"), "2x0e+1x1o"),
        (lambda: o3.FullyConnectedTensorProduct("2x0e", "2x0e", "2x0e", internal_weights=False), "no weights"),
    ],
)
def test_other_products_are_left_and_named(product, why):
    assert why in SelfConnection.obstacle(product())
