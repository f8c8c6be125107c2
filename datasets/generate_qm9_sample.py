"""Makes the embedded set `qm9-sample`: 5,000 molecules of QM9, drawn at random.

python -m datasets.generate_qm9_sample                 # from the package qm9pack
python -m datasets.generate_qm9_sample --root DIR      # from the published files, downloaded if missing
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.qm9 import QM9
from datasets.qm9_files import Molecules
from datasets.qm9_sample import SAMPLE, write_sample

MOLECULES = 5000
SEED = 0


def draw(dataset: QM9, count: int = MOLECULES) -> Molecules:
    """``count`` molecules, each at most once, in the random order in which they are drawn."""
    chosen = np.random.RandomState(SEED).permutation(len(dataset))[:count]
    drawn = [dataset[int(row)] for row in chosen]
    return Molecules(
        number=np.concatenate([molecule.number.numpy() for molecule in drawn]),
        num_atoms=np.array([molecule.num_nodes for molecule in drawn]),
        z=np.concatenate([molecule.z.numpy() for molecule in drawn]),
        pos=np.concatenate([molecule.pos.numpy() for molecule in drawn]),
        targets=np.concatenate([molecule.y.numpy() for molecule in drawn]),
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the published files (default: the package qm9pack)")
    parser.add_argument("--output", type=Path, default=SAMPLE)
    chosen = parser.parse_args(arguments)
    write_sample(chosen.output, draw(QM9(chosen.root)))
    print(f"{MOLECULES} molecules -> {chosen.output} ({chosen.output.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
