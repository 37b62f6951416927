"""Scores of one or several metrics, checked against the task before any work."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, is_classifier
from sklearn.dummy import DummyClassifier
from sklearn.metrics import check_scoring
from sklearn.utils.multiclass import type_of_target

TASKS = ("binary", "multiclass", "multilabel-indicator")


def score_name(estimator: BaseEstimator, scoring=None, y: ArrayLike = ()) -> str:
    """Say what one score is, in words for an axis.

    Examples
    --------
    >>> score_name(DummyClassifier()), score_name(DummyClassifier(), "neg_log_loss")
    ('accuracy', 'negative log loss')
    """
    if scoring is None:
        scoring = _own_scoring(estimator)
    if scoring is None and is_classifier(estimator):
        several = len(np.shape(y)) == 2 and np.shape(y)[1] > 1
        return "subset accuracy" if several else "accuracy"
    if not isinstance(scoring, str):
        metric = getattr(scoring, "_score_func", scoring)
        name = getattr(metric, "__name__", "score")
        scoring = "score" if name == "<lambda>" else name
    words = scoring.removesuffix("_score").replace("_", " ")
    return words.replace("neg ", "negative ", 1) if words[:4] == "neg " else words


def _own_scoring(estimator: BaseEstimator):
    """What ``score`` computes if it was chosen: of searches, also in a pipeline."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    scoring = getattr(last, "scoring", None)
    return scoring if isinstance(scoring, str) or callable(scoring) else None


class Scorer:
    """Scores by name of the metric; the name is "score" if there is just one.

    Parameters
    ----------
    estimator : estimator
        To be scored; asked for its ``score`` if ``scoring`` is None.
    scoring : str, callable, list, dict or None
        As in scikit-learn.
    y : array-like of shape (n,) or (n, L)
        Labels, which say what the task is.
    """

    def __init__(self, estimator: BaseEstimator, scoring, y: ArrayLike):
        task = type_of_target(y, input_name="y")
        if task not in TASKS:
            raise ValueError(f"y must be one of {list(TASKS)}, got a {task} target.")
        self.scoring = scoring
        self.scorer = check_scoring(estimator, scoring=scoring)
        for name, metric in _metrics(scoring):
            _check_fit(name, metric, y, task)

    def __call__(self, fitted: BaseEstimator, X, y) -> dict[str, float]:
        scores = self.scorer(fitted, X, y)
        if isinstance(scores, dict):
            return {name: float(score) for name, score in scores.items()}
        return {"score": float(scores)}

    def single(self) -> Scorer:
        """Return itself, or raise if there are several metrics."""
        if isinstance(self.scoring, list | tuple | set | dict):
            raise ValueError(
                f"scoring must be one metric here, got {len(self.scoring)}: "
                f"{list(self.scoring)}."
            )
        return self


def _metrics(scoring) -> list[tuple[str, Callable]]:
    """Return scikit-learn's own metrics in ``scoring``; others are not tried out."""
    if isinstance(scoring, dict):
        pairs = list(scoring.items())
    elif isinstance(scoring, list | tuple | set):
        pairs = [(name, name) for name in scoring]
    else:
        pairs = [(scoring, scoring)]
    found = [
        (name, check_scoring(scoring=metric) if isinstance(metric, str) else metric)
        for name, metric in pairs
    ]
    return [(name, metric) for name, metric in found if hasattr(metric, "_score_func")]


def _check_fit(name, metric: Callable, y: ArrayLike, task: str) -> None:
    """Score a constant prediction, to fail now and not after the first training."""
    labels = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    reason = None
    # A regression metric would do arithmetic on integer labels without a word.
    if metric._score_func.__module__.endswith("_regression"):
        reason = "it is a metric of regression"
    else:
        # The dummy reads no cell, so no picture is decoded to check a name.
        X = np.zeros((len(labels), 1))
        dummy = DummyClassifier(strategy="prior").fit(X, labels)
        try:
            with warnings.catch_warnings():
                # Metrics warn of a constant prediction, which this one is on purpose.
                warnings.simplefilter("ignore")
                metric(dummy, X, labels)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
    if reason:
        size = labels.shape[1] if labels.ndim == 2 else len(np.unique(labels))
        raise ValueError(
            f"scoring must fit the task: {name!r} cannot score a {task} target of "
            f"{size} classes ({reason})."
        )
