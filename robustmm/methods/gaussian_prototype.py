"""A Gaussian for each class on frozen vectors: what continual methods have to beat.

Nearest class mean under one covariance, or linear discriminant analysis, is the
solution in ten lines where classes arrive one after another: it keeps a mean for each
class and one matrix, and it forgets nothing. :class:`LinearProbeClassifier` is its like
where all rows are there at once; :class:`RanPACClassifier` sums random features.

The covariance is shared as in Hayes and Kanan, "Lifelong Machine Learning with Deep
Streaming Linear Discriminant Analysis", CVPR Workshops 2020. A row that lacks a
modality is judged by the one it has.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
from torch import Tensor

from ..adapters import (
    OAS,
    ClassGaussians,
    ClassMoments,
    GaussianReadout,
    log_odds_of_pairs,
)
from ..backbones import FrozenQueries
from ..checks import check_choice, check_number
from ..streaming import StreamedModule, StreamingClassifier


class GaussianPrototypeModule(StreamedModule):
    r"""Class Gaussians of frozen vectors, summed over the modalities that a row has.

    The logit of class c is :math:`\log \pi_c + \sum_m \log N(x_m; \mu_{c,m}, \Sigma_m)`
    over the modalities m that are there; the log-odds of a label, where a row may have
    several, the difference of this between its positives and its negatives.

    Shapes: as of :class:`StreamedModule`.
    """

    def __init__(
        self, queries: FrozenQueries, labels, multilabel: bool, shrinkage: float | str
    ):
        super().__init__(queries, labels, multilabel)
        self.shrinkage = shrinkage
        self.n_sets = len(labels) if multilabel else 1
        n_groups = len(labels) * (2 if multilabel else 1)
        self.sums = ClassMoments(n_groups, queries.widths)
        self.readout = GaussianReadout(n_groups, queries.widths)

    def add(self, vectors, present: Tensor, parts: Tensor) -> None:
        """Add rows to the moments."""
        self.sums.update(vectors, present, parts)

    def take(self, earlier: GaussianPrototypeModule, places) -> None:
        """Take the moments of a module of fewer labels, which are now at ``places``."""
        places = np.asarray(places)
        if self.multilabel:
            places = np.stack([2 * places, 2 * places + 1], axis=1).ravel()
        self.sums = earlier.sums.grown(places, len(self.sums.rows))

    def solve(self) -> None:
        """Invert the pooled covariance."""
        self.readout.set(ClassGaussians.of([self.sums], self.shrinkage))

    def read(self, vectors, present: Tensor) -> Tensor:
        """Return logits, (B, C)."""
        scores = self.readout(vectors, present, self.n_sets)
        return log_odds_of_pairs(scores) if self.multilabel else scores


class GaussianPrototypeClassifier(StreamingClassifier):
    """A Gaussian for each class on the vectors of a frozen encoder, without gradient.

    All classes have one covariance for each modality, shrunk, and a row has the sum of
    the log-likelihoods of the modalities that are there: linear discriminant analysis
    [1]_, streamed [2]_. Rows may come in any order, with any mix of classes; rows of
    other classes leave the mean of a class as it is, to the bit. Of several labels,
    each has a Gaussian for the rows with it and one for those without, and rows from
    before it was announced are neither.

    Parameters
    ----------
    covariance : {"shared"}
        What the classes have in common: one covariance for all of them.
    shrinkage : float or "oas"
        Part of the covariance, in [0, 1], that is replaced by the same variance in all
        directions. 1 is the nearest mean; "oas" the oracle approximation [3]_, which is
        larger for fewer rows.

    References
    ----------
    .. [1] Fisher, "The Use of Multiple Measurements in Taxonomic Problems", Annals of
       Eugenics 7, 1936.
    .. [2] Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear
       Discriminant Analysis", CVPR Workshops 2020.
    .. [3] Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance
       Estimation", IEEE Transactions on Signal Processing 58, 2010.

    Examples
    --------
    >>> from robustmm import GaussianPrototypeClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> clf = GaussianPrototypeClassifier("robustmm/tiny-vilt")
    >>> for label in sorted(y.unique()):
    ...     clf = clf.partial_fit(X[y == label], y[y == label])
    >>> clf.predict_proba(X).shape
    (60, 4)
    """

    covariance: str = "shared"
    shrinkage: float | str = OAS

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("covariance", self.covariance, ("shared",))
        if self.shrinkage != OAS:
            check_number("shrinkage", self.shrinkage, Real, 0, 1)

    @classmethod
    def _small(cls, **params):
        # Of a few rows in many dimensions, likelihoods are as large as they are wrong.
        return super()._small(**{"shrinkage": 0.5} | params)

    def _make_module(self, queries: FrozenQueries, labels) -> GaussianPrototypeModule:
        return GaussianPrototypeModule(
            queries, labels, self._multilabel, self.shrinkage
        )
