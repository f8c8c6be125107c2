"""Rows of the table of models: energies and forces, or a training step, by each contender on the same structures."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import parts, timing
from .kind import Missing, default_dtype
from .measure import STEP
from .packages import REFERENCE, Package

INFERENCE = "energy and forces"
WARM_UP = 3
"""Calls before one is timed: kernels are compiled, e3nn's TorchScript is specialised."""
REFUSED = {torch.float32: 1e-3, torch.float64: 1e-9}
"""A result that is as far from the reference's is not that of the same model; it is not timed."""
FAILURES = ImportError, RuntimeError, AssertionError, TypeError, ValueError, LookupError, AttributeError
"""What packages and peers raise where they cannot do something."""

Results = dict[str, Tensor]


class Setting(NamedTuple):
    """How rows are measured: seconds for each time, and whether its parts are, too."""

    seconds: float
    profile: bool


class Contender(NamedTuple):
    """A model, and those of its parameters that are trained."""

    model: nn.Module
    trained: list[nn.Parameter]

    def prepare(self, training: bool) -> None:
        """Parameters have gradients in training only, as MACE's calculator has it."""
        self.model.train(training)
        for parameter in self.trained:
            parameter.requires_grad_(training)


class Contenders:
    """All contenders for a model, with the same weights.

    Args:
        name: The model's.
        wanted: Their names.

    Attributes:
        made: Those that there are.
        missing: Why there are no others.
    """

    def __init__(self, package: Package, name: str, wanted: list[str]):
        self.package = package
        self.made: dict[str, Contender] = {}
        self.missing: dict[str, str] = {}
        self.wanted = wanted
        with default_dtype(package.default_dtype):
            original = package.model(name)
            for contender in wanted:
                try:
                    model = package.make(contender, name, original)
                except FAILURES as error:
                    self.missing[contender] = reason(error)
                else:
                    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
                    self.made[contender] = Contender(model, trained)

    def rows(self, sizes: list[int], training: bool, setting: Setting) -> list[dict]:
        """A row for each contender, of structures of so many atoms each, and in "missing" why it has no time.

        - atoms, edges, structures.
        - ms: of a call, the host's work included, the median of calls in turns. us_per_atom: the same.
        - ratio: the reference's time by this one.
        - memory_MB: peak on a GPU beside the model and the structures; with CUDA graphs that of their making, too.
        - error: of energies, forces and, in training, gradients, relative to the reference's largest number.
        - parts, kernels_ms: with a profile, the shares of groups of kernels, and the time of all kernels in a call.
        """
        what = STEP if training else INFERENCE
        with default_dtype(self.package.default_dtype):
            batch = self.package.batch(sizes)
            common = {"atoms": sum(sizes), "edges": edges_of(batch), "structures": len(sizes)}
            rows: dict[str, dict] = {name: {"peer": name, **common, "ms": {}} for name in self.wanted}
            calls: dict[str, Callable[[], Results]] = {}
            expected: Results = {}
            for name, row in rows.items():
                try:
                    call = self._call(name, batch, training)
                    results = self._warmed_up(call, row, what)
                    if name == REFERENCE:
                        expected = {key: value.clone() for key, value in results.items()}
                    row["error"] = errors(results, expected)
                    _refuse(row["error"], self.package.dtype)
                    calls[name] = call
                except FAILURES as error:
                    row["missing"] = reason(error)
                results = {}
                release(self.package.device)
            self._time(rows, calls, what, setting)
        return list(rows.values())

    def _call(self, name: str, batch: dict[str, Any], training: bool) -> Callable[[], Results]:
        if name in self.missing:
            raise Missing(self.missing[name])
        self.made[name].prepare(training)
        evaluate = partial(self.package.evaluate, self.made[name].model, batch)
        return partial(_step, evaluate, self.made[name].model) if training else partial(_inference, evaluate)

    def _warmed_up(self, call: Callable[[], Results], row: dict, what: str) -> Results:
        """The results, after the first calls; on a GPU the row has their memory."""
        device = self.package.device
        before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        for _ in range(WARM_UP):
            results = timing.finished(call, device)
        results = {name: value.detach() for name, value in results.items()}
        if device.type == "cuda":
            row["memory_MB"] = {what: (torch.cuda.max_memory_allocated(device) - before) / 1e6}
        return results

    def _time(self, rows: dict[str, dict], calls: dict[str, Callable], what: str, setting: Setting) -> None:
        device = self.package.device
        times = timing.alternating(calls, device, setting.seconds)
        for name, call in calls.items():
            row = rows[name]
            if name not in times:
                row["missing"] = "out of memory beside the others"
                continue
            row["ms"][what] = times[name]
            row["us_per_atom"] = 1e3 * times[name] / row["atoms"]
            if REFERENCE in times:
                row["ratio"] = times[REFERENCE] / times[name]
            if setting.profile:
                row["parts"], row["kernels_ms"] = parts.shares(call, device)


def _inference(evaluate: Callable[[], tuple[Tensor, Tensor]]) -> Results:
    energy, forces = evaluate()
    return {"energy": energy, "forces": forces}


def _step(evaluate: Callable[[], tuple[Tensor, Tensor]], model: nn.Module) -> Results:
    """Energies, forces, and gradients of a loss on both."""
    model.zero_grad()
    energy, forces = evaluate()
    (energy.square().mean() + forces.square().mean()).backward()
    named = ((name.removeprefix("_orig_mod."), p.grad) for name, p in model.named_parameters())  # of torch.compile
    gradients = {name: gradient for name, gradient in named if gradient is not None}
    return {"energy": energy.detach(), "forces": forces.detach(), **gradients}


def errors(found: Results, expected: Results) -> dict[str, float]:
    """The largest deviation of energies, of forces, and of the gradients of those parameters that both have, each
    relative to the largest number that was expected. Nothing where nothing is known."""
    groups: dict[str, list[str]] = {"energy": ["energy"], "forces": ["forces"]}
    groups["gradients"] = [name for name in expected if name not in groups]
    result = {}
    for group, names in groups.items():
        both = [name for name in names if name in found and name in expected]
        both = [name for name in both if found[name].shape == expected[name].shape]
        if both:
            largest = max(float(expected[name].abs().max()) for name in both)
            deviation = [float((found[name] - expected[name]).abs().max()) for name in both]
            result[group] = float(torch.tensor(deviation).max()) / max(largest, 1e-300)
    return result


def _refuse(error: dict[str, float], dtype: torch.dtype) -> None:
    """Raises a Missing if it is the error of another model."""
    for what in ("energy", "forces"):
        if what in error and not error[what] < REFUSED[dtype]:
            raise Missing(f"its {what} differ from e3nn's by {error[what]:.1e}; it was not timed")


def edges_of(batch: dict[str, Any]) -> int:
    return int(batch["edge_index"].shape[1])


def is_out_of_memory(error: Exception) -> bool:
    """Also if a library says so, and not PyTorch."""
    return "out of memory" in str(error).lower() or "ALLOC_FAILED" in str(error) or "OUT_OF_MEMORY" in str(error)


def reason(error: Exception) -> str:
    """A line that says why there is no figure."""
    if is_out_of_memory(error):
        return "out of memory"
    first = str(error).partition("\n")[0]
    return first if isinstance(error, (Missing, ImportError)) and first else f"{type(error).__name__}: {first}"


def release(device: torch.device) -> None:
    """Gives memory back that nobody uses, so that the next contender finds as much."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
