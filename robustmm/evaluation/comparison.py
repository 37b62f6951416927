"""Several estimators on the same rows: a table with one line for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import (
    GroupShuffleSplit,
    ShuffleSplit,
    StratifiedShuffleSplit,
)
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import delayed

from ._draws import holes
from ._runs import Draw, Table, draw_seeds, run_jobs
from ._scoring import Scorer


@overload
def compare_methods(
    estimators: Mapping[str, BaseEstimator],
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    rate: float | None = None,
    scenario: str = "both",
    train_rate: float | None = None,
    train_scenario: str | None = None,
    cv=None,
    scoring: str | Callable | Sequence | dict | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
    return_runs: Literal[False] = False,
) -> pd.DataFrame: ...


@overload
def compare_methods(
    estimators: Mapping[str, BaseEstimator],
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    rate: float | None = None,
    scenario: str = "both",
    train_rate: float | None = None,
    train_scenario: str | None = None,
    cv=None,
    scoring: str | Callable | Sequence | dict | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
    return_runs: Literal[True],
) -> tuple[pd.DataFrame, pd.DataFrame]: ...


def compare_methods(
    estimators: Mapping[str, BaseEstimator],
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    rate: float | None = None,
    scenario: str = "both",
    train_rate: float | None = None,
    train_scenario: str | None = None,
    cv=None,
    scoring: str | Callable | Sequence | dict | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
    return_runs: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Fit and score several estimators on the same rows with the same holes.

    For every seed, all estimators get the same training rows, the same test rows and
    the same missing cells; the seed also goes to their ``random_state``. The standard
    deviation is therefore over all that chance decides: rows (unless ``cv`` is fixed),
    holes and training.

    Parameters
    ----------
    estimators : mapping of str to classifier
        By name; any that take the frame, pipelines as well. Cloned, not changed.
    X : DataFrame of shape (n, ...)
        Rows; may have missing cells already. A row never loses its last modality.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    rate : float in [0, 1], optional
        Share of the rows, of *training and test*, that lose a modality; None leaves
        them as they are.
    scenario : {"text", "image", "both"}
        What is missing.
    train_rate : float in [0, 1], optional
        Share of the *training* rows that lose a modality, if not ``rate``.
    train_scenario : {"text", "image", "both"}, optional
        What the *training* rows miss, if not ``scenario``.
    cv : int, splitter, iterable of (train, test) or None
        As in scikit-learn; None draws a quarter of the rows as test rows for each seed,
        of every class alike. For an official split, pass ``[(train, test)]`` with
        integer positions.
    scoring : str, callable, list, dict or None
        As in scikit-learn; None is the ``score`` of the estimator.
    seeds : sequence of int
        One run per seed, fold and estimator.
    groups : array-like of shape (n,), optional
        Rows of one group miss the same modality, and are on the same side of every
        split unless ``cv`` is a splitter that does otherwise.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.
    n_jobs : int, optional
        Runs at a time. With several, the times are those of a busy machine.
    random_state : int, Generator, RandomState or None
        Draws other seeds in the place of ``seeds``, as many.
    verbose : int
        1 shows a progress bar.
    return_runs : bool
        Also return the scores and times of each run.

    Returns
    -------
    summary : DataFrame
        A row per estimator, index ``method``: ``score_mean`` and ``score_sd`` (or two
        columns per metric; the deviation is NaN of a single run), ``fit_seconds`` and
        ``predict_seconds``, means of the wall time, ``n_trainable_parameters``, of the
        estimator or the last step of the pipeline, missing where there is no such
        count, and ``n_runs``.
    runs : DataFrame
        With ``return_runs=True`` only: a row per run.

    Raises
    ------
    TypeError
        If ``estimators`` is no mapping, or one of them has no ``fit``.
    ValueError
        If there is no estimator or seed, or if a rate, a scenario or the scoring cannot
        be used or a column is absent. An error of an estimator carries its name as a
        note.

    Notes
    -----
    Without ``n_jobs``, runs are made one after another, for the sake of the times;
    ``predict_seconds`` includes the computation of the metrics. Estimators that keep
    decoded images share them, so that the first one pays for the decoding; swap the
    order, or set their ``cache`` to None, to see how much that is.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import compare_methods
    >>> df = pd.DataFrame({"image": ["a.png"] * 12, "text": ["a cat"] * 12})
    >>> coin = DummyClassifier(strategy="uniform")
    >>> models = {"prior": DummyClassifier(), "coin": coin}
    >>> table = compare_methods(models, df, [0, 1, 1] * 4, rate=0.5)
    >>> table[["score_mean", "n_runs"]].round(2).loc["prior"].tolist()
    [0.67, 3.0]
    """
    _check_estimators(estimators, seeds)
    table = Table.of(estimators.values(), X, y, groups, image_column, text_column)
    scorers = {
        name: Scorer(estimator, scoring, y) for name, estimator in estimators.items()
    }
    draws = _draws(rate, scenario, train_rate, train_scenario, table.modalities)
    if random_state is not None:
        seeds = draw_seeds(random_state, len(seeds))
    plans = [
        (seed, fold, *parts)
        for seed in seeds
        for fold, parts in enumerate(_splits(table, cv, seed))
    ]
    calls = _calls(estimators, scorers, table, plans, draws)
    total = len(plans) * len(estimators)
    runs = run_jobs(calls, total, n_jobs, verbose, "compare_methods")
    runs = pd.DataFrame(runs)
    summary = _summarise(runs).loc[list(estimators)]
    return (summary, runs) if return_runs else summary


