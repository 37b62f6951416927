"""Labels of any type to tensors and back; the target's type picks the loss."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Number, Real

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from ..checks import check_number


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

    def take(self, at: np.ndarray) -> Targets:
        """Return the labels of the rows at some positions, of the same classes."""
        return Targets(self.classes, self.encoded[at], self.original[at])

    def prior(self, weights: np.ndarray) -> np.ndarray:
        """Weighted frequency of each class, (C,)."""
        if self.multilabel:
            return np.average(self.encoded, axis=0, weights=weights)
        # A class that was announced, or is in rows of weight zero only, counts too.
        counts = np.bincount(self.encoded, weights, minlength=len(self.classes))
        return counts / counts.sum()

    def weights(self, class_weight, sample_weight: np.ndarray) -> np.ndarray:
        """Sample weights times class weights, (n,); infinity where they overflow.

        Raises
        ------
        ValueError
            For a class weight that is negative or not finite, for weights that are all
            zero, and for labels that are no classes where a class has no weight.
        """
        if class_weight is None:
            return sample_weight
        _check_class_weight(class_weight, self.original)
        # Not a warning but an error, of whoever sums them up.
        with np.errstate(over="ignore"):
            return sample_weight * compute_sample_weight(class_weight, self.original)


def _check_class_weight(class_weight, labels: np.ndarray) -> None:
    """Raise for what scikit-learn would multiply with, whatever it is."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        return
    several = isinstance(class_weight, list)
    parts = class_weight if several else [class_weight]
    for i, part in enumerate(parts):
        if not isinstance(part, dict):
            raise ValueError(
                'class_weight must be None, "balanced", or a dict from label to weight '
                f"(a list of dicts for indicators), got {class_weight!r}."
            )
        name = f"class_weight[{i}]" if several else "class_weight"
        for label, weight in part.items():
            check_number(f"{name}[{label!r}]", weight, Real, 0)
    if not several and labels.ndim == 1:
        _check_weighted_labels(class_weight, np.unique(labels))


def _check_weighted_labels(class_weight: dict, labels: np.ndarray) -> None:
    # A label too many may be that of another fold or task, and one that is lacking has
    # weight 1, as in scikit-learn; both at once are a misspelt label.
    lacking = [i for i, label in enumerate(labels) if label not in class_weight]
    unknown = sorted(set(class_weight) - set(labels.tolist()), key=str)
    if lacking and unknown:
        raise ValueError(
            f"class_weight must be of labels of y, got {unknown[:5]}, which are none, "
            f"and no weight for {labels[lacking][:5].tolist()}."
        )
    if not lacking and not any(class_weight[label] for label in labels):
        raise ValueError(
            f"class_weight must not be zero for every class, got {class_weight!r}."
        )


# With room above for more calls and rows, and below for a mean that is no subnormal.
_SUMS = 1e-300, 1e300


def check_sum(name: str, weights: np.ndarray) -> None:
    """Raise unless weights (n,) can be divided by their mean."""
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not _SUMS[0] <= total <= _SUMS[1]:
        raise ValueError(f"{name} must have a sum in {list(_SUMS)}, got {total}.")


