"""Modality dropout: complete training rows that lose a modality at random."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def draw_hidden(present: Tensor, probability: float, per: str = "row") -> Tensor:
    """Draw which cells to hide, (B, M) bool; never a row's only one.

    A complete row loses its image or its text, each with half of ``probability``; of M
    modalities it loses one, all equally often. ``per="row"`` draws for each row,
    ``per="batch"`` once for all complete rows.

    Parameters
    ----------
    present : Tensor of shape (B, M), bool
        Whether image and text, or other modalities, are there.
    probability : float
        In [0, 1].

    Examples
    --------
    >>> present = torch.tensor([[True, True], [True, False], [False, True]])
    >>> draw_hidden(present, 1.0).sum(dim=1)
    tensor([1, 0, 0])
    """
    # One number per row, also for rows that lose nothing: what a row draws does not
    # depend on what the others lack.
    draw = torch.rand(1 if per == "batch" else len(present), device=present.device)
    draw = draw.expand(len(present))
    n = present.shape[1]
    if n == 1:
        return torch.zeros_like(present)
    below = [draw < probability * (i + 1) / n for i in range(n)]
    hidden = [below[0], *(b & ~a for a, b in pairwise(below))]
    return torch.stack(hidden, dim=1) & present.all(dim=1, keepdim=True)
