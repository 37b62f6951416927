"""Scores under missing modalities that training and test rows may miss differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..missingness import SCENARIOS, scenarios_of
from ._draws import holes, holes_or_none, training_holes
from ._runs import Table, score_plans
from ._scoring import Scorer, score_name

RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)


def missing_rate_curve(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    rates: Sequence[float] = RATES,
    scenario: str | Sequence[str] = "both",
    *,
    train_rate: float | str | None = None,
    train_scenario: str | None = None,
    cv=None,
    scoring: str | Callable | Sequence | dict | None = None,
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Score an estimator while more and more of the test rows miss a modality.

    In each fold, the test rows are blanked at every rate. What the training rows miss
    is up to ``train_rate``. By default they stay as they are, so that one fit per fold
    gives the whole curve: the estimator that you would train today, on rows that get
    worse tomorrow.

    Parameters
    ----------
    estimator : classifier
        Any that takes the frame, a pipeline as well; cloned, not changed.
    X : DataFrame of shape (n, ...)
        Rows; may have missing cells already. A row never loses its last modality.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    rates : sequence of float in [0, 1]
        Shares of the *test* rows that lose a modality.
    scenario : {"text", "image", "both"} or sequence of them
        What the test rows miss; a curve each. Of an estimator of other modalities their
        names, ``"both"`` of two, and ``"each"``: one of them, all equally often.
    train_rate : None, "same" or float in [0, 1]
        What the *training* rows miss: None leaves them as they are, ``"same"`` blanks
        them at the rate of the test rows (as the papers' tables do, with a fit for
        every rate), and a number at that rate throughout.
    train_scenario : {"text", "image", "both"}, optional
        What the training rows miss, if not the same as the test rows.
    cv : int, splitter, iterable of (train, test) or None
        As in scikit-learn; five folds if None. For an official split, pass
        ``[(train, test)]`` with integer positions.
    scoring : str, callable, list, dict or None
        As in scikit-learn; None is the ``score`` of the estimator.
    groups : array-like of shape (n,), optional
        Rows of one group, such as the plots of one movie, miss the same modality, and
        are on the same side of every split if ``cv`` is an int or None.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.
    n_jobs : int, optional
        Fits at a time.
    random_state : int, Generator, RandomState or None
        Seeds what is blanked, and nothing else. All rates of a fold are drawn from the
        same seeds, so that a higher rate adds to a lower one.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    DataFrame
        A row per scenario, rate and fold: columns ``scenario``, ``rate``, ``fold``, and
        ``score`` or one column per metric.

    Raises
    ------
    ValueError
        If a rate, a scenario or the scoring cannot be used or a column is absent.

    See Also
    --------
    MissingRateCurveDisplay : Draws the curves.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import missing_rate_curve
    >>> df = pd.DataFrame({"image": ["a.png"] * 8, "text": ["a cat"] * 8})
    >>> curve = missing_rate_curve(
    ...     DummyClassifier(), df, [0, 1] * 4, rates=[0.0, 0.5], cv=2, random_state=0
    ... )
    >>> curve.groupby("rate")["score"].mean().to_dict()
    {0.0: 0.5, 0.5: 0.5}
    """
    table = Table.of([estimator], X, y, groups, image_column, text_column)
    scorer = Scorer(estimator, scoring, y)
    scenarios = [scenario] if isinstance(scenario, str) else list(scenario)
    # As objects, or a text among the rates would make texts of the numbers.
    rates = np.atleast_1d(np.asarray(rates, dtype=object)).tolist()
    frame = score_plans(
        estimator,
        table,
        _curve_plans(rates, scenarios, train_rate, train_scenario, table.modalities),
        cv=cv,
        scorer=scorer,
        random_state=random_state,
        n_jobs=n_jobs,
        verbose=verbose,
        name="missing_rate_curve",
    )
    # Rows come fit by fit, and a fit may serve several scenarios.
    place = frame["scenario"].map(scenarios.index)
    order = np.lexsort((frame["fold"], frame["rate"], place))
    frame = frame.iloc[order].reset_index(drop=True)
    # For the axis of a picture.
    frame.attrs["score"] = score_name(estimator, scoring, y)
    return frame


def _curve_plans(
    rates: list, scenarios: list, train_rate, train_scenario, modalities: tuple
) -> list:
    """What is blanked: a plan for each fit, with all test rows that it scores."""
    if not rates or not scenarios:
        raise ValueError(
            "There must be at least one rate and one scenario, got "
            f"rates={rates} and scenario={scenarios}."
        )
    plans: dict = {}
    for scenario in scenarios:
        for rate in rates:
            # Test rates that share their training rows share the fit, which is what
            # costs.
            told = rate, scenario, train_rate, train_scenario, modalities
            key, drawn = training_holes(*told)
            _, draws, labels = plans.setdefault(key, (drawn, [], []))
            draws.append(holes(rate, scenario, modalities))
            labels.append({"scenario": scenario, "rate": float(rate)})
    return list(plans.values())


