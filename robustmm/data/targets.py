"""Labels of any type to tensors and back; the target's type picks the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets


@dataclass(frozen=True)
class Targets:
    """Encoded labels.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        The labels in the order of the outputs.
    encoded : ndarray of shape (n,) int64, or (n, C) float32 for multilabel
        What the loss is computed with.
    original : ndarray of shape (n,) or (n, C)
        The labels as given, which class weights refer to.
    """

    classes: np.ndarray
    encoded: np.ndarray
    original: np.ndarray

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels, or none."""
        return self.encoded.ndim == 2

    def prior(self, weights: np.ndarray) -> np.ndarray:
        """Weighted frequency of each class, (C,)."""
        if self.multilabel:
            return np.average(self.encoded, axis=0, weights=weights)
        counts = np.bincount(self.encoded, weights, minlength=len(self.classes))
        return counts / counts.sum()

    def weights(self, class_weight, sample_weight: np.ndarray) -> np.ndarray:
        """Sample weights times class weights, (n,)."""
        if class_weight is None:
            return sample_weight
        return sample_weight * compute_sample_weight(class_weight, self.original)


def encode_targets(
    y: ArrayLike, classes: ArrayLike | None = None, multilabel: bool = False
) -> Targets:
    """Check and encode labels.

    Parameters
    ----------
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Hashable labels, or zeros and ones (array, DataFrame, sparse).
    classes : array-like of shape (c,), optional
        Classes that get an output too if ``y`` lacks them; not for indicators, whose
        columns say it.
    multilabel : bool
        Whether a single column, too, is an indicator.

    Raises
    ------
    ValueError
        For an absent, empty, non-finite, continuous or single-class target.
    """
    if y is None:
        raise ValueError(
            "This classifier requires y to be passed, but the target y is None."
        )
    names = np.asarray(y.columns, dtype=object) if isinstance(y, pd.DataFrame) else None
    values = y.toarray() if sparse.issparse(y) else np.asarray(y)
    if values.size == 0:
        raise ValueError(f"y must have a label at least, got shape {values.shape}.")
    if values.ndim == 2 and (multilabel or values.shape[1] > 1):
        return _encode_indicators(values, names)
    values = column_or_1d(values, warn=True)
    _check_no_nulls(values)
    check_classification_targets(values)
    known = values if classes is None else np.concatenate([values, classes])
    classes = np.unique(known)
    encoded = np.searchsorted(classes, values)
    if len(classes) < 2:
        raise ValueError(
            "This classifier needs samples of at least 2 classes in the data, but "
            f"the data contains only one class: {classes[0]!r}."
        )
    return Targets(classes, encoded.astype(np.int64), values)


def _check_no_nulls(values: np.ndarray) -> None:
    if values.dtype == object and pd.isna(values).any():
        raise ValueError("Input y contains NaN: every row needs a label.")
    assert_all_finite(values, input_name="y")


def _encode_indicators(values: np.ndarray, names: np.ndarray | None) -> Targets:
    _check_no_nulls(values)
    if not np.isin(values.astype(float), (0, 1)).all():
        raise ValueError(
            "A two-dimensional y must be an indicator matrix of zeros and ones, got "
            f"the values {np.unique(values.astype(str))[:5].tolist()}."
        )
    encoded = values.astype(np.float32)
    classes = np.arange(values.shape[1]) if names is None else names
    return Targets(classes, encoded, encoded.astype(np.int64))


def split_rows(
    rows: np.ndarray, targets: Targets, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions to train on and positions to hold out.

    Stratified by class where every class has a row for each side.
    """
    n_held = math.ceil(fraction * len(rows))
    labels = None
    if not targets.multilabel:
        counts = np.unique(targets.encoded[rows], return_counts=True)[1]
        smaller = min(n_held, len(rows) - n_held)
        if counts.min() >= 2 and smaller >= len(counts):
            labels = targets.encoded[rows]
    return tuple(
        train_test_split(rows, test_size=n_held, stratify=labels, random_state=seed)
    )
