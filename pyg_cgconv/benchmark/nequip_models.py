"""Models of NequIP, with two elements."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..integrations import nequip as integration  # first: it says which version is missing

# isort: split
import torch
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import NequIPGNNModel
from nequip.model.modify_utils import modify
from nequip.nn.compile import CompileGraphModel, DictInputOutputWrapper
from nequip.scripts._compile_utils import ASE_TARGET
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import set_global_state
from torch import Tensor, nn

from .packages import Make, Package
from .structures import CUTOFF, ELEMENTS, NEIGHBORS, rock_salt

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "nequip-m": {"l_max": 2, "num_features": [128, 64, 32]},
    "nequip-l3": {"l_max": 3, "num_features": [128, 64, 32, 32]},
}
"""The first is NequIP's preset M, the second that with l = 3."""
TRACED = 16
"""Atoms of the structure that a program is made with, which takes any number."""


class NequIP(Package):
    accelerate = staticmethod(integration.accelerate)

    def __init__(self, dtype: torch.dtype, device: torch.device):
        super().__init__(dtype, device)
        self.default_dtype = torch.float64  # NequIP's, whatever a model computes in
        set_global_state()

    def model(self, name: str) -> nn.Module:
        return self._built(name, "eager")

    def compiled(self, name: str, model: nn.Module) -> nn.Module:
        """In training ``compile_mode: compile``, in inference what ``nequip-compile --target ase`` makes."""
        built: Any = self._built(name, "compile")
        built.load_state_dict(model.state_dict())
        built.__class__ = Compiled
        built.program = (_program(model, self.batch([TRACED]), self.device),)  # no module of it
        return built

    def _built(self, name: str, compile_mode: str) -> nn.Module:
        options = {"num_layers": 4, "radial_mlp_width": 128, "type_embed_num_features": 32} | ARCHITECTURES[name]
        made = NequIPGNNModel(
            **options,
            seed=0,
            model_dtype=str(self.dtype).removeprefix("torch."),
            type_names=list(ELEMENTS),
            r_max=CUTOFF,
            parity=False,
            radial_mlp_depth=1,
            avg_num_neighbors=NEIGHBORS,
            per_type_energy_scales=dict.fromkeys(ELEMENTS, 1.0),
            per_type_energy_shifts=dict.fromkeys(ELEMENTS, 0.0),
            compile_mode=compile_mode,
        )
        return (made["sole_model"] if isinstance(made, nn.ModuleDict) else made).to(self.device)

    def batch(self, sizes: list[int]) -> dict[str, Any]:
        transforms = ChemicalSpeciesToAtomTypeMapper(list(ELEMENTS)), NeighborListTransform(CUTOFF)
        frames = []
        for seed, atoms in enumerate(sizes):
            frame = from_ase(rock_salt(atoms, seed))
            for transform in transforms:
                frame = transform(frame)
            frames.append(frame)
        return AtomicDataDict.to_(AtomicDataDict.batched_from_list(frames), self.device)

    def evaluate(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        out = model(dict(batch))
        return out["total_energy"], out["forces"]

    def peers(self) -> dict[str, Make]:
        return {"cuequivariance": self._cuequivariance, "openequivariance": self._openequivariance}

    def _cuequivariance(self, name: str, model: nn.Module) -> nn.Module:
        self.need_gpu("NequIP has no cuequivariance on a CPU")
        self.need_kernels_of_cuequivariance()
        return modify(model, [{"modifier": "enable_CuEquivariance"}])

    def _openequivariance(self, name: str, model: nn.Module) -> nn.Module:
        self.need_gpu("openequivariance has no CPU kernels")
        return modify(model, [{"modifier": "enable_OpenEquivariance"}])


class Compiled(CompileGraphModel):
    """A model that NequIP compiles. In inference it is a program of AOTInductor."""

    program: tuple[nn.Module]

    def forward(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        return super().forward(data) if self.training else self.program[0](data)


def _program(model: nn.Module, data: AtomicDataDict.Type, device: torch.device) -> nn.Module:
    """That of any number of atoms and edges of one structure."""
    sizes = {kind: torch.export.Dim(f"num_{kind}s", min=2) for kind in ("graph", "node", "edge")}
    fields = ASE_TARGET["input"], ASE_TARGET["output"]
    with TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.nequip.pt2")
        given = ASE_TARGET["data_settings"](dict(data))
        aot_export_model(model, device, *fields, given, ASE_TARGET["batch_map_settings"](sizes), file)
        return DictInputOutputWrapper(torch._inductor.aoti_load_package(file), *fields)


PACKAGE = NequIP
