"""The first import of e3nn.

Up to 0.5.4, e3nn reads its coefficients from a file by `torch.load`, which PyTorch 2.6 and later refuses: the file has
slices. They are allowed here for this file only.
"""

import torch

with torch.serialization.safe_globals([slice]):
    import e3nn.o3  # noqa: F401
