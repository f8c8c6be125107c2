"""This project, MACE and NequIP, trained on the same frames for the same time, with about as many parameters.

Each is started by its own command, in an environment of its own, with the settings that its documentation recommends.
Errors are those of the package's own ASE calculator on the same test frames. The folder gets results.json, table.md,
and all that the trainings write. Each code is tried first: kernels are compiled, and parameters counted.

The time is that of the training, without imports and the first look at the data. This project and NequIP take it as a
limit, and their learning rates and averages end with it. MACE has none: it gets as many epochs as the trial says, and
is trained anew where its time was off by a tenth.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from threading import Lock

from train.md17 import MD17Options
from train.outputs import create_results_folder, in_a_sentence
from train.parser import Parser
from train.report import write_json
from train.side_by_side.codes import chosen_codes
from train.side_by_side.frames import FrameFiles, write_frames
from train.side_by_side.options import ComparisonOptions
from train.side_by_side.runs import Job, check_parameters, in_parallel, result, trial, what_is_missing
from train.side_by_side.table import markdown


def parse(arguments: Sequence[str] | None = None) -> tuple[ComparisonOptions, MD17Options]:
    parser = Parser(prog="python -m train.side_by_side", description=__doc__)
    groups = (ComparisonOptions, MD17Options)
    for group in groups:
        parser.add_class_arguments(group)
    given = parser.instantiate(parser.parse_args(arguments))
    values = [{field.name: given[field.name] for field in fields(group)} for group in groups]
    return ComparisonOptions(**values[0]), MD17Options(**values[1])


def main(arguments: Sequence[str] | None = None) -> dict:
    """Compares, prints the table, and returns what is written to ``results.json``.

    Raises:
        ValueError: an option makes no sense, numbers of parameters differ by more than 20 %, or nothing was trained.
    """
    options, data = parse(arguments)
    if options.from_json is not None:
        report = json.loads(options.from_json.read_text())
        print(markdown(report))
        return report
    folder = create_results_folder(options.run_dir, "side_by_side", data.molecule).absolute()
    files = write_frames(data, folder)
    print(f"{files.name}: " + ", ".join(f"{size} {part}" for part, size in files.sizes.items()) + " frames", flush=True)
    return compare(options, files, folder)


def compare(options: ComparisonOptions, files: FrameFiles, folder: Path) -> dict:
    left_out = {}
    jobs = []
    for code in chosen_codes(options):
        missing = what_is_missing(code, folder / f"{code.name}.txt")
        if missing is None:
            jobs += [Job(code, seed, folder / f"{code.name}-{seed}") for seed in options.seeds]
        else:
            left_out[code.name] = missing
            print(f"{code.name} is left out, {' '.join(code.python)}: {missing}", flush=True)
    trials, failed = in_parallel(options.jobs, lambda job: trial(job, files, options), jobs)
    parameters = {job.code.name: found["parameters"] for job, found in trials.items()}
    print("parameters: " + ", ".join(f"{code} {count:,}" for code, count in parameters.items()), flush=True)
    check_parameters(parameters)

    runs: list[dict] = []
    report = {
        "data": files.name,
        "frames": files.sizes,
        "max_time": options.max_time,
        "threads": options.threads,
        "jobs": options.jobs,
        "left_out": left_out,
        "runs": runs,
    }

    def written(job: Job) -> dict:
        row = result(job, files, options, trials[job])
        with one_at_a_time:
            runs.append(row)
            runs.sort(key=lambda run: (order.index(run["code"]), run["seed"]))
            write_json(folder / "results.json", report)
        error = row["test"]
        print(
            f"{job.title}: {row['seconds']:.0f} s, {row['epochs']} epochs, energy {error['energy_mae_meV']:.2f} meV, "
            f"forces {error['forces_mae_meV_per_A']:.2f} meV/A",
            flush=True,
        )
        return row

    order, one_at_a_time = list(parameters), Lock()
    _, failed_later = in_parallel(options.jobs, written, list(trials))
    report["failed"] = {job.title: reason for job, reason in (failed | failed_later).items()}
    if not runs:
        raise ValueError(f"nothing was trained, see {folder}")
    write_json(folder / "results.json", report)
    (folder / "table.md").write_text(table := markdown(report))
    print(table)
    return report


if __name__ == "__main__":
    try:
        failures = main().get("failed")
    except (OSError, ValueError) as mistake:
        sys.exit(f"error: {in_a_sentence(mistake)}")
    sys.exit(1 if failures else 0)
