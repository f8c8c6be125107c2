"""The table of neighbour lists: this project, matscipy and vesin, beside the step of dynamics that a list is for."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from torch_geometric.data import Data

from cuda_kernels.cache import installed_version

from ..potential import Potential, Replay, radius_graph
from . import timing
from .kind import Missing
from .measure import machine
from .model_rows import FAILURES, INFERENCE, WARM_UP, reason, release

DENSITY, CUTOFF = 0.1, 5.0
"""Atoms in a cubic Angstrom, and Angstrom."""
NEIGHBORS = 52.0
MEDIUM = {"cutoff": CUTOFF, "channels": 64, "lmax": 2, "layers": 3, "products": True, "radial_species": True}
"""The preset `medium` of the command that trains on frames."""
SIZES = {"cuda": [1000, 1500, 2500, 8000, 27_000, 100_000, 250_000, 1_000_000], "cpu": [1000]}
"""Atoms, where nobody says how many."""
MOST_BESIDE_A_GPU = 100_000
"""Atoms of the largest structure that a package searches on a CPU while a GPU waits: three seconds a list."""
LIST = "list"
OURS, EAGER, GRAPH = "pyg_cgconv", "eager", "CUDA graph"


def measured(options: Namespace) -> dict:
    """The report of structures of `options.sizes` atoms; rows are printed and written as they come."""
    device = torch.device(options.device)
    report: dict = {"machine": machine(device), "rows": []}
    report["machine"]["versions"] |= {name: installed_version(name) for name in ("scipy", "matscipy", "vesin")}
    potential = Potential(["H"], avg_num_neighbors=NEIGHBORS, dtype=options.dtype, **MEDIUM)  # type: ignore[arg-type]
    potential.to(device).eval().requires_grad_(False)
    potential.validate = False  # as calculators do
    for atoms in options.sizes or SIZES[device.type]:
        for row in _rows(liquid(atoms).to(device), potential, options.seconds):
            report["rows"].append(row | {"dtype": options.dtype})
            print(line(row), flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(report, indent=1))
        release(device)
    return report


def liquid(atoms: int) -> Data:
    """Atoms at random in a periodic cube, without edges."""
    length = (atoms / DENSITY) ** (1 / 3)
    generator = torch.Generator().manual_seed(0)
    pos = length * torch.rand(atoms, 3, dtype=torch.float64, generator=generator)
    cell = length * torch.eye(3, dtype=torch.float64)[None]
    return Data(z=torch.ones(atoms, dtype=torch.long), pos=pos, cell=cell)


def _rows(data: Data, potential: Potential, seconds: float) -> list[dict]:
    """A row for each search, and for each way to compute energy and forces; in "missing" why it has no time.

    - atoms, and edges as they were found.
    - ms: of a call, the host's work included, the median of calls in turns. us_per_atom: the same.
    - share: the time of a search by that of a step, for each way that has one.
    """
    device, rows, calls = data.pos.device, {}, {}
    for name, (what, make) in CONTENDERS.items():
        rows[name] = row = {"structure": "liquid", "atoms": data.num_nodes, "peer": name, "what": what, "ms": {}}
        try:
            call = make(data, potential)
            for _ in range(WARM_UP):
                result = timing.finished(call, device)
            if what == LIST:
                row["edges"] = result
                _refuse(result, rows[OURS].get("edges"))
            calls[name] = call
        except FAILURES as error:
            row["missing"] = reason(error)
        release(device)
    for name, ms in timing.alternating(calls, device, seconds).items():
        row = rows[name]
        row["ms"], row["us_per_atom"] = {row["what"]: ms}, 1e3 * ms / data.num_nodes
    steps = {row["peer"]: row["ms"][INFERENCE] for row in rows.values() if INFERENCE in row["ms"]}
    for row in rows.values():
        if LIST in row["ms"]:
            row["share"] = {name: row["ms"][LIST] / step for name, step in steps.items()}
        elif not row["ms"]:
            row.setdefault("missing", "out of memory beside the others")
    return list(rows.values())


def _refuse(found: int, expected: int | None) -> None:
    """Raises a Missing if these are not the neighbours that this project finds."""
    if expected is not None and found != expected:
        raise Missing(f"it finds {found} edges, {OURS} {expected}; it was not timed")


def _ours(data: Data, potential: Potential) -> Callable[[], int]:
    cell = data.cell.cpu()  # where calculators have it
    data.edge_index, data.edge_shift = radius_graph(data.pos, CUTOFF, cell)
    return lambda: radius_graph(data.pos, CUTOFF, cell)[0].shape[1]


def _matscipy(data: Data, potential: Potential) -> Callable[[], int]:
    """On a CPU, where the positions are already, and the list stays."""
    search = import_module("matscipy.neighbours").neighbour_list
    if data.pos.is_cuda and data.num_nodes > MOST_BESIDE_A_GPU:
        raise Missing(f"searches on a CPU, which was tried up to {MOST_BESIDE_A_GPU} atoms")
    given = {"positions": data.pos.cpu().numpy(), "cell": data.cell[0].cpu().numpy(), "pbc": [True] * 3}
    return lambda: len(search("ijS", cutoff=CUTOFF, **given)[0])


def _vesin(data: Data, potential: Potential) -> Callable[[], int]:
    """On the device of the positions; edges in no order."""
    search = import_module("vesin").NeighborList(cutoff=CUTOFF, full_list=True)
    return lambda: len(search.compute(points=data.pos, box=data.cell[0], periodic=True, quantities="ijS")[0])


def _eager(data: Data, potential: Potential) -> Callable[[], object]:
    _need_list(data)
    return torch.no_grad()(lambda: potential(data, compute_forces=True, compute_stress=False, create_graph=False))


def _graph(data: Data, potential: Potential) -> Callable[[], object]:
    if not data.pos.is_cuda:
        raise Missing("CUDA graphs need a GPU")
    _need_list(data)
    replay = Replay(potential)
    if not replay.serves(data, False):
        raise Missing(f"{data.num_edges} edges are more than calculators capture")
    return torch.no_grad()(lambda: replay(data, False))


def _need_list(data: Data) -> None:
    if data.edge_index is None:
        raise Missing(f"there is no list by {OURS}")


CONTENDERS: dict[str, tuple[str, Callable[[Data, Potential], Callable]]] = {
    OURS: (LIST, _ours),
    "matscipy": (LIST, _matscipy),
    "vesin": (LIST, _vesin),
    EAGER: (INFERENCE, _eager),
    GRAPH: (INFERENCE, _graph),
}


def line(row: dict) -> str:
    """A row of the table."""
    cells = [f"{row['atoms']:9} atoms", f"{row['what']:17}", f"{row['peer']:10}"]
    for ms in row["ms"].values():
        cells.append(f"{ms:10.3f} ms {row['us_per_atom']:9.3f} us/atom")
    if row["ms"] and "edges" in row:
        cells.append(f"{row['edges']:9} edges")
    if row.get("share"):
        shares = (f"{100 * share:.2g} % ({name})" for name, share in row["share"].items())
        cells.append("of a step " + ", ".join(shares))
    if "missing" in row:
        cells.append(f"did not run: {row['missing']}")
    return "  ".join(cells).rstrip()
