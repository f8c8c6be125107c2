"""A training that starts from a trained potential: its model, its weights, and energies of atoms for the new frames."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from e3nn import o3
from torch_geometric.data import Data

from pyg_cgconv.potential import Potential, with_species
from train.freezing import names_of_frozen
from train.initial_energies import initial_energies
from train.module import PotentialModule, check_something_is_fitted
from train.options import FitOptions, ModelOptions, RunOptions, TuningOptions
from train.resume import read_last
from train.statistics import Statistics, given_energy_reference
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
    frames: Sequence[Data],
    isolated: Mapping[str, float],
    quantities: Sequence[str],
) -> Start:
    """A module with the weights of the potential of ``init``, which knows all elements of ``frames``.

    A run that goes on reads all this from its own checkpoint, which also has the weights; the file of ``init`` may be
    gone then.

    Args:
        init: the potential.
        tuning, model, fit, run: options.
        statistics: of the training ``frames``, of which the species are used, and all to know them again.
        frames: the training frames.
        isolated: energies of isolated atoms in the files, eV, by chemical symbol.
        quantities: what is learned.

    Raises:
        ValueError: ``init`` holds no potential; a name to be frozen is none; nothing is left to fit.
    """
    check_something_is_fitted(fit, quantities)
    marks = [*map(float, statistics.species), *statistics.shift, statistics.scale, statistics.num_neighbors]
    if run.resume:
        known = read_last(run.resume)["hyper_parameters"]
        return Start(PotentialModule(known["potential"], asdict(fit), quantities, known["frozen"], marks), "")
    old = load_initial(init)
    new = [number for number in statistics.species if number not in old.hyperparameters["species"]]
    potential = with_species(old, new) if new else old
    fitted = new if tuning.init_atom_energies == "potential" else statistics.species
    if fit.atom_energies is not None:
        given_energy_reference(dict(isolated) | fit.atom_energies, statistics.species)  # which says what is wrong
    shift, warning = initial_energies(potential, fitted, new, frames, dict(isolated) | (fit.atom_energies or {}))
    arguments = potential.hyperparameters | {
        "shift": shift.tolist(),
        "scale": one_number(potential.scale.tolist()),
        "dtype": run.dtype,
        "backend": model.backend,
    }
    frozen = names_of_frozen(potential, tuning.freeze)
    module = PotentialModule(arguments, asdict(fit), quantities, frozen, marks)
    weights = potential.state_dict() | {"shift": torch.from_numpy(shift)}
    module.potential.load_state_dict(weights)
    return Start(module, describe(potential, old, shift, frozen, tuning) + warning)


def one_number(values: list[float]) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else values


def describe(
    potential: Potential, old: Potential, shift: np.ndarray, frozen: Sequence[str], tuning: TuningOptions
) -> str:
    """Where the training starts, for the log."""
    symbols = [chemical_symbols[number] for number in potential.hyperparameters["species"]]
    count = len(old.atomic_numbers)
    before = old.shift.tolist()
    lines = [f"starts from {tuning.init}, which knows {', '.join(symbols[:count])}"]
    if symbols[count:]:
        lines.append(
            f"  new elements: {', '.join(symbols[count:])}; their rows of weights are random, as large as others"
        )
    changed = [
        f"{symbol} {old_energy:.3f} -> {energy:.3f}"
        for symbol, old_energy, energy in zip(symbols, before, shift.tolist(), strict=False)
        if abs(energy - old_energy) > 5e-4
    ]
    added = [f"{symbol} {energy:.3f}" for symbol, energy in zip(symbols[count:], shift[count:].tolist(), strict=True)]
    if changed or added:
        lines.append(f"  energies of atoms for these frames (eV): {', '.join([*changed, *added])}")
    else:
        lines.append("  energies of atoms stay as they are")
    scale = float(np.mean(old.scale.tolist()))
    lines.append(f"  its scale is kept, {scale:.4g} eV, in which errors are counted, and its number of neighbours")
    if frozen:
        lines.append(f"  frozen: {len(frozen)} of {len(list(potential.parameters()))} parameters")
        before_it, extended = dict(old.named_parameters()), dict(potential.named_parameters())
        if random := [name for name in frozen if extended[name].shape != before_it[name].shape]:
            lines.append(
                f"  warning: rows of new elements are frozen and stay random, in {', '.join(random)}: freeze other "
                "parameters"
            )
    return "\n".join(lines)
