"""numba-cuda 0.30 reads `numpy.row_stack`, which NumPy 2.5 removed: import this before the first compilation."""

import numpy

if not hasattr(numpy, "row_stack"):
    numpy.row_stack = numpy.vstack
