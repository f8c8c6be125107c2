"""Nodes listed by their group: edges from each node to its group, in blocks of their own number."""

from __future__ import annotations

import torch
from torch import Tensor

from .._torch import is_traced
from ._edges import Edges

GROUP_ROWS = ((512, 4), (2048, 8), (1 << 13, 16))
"""For up to so many nodes in all, how many nodes of a group a block takes. H100, symmetric contraction of 128 channels:
1,000 nodes by 4, 8 and 16: forward 0.018, 0.016, 0.016 ms; 4,096 nodes by 16 and 32: forward 0.079 and 0.087 ms,
gradients by features and weights 0.47 and 0.33."""
GROUP_BLOCKS = 512
"""Rows that more nodes in groups are cut into, about."""


class Groups(Edges):
    """Nodes listed by their group, such as their element: node n is an edge from node n to its group, which has
    coefficients that all of its nodes share."""

    @classmethod
    def of(cls, group: Tensor, groups: int) -> Groups:
        """Of the group (N,) of each node, int64 or int32, below `groups`; or of one-hot groups (N, groups)."""
        if group.dim() == 2:
            group = group.argmax(1)
        node = torch.arange(group.shape[0], dtype=group.dtype, device=group.device)
        return cls((node, group), group.shape[0], groups)

    def _row_edges(self) -> int | None:
        """Groups are large and few: without cuts there would be too few blocks for a GPU."""
        if not self.target.is_cuda:
            return super()._row_edges()
        largest = GROUP_ROWS[-1][1]
        if is_traced(self.target):
            return largest
        few = (row for most, row in GROUP_ROWS if self.num_edges < most)
        return next(few, max(largest, self.num_edges // GROUP_BLOCKS))
