"""What is left of earlier tasks: the matrix of continual learning and its summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring

from ..checks import check_choice
from ._scoring import score_name


@overload
def continual_matrix(
    estimator: BaseEstimator,
    tasks: Iterable[tuple],
    *,
    scoring: str | Callable | None = None,
    names: Sequence | None = None,
    return_estimator: Literal[False] = False,
) -> pd.DataFrame: ...


@overload
def continual_matrix(
    estimator: BaseEstimator,
    tasks: Iterable[tuple],
    *,
    scoring: str | Callable | None = None,
    names: Sequence | None = None,
    return_estimator: Literal[True],
) -> tuple[pd.DataFrame, BaseEstimator]: ...


def continual_matrix(
    estimator: BaseEstimator,
    tasks: Iterable[tuple],
    *,
    scoring: str | Callable | None = None,
    names: Sequence | None = None,
    return_estimator: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, BaseEstimator]:
    """Learn tasks one after another, and score each again after every one.

    Parameters
    ----------
    estimator : classifier with ``partial_fit``
        Cloned, so that it is not changed.
    tasks : iterable of (X_train, y_train, X_test, y_test)
        One tuple per task, in the order of learning. Indicators are tables whose
        columns name the labels: a task's test rows have those of all tasks learned so
        far, and zeros in the columns that its own table has not.
    scoring : str, callable or None
        As in scikit-learn; None is the ``score`` of the estimator. Each task's test
        rows are scored among all classes learned so far: the task is not told.
    names : sequence, optional
        Names of the tasks; numbers from 0 if None.
    return_estimator : bool
        Whether the estimator that learned all tasks is returned too.

    Returns
    -------
    matrix : DataFrame of shape (n_tasks, n_tasks)
        :math:`a_{i,j}`, row i and column j: the score on task i after learning task j.
        NaN where task i was not learned yet.
    estimator : estimator
        With ``return_estimator=True`` only.

    Raises
    ------
    TypeError
        If the estimator has no ``partial_fit``.
    ValueError
        If there is no task, or if ``names`` are not as many as the tasks.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.naive_bayes import MultinomialNB
    >>> class Growing(MultinomialNB):
    ...     def partial_fit(self, X, y):
    ...         return super().partial_fit(X, y, classes=[0, 1, 2, 3])
    >>> X, y = np.eye(4), np.arange(4)
    >>> tasks = [(X[:2], y[:2], X[:2], y[:2]), (X[2:], y[2:], X[2:], y[2:])]
    >>> continual_matrix(Growing(), tasks).to_numpy()
    array([[ 1.,  1.],
           [nan,  1.]])
    """
    if not hasattr(estimator, "partial_fit"):
        raise TypeError(
            "estimator must have partial_fit to learn tasks one after another, got "
            f"{type(estimator).__name__}."
        )
    learner, tests, columns = clone(estimator), [], []
    scorer = check_scoring(learner, scoring=scoring)
    # One task at a time, as a generator may make each table when it is asked.
    for X_train, y_train, *test in tasks:
        tests.append(test)
        learner.partial_fit(X_train, y_train)
        # On tasks learned so far only: of later ones the estimator knows no class.
        columns.append([scorer(learner, X, _among(learner, y)) for X, y in tests])
    names = range(len(tests)) if names is None else list(names)
    if not tests or len(names) != len(tests):
        raise ValueError(
            "There must be at least one task, and a name for each, got "
            f"{len(tests)} tasks and {len(names)} names."
        )
    values = np.full((len(tests), len(tests)), np.nan)
    for j, column in enumerate(columns):
        values[: j + 1, j] = column
    matrix = pd.DataFrame(
        values,
        index=pd.Index(names, name="task"),
        columns=pd.Index(names, name="after learning"),
    )
    # For the colour bar of a picture.
    matrix.attrs["score"] = score_name(learner, scoring)
    return (matrix, learner) if return_estimator else matrix


def average_performance(matrix: ArrayLike) -> float:
    """Return the mean score over tasks after the last one was learned (AP).

    Parameters
    ----------
    matrix : DataFrame or array-like of shape (n_tasks, n_tasks)
        :math:`a_{i,j}` as :func:`continual_matrix` returns it.

    References
    ----------
    Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS
    2017, average accuracy.

    Examples
    --------
    >>> average_performance([[0.8, 0.5], [float("nan"), 0.7]])
    0.6
    """
    return float(_square(matrix)[:, -1].mean())


def forgetting(matrix: ArrayLike, kind: str = "max") -> float:
    """Return the mean loss of score on all tasks but the last (FG).

    Parameters
    ----------
    matrix : DataFrame or array-like of shape (n_tasks, n_tasks)
        :math:`a_{i,j}` as :func:`continual_matrix` returns it; at least two tasks.
    kind : {"max", "diagonal"}
        What the last score is compared with. ``"max"`` is the definition that papers
        print, the best score of the task before the last one was learned (DeLo's
        equation 11). ``"diagonal"`` is what the public code of RebQ and DeLo computes,
        the score right after the task was learned.

    References
    ----------
    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018.

    Examples
    --------
    >>> nan = float("nan")
    >>> matrix = [[0.5, 0.75, 0.25], [nan, 1.0, 0.5], [nan, nan, 1.0]]
    >>> forgetting(matrix), forgetting(matrix, kind="diagonal")
    (0.5, 0.375)
    """
    check_choice("kind", kind, ("max", "diagonal"))
    values = _square(matrix)
    if len(values) < 2:
        raise ValueError(f"Forgetting needs at least 2 tasks, got {len(values)}.")
    before = np.diag(values)[:-1]
    if kind == "max":
        # Below the diagonal a task had not been learned: its score there is no loss.
        learned = np.where(np.triu(np.ones_like(values, dtype=bool)), values, -np.inf)
        before = learned[:-1, :-1].max(axis=1)
    return float((before - values[:-1, -1]).mean())


def _among(learner: BaseEstimator, y: ArrayLike) -> ArrayLike:
    """Give indicators the columns that were learned; zeros where a task has none."""
    classes = list(getattr(learner, "classes_", ()))
    # A table of one column may be of labels, under a name that is none of them.
    if not isinstance(y, pd.DataFrame) or not y.columns.isin(classes).any():
        return y
    return y.reindex(columns=classes, fill_value=0)


def _square(matrix: ArrayLike) -> np.ndarray:
    """Check a matrix of scores: square, with no NaN where tasks were learned."""
    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not len(values):
        raise ValueError(
            "matrix must be square, a row and a column per task, got the shape "
            f"{values.shape}."
        )
    if np.isnan(values[np.triu_indices(len(values))]).any():
        raise ValueError("matrix must have no NaN on and above the diagonal.")
    return values
