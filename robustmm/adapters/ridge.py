"""Random features of rows with holes, and sums that ridge regression is solved from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomFeatures(nn.Module):
    r"""Lift the vectors of a row by a random matrix, zero where a modality is missing.

    :math:`\phi = [\mathrm{relu}(R_m \hat x_m), \ldots, p]`, where :math:`\hat x` has
    length one, so that no modality outweighs another, :math:`R` is Gaussian, drawn once
    and kept, and :math:`p` says what is there.

    Parameters
    ----------
    widths : sequence of int
        Entries of the vector of each modality, M of them.
    n_features : int
        Features of each modality, K; with 0 they are the vectors themselves.

    Notes
    -----
    Shapes: vectors [(B, d), ...], present (B, M) bool, features (B, M K + M).

    Examples
    --------
    >>> lift = RandomFeatures(widths=(4, 3), n_features=5)
    >>> present = torch.tensor([[True, False], [True, True]])
    >>> lift([torch.randn(2, 4), torch.randn(2, 3)], present).shape, lift.width
    (torch.Size([2, 12]), 12)
    """

    def __init__(self, widths: Sequence[int], n_features: int):
        super().__init__()
        self.n_features, self.n_kinds = n_features, len(widths)
        sizes = [n_features or width for width in widths]
        self.width = sum(sizes) + len(widths)
        for kind, width in enumerate(widths if n_features else ()):
            # Kept with the sums, which mean nothing without it.
            drawn = torch.randn(width, n_features)
            self.register_buffer(f"projection_{kind}", drawn)

    def forward(self, vectors: Sequence[Tensor], present: Tensor) -> Tensor:
        """Return the features of a batch."""
        parts = [
            self._lift(kind, rows).where(present[:, kind, None], 0.0)
            for kind, rows in enumerate(vectors)
        ]
        return torch.cat([*parts, present.to(parts[0].dtype)], dim=1)

    def _lift(self, kind: int, rows: Tensor) -> Tensor:
        rows = F.normalize(rows.float(), dim=1)
        if not self.n_features:
            return rows
        return (rows @ getattr(self, f"projection_{kind}")).relu()


class RidgeSums(nn.Module):
    r"""Sums over rows from which ridge regression is solved at any time.

    :math:`G = \sum \phi \phi^\top` and :math:`Q = \sum \phi y^\top`, in float64 on
    the CPU. A class that comes later has had zeros in :math:`y` so far, which is what
    adding it then means.

    Parameters
    ----------
    width : int
        Features of a row, D.
    n_outputs : int
        C.

    Notes
    -----
    Shapes: ``gram`` (D, D), ``cross`` (D, C).

    Examples
    --------
    >>> sums = RidgeSums(width=2, n_outputs=1)
    >>> sums.update(torch.eye(2), torch.tensor([[1.0], [0.0]]), torch.ones(2))
    >>> sums.solve(penalty=1.0).round(decimals=3).tolist()
    [[0.5, 0.0]]
    """

    def __init__(self, width: int, n_outputs: int):
        super().__init__()
        for name, size in {"gram": width, "cross": n_outputs}.items():
            zeros = torch.zeros(width, size, dtype=torch.float64)
            self.register_buffer(name, zeros)

    def _apply(self, fn, recurse: bool = True) -> Self:
        return self  # neither moved nor cast

    @torch.no_grad()
    def update(self, features: Tensor, outputs: Tensor, weights: Tensor) -> None:
        """Add rows: features (n, D), outputs (n, C) and weights (n,)."""
        features, weights = features.double().cpu(), weights.double().cpu()[:, None]
        self.gram = self.gram + (features * weights).T @ features
        self.cross = self.cross + (features * weights).T @ outputs.double().cpu()

    def grown(self, places: np.ndarray, n_outputs: int) -> RidgeSums:
        """Return a copy with more outputs, those of now at ``places``."""
        more = RidgeSums(len(self.gram), n_outputs)
        more.gram.copy_(self.gram)
        more.cross[:, torch.as_tensor(places, dtype=torch.long)] = self.cross
        return more

    def solve(self, penalty: float) -> Tensor:
        """Return the weights (C, D) of the regression.

        Parameters
        ----------
        penalty : float
            On squared weights, in parts of the mean of the diagonal of G: whatever the
            number of rows and the scale of features.
        """
        ridge = penalty * self.gram.diagonal().mean().clamp(min=1e-300)
        matrix = self.gram + ridge * torch.eye(len(self.gram), dtype=torch.float64)
        return torch.cholesky_solve(self.cross, torch.linalg.cholesky(matrix)).T
