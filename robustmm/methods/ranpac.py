"""RanPAC: ridge regression on random features of frozen vectors, streamed.

McDonnell, Gong, Parvaneh, Abbasnejad and van den Hengel, "RanPAC: Random Projections
and Pre-trained Models for Continual Learning", NeurIPS 2023.

Vectors of a frozen encoder are lifted by a random matrix and a rectifier, and of the
lifted ones two sums are kept. :class:`GaussianPrototypeClassifier` keeps means and a
covariance of the vectors themselves, which is near to ridge regression; the rectifier
is what this one adds. The paper's first-session adapter is not part of it.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapters import LinearHead, RandomFeatures, RidgeSums
from ..backbones import FrozenQueries
from ..checks import check_number
from ..streaming import StreamedModule, StreamingClassifier

# Regression on zeros and ones estimates probabilities, but may leave [0, 1]: how sharp
# the bend is that keeps them above zero.
_SHARPNESS = 20.0


class RanPACModule(StreamedModule):
    r"""Ridge regression of the classes' indicators on random features.

    With :math:`s = \phi (G + \lambda I)^{-1} Q` the logit is :math:`\log
    \mathrm{softplus}(20 s)`, whose softmax is about :math:`s` made a distribution; of
    several labels, :math:`\log \mathrm{softplus}(20 s) - \log \mathrm{softplus}(20 (1 -
    s))`. Both rise with :math:`s`.

    Shapes: as of :class:`StreamedModule`.
    """

    def __init__(
        self,
        queries: FrozenQueries,
        labels,
        multilabel: bool,
        *,
        n_features: int,
        ridge: float,
    ):
        super().__init__(queries, labels, multilabel)
        self.ridge = ridge
        self.lift = RandomFeatures(queries.widths, n_features)
        self.sums = RidgeSums(self.lift.width, len(labels))
        self.readout = LinearHead(self.lift.width, len(labels), bias=False)

    def add(self, vectors, present: Tensor, parts: Tensor) -> None:
        """Add rows to the sums."""
        device = self.readout.weight.device
        moved = [v.to(device) for v in vectors]
        lifted = self.lift(moved, present.to(device)).cpu()
        if not self.multilabel:
            weights = parts.sum(dim=1)
        else:  # with each label or without, or not known, which is without
            weights = parts.unflatten(1, (-1, 2)).sum(dim=2).amax(dim=1)
            parts = parts[:, 1::2]
        outputs = parts / weights.clamp(min=1e-300)[:, None]
        self.sums.update(lifted, outputs, weights)

    def take(self, earlier: RanPACModule, places) -> None:
        """Take the sums of a module of fewer labels, and its random matrix."""
        self.lift.load_state_dict(earlier.lift.state_dict())
        self.sums = earlier.sums.grown(places, self.sums.cross.shape[1])

    def solve(self) -> None:
        """Solve the regression."""
        with torch.no_grad():
            self.readout.weight.copy_(self.sums.solve(self.ridge))

    def read(self, vectors, present: Tensor) -> Tensor:
        """Return logits, (B, C)."""
        scores = _SHARPNESS * self.readout(self.lift(vectors, present))
        there = F.softplus(scores).clamp(min=1e-38).log()
        if not self.multilabel:
            return there
        return there - F.softplus(_SHARPNESS - scores).clamp(min=1e-38).log()


class RanPACClassifier(StreamingClassifier):
    """Ridge regression on random features of a frozen encoder, without gradient [1]_.

    Rows may come in any order, with any mix of classes, as for
    :class:`GaussianPrototypeClassifier`. The features of a missing modality are zero,
    and two more say what is there. Of several labels, one that is announced later
    counts as absent from earlier rows.

    Parameters
    ----------
    n_features : int
        Random features of each modality. What is kept grows with their square: 32 MB
        for 1000 of both. 0 is ridge regression on the vectors themselves.
    ridge : float
        Penalty on squared weights, in parts of the mean square of a feature times the
        number of rows.
    random_state : int, RandomState instance or None
        Seeds the random matrix, in the first call; later ones keep it.

    References
    ----------
    .. [1] McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
       Continual Learning", NeurIPS 2023.

    Examples
    --------
    >>> from robustmm import RanPACClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> clf = RanPACClassifier("robustmm/tiny-vilt", n_features=50, random_state=0)
    >>> for label in sorted(y.unique()):
    ...     clf = clf.partial_fit(X[y == label], y[y == label])
    >>> clf.predict_proba(X).shape
    (60, 4)
    """

    # The paper's number of features, of one modality; its penalty is chosen on rows.
    PAPER: ClassVar[dict] = {"n_features": 10_000}

    n_features: int = 1000
    ridge: float = 0.1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("n_features", self.n_features, Integral, 0)
        check_number("ridge", self.ridge, Real, 0, open="low")

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"n_features": 40} | params)

    def _make_module(self, queries: FrozenQueries, labels) -> RanPACModule:
        options = {"n_features": self.n_features, "ridge": self.ridge}
        return RanPACModule(queries, labels, self._multilabel, **options)
