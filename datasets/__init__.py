"""Molecules and crystals with energies, forces and other properties as PyG datasets, in eV and Angstrom."""

from datasets.alloys import AlloysEMT
from datasets.ase_atoms import to_ase
from datasets.atoms_file import AtomsFile
from datasets.dtype import ToDtype
from datasets.ethanol import EthanolPBE
from datasets.frame_dataset import FrameDataset
from datasets.md17 import MD17
from datasets.md17_ccsd import MD17CCSD
from datasets.qm9 import QM9, QM9Sample
from datasets.spread import Spread, Statistics, statistics
from datasets.structure_dataset import StructureDataset

__all__ = [
    "MD17",
    "MD17CCSD",
    "QM9",
    "AlloysEMT",
    "AtomsFile",
    "EthanolPBE",
    "FrameDataset",
    "QM9Sample",
    "Spread",
    "Statistics",
    "StructureDataset",
    "ToDtype",
    "statistics",
    "to_ase",
]
