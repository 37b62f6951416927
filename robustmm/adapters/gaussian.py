"""Gaussians of groups with one covariance: statistics that are streamed, likelihoods.

What is kept of the rows of a group (a class, or a whole task) is their number and their
mean, and of all groups together one scatter within them. Chunks may come in any order,
with any mix of groups, and give the sums of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

OAS = "oas"
# The logarithm of a part of nothing: finite, and a probability of exactly zero.
_NOTHING = -1e3


class GroupMoments(nn.Module):
    r"""Numbers, means and the scatter within groups of vectors, exact when streamed.

    A chunk that has :math:`n'` rows of group :math:`g`, of mean :math:`\mu'` and
    scatter :math:`S'` about it, changes what is known of :math:`n` rows to

    .. math:: W \leftarrow W + S' + \frac{n n'}{n + n'} \delta \delta^\top, \quad
              \mu \leftarrow \mu + \frac{n'}{n + n'} \delta, \quad
              \delta = \mu' - \mu

    The buffers are in float64 and stay on the CPU whatever the module is moved to: not
    every device has 64 bits, and what earlier chunks left must not be rounded.

    Parameters
    ----------
    n_groups : int
        G. More can be added later, with :meth:`grown`.
    width : int
        Entries of a vector, d.

    Notes
    -----
    Shapes: ``counts`` (G,), sums of weights; ``means`` (G, d), zero for a group without
    rows; ``scatter`` (d, d); ``squares`` (), the sum of the squared weights of rows.

    References
    ----------
    .. [1] Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
       Computing Sample Variances", 1979.

    Examples
    --------
    >>> moments = GroupMoments(n_groups=2, width=1)
    >>> moments.update(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
    >>> moments.update(torch.tensor([[4.0]]), torch.tensor([0]))
    >>> moments.counts.tolist(), moments.means.tolist(), moments.scatter.tolist()
    ([3.0, 1.0], [[2.0], [5.0]], [[8.0]])
    """

    def __init__(self, n_groups: int, width: int):
        super().__init__()
        for name, shape in {
            "counts": (n_groups,),
            "means": (n_groups, width),
            "scatter": (width, width),
            "squares": (),
        }.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def _apply(self, fn, recurse: bool = True) -> Self:
        return self  # neither moved nor cast

    @torch.no_grad()
    def update(
        self, rows: Tensor, groups: Tensor, weights: Tensor | None = None
    ) -> None:
        """Add vectors.

        Parameters
        ----------
        rows : Tensor of shape (n, d)
        groups : Tensor of shape (n,), int64, or of shape (n, G)
            The group of each row; or how much of each row belongs to each group, where
            one may be in several, or in none.
        weights : Tensor of shape (n,), optional
            A row of weight 2 is a row that stands twice.
        """
        rows, parts = rows.double().cpu(), self._parts(groups)
        if weights is not None:
            parts = parts * weights.double().cpu()[:, None]
        added = parts.sum(dim=0)  # (G,)
        if not added.any():
            return
        # Sums of squares of what is far from zero would cancel.
        middle = rows.mean(dim=0)
        rows = rows - middle
        means = parts.T @ rows / added.clamp(min=1e-300)[:, None]  # (G, d)
        squares = (rows * parts.sum(dim=1, keepdim=True)).T @ rows
        within = squares - (means * added[:, None]).T @ means
        squares = parts.sum(dim=1).square().sum()
        self._merge(added, means + middle, within, squares)

    def merge(self, other: GroupMoments) -> None:
        """Add what another one holds of the same groups."""
        self._merge(other.counts, other.means, other.scatter, other.squares)

    def grown(self, places: Sequence[int], n_groups: int) -> GroupMoments:
        """Return a copy with more groups, those of now at ``places``.

        Examples
        --------
        >>> moments = GroupMoments(1, 1)
        >>> moments.update(torch.tensor([[3.0]]), torch.tensor([0]))
        >>> moments.grown([1], n_groups=2).counts
        tensor([0., 1.], dtype=torch.float64)
        """
        more = GroupMoments(n_groups, self.means.shape[1])
        at = torch.as_tensor(places, dtype=torch.long)
        more.counts[at], more.means[at] = self.counts, self.means
        more.scatter.copy_(self.scatter)
        more.squares.copy_(self.squares)
        return more

    def _parts(self, groups: Tensor) -> Tensor:
        """How much of each row belongs to each group, (n, G)."""
        groups = groups.cpu()
        if groups.ndim == 2:
            return groups.double()
        return nn.functional.one_hot(groups, len(self.counts)).double()

    def _merge(
        self, added: Tensor, means: Tensor, within: Tensor, squares: Tensor
    ) -> None:
        here = added > 0
        total = (self.counts + added).where(here, 1.0)
        delta = (means - self.means).where(here[:, None], 0.0)  # (G, d)
        between = self.counts * added / total  # (G,)
        # Made anew, as others may hold the sums of before.
        self.scatter = self.scatter + within + (delta * between[:, None]).T @ delta
        self.means = self.means + delta * (added / total)[:, None]
        self.counts, self.squares = self.counts + added, self.squares + squares


class SharedGaussian(NamedTuple):
    r"""Log-likelihoods of groups with one covariance, which are linear in the vector.

    :math:`\log p(x | g) = (x - m)^\top w_g + b_g` up to a term that all groups have in
    common, with :math:`w_g = \Sigma^{-1} (\mu_g - m)`, :math:`b_g = -\frac 1 2 (\mu_g -
    m)^\top w_g` and any :math:`m`: here the mean of all rows, so that the answer is no
    small difference of large numbers.

    Shapes: ``center`` (d,), ``weight`` (G, d), ``bias`` (G,), ``shares`` (G,), the
    logarithm of each group's part of the rows, and ``known`` (G,) bool, whether it has
    any.

    Examples
    --------
    >>> moments = GroupMoments(n_groups=2, width=1)
    >>> rows = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    >>> moments.update(rows, torch.tensor([0, 0, 1, 1]))
    >>> gaussian = SharedGaussian.of([moments], shrinkage=0.0)
    >>> gaussian(torch.tensor([[3.0], [5.0]])).tolist()
    [[-2.0, -2.0], [-6.0, 2.0]]
    """

    center: Tensor
    weight: Tensor
    bias: Tensor
    shares: Tensor
    known: Tensor

    @classmethod
    def of(cls, moments: Sequence[GroupMoments], shrinkage: float | str) -> Self:
        r"""Return the Gaussians of the groups of several moments, one after another.

        Their scatters are pooled. The covariance is :math:`(1 - s) W / N + s\,
        \mathrm{tr}(W) / (N d)\, I`, as in scikit-learn's ``LinearDiscriminantAnalysis``
        with empirical priors and a number as its shrinkage.

        Parameters
        ----------
        moments : sequence of GroupMoments
            Of vectors of one width.
        shrinkage : float or "oas"
            s, in [0, 1]; or that of the oracle approximation [1]_, which needs the
            covariance and the number of rows alone, and is larger for fewer rows. Of
            rows with weights the number is that of Kish, the square of their sum
            divided by the sum of their squares.

        References
        ----------
        .. [1] Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance
           Estimation", IEEE Transactions on Signal Processing 58, 2010.
        """
        counts = torch.cat([m.counts for m in moments])  # (G,)
        means = torch.cat([m.means for m in moments])  # (G, d)
        total = counts.sum().clamp(min=1e-300)
        shares, known = counts / total, counts > 0
        center = shares @ means
        centered = (means - center).where(known[:, None], 0.0)
        covariance = sum(m.scatter for m in moments) / total
        if shrinkage == OAS:
            squares = sum(m.squares for m in moments).clamp(min=1e-300)
            shrinkage = oracle_shrinkage(covariance, float(total**2 / squares))
        weight = _solve(_shrunk(covariance, shrinkage), centered)
        bias = -(centered * weight).sum(dim=1) / 2
        return cls(center, weight, bias, log_shares(counts), known)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """Return it for vectors of a type on a device."""
        *numbers, known = self
        moved = [tensor.to(dtype).to(device) for tensor in numbers]
        return type(self)(*moved, known.to(device))

    def __call__(self, rows: Tensor, n_sets: int = 1) -> Tensor:
        """Return the log-likelihoods of vectors (B, d), (B, G).

        Parameters
        ----------
        rows : Tensor of shape (B, d)
        n_sets : int
            The groups are as many sets of equal size, one after another, between whose
            members a decision is made: all, or two for each of several labels. What is
            known of a group without rows is what the others of its set say together:
            the vector speaks neither for it nor against it.
        """
        weight, center = self.weight, self.center
        scores = (rows.to(weight.dtype) - center) @ weight.T + self.bias
        if n_sets == 1 and len(self.known) == 1:
            return scores
        sets = scores.unflatten(1, (n_sets, -1))  # (B, S, K)
        known, shares = (
            t.unflatten(0, (n_sets, -1)) for t in (self.known, self.shares)
        )
        shares = (shares + 0.0).masked_fill(~known, float("-inf"))
        # Of a set in which nothing is known, nothing is said.
        silent = ~known.any(dim=1, keepdim=True)
        shares = shares.masked_fill(silent, 0.0)
        together = (sets + shares - shares.logsumexp(1, keepdim=True)).logsumexp(2)
        return sets.where(known, together[..., None]).flatten(1)


def sum_log_likelihoods(
    gaussians: Sequence[SharedGaussian],
    rows: Sequence[Tensor],
    present: Tensor,
    n_sets: int = 1,
) -> Tensor:
    """Sum the log-likelihoods over the modalities that a row has, (B, G).

    Parameters
    ----------
    gaussians : sequence of SharedGaussian
        Of the same groups, one for each modality.
    rows : sequence of Tensor of shape (B, d)
        Vectors of each modality; those of a missing one do not count.
    present : Tensor of shape (B, M), bool
    n_sets : int
        As of calling a :class:`SharedGaussian`.

    Examples
    --------
    >>> moments = GroupMoments(n_groups=2, width=1)
    >>> rows = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    >>> moments.update(rows, torch.tensor([0, 0, 1, 1]))
    >>> gaussian = SharedGaussian.of([moments], shrinkage=0.0)
    >>> here = torch.tensor([[True, True], [True, False]])
    >>> sum_log_likelihoods([gaussian] * 2, [rows[:2]] * 2, here).tolist()
    [[8.0, -16.0], [0.0, -4.0]]
    """
    total = 0.0
    for place, (gaussian, vectors) in enumerate(zip(gaussians, rows, strict=True)):
        scores = gaussian(vectors, n_sets)
        total = total + scores.where(present[:, place, None], 0.0)
    return total


def group_parts(
    targets: np.ndarray, n_classes: int, weights: np.ndarray | None = None
) -> Tensor:
    """Return how much of each row belongs to each class, (n, C) or (n, 2 L).

    Of several labels, each has two groups: first the rows without it, then those with.

    Parameters
    ----------
    targets : ndarray of int of shape (n,), or of zeros and ones of shape (n, L)
        NaN where it is not known whether a row has a label.
    n_classes : int
        C, or L.
    weights : ndarray of shape (n,), optional
        As how many rows each counts.

    Examples
    --------
    >>> group_parts(np.array([2, 0]), n_classes=3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    >>> group_parts(np.array([[1, 0]]), n_classes=2).tolist()
    [[0.0, 1.0, 1.0, 0.0]]
    """
    if targets.ndim == 2:
        told = torch.from_numpy(targets)  # (n, L)
        parts = torch.stack([told == 0, told == 1], dim=2).flatten(1).double()
    else:
        parts = nn.functional.one_hot(torch.from_numpy(targets), n_classes).double()
    if weights is None:
        return parts
    return parts * torch.from_numpy(weights).double()[:, None]


def oracle_shrinkage(covariance: Tensor, n_rows: float) -> float:
    """Return the part of a covariance to replace, by the oracle approximation.

    Parameters
    ----------
    covariance : Tensor of shape (d, d)
    n_rows : float
        Of how many rows it is.

    Examples
    --------
    >>> covariance = torch.diag(torch.tensor([4.0, 1.0, 1.0]))
    >>> [round(oracle_shrinkage(covariance, n), 2) for n in (10, 1000)]
    [0.82, 0.01]
    """
    size = len(covariance)
    spread = covariance.diagonal().mean() ** 2
    squares = covariance.square().mean()
    excess = float((n_rows + 1) * (squares - spread / size))
    # All directions alike: nothing is lost by replacing all of it.
    return min(float(squares + spread) / excess, 1.0) if excess > 0 else 1.0


def _shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    size = len(covariance)
    spread = covariance.diagonal().mean()
    shrunk = (1 - shrinkage) * covariance
    # A row for each group has no spread at all: then the means' distances decide.
    ridge = torch.where(spread > 0, shrinkage * spread, 1.0)
    return shrunk + ridge * torch.eye(size, dtype=covariance.dtype)


def _solve(covariance: Tensor, means: Tensor) -> Tensor:
    """Return each of the means (G, d) times the inverse covariance."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:  # singular, as without shrinkage: the shortest solution, as LDA's
        return means @ torch.linalg.pinv(covariance, hermitian=True)
    return torch.cholesky_solve(means.T, factor).T


def log_shares(counts: Tensor) -> Tensor:
    """Return the logarithms of the parts of a sum, (G,); -1000 for a part of nothing.

    Examples
    --------
    >>> log_shares(torch.tensor([1.0, 0.0]))
    tensor([    0., -1000.])
    """
    return (counts / counts.sum().clamp(min=1e-300)).log().clamp(min=_NOTHING)
