"""Class by class, pattern by pattern: scores, and what features lie near."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import precision_recall_fscore_support
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import column_or_1d

from ..checks import check_choice
from ..data.frame import pattern_names
from ._runs import Table
from .patterns import blanked_parts

METRICS = ("precision", "recall", "f1")


def class_scores_by_pattern(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    metric: str = "f1",
    rows: str = "observed",
    image_column: str | None = None,
    text_column: str | None = None,
) -> pd.DataFrame:
    """Score each class on complete rows and on rows that miss a modality.

    With a classifier and one that lacks a part of it, sorted by the difference, these
    are CMPT's figures 4, 8, 9, 12 and 13.

    Parameters
    ----------
    estimator : classifier
        Fitted; any that takes the frame, a pipeline as well.
    X : DataFrame of shape (n, ...)
        Test rows.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    metric : {"f1", "recall", "precision"}
        Of each class. The recall is the share of its rows that are told.
    rows : {"observed", "blanked"}
        As in :func:`score_by_pattern`: rows by what they miss, or the complete ones
        three times, as they are and without either cell.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.

    Returns
    -------
    DataFrame
        Index ``class``. A column per pattern, ``complete``, ``text_missing`` and
        ``image_missing``, NaN where no row of a class is of the pattern; and
        ``n_rows``, the rows of the class in X.

    Raises
    ------
    ValueError
        If the metric is unknown, a column is absent or, with ``rows="blanked"``, no row
        is complete.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import class_scores_by_pattern
    >>> df = pd.DataFrame({"image": ["a.png", None, "b.png"], "text": ["a", "b", "c"]})
    >>> y = ["cat", "dog", "cat"]
    >>> always = DummyClassifier().fit(df, y)
    >>> scores = class_scores_by_pattern(always, df, y, metric="recall")
    >>> scores.loc["cat"].dropna().to_dict()
    {'complete': 1.0, 'n_rows': 2.0}
    """
    check_choice("metric", metric, METRICS)
    check_choice("rows", rows, ("observed", "blanked"))
    table = Table.of([estimator], X, y, None, image_column, text_column)
    # But the last: of rows without anything there is nothing to see.
    names = list(pattern_names(table.modalities)[:-1])
    if rows == "observed":
        parts = {name: table.take(table.rows.patterns == name) for name in names}
    else:
        parts = blanked_parts(table)
    classes = _classes(estimator, y)
    scores = {
        name: _class_scores(estimator, part, classes, METRICS.index(metric))
        for name, part in parts.items()
    }
    frame = pd.DataFrame(scores, index=pd.Index(classes, name="class"))
    frame["n_rows"] = _counts(np.asarray(y), classes)
    return frame


def nearest_class_share(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
) -> pd.DataFrame:
    """Measure how many rows have features nearest to the mean of their own class.

    The number beside :class:`EmbeddingDisplay`: the means are those of complete rows,
    so incomplete rows lie near them where the estimator makes up for what is missing.

    Parameters
    ----------
    estimator : classifier or transformer
        Fitted, with ``transform``, which returns (n, d).
    X : DataFrame of shape (n, ...)
        Rows, some of each class complete: they are blanked here.
    y : array-like of shape (n,)
        Labels.
    image_column, text_column : str, optional
        Names of the two columns, as in :func:`class_scores_by_pattern`.

    Returns
    -------
    DataFrame
        Index ``pattern``: the complete rows, and the same without text and without
        image. Columns ``n_rows`` and ``share``. A complete row is compared with means
        that it is part of.

    Raises
    ------
    TypeError
        If the estimator has no ``transform``.
    ValueError
        If no row is complete.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier, nearest_class_share
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(40, n_classes=2, random_state=0)
    >>> probe = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    >>> nearest_class_share(probe, X, y).index.tolist()
    ['complete', 'text_missing', 'image_missing']
    """
    if not hasattr(estimator, "transform"):
        raise TypeError(
            "estimator must have transform, which returns features, got "
            f"{type(estimator).__name__}."
        )
    check_consistent_length(X, y)
    table = Table.of([estimator], X, column_or_1d(y), None, image_column, text_column)
    parts = blanked_parts(table)
    complete = parts["complete"]
    labels = np.asarray(complete.y)
    classes = np.unique(labels)
    features = np.asarray(estimator.transform(complete.X), dtype=float)
    means = np.stack([features[labels == name].mean(axis=0) for name in classes])
    records = {}
    for pattern, part in parts.items():
        found = np.asarray(estimator.transform(part.X), dtype=float)
        apart = np.linalg.norm(found[:, None] - means, axis=2)  # (n, C)
        near = classes[apart.argmin(axis=1)] == labels
        records[pattern] = {"n_rows": len(near), "share": float(near.mean())}
    frame = pd.DataFrame.from_dict(records, orient="index").rename_axis("pattern")
    return frame.astype({"n_rows": int})


def _classes(estimator, y) -> list:
    known = getattr(estimator, "classes_", None)
    if np.ndim(y) == 2:
        names = getattr(y, "columns", known)
        return list(range(np.shape(y)[1]) if names is None else names)
    return list(np.unique(np.asarray(y)) if known is None else known)


def _counts(y: np.ndarray, classes: list) -> list[int]:
    if y.ndim == 2:
        return [int(n) for n in (y > 0).sum(axis=0)]
    return [int((y == name).sum()) for name in classes]


def _class_scores(estimator, part: Table, classes: list, place: int) -> np.ndarray:
    if not len(part):
        return np.full(len(classes), np.nan)
    y, told = np.asarray(part.y), np.asarray(estimator.predict(part.X))
    labels = list(range(len(classes))) if y.ndim == 2 else classes
    found = precision_recall_fscore_support(y, told, labels=labels, zero_division=0)
    scores = np.asarray(found[place], dtype=float)
    return np.where(np.asarray(_counts(y, classes)) > 0, scores, np.nan)
