"""Who is compared: this project and its peers, each by what a kind of problem has for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .kind import Contender, Form, Kind

Make: TypeAlias = Callable[[Kind, Form], Contender]
"""Makes a contender for a problem, or raises an error that says why there is none."""


def _by(name: str, **options: Any) -> Make:
    return lambda kind, form: getattr(kind, name)(form, **options)


ours = _by("ours")

PEERS = {
    "e3nn": _by("e3nn"),
    "cuequivariance": _by("cuequivariance"),
    "openequivariance": _by("openequivariance"),
    "openequivariance-det": _by("openequivariance", deterministic=True),
}
VARIANTS = {
    "e3nn-compiled": _by("e3nn", compiled=True),
    "cuequivariance-naive": _by("cuequivariance", method="naive"),
    "cuequivariance-fused_tp": _by("cuequivariance", method="fused_tp"),
}
"""Other ways of the same peers, measured only where somebody asks for them: e3nn by torch.compile, which has no double
backward (of models, the package's own compile mode), and cuEquivariance by other methods than its fastest."""

ALL = PEERS | VARIANTS
