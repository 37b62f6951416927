"""Predictions of any classifier as logarithms that can be averaged, and as answers."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from ..evaluation.calibration import one_column_per_label

# The part of a probability that is spread evenly: a forest says exactly 0, whose
# logarithm would outvote all others, and a class may be in no row of a member's fit.
SPREAD = 1e-4


def log_outputs(estimator, X, classes: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return what a fitted classifier says of rows, comparable with what others say.

    Parameters
    ----------
    estimator : classifier
        Fitted, with ``predict_proba``.
    X : DataFrame of shape (n, ...)
    classes : ndarray of shape (C,)
        The columns wanted; of a class that the estimator has not seen, nearly zero.
    multilabel : bool

    Returns
    -------
    ndarray of shape (n, C)
        Logarithms of probabilities; log-odds for multilabel.
    """
    name = type(estimator).__name__
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(f"A member must have predict_proba, {name} has none.")
    proba = estimator.predict_proba(X)
    align = _indicators if multilabel else _columns
    proba = align(estimator, proba, classes)
    if not np.isfinite(proba).all():
        raise ValueError(f"predict_proba of {name} must be finite, and is not.")
    if multilabel:
        return logit((1 - SPREAD) * proba + SPREAD / 2)
    proba = (1 - SPREAD) * proba + SPREAD / len(classes)
    return np.log(proba / proba.sum(axis=1, keepdims=True))


def _columns(estimator, proba: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Put columns in the order of ``classes``; those that are lacking are zero."""
    known = np.asarray(estimator.classes_)
    result = np.zeros((len(proba), len(classes)))
    places = np.searchsorted(classes, known)
    result[:, places] = proba
    return result


def _indicators(estimator, proba, classes: np.ndarray) -> np.ndarray:
    """Return the probability of each label, (n, L); they stand in one order."""
    return one_column_per_label(proba, getattr(estimator, "classes_", None))


def combine(outputs: np.ndarray, weights: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return the weighted mean of logarithms (m, n, C), normalised; (n, C)."""
    mean = np.tensordot(weights / weights.sum(), outputs, axes=1)
    return mean if multilabel else log_softmax(mean, axis=1)


def row_losses(logits: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    """Return the log-loss of each row, (n,); for multilabel the mean over labels."""
    if encoded.ndim == 2:
        return (np.logaddexp(0, logits) - encoded * logits).mean(axis=1)
    return -log_softmax(logits, axis=1)[np.arange(len(encoded)), encoded]


class Predicted(ClassifierMixin, BaseEstimator):
    """A classifier whose answers for some rows are known, for any scorer to score.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
    classes : ndarray of shape (C,)
    multilabel : bool
    """

    def __init__(self, logits=None, classes=None, multilabel=False):
        self.logits = logits
        self.classes = classes
        self.multilabel = multilabel

    @property
    def classes_(self) -> np.ndarray:
        """The labels in the order of the columns."""
        return self.classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X, y) -> Predicted:
        """Return itself: scikit-learn asks for it of all that it scores."""
        return self

    def predict_proba(self, X) -> np.ndarray:
        """Return the probabilities (n, C), whatever ``X`` is."""
        return expit(self.logits) if self.multilabel else softmax(self.logits, axis=1)

    def decision_function(self, X) -> np.ndarray:
        """Return the logits (n, C); for two classes their difference, (n,)."""
        if not self.multilabel and self.logits.shape[1] == 2:
            return self.logits[:, 1] - self.logits[:, 0]
        return self.logits

    def predict(self, X) -> np.ndarray:
        """Return labels (n,), or indicators (n, L)."""
        if self.multilabel:
            return (self.logits > 0).astype(np.int64)
        return self.classes[self.logits.argmax(axis=1)]