def _calls(
    estimators: Mapping, scorers: Mapping, table: Table, plans: list, draws: tuple
) -> Iterator:
    """Yield a delayed run of each estimator on the rows of each plan."""
    for seed, fold, *parts in plans:
        train, test = (
            table.take(at).blank(draw, hole_seed)
            for at, draw, hole_seed in zip(
                parts, draws, draw_seeds(seed, 2), strict=True
            )
        )
        # All methods on one plan before the next: the same blanked rows, and images
        # that the first one decoded are in the cache for the others.
        for name, estimator in estimators.items():
            run = {"method": name, "seed": seed, "fold": fold}
            yield delayed(_measure)(run, estimator, scorers[name], train, test)


def _check_estimators(estimators: Mapping[str, BaseEstimator], seeds) -> None:
    """Raise unless these are estimators by name, and there is something to run."""
    if not isinstance(estimators, Mapping):
        kind = type(estimators).__name__
        raise TypeError(
            "estimators must be a mapping of names to estimators, such as "
            f'{{"prior": DummyClassifier()}}, got {kind}.'
        )
    for name, estimator in estimators.items():
        if isinstance(estimator, type) or not hasattr(estimator, "fit"):
            raise TypeError(
                "estimators must be instances with a fit method, got "
                f"{name!r}: {estimator!r:.100}."
            )
    if not estimators or not len(seeds):
        raise ValueError(
            "There must be at least one estimator and one seed, got "
            f"{len(estimators)} and {len(seeds)}."
        )


def _draws(
    rate, scenario, train_rate, train_scenario, modalities: tuple
) -> tuple[Draw, Draw]:
    """Return what training and what test rows lose."""
    test = None if rate is None else holes(rate, scenario, modalities)
    train_rate = rate if train_rate is None else train_rate
    if train_rate is None:
        if train_scenario is not None:
            raise ValueError(
                "train_scenario needs a rate, got rate=None, train_rate=None and "
                f"train_scenario={train_scenario!r}."
            )
        return None, test
    return holes(train_rate, train_scenario or scenario, modalities), test


def _splits(table: Table, cv, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) positions of one seed; the same for all estimators."""
    if cv is None:
        kind = ShuffleSplit
        if table.groups is not None:
            kind = GroupShuffleSplit
        elif type_of_target(table.y) in ("binary", "multiclass"):
            kind = StratifiedShuffleSplit
        # Another split for each seed: the deviation over runs is that of rows, holes
        # and weights together.
        cv = kind(1, test_size=0.25, random_state=seed)
    return table.split(cv)


def _measure(
    run: dict, estimator: BaseEstimator, scorer: Scorer, train: Table, test: Table
) -> dict:
    """Fit and score a clone with the seed; add scores, seconds and its size."""
    name, seed = run["method"], run["seed"]
    model = _seeded(clone(estimator), seed)
    try:
        start = perf_counter()
        model.fit(train.X, train.y)
        fitted = perf_counter()
        scores = scorer(model, test.X, test.y)
        done = perf_counter()
    except Exception as error:
        # The exception stays what it was, for those who catch it by its class.
        error.add_note(f"While evaluating the method {name!r} with seed {seed}.")
        raise
    # A pipeline does not pass its last step's attributes on.
    last = model[-1] if isinstance(model, Pipeline) else model
    return {
        **run,
        **scores,
        "fit_seconds": fitted - start,
        "predict_seconds": done - fitted,
        "n_trainable_parameters": getattr(last, "n_trainable_parameters_", None),
    }


def _seeded(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """Set every ``random_state`` of an estimator and of its parts."""
    ends = {
        name: seed
        for name in estimator.get_params()
        if name == "random_state" or name.endswith("__random_state")
    }
    return estimator.set_params(**ends)


def _summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return means over the runs of each method, and deviations of the scores."""
    costs = ["fit_seconds", "predict_seconds", "n_trainable_parameters"]
    metrics = [
        name for name in runs.columns if name not in ("method", "seed", "fold", *costs)
    ]
    groups = runs.groupby("method", sort=False)
    columns = {}
    for metric in metrics:
        columns[f"{metric}_mean"] = groups[metric].mean()
        columns[f"{metric}_sd"] = groups[metric].std()
    columns |= {cost: groups[cost].mean() for cost in costs[:2]}
    # Nullable: a method without trained parameters has None, others keep integers.
    counts = runs[costs[2]].astype("Float64").groupby(runs["method"]).mean()
    columns[costs[2]] = counts.round().astype("Int64")
    columns["n_runs"] = groups.size()
    return pd.DataFrame(columns)
