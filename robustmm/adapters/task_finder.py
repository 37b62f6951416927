"""Which task a row is from: Gaussians of all tasks' classes, weighed by one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .class_gaussians import ClassGaussians, ClassMoments, GaussianReadout


class Found(NamedTuple):
    """What a row says of tasks and, within each, of its groups, as log-probabilities.

    Shapes: ``tasks`` (B, T); ``classes`` T times (B, G_task).

    Examples
    --------
    >>> Found(torch.zeros(2, 1), [torch.zeros(2, 1)]).tasks.shape
    torch.Size([2, 1])
    """

    tasks: Tensor
    classes: Sequence[Tensor]


class TaskFinder(nn.Module):
    r"""The probability of each task, :math:`p(t | x) = \sum_{g \in t} p(g | x)`.

    The groups of a task are its classes, or itself. All of them are Gaussians with one
    covariance for each modality, from moments that each task has kept.

    Parameters
    ----------
    moments : sequence of ClassMoments
        Those of each task, in order.

    Notes
    -----
    Shapes: vectors [(B, d), ...], present (B, M) bool.

    Examples
    --------
    >>> moments = [ClassMoments(n_groups=1, widths=(1,)) for _ in range(2)]
    >>> here = torch.ones(2, 1, dtype=torch.bool)
    >>> for middle, own in zip((0.0, 5.0), moments):
    ...     rows = torch.tensor([[middle - 1], [middle + 1]])
    ...     own.update([rows], here, torch.ones(2, 1))
    >>> finder = TaskFinder(moments)
    >>> finder.set(moments, shrinkage=0.0)
    >>> finder([torch.tensor([[1.0], [4.0]])], here).tasks.argmax(dim=1)
    tensor([0, 1])
    """

    def __init__(self, moments: Sequence[ClassMoments]):
        super().__init__()
        self.sizes = [len(m.rows) for m in moments]
        widths = [kind.means.shape[1] for kind in moments[0].kinds]
        self.readout = GaussianReadout(sum(self.sizes), widths)
        self.readout.requires_grad_(False)

    def set(self, moments: Sequence[ClassMoments], shrinkage: float | str) -> None:
        """Pool the moments of all tasks and solve for the Gaussians."""
        self.readout.set(ClassGaussians.of(moments, shrinkage))

    def forward(self, vectors: Sequence[Tensor], present: Tensor) -> Found:
        """Return the log-probabilities of a batch."""
        scores = self.readout(vectors, present).log_softmax(dim=1)
        groups = scores.split(self.sizes, dim=1)
        tasks = [own.logsumexp(dim=1, keepdim=True) for own in groups]  # [(B, 1)]
        within = [own - task for own, task in zip(groups, tasks, strict=True)]
        return Found(torch.cat(tasks, dim=1), within)
