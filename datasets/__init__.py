"""Molecules and crystals with energies, forces and other properties as PyG datasets, in eV and Angstrom."""

from datasets.atoms_file import AtomsFile
from datasets.ethanol import EthanolPBE
from datasets.frame_dataset import FrameDataset
from datasets.md17 import MD17
from datasets.md17_ccsd import MD17CCSD
from datasets.qm9 import QM9, QM9Sample
from datasets.structure_dataset import StructureDataset

__all__ = ["MD17", "MD17CCSD", "QM9", "AtomsFile", "EthanolPBE", "FrameDataset", "QM9Sample", "StructureDataset"]
