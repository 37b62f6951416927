"""How far probabilities are from the frequencies that they announce."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import _check_sample_weight

from ..checks import check_choice, check_number


def expected_calibration_error(
    y: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: str = "uniform",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Measure how far confidence is from being right, on average [1]_.

    Rows are sorted into bins by the probability of the predicted class; the error is
    the mean over the bins, weighted by their rows, of the distance between that
    probability and the part of the rows that are right. 0 is best. Of indicators every
    entry counts as a prediction of its own, of the probability that it is set.

    Parameters
    ----------
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    proba : array-like of shape (n, C), or (n, L)
        Probabilities.
    classes : array-like of shape (C,), optional
        Labels in the order of the columns, ``classes_`` of a classifier; the sorted
        labels of ``y`` if None. Not for indicators.
    n_bins : int
        Bins.
    strategy : {"uniform", "quantile"}
        Bins of equal width, as in the paper; or of equally many rows, which leaves no
        bin to a handful of them.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        For shapes that do not fit, and probabilities outside [0, 1].

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks",
       ICML 2017, equation 3.

    Examples
    --------
    >>> proba = [[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]]
    >>> round(expected_calibration_error([0, 0, 0, 0, 1], proba), 6)
    0.0
    >>> round(expected_calibration_error([1, 1, 1, 1, 1], proba, classes=[0, 1]), 6)
    0.8
    """
    check_number("n_bins", n_bins, Integral, 1)
    check_choice("strategy", strategy, ("uniform", "quantile"))
    proba = check_array(proba, input_name="proba")
    check_consistent_length(y, proba, sample_weight)
    if proba.min() < 0 or proba.max() > 1:
        found = proba.min(), proba.max()
        raise ValueError(f"proba must be in [0, 1], got values in {found}.")
    weights = _check_sample_weight(sample_weight, proba, dtype=np.float64)
    confidence, right = _predictions(np.asarray(y), proba, classes)
    weights = np.repeat(weights, confidence.size // len(weights))
    bins = _bins(confidence, n_bins, strategy)
    gaps = np.bincount(bins, weights * (right - confidence))
    return float(np.abs(gaps).sum() / weights.sum())


def one_column_per_label(output, classes) -> np.ndarray:
    """Return a multilabel output as (n, L), whatever shape the estimator gives it.

    scikit-learn's forests and ``MultiOutputClassifier`` return a list with the two
    probabilities of each label, or one where the rows all had the same.
    """
    if not isinstance(output, list):
        return np.asarray(output, dtype=np.float64)
    columns = []
    for part, known in zip(output, classes, strict=True):
        part = np.reshape(part, (len(part), -1))
        # Of a single class, 0 or 1, that is what the label is.
        single = part.shape[1] == 1 and len(known) == 1
        columns.append(np.full(len(part), known[0]) if single else part[:, -1])
    return np.column_stack(columns).astype(np.float64)


def _predictions(y, proba: np.ndarray, classes) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of each prediction, and whether it was right."""
    if y.ndim == 2:
        if y.shape != proba.shape:
            raise ValueError(
                f"proba must have the shape of the indicators, {y.shape}, got "
                f"{proba.shape}."
            )
        return proba.ravel(), y.ravel().astype(float)
    classes = np.unique(y) if classes is None else np.asarray(classes)
    if proba.shape[1] != len(classes):
        raise ValueError(
            f"proba must have a column for each of the {len(classes)} classes, got "
            f"{proba.shape[1]}."
        )
    return proba.max(axis=1), (classes[proba.argmax(axis=1)] == y).astype(float)


def _bins(confidence: np.ndarray, n_bins: int, strategy: str) -> np.ndarray:
    """Return the number of each prediction's bin."""
    if strategy == "uniform":
        # Closed above, as in the paper; 0 falls into the first.
        return np.clip(np.ceil(confidence * n_bins) - 1, 0, n_bins - 1).astype(int)
    # Equal confidences stay together, or the order of rows would count.
    edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins)
    return np.searchsorted(edges, confidence, side="left")
