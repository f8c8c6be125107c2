"""Active learning: a committee says which frames of a pool it is least sure of, and learns these.

PYTHONPATH=. python examples/active_learning.py
"""

import numpy as np
from ase.io import read, write

from datasets import AlloysEMT
from train.cli import main as train

MODEL = "--cutoff 5 --channels 8 --lmax 1 --layers 1 --radial_species true --products false"
FIT = "--labels [energy,forces] --optimizer adam --lr 0.01 --warmup_steps 10 --threads 1 --progress false"
MEMBERS = 2  # four are usual


def committee(name: str, epochs: int) -> tuple[list[str], dict]:
    """The folders of potentials that differ in initial weights and validation frames, and the errors of their mean."""
    options = f"--committee {MEMBERS} --committee_frames shuffle --max_epochs {epochs} {MODEL} {FIT}"
    metrics = train(f"frames --train_file train.xyz --test_file test.xyz --run_dir runs/{name} {options}".split())
    return [f"runs/{name}/member-{number}" for number in range(MEMBERS)], metrics["test"]


def main() -> dict[str, float]:
    # A few frames with labels, and a pool of structures without: here the embedded alloys.
    frames = AlloysEMT().to_ase()
    write("train.xyz", frames[:40])
    write("pool.xyz", frames[40:200])
    write("test.xyz", frames[540:])
    members, before = committee("first", epochs=20)

    # Where the members are apart, they are likely to be wrong.
    train(["predict", *members, "--data", "test.xyz", "--output", "predicted.xyz"])
    spread = [atoms.arrays["forces_std"].max() for atoms in read("predicted.xyz", ":")]
    print(f"spread on the worst atom of a test frame: mean {np.mean(spread):.3f}, largest {max(spread):.3f} eV/A")

    # The frames to compute next. Yours would go to the reference code now; these have labels already.
    train(["select", *members, "--pool", "pool.xyz", "--number", "40", "--run_dir", "runs/select"])
    write("train.xyz", read("train.xyz", ":") + read("runs/select/selected.xyz", ":"))  # twice as many: as many steps
    _, after = committee("second", epochs=10)

    errors = {name: test["forces_mae_meV_per_A"] for name, test in (("before", before), ("after", after))}
    for name, error in errors.items():
        print(f"{name}: force error of the committee {error:.0f} meV/A")
    return errors


if __name__ == "__main__":
    main()
