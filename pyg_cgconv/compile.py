"""Compiles a potential's kernels ahead, so that its first call compiles nothing.

They are kept where all compiled kernels are: in the folder that PYG_CGCONV_CACHE names, or in pyg_cgconv among the
user's caches. GPUs need not be there: `--for sm_90` compiles for one of that compute capability.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from cuda_kernels import cache

from .nn import GATE_GAINS, fused_as_on_gpus
from .ops import compile_for_gpu, compile_gates, recorded, work_for_threads
from .potential import Potential, RadiusGraph

DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "float64")
EDGE_OF_CELL = 3.0
"""Angstrom; a cell of a few atoms, each with some dozen images within a cutoff."""


def compile_kernels(
    potential: Potential,
    *,
    capabilities: Sequence[tuple[int, int]] | None = None,
    training: bool = False,
    deterministic: bool = False,
) -> int:
    """Compiles what a potential needs for energies, forces and stresses, in its dtype, and keeps it on disk.

    Args:
        potential: The potential, on a CPU.
        capabilities: Compute capabilities of GPUs, such as [(9, 0)], which need not be there; None for this CPU.
        training: Whether a step of a training on them is compiled, too.
        deterministic: Whether the kernels of a GPU for ``torch.use_deterministic_algorithms(True)`` are meant.

    Returns:
        The number of files that were added to the folder of compiled kernels.

    Raises:
        ValueError: a GPU is older than the kernels' instructions (compute capability 8.0).
        ImportError: numba-cuda, which compiles for GPUs, is not installed.
        OSError: nothing can be kept in the folder of compiled kernels.
    """
    potential = copy.deepcopy(potential)  # its mode and its gradients change
    before = _kept()
    if capabilities is None:
        _on_threads(1, lambda: _run_all(potential, training))
        with work_for_threads(1):
            _on_threads(2, lambda: _run_all(potential, training))
    else:
        with recorded() as asked, fused_as_on_gpus():
            _run_all(potential, training)
        before = _kept()  # with those of this CPU, on which it was run
        dtype = str(potential.dtype).removeprefix("torch.")
        for capability in capabilities:
            compile_for_gpu({(*what[:2], deterministic) for what in asked}, capability)
            compile_gates(GATE_GAINS, dtype, capability, training)
    kept = _kept()
    if not kept:
        raise OSError(f"nothing could be kept in {cache.folder()}; name another folder in PYG_CGCONV_CACHE")
    return len(kept - before)


def _kept() -> set[str]:
    folder = cache.folder()
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


def _on_threads(threads: int, run: Callable[[], None]) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run()
    finally:
        torch.set_num_threads(usual)


def _run_all(potential: Potential, training: bool) -> None:
    """Every way to call it, with a few atoms: which derivatives there are, and what they are taken by."""
    data = _a_crystal(potential)
    _infer(potential.eval().requires_grad_(True), data)
    if training:
        _train(potential.train(), data)
    _infer(potential.eval().requires_grad_(False), data)


def _infer(potential: Potential, data: Data) -> None:
    if potential.hyperparameters["readout_irreps"] != "1x0e":
        potential.atomic_outputs(data)
        return
    if "energy" not in potential.hyperparameters["properties"]:
        with torch.no_grad():
            potential(data)
        return
    for forces, stress in ((False, False), (True, False), (True, True)):
        with torch.no_grad():
            potential(data, compute_forces=forces, compute_stress=stress)


def _train(potential: Potential, data: Data) -> None:
    """Backward of losses on each set of quantities, as trainings do it: gradients by all that has some."""

    def differentiate(*outputs: Tensor) -> None:
        torch.stack([output.square().sum().double() for output in outputs]).sum().backward(retain_graph=True)

    if potential.hyperparameters["readout_irreps"] != "1x0e":
        differentiate(potential.atomic_outputs(data))
        return
    if "energy" not in potential.hyperparameters["properties"]:
        differentiate(*(value.nan_to_num() for value in potential(data).values()))
        return
    differentiate(potential(data, compute_forces=False)["energy"])
    for stress in (False, True):
        out = potential(data, compute_stress=stress)
        differentiate(out["forces"])
        differentiate(*out.values())


def _a_crystal(potential: Potential) -> Data:
    """Two atoms of each of up to three species, where they see each other."""
    numbers = potential.hyperparameters["species"][:3]
    generator = torch.Generator().manual_seed(0)
    z = torch.tensor(numbers * 2)
    edge = max(EDGE_OF_CELL, potential.cutoff / 2)
    pos = edge * torch.rand(len(z), 3, dtype=torch.float64, generator=generator)
    cell = edge * torch.eye(3, dtype=torch.float64)[None]
    return RadiusGraph(potential.cutoff)(Data(z=z, pos=pos, cell=cell))


def main(arguments: list[str] | None = None) -> int:
    """Returns the number of kernels that were added."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.gpus and options.device == "cpu":
        parser.error(f"--for: is of GPUs, and does not go with --device cpu, got {options.gpus}")
    on_gpu = options.device == "cuda" or bool(options.gpus) or (options.device is None and torch.cuda.is_available())
    if on_gpu and not options.gpus and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here; say for which one by --for, such as --for sm_90")
    began, added = time.perf_counter(), 0
    try:
        capabilities = None
        if on_gpu:
            capabilities = options.gpus or [torch.cuda.get_device_capability()]
        for dtype in options.dtype or [None]:
            potential = Potential.load(options.model, **({} if dtype is None else {"dtype": dtype}))
            added += compile_kernels(
                potential,
                capabilities=capabilities,
                training=options.training,
                deterministic=options.deterministic,
            )
    except (OSError, ValueError, ImportError) as error:
        parser.error(f"{error}")
    machine = "this CPU" if capabilities is None else ", ".join("sm_{}{}".format(*each) for each in capabilities)
    print(f"{added} kernels compiled for {machine} in {time.perf_counter() - began:.1f} s, kept in {cache.folder()}")
    return added


def _capability(given: str) -> tuple[int, int]:
    """Of "sm_90" or "9.0"."""
    found = re.fullmatch(r"sm_(\d+)(\d)|(\d+)\.(\d)", given)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a compute capability such as sm_90 or 9.0, got {given!r}")
    major, minor = (number for number in found.groups() if number is not None)
    return int(major), int(minor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pyg_cgconv.compile", description=__doc__)
    parser.add_argument("model", type=Path, help="a file of Potential.save, or the run folder of a training")
    parser.add_argument("--device", choices=DEVICES, help="a GPU if there is one, else the CPU")
    parser.add_argument(
        "--for", dest="gpus", type=_capability, nargs="+", metavar="sm_90", help="GPUs, which need not be here"
    )
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", help="that of the file, if not given")
    parser.add_argument("--training", action="store_true", help="a training step's kernels, too")
    parser.add_argument(
        "--deterministic", action="store_true", help="those of a GPU for torch.use_deterministic_algorithms(True)"
    )
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
