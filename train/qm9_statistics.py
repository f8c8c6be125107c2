"""What a property model is told of its training molecules before it learns: the best guess from their composition."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import scatter

from train.qm9_readout import pooling_weights


@dataclass(frozen=True)
class PropertyStatistics:
    """Taken from the training molecules only, in float64.

    Args:
        species: atomic numbers present, ascending.
        shift: (species, k), see :class:`train.qm9_readout.PropertyReadout`.
        scale: (k,), likewise.
        spread: root mean square of what the shifts leave unexplained, in the unit of the property: errors are counted
            in it.
        num_neighbors: edges per atom.
    """

    species: tuple[int, ...]
    shift: tuple[tuple[float, ...], ...]
    scale: tuple[float, ...]
    spread: float
    num_neighbors: float


def composition_features(molecules: Sequence[Data], readout: str, species: Tensor) -> tuple[Tensor, Tensor]:
    """What the shifts multiply (molecules, species * k), and the sum of squared weights of each term (molecules, k)."""
    batch = Batch.from_data_list(list(molecules), exclude_keys=["edge_index", "edge_cutoff"])
    weights = pooling_weights(readout, batch)
    one_hot = (batch.z[:, None] == species).double()
    terms = (one_hot[:, :, None] * weights[:, None, :]).flatten(1)
    features = scatter(terms, batch.batch, dim_size=batch.num_graphs)
    return features, scatter(weights.square(), batch.batch, dim_size=batch.num_graphs)


def collect_property_statistics(molecules: Sequence[Data], target: Tensor, readout: str) -> PropertyStatistics:
    r"""Statistics of training ``molecules``, whose neighbour lists are there already.

    Shifts minimise the squared errors of the property from them alone; with ``sum`` they are energies of atoms in a
    molecule, as the usual atom references, but those of bound atoms, which leave less to learn. A dipole moment has
    none. Scales are such that independent :math:`\varepsilon` of variance 1 would make up the spread.

    Args:
        molecules: M of them.
        target: the property (M,) float64.
        readout: as in :class:`train.qm9_readout.PropertyReadout`.
    """
    species = torch.cat([molecule.z for molecule in molecules]).unique()
    features, squares = composition_features(molecules, readout, species)
    if readout == "dipole":
        shift = torch.zeros(features.shape[1], dtype=torch.float64)
    else:
        shift = torch.linalg.lstsq(features, target[:, None], driver="gelsd").solution.squeeze(1)
    spread = (target - features @ shift).square().mean().sqrt()
    if not spread > 0:
        raise ValueError(f"the {len(molecules)} training molecules leave nothing to learn beyond their composition")
    num_atoms = sum(molecule.num_nodes for molecule in molecules)
    return PropertyStatistics(
        species=tuple(species.tolist()),
        shift=tuple(map(tuple, shift.unflatten(0, (len(species), -1)).tolist())),
        scale=tuple((spread / squares.mean(dim=0).sqrt()).tolist()),
        spread=spread.item(),
        num_neighbors=sum(molecule.num_edges for molecule in molecules) / num_atoms,
    )
