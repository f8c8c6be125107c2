"""Models of MACE, with two elements."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..integrations import mace as integration  # first: it says which version is missing

# isort: split
import numpy as np
import torch
from e3nn import o3
from mace import data, modules, tools
from mace.tools.compile import prepare
from mace.tools.scripts_utils import extract_model
from mace.tools.torch_geometric import Batch
from torch import Tensor, nn

from .packages import Make, Package, detached
from .structures import CUTOFF, NEIGHBORS, NUMBERS, rock_salt

BLOCK = "RealAgnosticResidualInteractionBlock"
"""MACE's default, and that of its foundation models."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mace-large": {"hidden_irreps": "128x0e+128x1o+128x2e"},
    "mace-medium": {"hidden_irreps": "128x0e+128x1o"},
}


class MACE(Package):
    accelerate = staticmethod(integration.accelerate)

    def model(self, name: str) -> nn.Module:
        options = {"max_ell": 3, "correlation": 3, "radial_MLP": [64, 64, 64]} | ARCHITECTURES[name]
        torch.manual_seed(0)
        model = modules.ScaleShiftMACE(
            **options | {"hidden_irreps": o3.Irreps(options["hidden_irreps"])},
            r_max=CUTOFF,
            num_bessel=8,
            num_polynomial_cutoff=5,
            interaction_cls=modules.interaction_classes[BLOCK],
            interaction_cls_first=modules.interaction_classes[BLOCK],
            num_interactions=2,
            num_elements=len(NUMBERS),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(NUMBERS)),  # so that energies are what the network makes
            avg_num_neighbors=NEIGHBORS,
            atomic_numbers=list(NUMBERS),
            gate=nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        return model.to(self.device)

    def batch(self, sizes: list[int]) -> dict[str, Any]:
        table = tools.AtomicNumberTable(list(NUMBERS))
        configs = [data.config_from_atoms(rock_salt(atoms, seed)) for seed, atoms in enumerate(sizes)]
        graphs = [data.AtomicData.from_config(config, z_table=table, cutoff=CUTOFF) for config in configs]
        return Batch.from_data_list(graphs).to(self.device).to_dict()

    def evaluate(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        given = detached(batch)
        is_compiled = hasattr(model, "_orig_mod")
        if is_compiled:  # what MACE's calculator gives such a model; others ask for gradients by positions themselves
            given |= {name: given[name].clone().requires_grad_() for name in ("positions", "node_attrs")}
        out = model(given, training=model.training or is_compiled)
        return out["energy"], out["forces"]

    def compiled(self, name: str, model: nn.Module) -> nn.Module:
        """As MACE's calculator has it with ``compile_mode="default"``."""
        built = prepare(extract_model)(model=model, map_location=str(self.device))
        return torch.compile(built, fullgraph=True)  # type: ignore[return-value]  # a module of a module

    def peers(self) -> dict[str, Make]:
        return {"cuequivariance": self._cuequivariance, "openequivariance": self._openequivariance}

    def _cuequivariance(self, name: str, model: nn.Module) -> nn.Module:
        self.need_kernels_of_cuequivariance()
        from mace.cli.convert_e3nn_cueq import run

        return run(model, device=self.device.type, return_model=True)

    def _openequivariance(self, name: str, model: nn.Module) -> nn.Module:
        self.need_gpu("openequivariance has no CPU kernels")
        import_module("openequivariance")  # without it MACE takes e3nn
        from mace.cli.convert_e3nn_oeq import run

        return run(model, device=self.device.type, return_model=True)


PACKAGE = MACE
