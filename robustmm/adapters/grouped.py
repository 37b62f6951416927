"""Factor pools of several tasks on the rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .factors import Selection


class GroupedPools:
    """Give each row the pools of its own task, in the place of those of one.

    What is frozen runs once for all rows; the pools of a task see its rows alone.

    Parameters
    ----------
    parts : sequence of (Tensor of shape (b,) int64, Module)
        Positions of rows, and their :class:`FactorPools` or :class:`StaticFactors`;
        each row once.

    Examples
    --------
    >>> from robustmm.adapters import FactorPools
    >>> pools = [FactorPools(8, 6, n_linears=3, pool_size=5, rank=2) for _ in range(2)]
    >>> rows = torch.tensor([0, 2]), torch.tensor([1])
    >>> grouped = GroupedPools(list(zip(rows, pools)))
    >>> selection = grouped.route(torch.randn(3, 2, 8))
    >>> grouped(torch.randn(3, 7, 8), selection).shape
    torch.Size([3, 3, 7, 6])
    """

    def __init__(self, parts: Sequence[tuple[Tensor, nn.Module]]):
        self.parts = parts
        self.order = torch.cat([rows for rows, _ in parts]).argsort()

    def route(self, query: Tensor) -> Selection:
        """Select factors for queries (B, Q, d_in)."""
        found = [pools.route(query[rows]) for rows, pools in self.parts]
        return Selection(*(torch.cat(t)[self.order] for t in zip(*found, strict=True)))

    def __call__(self, x: Tensor, selection: Selection | None) -> Tensor:
        """Map (B, L, d_in) to the updates of all linears, (J, B, L, d_out)."""
        updates = []
        for rows, pools in self.parts:
            own = selection and Selection(*(t[rows] for t in selection))
            updates.append(pools(x[rows], own))
        return torch.cat(updates, dim=1)[:, self.order]
