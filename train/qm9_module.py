"""The training step for a property of molecules: its loss, its validation error, the model's readout."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from torch import Tensor
from torch_geometric.data import Batch

from pyg_cgconv.potential import Prepared
from train.loss import difference
from train.module import PotentialModule
from train.options import FitOptions, ModelOptions
from train.qm9_readout import READOUT_IRREPS, PropertyReadout
from train.qm9_statistics import PropertyStatistics

NAME = "property"
ERROR_COLUMN = "val/mae"  # of the log, in the unit of the data


class PropertyModule(PotentialModule):
    """A model of one property and the way it is fitted; a checkpoint holds all that is needed to build it again.

    The loss is the mean penalty of the error in units of ``spread``.

    Args:
        column: of the batch's ``y``, that holds the property.
        readout: arguments of :class:`train.qm9_readout.PropertyReadout`.
        spread: unit of the loss, in that of the property.
        potential: arguments of :class:`pyg_cgconv.Potential`.
        fit: arguments of :class:`train.options.FitOptions`.
    """

    def __init__(self, column: int, readout: dict, spread: float, potential: dict, fit: dict):
        super().__init__(potential, fit, quantities=(NAME,))
        self.column, self.spread = column, spread
        self.readout = PropertyReadout(**readout)

    def forward(self, batch: Batch | Prepared) -> dict[str, Tensor]:
        outputs = self.potential.atomic_outputs(batch)
        batch = batch.data if isinstance(batch, Prepared) else batch
        return {NAME: self.readout(outputs, self.potential.get_buffer("species_of_number")[batch.z], batch)}

    def loss_weights(self, progress: float) -> dict[str, float]:
        return {NAME: 1.0}

    @staticmethod
    def frame_statistics(hyperparameters: Mapping) -> list[float]:
        potential, readout = hyperparameters["potential"], hyperparameters["readout"]
        learnt = [*np.ravel(readout["shift"]), *readout["scale"], hyperparameters["spread"]]
        return [*potential["species"], potential["avg_num_neighbors"], *learnt]

    def residuals(self, predicted: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {name: error / self.spread for name, error in self.reported_errors(predicted, batch).items()}

    def label_weights(self, name: str, batch: Batch) -> None:
        return None

    def reported_errors(self, predicted: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {NAME: difference(predicted[NAME], batch.y[:, self.column])}

    def error_column(self, name: str) -> str:
        return ERROR_COLUMN


def new_property_module(
    column: int, readout: str, model: ModelOptions, fit: FitOptions, statistics: PropertyStatistics, dtype: str
) -> PropertyModule:
    """A model with fresh weights, told of its training molecules by ``statistics``.

    Raises:
        ValueError: ``model`` asks for a part of energies by which atoms repel each other.
    """
    if model.zbl:
        raise ValueError(
            "zbl=True: qm9 learns a property of molecules at rest, to which nothing is added; leave it out"
        )
    potential = {
        **asdict(model),
        "species": list(statistics.species),
        "readout_irreps": READOUT_IRREPS[readout],
        "avg_num_neighbors": statistics.num_neighbors,
        "scale": 1.0,
        "dtype": dtype,
    }
    shift, scale = [list(row) for row in statistics.shift], list(statistics.scale)
    return PropertyModule(
        column, {"readout": readout, "shift": shift, "scale": scale}, statistics.spread, potential, asdict(fit)
    )
