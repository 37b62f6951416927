"""Class Gaussians of rows that may lack a modality: kept as sums, read as logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from .gaussian import GroupMoments, SharedGaussian, log_shares, sum_log_likelihoods


class ClassMoments(nn.Module):
    """The moments of each modality of the rows of some groups, and their numbers.

    Parameters
    ----------
    n_groups : int
        Classes, G; or twice the labels where a row has several, see
        :func:`group_parts`.
    widths : sequence of int
        Entries of the vector of each modality, M of them.

    Notes
    -----
    Shapes: ``rows`` (G,), sums of the weights of rows with any modality, in float64 on
    the CPU as the :class:`GroupMoments` are.

    Examples
    --------
    >>> moments = ClassMoments(n_groups=2, widths=(1, 1))
    >>> image, text = torch.tensor([[0.0], [4.0]]), torch.zeros(2, 1)
    >>> here = torch.tensor([[True, False], [True, True]])
    >>> moments.update([image, text], here, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> moments.rows.tolist(), moments.kinds[1].counts.tolist()
    ([1.0, 1.0], [0.0, 1.0])
    """

    def __init__(self, n_groups: int, widths: Sequence[int]):
        super().__init__()
        self.kinds = nn.ModuleList(GroupMoments(n_groups, width) for width in widths)
        self.register_buffer("rows", torch.zeros(n_groups, dtype=torch.float64))

    def _apply(self, fn, recurse: bool = True) -> Self:
        return self  # neither moved nor cast, as its moments

    @torch.no_grad()
    def update(self, vectors: Sequence[Tensor], present: Tensor, parts: Tensor) -> None:
        """Add rows.

        Parameters
        ----------
        vectors : sequence of Tensor of shape (n, d)
            Of each modality; those of a missing one are not read.
        present : Tensor of shape (n, M), bool
        parts : Tensor of shape (n, G)
            How much of each row belongs to each group, times its weight.
        """
        present, parts = present.cpu(), parts.double().cpu()
        for place, moments in enumerate(self.kinds):
            here = present[:, place]
            moments.update(vectors[place].cpu()[here], parts[here])
        self.rows = self.rows + parts[present.any(dim=1)].sum(dim=0)

    def grown(self, places: Sequence[int], n_groups: int) -> ClassMoments:
        """Return a copy with more groups, those of now at ``places``."""
        more = ClassMoments(n_groups, [m.means.shape[1] for m in self.kinds])
        more.kinds = nn.ModuleList(m.grown(places, n_groups) for m in self.kinds)
        more.rows[torch.as_tensor(places, dtype=torch.long)] = self.rows
        return more


class ClassGaussians(NamedTuple):
    """Logits of groups: log-likelihoods of what a row has, and the groups' shares.

    Shapes: ``prior`` (G,), the logarithm of each group's part of the rows.

    Examples
    --------
    >>> moments = ClassMoments(n_groups=2, widths=(1,))
    >>> rows, parts = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.eye(2)
    >>> here = torch.ones(4, 1, dtype=torch.bool)
    >>> moments.update([rows], here, parts.repeat_interleave(2, dim=0))
    >>> gaussians = ClassGaussians.of([moments], shrinkage=0.0)
    >>> gaussians([rows], here).argmax(dim=1)
    tensor([0, 0, 1, 1])
    """

    kinds: Sequence[SharedGaussian]
    prior: Tensor

    @classmethod
    def of(cls, moments: Sequence[ClassMoments], shrinkage: float | str) -> Self:
        """Return the Gaussians of the groups of several moments, one after another.

        Parameters
        ----------
        moments : sequence of ClassMoments
            Of the same modalities.
        shrinkage : float or "oas"
            As of :meth:`SharedGaussian.of`.
        """
        by_kind = zip(*(m.kinds for m in moments), strict=True)
        prior = log_shares(torch.cat([m.rows for m in moments]))
        # Of all rows, or a vector would speak of a group that it was never seen with.
        kinds = [
            SharedGaussian.of(k, shrinkage)._replace(shares=prior) for k in by_kind
        ]
        return cls(kinds, prior)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """Return it for vectors of a type on a device."""
        kinds = [kind.to(device, dtype) for kind in self.kinds]
        return type(self)(kinds, self.prior.to(dtype).to(device))

    def __call__(
        self, vectors: Sequence[Tensor], present: Tensor, n_sets: int = 1
    ) -> Tensor:
        """Return the logits of rows, (B, G).

        Parameters
        ----------
        vectors : sequence of Tensor of shape (B, d)
        present : Tensor of shape (B, M), bool
        n_sets : int
            As of :meth:`SharedGaussian.__call__`.
        """
        return sum_log_likelihoods(self.kinds, vectors, present, n_sets) + self.prior


def log_odds_of_pairs(scores: Tensor) -> Tensor:
    """Return the log-odds of labels (B, L) from the logits of their pairs (B, 2 L).

    Examples
    --------
    >>> log_odds_of_pairs(torch.tensor([[1.0, 3.0, 0.0, -1.0]]))
    tensor([[ 2., -1.]])
    """
    without, there = scores.unflatten(1, (-1, 2)).unbind(dim=2)
    return there - without


class GaussianReadout(nn.Module):
    """What :class:`ClassGaussians` compute with, as tensors of a module.

    In float32 on the device of the module, whatever autocast says. Until it was
    :meth:`set`, all groups are alike.

    Parameters
    ----------
    n_groups : int
    widths : sequence of int
        As of :class:`ClassMoments`.

    Examples
    --------
    >>> moments = ClassMoments(n_groups=2, widths=(1,))
    >>> rows, parts = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.eye(2)
    >>> here = torch.ones(4, 1, dtype=torch.bool)
    >>> moments.update([rows], here, parts.repeat_interleave(2, dim=0))
    >>> readout = GaussianReadout(n_groups=2, widths=(1,))
    >>> readout.set(ClassGaussians.of([moments], shrinkage=0.0))
    >>> readout([rows], here).argmax(dim=1)
    tensor([0, 0, 1, 1])
    """

    def __init__(self, n_groups: int, widths: Sequence[int]):
        super().__init__()
        self.n_kinds = len(widths)
        self.prior = nn.Parameter(torch.zeros(n_groups))
        for kind, width in enumerate(widths):
            self.register_buffer(f"center_{kind}", torch.zeros(width))
            for name, shape in {"weight": (n_groups, width), "bias": n_groups}.items():
                parameter = nn.Parameter(torch.zeros(shape))
                self.register_parameter(f"{name}_{kind}", parameter)
            self.register_buffer(f"shares_{kind}", torch.zeros(n_groups))
            known = torch.zeros(n_groups, dtype=torch.bool)
            self.register_buffer(f"known_{kind}", known)

    @property
    def gaussians(self) -> ClassGaussians:
        """The same tensors, as they are called."""
        kinds = [
            SharedGaussian(*(getattr(self, f"{n}_{i}") for n in SharedGaussian._fields))
            for i in range(self.n_kinds)
        ]
        return ClassGaussians(kinds, self.prior)

    @torch.no_grad()
    def set(self, gaussians: ClassGaussians) -> None:
        """Take what was computed from moments."""
        self.prior.copy_(gaussians.prior)
        own = self.gaussians.kinds
        for mine, given in zip(own, gaussians.kinds, strict=True):
            for tensor, value in zip(mine, given, strict=True):
                tensor.copy_(value)

    def forward(
        self, vectors: Sequence[Tensor], present: Tensor, n_sets: int = 1
    ) -> Tensor:
        """Return the logits of groups, (B, G)."""
        with torch.autocast(present.device.type, enabled=False):
            return self.gaussians(vectors, present, n_sets)
