"""Forward, backward and double backward of this project and of every installed peer, beside the limit of the machine.

A tensor product is a convolution on a graph, and a product of rows on rows. Linear maps, products of rows with
themselves and symmetric contractions take a graph's nodes for rows. The limit is the time to read each input and write
each output once at the bandwidth of a large copy, or that of this project's multiply-adds at the rate of a large matrix
product, whichever is longer. The output of some nodes, or rows, is first compared with e3nn in float64, that of
symmetric contractions with their monomials, one after the other; an output that differs is not timed.

With --models whole models of MACE, NequIP and SevenNet are timed instead: energies and forces, and a training step.
With --neighbors it is neighbour lists, beside matscipy, vesin and the step of dynamics that they are for.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from cuda_kernels.problem import LAYOUTS

from . import graphs, lists, models, peers, timing
from .measure import ORDERS, STEP, Setting, host_cost, limit, machine, measure
from .problems import NAMES

DEFAULT_PROBLEMS, DEFAULT_GRAPHS = ("mace-large", "mace-medium", "nequip-aspirin"), ("molecules",)


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    if options.plot:
        from .plot import draw  # matplotlib is optional; that it is missing is said before anything is measured
    if options.from_json:
        report = json.loads(Path(options.from_json).read_text())
        report["rows"] = [row for row in report["rows"] if _is_wanted(row, options)]
        for row in report["rows"]:
            print(_any_line(row))
    elif options.neighbors:
        report = lists.measured(options)
    elif options.models:
        report = models.measured(options, sys.argv[1:] if arguments is None else arguments)
    else:
        report = _measured(options)
    if options.plot:
        if not all("problem" in row for row in report["rows"]):
            parser.error(f"--plot: {options.from_json} has rows of models or lists, of which there is no picture")
        draw(report, options.plot)
    return report["rows"]


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Options that do not go together, and files that are not there, are refused before anything is measured."""
    others = ("models", "problems", "graphs", "peers", "layouts", "steps", "plot", "profile", "largest")
    changed = [f"--{name}" for name in others if getattr(options, name) != parser.get_default(name)]
    if options.neighbors and changed:
        parser.error(f"--neighbors: has no {', '.join(changed)}")
    for name in ("profile", "largest"):
        if getattr(options, name) and not options.models:
            parser.error(f"--{name}: is of models; say which by --models {','.join(models.MODELS)}")
    if options.sizes and not (options.models or options.neighbors):
        parser.error(f"--sizes: is of models and lists; say --models {','.join(models.MODELS)}, or --neighbors")
    if options.models and any(atoms % 2 for atoms in options.sizes or ()):
        given = ",".join(map(str, options.sizes))
        parser.error(f"--sizes: {given}: expected positive even numbers of atoms for models, such as 64,1000")
    if options.json and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"--json: {options.json}: its folder does not exist; make it first")
    if options.from_json and not Path(options.from_json).is_file():
        parser.error(f"--from-json: {options.from_json}: no such file; --json writes one")
    if options.models and (options.plot or options.problems or options.graphs):
        parser.error("--models: has no --plot, --problems or --graphs")
    if options.largest and options.device != "cuda":
        parser.error(f"--largest: needs --device cuda, got {options.device}")


def _is_wanted(row: dict, options: argparse.Namespace) -> bool:
    """Whether a row of a file is of the models, problems and graphs that were asked for: all, where none were."""
    if options.neighbors or "structure" in row:
        return "structure" in row and not (options.models or options.problems or options.graphs)
    if "model" in row:
        return options.models is None or bool({row["model"], row["package"]} & set(options.models))
    return options.models is None and all(
        wanted is None or row[of] in wanted for of, wanted in (("problem", options.problems), ("graph", options.graphs))
    )


