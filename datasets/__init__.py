"""Molecules and crystals with energies and forces as PyG datasets, in eV and Angstrom."""

from datasets.atoms_file import AtomsFile
from datasets.ethanol import EthanolPBE
from datasets.frame_dataset import FrameDataset
from datasets.md17 import MD17

__all__ = ["MD17", "AtomsFile", "EthanolPBE", "FrameDataset"]
