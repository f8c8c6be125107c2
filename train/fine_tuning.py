"""A training that starts from a trained potential: its model, its weights, and energies of atoms for the new frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from e3nn import o3

from pyg_cgconv.potential import Potential, with_heads, with_species
from train.freezing import names_of_frozen
from train.heads import Level
from train.initial_energies import initial_energies
from train.module import PotentialModule, check_something_is_fitted, properties_for
from train.options import FitOptions, ModelOptions, RunOptions, TuningOptions
from train.resume import read_last
from train.statistics import Statistics
from train.trained import load_trained

# Highest learning rate of a fine-tuning, unless one is given: half of that of the presets of `frames`. Test forces in
# meV/Angstrom, from a small potential of Cu and Ni (EMT), 40 epochs on 45 frames with forces larger by a tenth:
#     rate                    0.001  0.003  0.005  0.01  0.02    random weights, 0.02
#     the same elements          38     32     30    25    21    143
#     and Al as a new one       609    486    256   107    72    155
# One seed each. 0.02 was the best here; 0.01 is a cautious choice, as what a rate leaves of the old was not measured.
LR = 0.01


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from: a module, and what to say of it."""

    module: PotentialModule
    description: str


def load_initial(init: Path) -> Potential:
    """The potential of a run folder, of its ``potential.pt`` or of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of something else, or of a model of other properties than the energy.
    """
    potential = load_trained(init, option="init")
    if (readout := potential.hyperparameters["readout_irreps"]) != "1x0e":
        raise ValueError(
            f"init={str(init)!r} is a model of {readout!r} for each atom, not of energies: name a potential"
        )
    return potential


def model_options_of(potential: Potential) -> dict[str, Any]:
    """The :class:`train.options.ModelOptions` that ``potential`` has, by name, but for ``backend``.

    Hidden features of several numbers of channels are those of their scalars: the model itself is not made of these.
    """
    known: Mapping[str, Any] = potential.hyperparameters
    hidden = o3.Irreps(known["hidden_irreps"])
    made = {
        "channels": hidden.count("0e"),
        "parity": any(ir.p != (-1) ** ir.l for _, ir in hidden),
        "radial_hidden": tuple(known["radial_hidden"]),
    }
    named = {field.name for field in fields(ModelOptions)} - made.keys() - {"backend"}
    return {name: known[name] for name in sorted(named)} | made


def check_model(model: ModelOptions, init: Path) -> None:
    """Raises ValueError where an option of ``model`` was given that the potential of ``init`` contradicts."""
    own = model_options_of(load_initial(init))
    options = [field.name for field in fields(model) if field.name in own]
    wrong = [name for name in options if getattr(model, name) != own[name]]
    if wrong:
        given = ", ".join(f"{name}={getattr(model, name)!r} (it has {own[name]!r})" for name in wrong)
        raise ValueError(
            f"{given}: the potential of init={str(init)!r} is another model, and weights fit no other; leave "
            f"{'this option' if len(wrong) == 1 else 'these options'} out, or train without init"
        )


def start_from(
    init: Path,
    tuning: TuningOptions,
    model: ModelOptions,
    fit: FitOptions,
    run: RunOptions,
    statistics: Statistics,
    levels: Sequence[Level],
    quantities: Sequence[str],
) -> Start:
    """A module with the weights of the potential of ``init``, which knows all elements and heads of the frames.

    A run that goes on reads all this from its own checkpoint, which also has the weights; the file of ``init`` may be
    gone then.

    Args:
        init: the potential.
        tuning, model, fit, run: options.
        statistics: of the training frames, of which species and heads are used, and all to know them again.
        levels: of theory, with the training frames.
        quantities: what is learned.

    Raises:
        ValueError: ``init`` holds no potential; a name to be frozen is none; nothing is left to fit.
    """
    check_something_is_fitted(fit, quantities)
    marks = [float(number) for number in statistics.numbers()]
    if run.resume:
        known = read_last(run.resume)["hyper_parameters"]
        arguments, frozen = known["potential"], known["frozen"]
        return Start(PotentialModule(arguments, asdict(fit), quantities, frozen, marks, statistics.units), "")
    old = load_initial(init)
    started, notes = with_heads_of(old, statistics.heads, tuning.init_head)
    new = [number for number in statistics.species if number not in old.hyperparameters["species"]]
    potential = with_species(started, new) if new else started
    fitted = new if tuning.init_atom_energies == "potential" else statistics.species
    check_properties(potential, quantities, init)
    shifts = []
    for level in levels:
        alone = potential.with_head(level.head)
        found, warning = initial_energies(alone, fitted, new, level.splits.train, level.known)
        notes += [*describe_energies(alone, new, found, level.head), *([warning] if warning else [])]
        shifts.append(found)
    shift = shifts[0] if statistics.heads is None else np.stack(shifts)
    arguments = potential.hyperparameters | {
        "shift": shift.tolist(),
        "scale": one_number(potential.scale),
        "dtype": run.dtype,
        "backend": model.backend,
    }
    frozen = names_of_frozen(potential, tuning.freeze)
    module = PotentialModule(arguments, asdict(fit), quantities, frozen, marks, statistics.units)
    weights = potential.state_dict() | {"shift": torch.from_numpy(shift)}
    module.potential.load_state_dict(weights)
    return Start(module, "\n".join([*describe(potential, old, frozen, tuning), *notes]))