def mean_one(weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return weights (n,) float32 whose mean over the rows ``kept`` is 1, else zero.

    Raises
    ------
    ValueError
        If these have no sum to divide by.
    """
    used = weights[kept]
    check_sum("sample_weight times class_weight, of rows with an image or text,", used)
    result = np.zeros(len(weights), dtype=np.float32)
    result[kept] = used / used.mean()
    return result


def encode_targets(
    y: ArrayLike,
    classes: ArrayLike | None = None,
    multilabel: bool = False,
    n_least: int = 2,
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
    n_least : int
        How many classes there have to be.

    Raises
    ------
    ValueError
        For an absent, empty, non-finite, continuous or single-class target, and for
        labels of several types.
    """
    refuse_names(y)
    refuse_lists(y)
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
    # The list itself: an array would have made texts of its numbers already.
    values = as_labels(values if sparse.issparse(y) else y)
    check_classification_targets(values)
    known = values
    if classes is not None:
        classes = as_labels(classes)
        # One of each is enough, as both are of one type by now.
        _check_one_type([*values[:1].tolist(), *classes[:1].tolist()])
        known = np.concatenate([values, classes])
    classes = np.unique(known)
    encoded = np.searchsorted(classes, values)
    # In the words that scikit-learn's checks look for.
    if len(classes) < n_least:
        raise ValueError(
            "This classifier needs samples of at least 2 classes in the data, but "
            f"the data contains only one class: {classes[0]!r}."
        )
    return Targets(classes, encoded.astype(np.int64), values)


def encode_known(y: ArrayLike, known: Targets) -> Targets:
    """Check and encode labels of further rows, as those of ``known`` are.

    Raises
    ------
    ValueError
        For what :func:`encode_targets` refuses, but for a single class; and for labels
        that are none of ``known.classes``.
    """
    if not known.multilabel:
        found = encode_targets(y, known.classes)
        new = np.setdiff1d(found.classes, known.classes)
        if len(new):
            raise ValueError(
                f"Labels must be among the {len(known.classes)} that are learned, got "
                f"{new[:5].tolist()}."
            )
        return found
    found = encode_targets(y, multilabel=True)
    named = isinstance(y, pd.DataFrame) and known.classes.dtype == object
    given = found.classes if named else known.classes[: len(found.classes)]
    if len(found.classes) != len(known.classes) or (given != known.classes).any():
        raise ValueError(
            f"Indicators must have the columns that are learned, {known.classes}, got "
            f"{found.classes}."
        )
    return found


def refuse_names(y) -> None:
    """Raise if what should be labels is the name of their column."""
    if isinstance(y, str):
        raise ValueError(
            f"y must have a label for each row, got the name {y!r}: pass the column, "
            f"y=df[{y!r}]."
        )


def refuse_lists(y) -> None:
    """Raise if labels are lists of labels, or lists of the zeros and ones of a row."""
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if isinstance(y, list | tuple):
        labels, held = y, list | tuple | np.ndarray
    elif getattr(y, "ndim", 0) == 1 and y.dtype == object:
        labels, held = y.tolist(), ()
    else:
        return
    lists = [i for i, label in enumerate(labels) if isinstance(label, _LISTS)]
    if not lists:
        return
    first, indicators = labels[lists[0]], _are_indicators(labels)
    if indicators and isinstance(first, held):
        return  # a matrix, which NumPy reads as it stands
    line = "np.stack(y)" if indicators else "MultiLabelBinarizer().fit_transform(y)"
    where = "" if indicators else ", from sklearn.preprocessing"
    raise ValueError(
        "y must have a label for each row, or be an indicator matrix (n, n_labels), "
        f"got {reprlib.repr(first)} at position {lists[0]}: write y = {line}{where}."
    )


# What holds the labels of one row.
_LISTS = (list, tuple, set, frozenset, np.ndarray)


def _are_indicators(labels) -> bool:
    """Whether all are equally long and of zeros and ones, as rows of a matrix."""
    if not all(isinstance(label, list | tuple | np.ndarray) for label in labels):
        return False
    same = len({len(label) for label in labels}) == 1
    return same and all(isinstance(v, _ALIKE[2]) for label in labels for v in label)


def as_labels(y: ArrayLike) -> np.ndarray:
    """Return labels as an array (n,), unless NumPy would make others of them.

    Raises
    ------
    ValueError
        For labels that are null or not finite, and for labels of several types.
    """
    values = column_or_1d(np.asarray(y), warn=True)
    if values.dtype.kind in "US" and not hasattr(y, "dtype"):
        # Those of a list are all texts by now: "1" for 1, "nan" for NaN.
        _check_no_nulls(given := np.asarray(y, dtype=object).ravel())
        _check_one_type(given)
    _check_no_nulls(values)
    if values.dtype == object:
        _check_one_type(values)
    return values


def _check_no_nulls(values: np.ndarray) -> None:
    if (null := pd.isna(values)).any():
        row = int(np.argwhere(null)[0, 0])
        raise ValueError(
            "Input y contains NaN: every row needs a label, got "
            f"{values[null][0]!r} at position {row}."
        )
    # pd.isna leaves infinity, whose class would be one more.
    assert_all_finite(values, input_name="y")


# Types whose values compare with one another.
_ALIKE = ((str,), (bytes,), (Number, np.bool_))


def _check_one_type(labels: Iterable) -> None:
    """Raise unless all labels are texts, or all numbers, or all of one other type."""
    types = set(map(type, labels))
    kinds = {t: next((k for k in _ALIKE if issubclass(t, k)), t) for t in types}
    if len(set(kinds.values())) > 1:
        first = {}
        for label in labels:
            first.setdefault(kinds[type(label)], label)
        one, other, *_ = first.values()
        raise ValueError(f"y must have labels of one type, got {one!r} and {other!r}.")


def _encode_indicators(values: np.ndarray, names: np.ndarray | None) -> Targets:
    _check_no_nulls(values)
    texts = any(isinstance(value, str) for value in values.flat)
    if texts or not np.isin(values.astype(float), (0, 1)).all():
        advice = "; of texts, MultiLabelBinarizer().fit_transform(y) makes one"
        raise ValueError(
            "A two-dimensional y must be an indicator matrix of zeros and ones, got "
            f"the values {np.unique(values.astype(str))[:5].tolist()}"
            f"{advice if texts else ''}."
        )
    encoded = values.astype(np.float32)
    classes = np.arange(values.shape[1]) if names is None else names
    # The loss of several labels computes with floats; weights look classes up, as
    # integers.
    return Targets(classes, encoded, encoded.astype(np.int64))


def split_rows(
    rows: np.ndarray, targets: Targets, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions to train on and positions to hold out.

    Stratified by class where every class has a row for each side.
    """
    # At least one row, however small the fraction.
    n_held = math.ceil(fraction * len(rows))
    labels = None
    if not targets.multilabel:
        counts = np.unique(targets.encoded[rows], return_counts=True)[1]
        # train_test_split raises where it cannot stratify; a rare class is no reason to
        # refuse early stopping.
        smaller = min(n_held, len(rows) - n_held)
        if counts.min() >= 2 and smaller >= len(counts):
            labels = targets.encoded[rows]
    return tuple(
        train_test_split(rows, test_size=n_held, stratify=labels, random_state=seed)
    )


def log_odds_of(prior: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return the logits (C,) whose probabilities are ``prior``, finite ones."""
    with np.errstate(divide="ignore"):
        logits = np.log(prior)
        if multilabel:
            logits = logits - np.log1p(-prior)
    # Finite, as scores are that can be ranked and averaged; and so far out that the
    # probability of a class that was never seen is exactly 0.
    return np.clip(logits, -1e3, 1e3)
