"""Forward, backward and double backward of this layer and of every installed peer, beside the memory-bandwidth floor.

The floor is the time to read each input and write each output once at the bandwidth of a large copy. Every row is first
compared with e3nn in float64 on the edges of some target nodes.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform

import torch

from cuda_kernels.cache import installed_version

from .._layout import shape, to_ir_mul, to_mul_ir
from . import graphs, peers, timing
from .problems import PROBLEMS

ORDERS = ("forward", "backward", "double_backward")
CHECKED_NODES = 16
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def main(arguments: list[str] | None = None) -> list[dict]:
    options = _parser().parse_args(arguments)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    bandwidth = timing.bandwidth(device)
    rows = []
    for problem in options.problems:
        for graph in options.graphs:
            contenders = {f"pyg_cgconv {layout}": (peers.ours, layout) for layout in options.layouts}
            contenders |= {name: (peers.PEERS[name], "mul_ir") for name in options.peers}
            for name, (make, layout) in contenders.items():
                row = {"problem": problem, "graph": graph, "peer": name, "dtype": options.dtype}
                row |= measure(make, layout, problem, graph, device, dtype, bandwidth, options.repeats)
                rows.append(row)
                print(_line(row), flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": _machine(device, bandwidth), "rows": rows}, file, indent=1)
    return rows


def measure(make, layout, problem, graph, device, dtype, bandwidth, repeats) -> dict:
    """Milliseconds and fraction of the floor for each order, or why there is none."""
    nodes, edge_index = graphs.build(graph)
    edge_index = edge_index.to(device)
    reference = peers.reference(problem)
    edges = edge_index.shape[1]
    generator = torch.Generator(device).manual_seed(0)
    shapes = ((nodes, reference.irreps_in.dim), (edges, reference.irreps_edge.dim), (edges, reference.weight_numel))
    inputs = [torch.randn(s, device=device, dtype=dtype, generator=generator, requires_grad=True) for s in shapes]
    floors = floor(*(t.numel() for t in inputs), nodes * reference.irreps_out.dim, inputs[0].element_size(), bandwidth)
    result: dict = {"nodes": nodes, "edges": edges, "floor_ms": dict(zip(ORDERS, floors, strict=True))}
    try:
        peer = make(problem, layout, edge_index, dtype)
        result["error"] = check(peer, problem, edge_index, inputs)
        result["ms"] = dict(zip(ORDERS, orders(peer.run, inputs, device, repeats), strict=True))
    except ImportError as error:
        result["missing"] = str(error)
    except torch.OutOfMemoryError:
        result["missing"] = "out of memory"
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return result


def floor(x: int, y: int, w: int, out: int, item: int, bandwidth: float) -> tuple[float, float, float]:
    """Milliseconds for the numbers that must move: forward, backward, double backward."""
    inputs = x + y + w
    return tuple(n * item / bandwidth for n in (inputs + out, 2 * inputs + out, 3 * inputs + 2 * out))


def orders(run, inputs, device, repeats) -> list[float]:
    """Milliseconds of the output, of its gradients, and of the gradients of those."""
    times = [timing.milliseconds(lambda: run(*inputs), device, repeats)]
    out = run(*inputs)
    cotangent = torch.randn_like(out).requires_grad_()
    times.append(
        timing.milliseconds(lambda: torch.autograd.grad(out, inputs, cotangent, retain_graph=True), device, repeats)
    )
    first = torch.autograd.grad(out, inputs, cotangent, create_graph=True)
    tangents = [torch.randn_like(t) for t in first]
    every = [*inputs, cotangent]
    times.append(
        timing.milliseconds(lambda: torch.autograd.grad(first, every, tangents, retain_graph=True), device, repeats)
    )
    return times


def check(peer: peers.Convolution, problem: str, edge_index, inputs) -> float:
    """The relative error of the first target nodes against e3nn in float64.

    Raises:
        RuntimeError: it is too large to time what was computed.
    """
    kept = edge_index[1] < CHECKED_NODES
    x, y, w = (t.detach().double().cpu() for t in (inputs[0], inputs[1][kept], inputs[2][kept]))
    reference = peers.reference(problem)
    if peer.layout == "ir_mul":
        x = to_mul_ir(x, shape(reference.irreps_in))
    expected = reference((x, None), edge_index[:, kept].cpu(), y, w, size=(len(x), CHECKED_NODES))
    if peer.layout == "ir_mul":
        expected = to_ir_mul(expected, shape(reference.irreps_out))
    with torch.no_grad():
        result = peer.run(*inputs)[:CHECKED_NODES].double().cpu()
    error = ((result - expected).norm() / expected.norm()).item()
    if not error < TOLERANCE[inputs[0].dtype]:
        raise RuntimeError(f"{problem}: the output differs from e3nn's by {error:.1e}; it was not timed")
    return error


def _line(row: dict) -> str:
    head = f"{row['problem']:15} {row['graph']:10} {row['peer']:18} "
    if "ms" not in row:
        return head + row["missing"]
    cells = (f"{row['ms'][o]:9.3f} ms ({row['floor_ms'][o] / row['ms'][o]:4.2f})" for o in ORDERS)
    return head + "  ".join(cells) + f"   error {row['error']:.0e}"


def _machine(device: torch.device, bandwidth: float) -> dict:
    packages = ("torch", "numba", "numba-cuda", "e3nn", "torch_scatter", "cuequivariance-torch")
    versions = {package: installed_version(package) for package in packages}
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    return {"device": name, "copy_GB_per_s": bandwidth / 1e6, "versions": versions}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pyg_cgconv.benchmark", description=__doc__)

    def names(choices):
        def read(text: str) -> list[str]:
            chosen = [name for name in text.split(",") if name]
            if unknown := set(chosen) - set(choices):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected some of {', '.join(choices)}")
            return chosen

        return read

    parser.add_argument("--problems", type=names(PROBLEMS), default=["mace-large", "mace-medium", "nequip-aspirin"])
    parser.add_argument("--graphs", type=names(graphs.GRAPHS), default=["molecules"])
    parser.add_argument("--peers", type=names(peers.PEERS), default=list(peers.PEERS))
    parser.add_argument("--layouts", type=names(("ir_mul", "mul_ir")), default=["ir_mul", "mul_ir"])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="file for every figure and the machine")
    return parser


if __name__ == "__main__":
    main()
