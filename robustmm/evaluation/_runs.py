"""Fit once, score on the same rows blanked in several ways: what evaluations share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import pandas as pd
from joblib.parallel import get_active_backend
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.utils import _safe_indexing, check_consistent_length, check_random_state
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from ..data.frame import MODALITIES, Rows, column_position
from ..data.tables import as_frame
from ..data.targets import refuse_lists, refuse_names
from ..missingness import apply_missing_table, missing_code
from ._columns import Columns, columns_of
from ._scoring import Scorer

# Draws the codes of a missing table: (n, random_state=..., groups=...) -> (n,).
# None leaves the rows as they are.
Draw = Callable[..., np.ndarray] | None


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with labels, with groups that share their holes, and where the cells are."""

    X: pd.DataFrame
    y: ArrayLike
    groups: ArrayLike | None = None
    image_column: str = "image"
    text_column: str = "text"
    blank_image: str = "bad"
    modalities: tuple[str, ...] = MODALITIES
    audio_column: str = "audio"
    video_column: str = "video"

    def __post_init__(self):
        if not isinstance(self.X, pd.DataFrame):
            kind = type(self.X).__name__
            raise TypeError(f"X must be a pandas DataFrame, got {kind}.")
        for name in self.columns.names:
            column_position(self.X, name)
        refuse_names(self.y)
        refuse_lists(self.y)
        check_consistent_length(self.X, self.y, self.groups)

    @classmethod
    def of(
        cls,
        estimators: Iterable,
        X,
        y: ArrayLike,
        groups: ArrayLike | None,
        image_column: str | None,
        text_column: str | None,
    ) -> Table:
        """Return rows of any kind of table, read as the estimators read them."""
        columns = columns_of(estimators, image_column, text_column)
        return cls(as_frame(X), y, groups, *columns)

    @property
    def columns(self) -> Columns:
        """The columns that are read."""
        return Columns(*(getattr(self, name) for name in Columns._fields))

    def __len__(self) -> int:
        return len(self.X)

    def take(self, at: np.ndarray) -> Table:
        """Return the rows at integer positions or of a bool mask."""
        groups = None if self.groups is None else np.asarray(self.groups)[at]
        return replace(
            self, X=self.X.iloc[at], y=_safe_indexing(self.y, at), groups=groups
        )

    @property
    def rows(self) -> Rows:
        """The cells."""
        return self.columns.rows(self.X)

    def without(self, codes: np.ndarray) -> Table:
        """Return the rows without the cells of a missing table (n,), but the last."""
        bits = [missing_code(name, self.modalities) for name in self.modalities]
        drawn = (np.asarray(codes)[:, None] & bits) > 0
        # Also said there; but what a blank image is, only the estimator knows.
        lonely = ~(self.rows.present & ~drawn).any(axis=1)
        codes, columns = np.where(lonely, 0, codes), self.columns.by_modality
        return replace(self, X=apply_missing_table(self.X, codes, modalities=columns))

    def blank(self, draw: Draw, seed: int) -> Table:
        """Return the rows without the cells that ``draw`` takes away."""
        if draw is None:
            return self
        return self.without(draw(len(self), random_state=seed, groups=self.groups))

    def split(self, cv) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (train, test) positions; groups stay together unless ``cv`` says."""
        if self.groups is not None and (cv is None or isinstance(cv, Integral)):
            cv = GroupKFold(5 if cv is None else cv)
        cv = check_cv(cv, self.y, classifier=True)
        # Splitters ask how many rows there are, and are spared the pictures.
        places = np.zeros(len(self))
        if self.groups is None:
            return list(cv.split(places, self.y))
        return list(cv.split(places, self.y, self.groups))


def draw_seeds(random_state, n: int) -> list[int]:
    """Return seeds: from an int the same ones every time, from a generator new ones."""
    if isinstance(random_state, np.random.Generator):
        return random_state.integers(2**31 - 1, size=n).tolist()
    return check_random_state(random_state).randint(2**31 - 1, size=n).tolist()


def fit_and_score(
    estimator: BaseEstimator,
    scorer: Scorer,
    train: Table,
    test: Table,
    train_draw: Draw,
    test_draws: Sequence[Draw],
    seeds: tuple[int, int],
) -> list[dict[str, float]]:
    """Fit a clone on blanked rows; return the scores for each blanking of others."""
    rows = train.blank(train_draw, seeds[0])
    fitted = clone(estimator).fit(rows.X, rows.y)
    # One blanked table at a time; all test draws start from one seed, so that they
    # differ in what is drawn alone.
    tests = (test.blank(draw, seeds[1]) for draw in test_draws)
    return [scorer(fitted, rows.X, rows.y) for rows in tests]


def score_plans(
    estimator: BaseEstimator,
    table: Table,
    plans: Sequence[tuple[Draw, Sequence[Draw], Sequence[dict]]],
    *,
    cv,
    scorer: Scorer,
    random_state,
    n_jobs: int | None,
    verbose: int,
    name: str,
) -> pd.DataFrame:
    """Carry out plans in every fold: a row per plan, test draw and fold.

    A plan is (draw for training rows, draws for test rows, labels of each test draw).
    All plans of a fold draw from the same seeds, so that they differ in what they
    plan and not in their luck.
    """
    folds = table.split(cv)
    # For training and for test rows: the same holes in both would be one draw.
    seeds = np.reshape(draw_seeds(random_state, 2 * len(folds)), (-1, 2)).tolist()
    jobs = [(fold, plan) for fold in range(len(folds)) for plan in plans]
    calls = (
        delayed(fit_and_score)(
            estimator,
            scorer,
            table.take(folds[fold][0]),
            table.take(folds[fold][1]),
            train_draw,
            test_draws,
            tuple(seeds[fold]),
        )
        for fold, (train_draw, test_draws, _) in jobs
    )
    results = run_jobs(calls, len(jobs), n_jobs, verbose, name)
    return pd.DataFrame(
        {**label, "fold": fold, **scores}
        for (fold, (_, _, labels)), outcome in zip(jobs, results, strict=True)
        for label, scores in zip(labels, outcome, strict=True)
    )


def run_jobs(
    calls: Iterable, total: int, n_jobs: int | None, verbose: int, name: str
) -> list:
    """Run delayed calls, with a progress bar if asked; results in the same order."""
    # As a generator, results come one by one, and the bar moves with the work; that of
    # Ray has none.
    backend, _ = get_active_backend()
    return_as = "generator" if backend.supports_return_generator else "list"
    results = Parallel(n_jobs=n_jobs, return_as=return_as)(calls)
    return list(tqdm(results, total=total, desc=name, disable=not verbose))
