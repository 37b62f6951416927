"""A key per task: the running mean of the queries that were trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .whole_batch import over_batch


class TaskKey(nn.Module):
    r"""Running mean of a task's queries, by modality.

    With :math:`\bar q` the mean over the rows of a batch that have the modality,
    :math:`\mathrm{key} \leftarrow \beta\,\mathrm{key} + (1 - \beta)\,\bar q`. It starts
    at zero, which only scales it: keys are compared by cosine.

    Parameters
    ----------
    width : int
        Width of a query, d.
    n_modalities : int
        Queries per row, M.
    momentum : float
        :math:`\beta`.

    Notes
    -----
    Shapes: query (B, M, d), present (B, M) bool, ``mean`` (M, d), a buffer.

    References
    ----------
    .. [1] Liu et al., "DeLo: Dual Decomposed Low-Rank Experts Collaboration for
       Continual Missing Modality Learning", arXiv:2603.01632, 2026, equation 7.

    Examples
    --------
    >>> key = TaskKey(width=4)
    >>> key.update(torch.ones(2, 2, 4), torch.ones(2, 2, dtype=torch.bool))
    >>> key.mean.shape
    torch.Size([2, 4])
    """

    def __init__(self, width: int, n_modalities: int = 2, momentum: float = 0.99):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(n_modalities, width))

    @torch.no_grad()
    def update(self, query: Tensor, present: Tensor) -> None:
        """Move towards the mean of a batch; only its present modalities count."""
        weight = present.unsqueeze(-1).to(self.mean.dtype)  # (B, M, 1)
        count = over_batch(weight.sum(dim=0))  # (M, 1)
        total = over_batch((query.to(self.mean.dtype) * weight).sum(dim=0))
        batch = total / count.clamp(min=1)
        moved = self.momentum * self.mean + (1 - self.momentum) * batch  # (M, d)
        # A modality that the batch lacks must not pull its key towards zero.
        self.mean.copy_(torch.where(count > 0, moved, self.mean))


def key_similarity(
    query: Tensor, present: Tensor, keys: Tensor, center: bool = False
) -> Tensor:
    """Mean cosine between a row's present modalities and each task's key, (B, T).

    A modality that a task never had, whose key is zero, does not count for it.

    Parameters
    ----------
    query : Tensor of shape (B, M, d)
    present : Tensor of shape (B, M), bool
    keys : Tensor of shape (T, M, d)
    center : bool
        Whether the mean of the keys is subtracted from keys and queries first. What
        all rows have in common dominates the plain cosine.

    Examples
    --------
    >>> query = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> keys = torch.tensor([[[2.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    >>> key_similarity(query, torch.tensor([[True, True]]), keys)
    tensor([[1., 0.]])
    """
    known = keys.any(dim=-1)  # (T, M): a key starts at zero
    keys = F.normalize(keys, dim=-1)
    # Lengths first: the middle of keys that differ in length would be that of the
    # longest, and a key's length only says how long it was trained.
    query = F.normalize(query.to(keys.dtype), dim=-1)
    if center:
        middle = keys.sum(dim=0) / known.sum(dim=0).clamp(min=1)[:, None]
        keys, query = keys - middle, query - middle
    cosine = F.cosine_similarity(query[:, None], keys[None], dim=-1)  # (B, T, M)
    here = (present[:, None] & known).to(cosine.dtype)  # (B, T, M)
    both = here.sum(dim=-1)  # (B, T)
    mean = (cosine * here).sum(dim=-1) / both.clamp(min=1)
    # A task of which nothing is known that the row has is as near as the others are.
    compared = (both > 0).to(mean.dtype)
    rest = mean.sum(dim=1, keepdim=True) / compared.sum(dim=1, keepdim=True).clamp(
        min=1
    )
    return mean.where(both > 0, rest)
