"""Scores of known predictions on held-out rows: over all, and per missing pattern."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score
from sklearn.utils import _safe_indexing

from ..data.frame import PATTERNS
from ..data.targets import Targets
from ..evaluation import expected_calibration_error
from ..evaluation._scoring import Scorer
from .outputs import Predicted, row_losses


class HeldOut:
    """Held-out rows, and how predictions of them are scored.

    Parameters
    ----------
    X : DataFrame of shape (n, ...)
        The rows, for scorers that look at them.
    targets : Targets
        Their labels.
    weights : ndarray of shape (n,), or None
        Of the rows, in scores that take weights.
    scoring : str, callable or None
        None is accuracy, and mean average precision for several labels.
    """

    def __init__(self, X, targets: Targets, weights, scoring):
        self.X, self.targets, self.y = X, targets, targets.original
        self.weights = weights
        multilabel = targets.multilabel
        self.by_loss = scoring is None and not multilabel
        if scoring is None:
            scoring = mean_average_precision if multilabel else "accuracy"
        blank = np.zeros((len(targets.encoded), len(targets.classes)))
        # A metric that does not fit the labels is refused here, before any training.
        self.scorer = Scorer(self.predicted(blank), scoring, self.y).single().scorer

    def predicted(self, logits: np.ndarray) -> Predicted:
        """Return a classifier that answers with these logits."""
        return Predicted(logits, self.targets.classes, self.targets.multilabel)

    def score(self, logits: np.ndarray, at: np.ndarray | None = None) -> float:
        """Return the score of logits (n, C), of the rows at some positions or of all.

        NaN where it is not defined, as a ranking of rows of one class.
        """
        X, y, weights = self.X, self.y, self.weights
        if at is not None:
            logits, X, y = logits[at], _safe_indexing(X, at), _safe_indexing(y, at)
            weights = None if weights is None else weights[at]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return float(self._call(self.predicted(logits), X, y, weights))
            except ValueError:
                return np.nan

    def _call(self, predicted, X, y, weights):
        if weights is not None:
            try:
                return self.scorer(predicted, X, y, sample_weight=weights)
            except TypeError:  # a metric without weights
                pass
        return self.scorer(predicted, X, y)

    def loss(self, logits: np.ndarray) -> float:
        """Return the mean log-loss of logits (n, C), once they are normalised."""
        losses = row_losses(logits, self.targets.encoded)
        return float(np.average(losses, weights=self.weights))

    def key(self, logits: np.ndarray) -> tuple[float, float]:
        """Return what predictions are compared by: the score, then the log-loss."""
        score = self.score(logits)
        # Rounded, as two ways to the same mean differ in the last bit.
        return (-np.inf if np.isnan(score) else round(score, 10), -self.loss(logits))

    def gain(self, logits: np.ndarray) -> tuple[float, ...]:
        """Return what an ensemble is chosen by, which for accuracy is the log-loss.

        A metric that counts is noisy on a few hundred rows: chosen by log-loss,
        ensembles were more accurate on other rows. One that ranks is not, and the loss
        of several labels is mostly that of frequent ones.
        """
        return (-self.loss(logits),) if self.by_loss else self.key(logits)

    def calibration_error(self, logits: np.ndarray) -> float:
        """Return the expected calibration error of logits (n, C)."""
        squash: Callable = expit if self.targets.multilabel else _softmax
        encoded = self.targets.encoded
        places = np.arange(len(self.targets.classes))
        options = {} if self.targets.multilabel else {"classes": places}
        proba = np.clip(squash(logits), 0, 1)
        return expected_calibration_error(
            encoded, proba, sample_weight=self.weights, **options
        )

    def by_pattern(
        self, logits: np.ndarray, patterns: np.ndarray, names=PATTERNS[:3]
    ) -> dict[str, float]:
        """Return the score of the rows of each pattern; NaN where there are none."""
        places = {name: np.flatnonzero(patterns == name) for name in names}
        return {
            name: self.score(logits, at) if len(at) else np.nan
            for name, at in places.items()
        }


def _softmax(logits: np.ndarray) -> np.ndarray:
    return softmax(logits, axis=1)


def mean_average_precision(estimator, X, y, sample_weight=None) -> float:
    """Score the ranking of rows by each label, over the labels that a row has."""
    y = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    there = y.any(axis=0)
    if not there.any():
        return np.nan
    proba = estimator.predict_proba(X)
    return average_precision_score(
        y[:, there], proba[:, there], average="macro", sample_weight=sample_weight
    )
