"""Brings the pages to the layout with `pyg_cgconv.nn`, `ops`, `potential` and `Edges`; then removes this folder.

python docs/_next/switch.py
"""

import shutil
from pathlib import Path

NEXT = Path(__file__).parent
DOCS = NEXT.parent
ROOT = DOCS.parent

# (file, what stands there once, what shall stand there)
CHANGES = [
    (DOCS / "conf.py", '["_build", "_next", "parts"]', '["_build"]'),
    (DOCS / "layer.md", "```{include} parts/edges.md\n```\n", (NEXT / "parts/edges.md").read_text()),
    (DOCS / "architecture.md", "```{include} parts/modules.md\n```\n", (NEXT / "parts/modules.md").read_text()),
    (
        DOCS / "architecture.md",
        "3. The GPU kernel: the loop above, with names for what is generated.",
        "3. `cuda_kernels/cuda/kernel.py`: the loop above, with names for what is generated.",
    ),
    (
        DOCS / "architecture.md",
        "2. `cuda_kernels/polynomial.py`: M, its derivatives, its arithmetic.",
        "2. `cuda_kernels/contraction.py` and `polynomial.py`: its derivatives, its arithmetic.",
    ),
    (
        ROOT / "CONTRIBUTING.md",
        "what builds it from irreps (`pyg_cgconv/_problem.py`)",
        "what builds it from irreps (`pyg_cgconv/tensor_product`)",
    ),
    (
        ROOT / "CONTRIBUTING.md",
        "the loop in `cuda_kernels/cuda_kernel.py`, its parts in `cuda_parts.py`; what fits where in",
        "the loop in `cuda_kernels/cuda/kernel.py`, its parts in `parts.py`; what fits where, beside it, in",
    ),
    (
        ROOT / "CONTRIBUTING.md",
        "`cuda_kernels/cpu_kernel.py`, `cpu_edge.py`, `cpu_rows.py` | `test_cpu_kernel.py` reads",
        "`cuda_kernels/cpu` | `cpu/test_kernel.py` reads",
    ),
    (ROOT / "CONTRIBUTING.md", "| `pyg_cgconv/_ops.py` |", "| `pyg_cgconv/ops` |"),
    (
        ROOT / "CONTRIBUTING.md",
        "a module of `pyg_cgconv`, one class a file where it can be",
        "a module of `pyg_cgconv/nn`, exported by its `__init__`",
    ),
    (ROOT / "CONTRIBUTING.md", "`pyg_cgconv/potential.py`; a new", "`pyg_cgconv/potential`; a new"),
    (
        ROOT / "CONTRIBUTING.md",
        "`tests/cuda_kernels/test_cuda_compilation.py`",
        "`tests/cuda_kernels/cuda/test_compilation.py`",
    ),
    (ROOT / "CONTRIBUTING.md", "`tests/pyg_cgconv/test_cuda.py`", "`tests/pyg_cgconv/ops/test_cuda.py`"),
    (ROOT / "CONTRIBUTING.md", "tests/pyg_cgconv/test_conv.py", "tests/pyg_cgconv/nn/test_conv.py"),
]

# What a problem prints.
BEFORE = """\
4 paths, float32: x 128, y 4, weights 128, out 256 numbers a row
path channels   x   y out  l1 x l2 -> l3 terms
   0       32   0   0   0     0 x 0 -> 0     1
   1       32   1   1   1     1 x 1 -> 0     3
   2       32   0   1   2     0 x 1 -> 1     3
   3       32   1   0   3     1 x 0 -> 1     3
"""
AFTER = """\
g.x.y.w, float32, 4 paths; numbers a row: g 256 (target), x 128 (source), y 4 (edge), w 128 (edge)
path channels    g (l)    x (l)    y (l)    w (l) terms
   0       32    0 (0)    0 (0)    0 (0)    0 (0)     1
   1       32    1 (0)    1 (1)    1 (1)    1 (0)     3
   2       32    2 (1)    0 (0)    1 (1)    2 (0)     3
   3       32    3 (1)    1 (1)    0 (0)    3 (0)     3
"""
CHANGES.append((DOCS / "architecture.md", BEFORE, AFTER))


def main() -> None:
    for file, before, after in CHANGES:
        text = file.read_text()
        if text.count(before) != 1:
            raise ValueError(f"{file}: expected once: {before!r}")
        file.write_text(text.replace(before, after))
    for page in [NEXT / "building_blocks.md", *(NEXT / "api").glob("*.md")]:
        shutil.copy(page, DOCS / page.relative_to(NEXT))
    shutil.rmtree(DOCS / "parts")
    shutil.rmtree(NEXT)


if __name__ == "__main__":
    main()
