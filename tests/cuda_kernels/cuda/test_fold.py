"""The folding kernel in numba's simulator of a GPU, which is chosen before numba is imported."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")

SCRIPT = """
import numpy as np
from numba import cuda
from cuda_kernels.cuda.binary import FOLD_WARPS
from cuda_kernels.cuda.fold import kernel_of

random = np.random.default_rng(0)
nodes, length = 6, 45
continuing = np.array([1] * 19 + [2] + [4] * 8 + [5] * 9 + [nodes] * 4, np.int32)
rows, partials = random.normal(size=(nodes, length)), random.normal(size=(len(continuing), length))
partials[-4:] = np.nan
expected = rows.copy()
np.add.at(expected, continuing[:-4], partials[:-4])
cuda.jit(kernel_of(np.float64))[3, (32, FOLD_WARPS)](
    rows.reshape(-1), partials.reshape(-1), continuing, len(continuing), nodes, length
)
np.testing.assert_allclose(rows, expected, rtol=1e-13)
"""


def test_partial_rows_are_added_to_their_nodes():
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
