"""Fine-tuning: a potential learns another level of theory from 20 frames, beside one that begins with these frames.

PYTHONPATH=. python examples/fine_tuning.py
"""

from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from datasets import AlloysEMT
from train.cli import main as train

MODEL = "--cutoff 5 --channels 8 --lmax 1 --layers 1 --radial_species true --products false"
FIT = "--labels [energy,forces] --warmup_steps 10 --threads 1 --progress false"


def at_the_other_level(atoms: Atoms) -> Atoms:
    """Labels of a reference whose bonds are 2 % longer: those of EMT for the structure made smaller."""
    smaller, labelled = atoms.copy(), atoms.copy()
    smaller.set_cell(0.98 * atoms.cell.array, scale_atoms=True)
    smaller.calc = EMT()
    results = {"energy": smaller.get_potential_energy(), "forces": 0.98 * smaller.get_forces()}
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def main() -> dict[str, float]:
    # Many frames of a cheap level: the embedded alloys. A foundation model would take this potential's place.
    frames = AlloysEMT().to_ase()
    write("cheap.xyz", frames[:160])
    train(f"frames --train_file cheap.xyz --run_dir runs/cheap {MODEL} --max_epochs 6 {FIT}".split())

    few = [at_the_other_level(atoms) for atoms in frames[200:290]]
    write("few.xyz", few[:20])
    write("validation.xyz", few[20:30])
    write("test.xyz", few[30:])
    files = "--train_file few.xyz --val_file validation.xyz --test_file test.xyz --max_epochs 15"
    errors = {}
    # --init takes the weights, and with them the options of the model.
    for name, begin in {"fine-tuned": "--init runs/cheap", "from-scratch": MODEL}.items():
        metrics = train(f"frames {files} {begin} --run_dir runs/{name} {FIT}".split())
        errors[name] = metrics["test"]["forces_mae_meV_per_A"]
    for name, error in errors.items():
        print(f"{name}: force error at the other level {error:.0f} meV/A")
    return errors


if __name__ == "__main__":
    main()
