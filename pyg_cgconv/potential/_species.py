"""A potential that knows more elements than it was trained on: the start of a fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ..nn import RadialNetwork, SpeciesLinear
from ._arguments import atomic_numbers, per_species

if TYPE_CHECKING:
    from ._potential import Potential


@torch.no_grad()
def with_species(potential: Potential, species: Sequence[int | str], shift: float | Sequence[float] = 0.0) -> Potential:
    """A potential that also knows other elements, to be trained on them; of the known ones it says the same.

    Weights of a new element are random, and of the root mean square that those of the known ones have. The unit of its
    learned energy is their mean ``scale``.

    Args:
        potential: What is known.
        species: The new elements, as atomic numbers or chemical symbols.
        shift: Energy of an isolated atom of each, eV: one number, or one for each; the same with each head.

    Raises:
        ValueError: an element is known already, or is none.
    """
    known, new = list(potential.hyperparameters["species"]), atomic_numbers(species)
    heads = potential.shift.shape[:-1]  # of a potential with heads, shifts and scales have a row for each
    shifts = potential.shift.new_tensor(per_species("shift", shift, new)).expand(*heads, -1)
    scales = potential.scale.mean(-1, keepdim=True).expand(*heads, len(new))
    extended = type(potential)(
        **potential.hyperparameters
        | {
            "species": [*known, *new],
            "shift": torch.cat([potential.shift, shifts], -1).tolist(),
            "scale": torch.cat([potential.scale, scales], -1).tolist(),
        }
    ).to(potential.shift.device)
    by_species, fresh = dict(_by_species(potential)), dict(extended.named_parameters())
    for name, weight in potential.named_parameters():
        if name not in by_species:
            fresh[name].copy_(weight)
            continue
        of_species = fresh[name].unflatten(0, (len(known) + len(new), -1))
        kept = weight.unflatten(0, (len(known), -1))
        if by_species[name]:
            kept = kept * math.sqrt(1 + len(new) / len(known))
        of_species[len(known) :] *= kept.square().mean().sqrt()
        of_species[: len(known)] = kept
    return extended.train(potential.training)


def _by_species(potential: Potential) -> Iterator[tuple[str, bool]]:
    """Names of parameters with rows for each species, and whether the map divides by the root of their number."""
    for name, _ in potential.embedding.named_parameters():
        yield f"embedding.{name}", True
    for place, module in potential.named_modules():
        if isinstance(module, SpeciesLinear):
            for name, _ in module.named_parameters():
                yield f"{place}.{name}", False
        if isinstance(module, RadialNetwork) and module.factors is not None:
            yield f"{place}.factors", False
