"""Modality dropout: complete training rows that lose a modality at random."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_hidden(present: Tensor, probability: float, per: str = "row") -> Tensor:
    """Draw which cells to hide, (B, 2) bool; never a row's only one.

    A complete row loses its image or its text, each with half of ``probability``.
    ``per="row"`` draws for each row, ``per="batch"`` once for all complete rows.

    Parameters
    ----------
    present : Tensor of shape (B, 2), bool
        Whether image and text are there.
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
    first = draw < probability / 2
    second = ~first & (draw < probability)
    hidden = torch.stack([first, second], dim=1)
    return hidden & present.all(dim=1, keepdim=True)
