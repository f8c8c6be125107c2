"""e3nn's spherical harmonics in programs that are traced: by recursion, without TorchScript, which they cannot hold."""

from __future__ import annotations

from math import pi, sqrt

from e3nn import o3
from torch import Tensor
from torch.fx import Proxy
from torch.nn.functional import normalize

from .._functions import join, scale_each
from .._torch import is_traced, refuse_torchscript
from ..nn import harmonics_by_degree
from ._replacement import Replacement


class SphericalHarmonics(Replacement, o3.SphericalHarmonics):
    """:class:`e3nn.o3.SphericalHarmonics`, of vectors (..., 3)."""

    original = o3.SphericalHarmonics

    def forward(self, x: Tensor) -> Tensor:
        refuse_torchscript(self)
        if isinstance(x, Proxy) or not is_traced(x):
            return super().forward(x)
        if self.normalize:
            x = normalize(x, dim=-1)
        degrees = harmonics_by_degree(x.reshape(-1, 3), self._lmax)
        chosen = [degrees[degree] for degree in self._ls_list]
        if self.normalization == "norm":
            chosen = list(scale_each(chosen, [1 / sqrt(2 * degree + 1) for degree in self._ls_list]))
        rows = join(chosen)
        if self.normalization == "integral":
            rows = rows / sqrt(4 * pi)
        return rows.view(*x.shape[:-1], rows.shape[1])
