"""What a finished training is worth: ``finished.py CODE MODEL [FRAMES]`` prints it as JSON.

It runs in the environment of CODE, pyg_cgconv, mace or nequip, where neither this project nor another code need be
installed. Energies and forces of FRAMES, in eV and eV/Angstrom, are those of the package's own ASE calculator.
"""

import json
import re
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import ase.io
import torch


def pyg_cgconv(model: Path) -> tuple:
    from pyg_cgconv import __version__
    from pyg_cgconv.potential import ASECalculator, Potential

    metrics = json.loads((model.parent / "metrics.json").read_text())
    potential = Potential.load(model)
    facts = {"version": __version__, "seconds": metrics["seconds"], "epochs": metrics["epochs"]}
    return ASECalculator(potential, device="cpu"), potential, facts


def mace(model: Path) -> tuple:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model), device="cpu")
    (log,) = (log for log in model.parent.glob("*_run-*.log") if not log.name.endswith("_debug.log"))
    return calculator, calculator.models[0], {"version": version("mace-torch")} | of_the_log(log.read_text())


def of_the_log(text: str) -> dict:
    """Time and epochs by the log of mace_run_train, which has a line before the first epoch and one after each."""
    line = re.compile(r"^(\S+ \S+) INFO: (Initial|Epoch (\d+)): .*loss=", re.MULTILINE)
    times = [datetime.fromisoformat(found[1]) for found in line.finditer(text)]
    total = (times[-1] - times[0]).total_seconds()
    later = (times[-1] - times[1]).total_seconds()  # the first epoch compiles
    epochs = len(times) - 1
    return {"seconds": total, "epochs": epochs, "first_epoch_seconds": total - later, "later_epochs_seconds": later}


def nequip(model: Path) -> tuple:
    from nequip.integrations.ase import NequIPCalculator

    # from_compiled_model, which the documentation recommends, wants a compiler here; this reads the same weights.
    calculator = NequIPCalculator._from_saved_model(model, chemical_species_to_atom_type_map=True)
    last = torch.load(model.with_name("last.ckpt"), map_location="cpu", weights_only=False)
    seconds = last["callbacks"]["Timer"]["time_elapsed"]["train"] if "Timer" in last["callbacks"] else None
    return calculator, calculator.model, {"version": version("nequip"), "seconds": seconds, "epochs": last["epoch"] + 1}


def main(code: str, model: str, *frames: str) -> None:
    calculator, module, facts = {"pyg_cgconv": pyg_cgconv, "mace": mace, "nequip": nequip}[code](Path(model))
    facts |= {"parameters": sum(weight.numel() for weight in module.parameters()), "torch": torch.__version__}
    if frames:
        structures = [atoms for file in frames for atoms in ase.io.read(file, ":")]
        predicted = []
        for atoms in structures:
            atoms.calc = calculator
            predicted.append((float(atoms.get_potential_energy()), atoms.get_forces().tolist()))
        facts["energy"], facts["forces"] = zip(*predicted, strict=True)
    print("\n" + json.dumps(facts))  # on a line of its own, the last one, whatever packages print


if __name__ == "__main__":
    main(*sys.argv[1:])