def check_properties(potential: Potential, quantities: Sequence[str], init: Path) -> None:
    """Raises ValueError where ``potential`` does not give what is to be learned."""
    known, needed = potential.hyperparameters["properties"], properties_for(quantities)
    if missing := [name for name in needed if name not in known]:
        raise ValueError(
            f"{', '.join(missing)}: the potential of init={str(init)!r} gives {', '.join(known)} only; train one from "
            "random weights on all of these, or leave labels of others out by --labels"
        )


def with_heads_of(old: Potential, heads: Sequence[str] | None, init_head: str | None) -> tuple[Potential, list[str]]:
    """``old`` with the ``heads`` of a training, and what to say of it.

    Raises:
        ValueError: ``old`` has no head ``init_head``.
    """
    known = old.hyperparameters["heads"]
    if init_head is not None and init_head not in (known or ()):
        raise ValueError(f"init_head={init_head!r}: the potential of init has the heads {', '.join(known or ['none'])}")
    if heads is None:
        start = old.with_head(init_head)
        return start, ([] if known is None else [f"  its head {init_head or known[0]}, of {', '.join(known)}"])
    starts = {head: head if head in (known or ()) else init_head for head in heads}
    as_what = {head: f"head {start or known[0]}" if known else "it" for head, start in starts.items()}
    notes = [f"  heads: {', '.join(f'{head} starts as {what}' for head, what in as_what.items())}"]
    if lost := [head for head in known or () if head not in heads]:
        notes.append(f"  heads that are left out, as there are no frames of them: {', '.join(lost)}")
    return with_heads(old, starts), notes


def one_number(values: torch.Tensor) -> float | list:
    """``values`` as a list, or as one number if all are the same."""
    first = values.flatten()[0]
    return first.item() if bool((values == first).all()) else values.tolist()


def describe(potential: Potential, old: Potential, frozen: Sequence[str], tuning: TuningOptions) -> list[str]:
    """Where the training starts, for the log."""
    symbols = symbols_of(potential)
    count = len(old.atomic_numbers)
    lines = [f"starts from {tuning.init}, which knows {', '.join(symbols[:count])}"]
    if symbols[count:]:
        lines.append(
            f"  new elements: {', '.join(symbols[count:])}; their rows of weights are random, as large as others"
        )
    scale = float(old.scale.mean())
    lines.append(f"  its scale is kept, {scale:.4g} eV, in which errors are counted, and its number of neighbours")
    if frozen:
        lines.append(f"  frozen: {len(frozen)} of {len(list(potential.parameters()))} parameters")
        before_it, extended = dict(old.named_parameters()), dict(potential.named_parameters())
        known = [name for name in frozen if name in before_it]
        if random := [name for name in known if extended[name].shape != before_it[name].shape]:
            lines.append(
                f"  warning: rows of new elements are frozen and stay random, in {', '.join(random)}: freeze other "
                "parameters"
            )
    return lines


def describe_energies(potential: Potential, new: Sequence[int], shift: np.ndarray, head: str | None) -> Iterator[str]:
    """What becomes of energies of atoms, for the log: of ``potential``, which has one head, to ``shift`` (species,)."""
    changed = [
        f"{chemical_symbols[number]} {energy:.3f}"
        if number in new
        else f"{chemical_symbols[number]} {before:.3f} -> {energy:.3f}"
        for number, before, energy in zip(
            potential.hyperparameters["species"], potential.shift.tolist(), shift.tolist(), strict=True
        )
        if number in new or abs(energy - before) > 5e-4
    ]
    of = f" of head {head}" if head else ""
    if changed:
        yield f"  energies of atoms for these frames{of} (eV): {', '.join(changed)}"
    else:
        yield f"  energies of atoms{of} stay as they are"


def symbols_of(potential: Potential) -> list[str]:
    return [chemical_symbols[number] for number in potential.hyperparameters["species"]]
