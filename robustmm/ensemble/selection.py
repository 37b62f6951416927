"""Greedy ensemble selection: which members to average, and how much each counts.

Members are added one by one, each time the one that raises the score on held-out rows
most, and may be added again, which is what gives weights (Caruana, Niculescu-Mizil,
Crew and Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004).
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ..checks import check_number
from ..data.targets import encode_targets
from .outputs import combine, log_outputs
from .scores import HeldOut

# Steps in a row that raise nothing, after which the selection ends.
_PATIENCE = 5


def select_greedily(
    outputs: np.ndarray, score: Callable[[np.ndarray], tuple], size: int
) -> np.ndarray:
    """Return how often each member was taken, (m,), in the best ensemble on the way.

    Parameters
    ----------
    outputs : ndarray of shape (m, n, C)
        Logarithms that members give to held-out rows.
    score : callable (ndarray of shape (n, C)) -> tuple
        Of the mean of some of them; the greater, the better.
    size : int
        Steps at most.
    """
    counts = np.zeros(len(outputs), dtype=int)
    best, best_counts, since = None, counts, 0
    total = np.zeros_like(outputs[0])
    for step in range(1, size + 1):
        scores = [score((total + each) / step) for each in outputs]
        # The first of equals: members stand in the order of their cost.
        chosen = max(range(len(scores)), key=scores.__getitem__)
        total = total + outputs[chosen]
        counts = counts + np.bincount([chosen], minlength=len(counts))
        since += 1
        if best is None or scores[chosen] > best:
            best, best_counts, since = scores[chosen], counts, 0
        if since >= _PATIENCE:
            break
    return best_counts


class EnsembleSelection(ClassifierMixin, BaseEstimator):
    """Average fitted classifiers, chosen greedily on rows they have not seen.

    The rows given to ``fit`` must be held out from the training of the members: those
    that have learned them by heart would win. What is averaged are logarithms of
    probabilities (log-odds, for several labels), so that a member that is sure counts
    more than one that is not. :class:`AutoMultimodalClassifier` trains members, too.

    Parameters
    ----------
    estimators : list of (str, classifier)
        Fitted classifiers of the same table, of any library with ``predict_proba``; a
        pipeline, too. ``clone`` forgets their fits unless they are wrapped into
        scikit-learn's ``FrozenEstimator``.
    ensemble_size : int
        Steps of the selection, so the most members there can be.
    scoring : str, callable or None
        What is raised, as in scikit-learn, ties broken by log-loss. None is mean
        average precision for indicators; otherwise the log-loss is lowered, and
        ``score_`` is accuracy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    weights_ : ndarray of shape (n_estimators,)
        Of the members, with the sum 1; most are zero.
    score_ : float
        Of the ensemble on the rows of ``fit``: an optimistic one.

    Examples
    --------
    >>> from robustmm import EnsembleSelection, LinearProbeClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(90, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> encoders = ["robustmm/tiny-clip", "robustmm/tiny-vilt"]
    >>> probes = [(e, LinearProbeClassifier(e).fit(X[:50], y[:50])) for e in encoders]
    >>> clf = EnsembleSelection(probes).fit(X[50:], y[50:])
    >>> bool(abs(clf.weights_.sum() - 1) < 1e-9)
    True
    """

    def __init__(
        self,
        estimators: list | None = None,
        *,
        ensemble_size: int = 25,
        scoring: str | Callable | None = None,
    ):
        self.estimators = estimators
        self.ensemble_size = ensemble_size
        self.scoring = scoring

    def fit(
        self, X: pd.DataFrame, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> EnsembleSelection:
        """Choose among the members on held-out rows.

        Parameters
        ----------
        X : DataFrame of shape (n, ...)
            Rows that the members have not seen.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Their labels.
        sample_weight : array-like of shape (n,), optional
            Weights of the rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no member, or labels or scoring cannot be used.
        NotFittedError
            If a member is not fitted.
        """
        members = self._members()
        check_number("ensemble_size", self.ensemble_size, Integral, 1)
        check_consistent_length(X, y)
        seen = [np.asarray(m.classes_) for m in members if _has_classes(m)]
        targets = encode_targets(y, np.concatenate(seen) if seen else None)
        weights = None
        if sample_weight is not None:
            shape = np.empty((len(targets.encoded), 1))
            weights = _check_sample_weight(sample_weight, shape, dtype=np.float64)
        held = HeldOut(X, targets, weights, self.scoring)
        outputs = self._outputs(X, targets.classes, targets.multilabel)
        counts = select_greedily(outputs, held.gain, self.ensemble_size)
        self.classes_, self._multilabel = targets.classes, targets.multilabel
        self.weights_ = counts / counts.sum()
        self.score_ = held.score(combine(outputs, self.weights_, self._multilabel))
        return self

    def _members(self) -> list:
        if not isinstance(self.estimators, list | tuple) or not self.estimators:
            raise ValueError(
                "estimators must be a list of (name, fitted classifier), got "
                f"{self.estimators!r:.200}."
            )
        for _, member in self.estimators:
            check_is_fitted(member)
        return [member for _, member in self.estimators]

    def _outputs(self, X, classes: np.ndarray, multilabel: bool, used=None):
        members = self._members()
        used = range(len(members)) if used is None else used
        return np.stack([log_outputs(members[i], X, classes, multilabel) for i in used])

    def _logits(self, X) -> np.ndarray:
        check_is_fitted(self)
        used = np.flatnonzero(self.weights_)
        outputs = self._outputs(X, self.classes_, self._multilabel, used)
        return combine(outputs, self.weights_[used], self._multilabel)

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Return probabilities (n, n_classes), in the order of ``classes_``."""
        logits = self._logits(X)
        return expit(logits) if self._multilabel else softmax(logits, axis=1)

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Return labels (n,), or indicators (n, L)."""
        logits = self._logits(X)
        if self._multilabel:
            return (logits > 0).astype(np.int64)
        return self.classes_[logits.argmax(axis=1)]

    def to_onnx(self, path) -> None:
        """Raise NotImplementedError: several networks are averaged here."""
        raise NotImplementedError(
            "to_onnx writes one network, and EnsembleSelection averages several: "
            "export its members, and average their log-probabilities with weights_."
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_label = True
        return tags


def _has_classes(member) -> bool:
    """Whether a member says its classes as one array; several labels are columns."""
    classes = getattr(member, "classes_", None)
    return isinstance(classes, np.ndarray) and not getattr(member, "_multilabel", False)