@overload
def cross_scenario_matrix(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    rate: float = 0.7,
    test_rate: float | None = None,
    scenarios: Sequence[str] = SCENARIOS,
    cv=None,
    scoring: str | Callable | None = None,
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
    return_folds: Literal[False] = False,
) -> pd.DataFrame: ...


@overload
def cross_scenario_matrix(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    rate: float = 0.7,
    test_rate: float | None = None,
    scenarios: Sequence[str] = SCENARIOS,
    cv=None,
    scoring: str | Callable | None = None,
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
    return_folds: Literal[True],
) -> tuple[pd.DataFrame, pd.DataFrame]: ...


def cross_scenario_matrix(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    rate: float = 0.7,
    test_rate: float | None = None,
    scenarios: Sequence[str] = SCENARIOS,
    cv=None,
    scoring: str | Callable | None = None,
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
    return_folds: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Train under each scenario, test under each: table 1 of MAP and MemPrompt.

    Training and test rows are blanked at the same rate, or at two. On the diagonal,
    both miss the same modality; elsewhere the test brings what training has not seen.

    Parameters
    ----------
    estimator : classifier
        Any that takes the frame, a pipeline as well; cloned, not changed.
    X : DataFrame of shape (n, ...)
        Rows; may have missing cells already. A row never loses its last modality.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    rate : float in [0, 1]
        Share of the rows that lose a modality, in training and in test.
    test_rate : float in [0, 1], optional
        That of the test rows; None is ``rate``.
    scenarios : sequence of {"text", "image", "both", "complete"}
        What is missing; ``"complete"`` leaves the rows as they are. The default is
        ``"text"``, ``"image"`` and ``"both"``, or the same of other modalities.
    cv : int, splitter, iterable of (train, test) or None
        As in scikit-learn; five folds if None.
    scoring : str, callable or None
        One metric, as in scikit-learn; None is the ``score`` of the estimator.
    groups : array-like of shape (n,), optional
        Rows of one group miss the same modality, see :func:`missing_rate_curve`.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.
    n_jobs : int, optional
        Fits at a time.
    random_state : int, Generator, RandomState or None
        Seeds what is blanked, and nothing else.
    verbose : int
        1 shows a progress bar.
    return_folds : bool
        Also return the scores of each fold.

    Returns
    -------
    matrix : DataFrame of shape (n_scenarios, n_scenarios)
        Mean scores; a row per scenario of training, a column per scenario of test.
    folds : DataFrame
        With ``return_folds=True`` only: columns ``trained on``, ``tested on``, ``fold``
        and ``score``.

    Raises
    ------
    ValueError
        If the rate, a scenario or the scoring cannot be used or a column is absent.

    See Also
    --------
    CrossScenarioDisplay : Draws the matrix.

    References
    ----------
    Zhao et al., "MemPrompt", IJCAI 2025, table 1.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import cross_scenario_matrix
    >>> df = pd.DataFrame({"image": ["a.png"] * 8, "text": ["a cat"] * 8})
    >>> matrix = cross_scenario_matrix(DummyClassifier(), df, [0, 1] * 4, cv=2)
    >>> matrix.loc["text"].to_dict()
    {'text': 0.5, 'image': 0.5, 'both': 0.5}
    """
    table = Table.of([estimator], X, y, groups, image_column, text_column)
    scorer = Scorer(estimator, scoring, y).single()
    names, modalities = list(scenarios), table.modalities
    if scenarios is SCENARIOS:
        names = list(scenarios_of(modalities))
    draws = [holes_or_none(rate, name, modalities) for name in names]
    test_rate = rate if test_rate is None else test_rate
    tests = [holes_or_none(test_rate, name, modalities) for name in names]
    labels = [
        [{"trained on": trained, "tested on": tested} for tested in names]
        for trained in names
    ]
    folds = score_plans(
        estimator,
        table,
        [(draw, tests, label) for draw, label in zip(draws, labels, strict=True)],
        cv=cv,
        scorer=scorer,
        random_state=random_state,
        n_jobs=n_jobs,
        verbose=verbose,
        name="cross_scenario_matrix",
    )
    means = folds.groupby(["trained on", "tested on"])["score"].mean().unstack()
    # groupby sorts by name; the papers' tables have an order of their own.
    matrix = means.loc[names, names]
    matrix.attrs["score"] = score_name(estimator, scoring, y)
    return (matrix, folds) if return_folds else matrix
