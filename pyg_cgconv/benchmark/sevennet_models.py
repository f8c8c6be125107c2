"""Models of SevenNet, with two elements."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

from ..integrations import sevennet as integration  # first: it says which version is missing

# isort: split
import sevenn._const
import sevenn._keys as key
import torch
from sevenn.atom_graph_data import AtomGraphData
from sevenn.model_build import build_E3_equivariant_model
from sevenn.train.dataload import unlabeled_atoms_to_graph
from torch import Tensor, nn
from torch_geometric.loader.dataloader import Collater

from .kind import Missing
from .packages import Make, Package, detached
from .structures import CUTOFF, ELEMENTS, NEIGHBORS, NUMBERS, rock_salt

_HIDDEN = "128x0e+64x1e+32x2e+32x3e"

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sevennet-l3i5": {
        key.IRREPS_MANUAL: ["128x0e", *[_HIDDEN] * 4, "128x0e"],
        key.NODE_FEATURE_MULTIPLICITY: 128,
        key.LMAX: 3,
        key.NUM_CONVOLUTION: 5,
        key.CONVOLUTION_WEIGHT_NN_HIDDEN_NEURONS: [64, 64],
    },
}
"""As the presets of SevenNet have them."""


class SevenNet(Package):
    accelerate = staticmethod(integration.accelerate)

    def model(self, name: str) -> nn.Module:
        return self._built(name)

    def _built(self, name: str, **options: Any) -> nn.Module:
        config = sevenn._const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG | {
            key.CHEMICAL_SPECIES: list(ELEMENTS),
            key.NUM_SPECIES: len(ELEMENTS),
            key.TYPE_MAP: {number: n for n, number in enumerate(NUMBERS)},
            key.CUTOFF: CUTOFF,
            key.IS_PARITY: False,
            key.SELF_CONNECTION_TYPE: "linear",
            key.CONV_DENOMINATOR: NEIGHBORS,
            key.SHIFT: 0.0,
            key.SCALE: 1.0,
        }
        torch.manual_seed(0)
        model = build_E3_equivariant_model(copy.deepcopy(config | ARCHITECTURES[name] | options))
        if self.dtype == torch.float64:
            model.onehot_idx_to_onehot.register_forward_hook(_in_float64)
        return model.to(self.device, self.dtype)

    def batch(self, sizes: list[int]) -> dict[str, Any]:
        structures = [rock_salt(atoms, seed) for seed, atoms in enumerate(sizes)]
        graphs = [AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(each, CUTOFF)) for each in structures]
        given = Collater([])(graphs).to(self.device)
        for name in (key.EDGE_VEC, key.POS, key.CELL_VOLUME):
            given[name] = given[name].to(self.dtype)
        return given.to_dict()

    def evaluate(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        out = model(detached(batch))
        return out[key.PRED_TOTAL_ENERGY], out[key.PRED_FORCE]

    def compiled(self, name: str, model: nn.Module) -> nn.Module:
        raise Missing("SevenNet has no compile mode")

    def peers(self) -> dict[str, Make]:
        return {"cuequivariance": self._cuequivariance, "openequivariance": self._openequivariance}

    def _cuequivariance(self, name: str, model: nn.Module) -> nn.Module:
        self.need_gpu("SevenNet has no cuequivariance on a CPU")
        self.need_kernels_of_cuequivariance()
        return self._with_weights_of(model, self._built(name, **{key.CUEQUIVARIANCE_CONFIG: {"use": True}}))

    def _openequivariance(self, name: str, model: nn.Module) -> nn.Module:
        self.need_gpu("openequivariance has no CPU kernels")
        import_module("openequivariance")  # without it SevenNet takes e3nn

        return self._with_weights_of(model, self._built(name, **{key.USE_OEQ: True}))

    @staticmethod
    def _with_weights_of(original: nn.Module, built: nn.Module) -> nn.Module:
        """A model with other convolutions, which have no parameters of their own, and the parameters of the
        original."""
        parameters = dict(original.named_parameters())
        if set(parameters) != {name for name, _ in built.named_parameters()}:
            raise Missing("its parameters are not those of SevenNet with e3nn")
        built.load_state_dict(parameters, strict=False)
        return built


def _in_float64(module: nn.Module, given: tuple, data: dict[str, Any]) -> dict[str, Any]:
    """SevenNet makes its one-hot species in float32, whatever a model computes in."""
    for name in (key.NODE_FEATURE, key.NODE_ATTR):
        data[name] = data[name].double()
    return data


PACKAGE = SevenNet
