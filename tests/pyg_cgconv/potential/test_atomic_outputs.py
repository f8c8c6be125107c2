"""What a potential that reads something else than an energy gives each atom."""

import pytest
import torch
from e3nn import o3
from torch_geometric.data import Data

from pyg_cgconv import Potential, RadiusGraph

CUTOFF = 3.0


def model(readout_irreps, **options):
    torch.manual_seed(2)
    defaults = dict(channels=3, lmax=1, layers=2, num_radial=3, radial_hidden=(4,), dtype="float64")
    return Potential(["H", "O"], CUTOFF, readout_irreps=readout_irreps, **{**defaults, **options}).eval()


def molecule(turn=None):
    pos = torch.tensor([[0.0, 0.0, 0.1], [0.9, 0.2, 0.0], [-0.3, 1.0, -0.2], [1.5, 1.3, 0.4]], dtype=torch.float64)
    pos = pos if turn is None else pos @ turn.T
    return RadiusGraph(CUTOFF)(Data(z=torch.tensor([8, 1, 1, 8]), pos=pos))


def rotation():
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    return turn * torch.linalg.det(turn).sign()


@pytest.mark.parametrize("layers", [1, 2])
def test_vectors_turn_and_scalars_stay(layers):
    potential = model("0e + 1o", layers=layers)
    turn = rotation()
    before, after = potential.atomic_outputs(molecule()), potential.atomic_outputs(molecule(turn))
    assert before.shape == (4, 4)
    torch.testing.assert_close(after[:, :1], before[:, :1], rtol=1e-9, atol=0)
    # the components of a vector are x, y, z
    torch.testing.assert_close(after[:, 1:], before[:, 1:] @ turn.T, rtol=0, atol=1e-13)
    assert before[:, 1:].norm(dim=1).min() > 1e-6


def test_vectors_change_sign_under_inversion():
    potential = model("0e + 1o")
    inverse = -torch.eye(3, dtype=torch.float64)
    before, after = potential.atomic_outputs(molecule()), potential.atomic_outputs(molecule(inverse))
    torch.testing.assert_close(after[:, 1:], -before[:, 1:], rtol=0, atol=1e-13)
    assert before[:, 1:].norm(dim=1).min() > 1e-6


def test_energy_is_the_sum_of_the_scaled_outputs():
    potential = model("0e", shift={"H": -1.0, "O": -20.0}, scale={"H": 2.0, "O": 3.0})
    outputs = potential.atomic_outputs(molecule()).squeeze(1)
    expected = -42.0 + 3.0 * (outputs[0] + outputs[3]) + 2.0 * (outputs[1] + outputs[2])
    torch.testing.assert_close(potential(molecule(), compute_forces=False)["energy"], expected[None])


def test_two_scalars_differ():
    outputs = model("2x0e").atomic_outputs(molecule())
    assert outputs.shape == (4, 2)
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])


def test_a_file_keeps_the_readout(tmp_path):
    potential = model("0e + 1o")
    potential.save(tmp_path / "model.pt")
    again = Potential.load(tmp_path / "model.pt")
    assert torch.equal(again.atomic_outputs(molecule()), potential.atomic_outputs(molecule()))


def test_no_energy_of_a_model_of_something_else():
    with pytest.raises(ValueError, match=r"readout_irreps: an energy is a single scalar, .*'1x0e\+1x1o'; call atomic"):
        model("0e + 1o")(molecule())


@pytest.mark.parametrize(
    ("readout", "options"),
    [("0e + 2e", {}), ("1e", {}), ("0e + 1o", {"lmax": 0}), ("", {}), ("1e", {"parity": True, "layers": 1})],
)
def test_readout_that_features_cannot_give(readout, options):
    with pytest.raises(
        ValueError,
        match=rf"readout_irreps: expected some of the irreps .*got '{o3.Irreps(readout)}'".replace("+", r"\+"),
    ):
        model(readout, **options)