def _measured(options: argparse.Namespace) -> dict:
    """Every problem on every graph by every contender; rows are printed and written as they come."""
    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype)
    bandwidth, arithmetic = timing.bandwidth(device), timing.arithmetic(device, dtype)
    setting = Setting(device, dtype, bandwidth, arithmetic, options.seconds, options.steps)
    contenders = {f"pyg_cgconv {layout}": (peers.ours, layout) for layout in options.layouts}
    contenders |= {name: (peers.ALL[name], options.layouts[0]) for name in options.peers}
    host = host_cost(device, options.seconds)
    print(
        "host cost of a call with 316 edges:", ", ".join(f"{name} {us:.0f} us" for name, us in host.items()), flush=True
    )
    rates = {"copy_GB_per_s": bandwidth / 1e6, "multiply_adds_per_ns": arithmetic / 1e6, "host_us": host}
    report: dict = {"machine": machine(device) | rates, "rows": []}
    for problem in options.problems or DEFAULT_PROBLEMS:
        for graph in options.graphs or DEFAULT_GRAPHS:
            for name, (make, layout) in contenders.items():
                row = {"problem": problem, "graph": graph, "peer": name, "dtype": options.dtype}
                row |= measure(make, layout, problem, graph, setting)
                report["rows"].append(row)
                print(line(row), flush=True)
                if options.json:
                    Path(options.json).write_text(json.dumps(report, indent=1))
    return report


def _any_line(row: dict) -> str:
    if "structure" in row:
        return lists.line(row)
    return models.line(row) if "model" in row else line(row)


def line(row: dict) -> str:
    """A row of the table, in brackets the fraction that is reached of what the machine can do."""
    ms = row["ms"]
    cells = [f"{row['problem']:15} {row['graph']:10} {row['peer']:22}"]
    cells += [f"{ms[order]:9.3f} ms ({limit(row, order) / ms[order]:4.2f})" for order in ORDERS if order in ms]
    if STEP in ms:
        cells.append(f"step {ms[STEP]:9.3f} ms")
    if row.get("host_ms"):
        cells.append("host " + " / ".join(f"{t:.3f}" for t in row["host_ms"].values()) + " ms")
    if row.get("memory_MB"):
        cells.append("memory " + " / ".join(f"{m:.0f}" for m in row["memory_MB"].values()) + " MB")
    if "error" in row:
        cells.append(f"error {row['error']:.0e}")
    return "  ".join([*cells, row.get("missing", "")]).rstrip()


def _sizes(text: str) -> list[int]:
    sizes = [int(number) if number.isdecimal() else 0 for number in text.split(",")]
    if not all(sizes):
        raise argparse.ArgumentTypeError(f"{text}: expected positive numbers of atoms, such as 64,1000")
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pyg_cgconv.benchmark", description=__doc__)

    def names(choices):
        def read(text: str) -> list[str]:
            chosen = [name for name in text.split(",") if name]
            if unknown := set(chosen) - set(choices):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected some of {', '.join(choices)}")
            return chosen

        return read

    def option(flag: str, choices, default: list[str] | None, text: str) -> None:
        parser.add_argument(
            flag, type=names(choices), default=default, metavar="A,B,...", help=f"{text}: {', '.join(choices)}"
        )

    option(
        "--problems",
        NAMES,
        None,
        "products, linear maps (linear-), products with themselves (square-), symmetric contractions (symmetric-)",
    )
    option("--graphs", graphs.NAMES, None, "what they run on")
    option("--peers", peers.ALL, list(peers.PEERS), "what this project is compared with")
    option("--layouts", LAYOUTS, ["ir_mul", "mul_ir"], "of this project; the first also of peers that know both")
    option("--models", models.NAMES, None, "packages with models, or single models, instead of problems")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        metavar="N,M,...",
        help=f"atoms of the structures of models (default {models.SIZES['cuda']}, on a CPU {models.SIZES['cpu']}), or "
        f"of lists (default {lists.SIZES['cuda']}, on a CPU {lists.SIZES['cpu']})",
    )
    parser.add_argument("--neighbors", action="store_true", help="neighbour lists instead of problems")
    parser.add_argument("--profile", action="store_true", help="of models, what the time of kernels goes to")
    parser.add_argument(
        "--largest", action="store_true", help="of models, the largest system that a GPU has room for, too"
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="how long each call is repeated for the median of its times"
    )
    parser.add_argument("--steps", action="store_true", help="time training steps on energies and forces too")
    parser.add_argument("--json", help="file for every figure and the machine")
    parser.add_argument("--plot", help="picture of the fractions reached (needs matplotlib)")
    parser.add_argument("--from-json", help="file of --json to take the rows from; nothing is measured")
    return parser


if __name__ == "__main__":
    main()
