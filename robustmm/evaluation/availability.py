"""Scores by the share of rows that have an image and the share that have a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..checks import check_choice
from ._draws import availability as draw_availability
from ._runs import Table, score_plans
from ._scoring import Scorer, score_name

# (image, text), in the order of a round trip: first less and less text, then less and
# less image, so that neighbours on a radar plot are alike.
AVAILABILITY = (
    (1.0, 1.0),
    (1.0, 0.65),
    (1.0, 0.3),
    (1.0, 0.0),
    (0.5, 0.5),
    (0.0, 1.0),
    (0.3, 1.0),
    (0.65, 1.0),
)


def availability_grid(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    availability: Sequence[tuple[float, ...]] = AVAILABILITY,
    train_availability: tuple[float, ...] | str | None = None,
    cv=None,
    scoring: str | Callable | Sequence | dict | None = None,
    groups: ArrayLike | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    n_jobs: int | None = None,
    random_state=None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Score an estimator by how many test rows have an image and how many a text.

    The numbers behind the radar plots of MAIL and CMPT, whose axes are pairs such as
    "65% images, 65% texts".

    Parameters
    ----------
    estimator : classifier
        Any that takes the frame, a pipeline as well; cloned, not changed.
    X : DataFrame of shape (n, ...)
        Rows; shares are exact if no cell is missing. A row never loses its last
        modality.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    availability : sequence of (image, text)
        Shares, in [0, 1], of the *test* rows that have an image and that have a text;
        they add up to at least 1, so that each row can have one. Of an estimator of M
        other modalities, M shares in their order that add up to at least M - 1.
    train_availability : None, "same" or (image, text)
        What the *training* rows have: None leaves them as they are, ``"same"`` gives
        them what the test rows have, with a fit for every pair, and a pair is used
        throughout.
    cv : int, splitter, iterable of (train, test) or None
        As in scikit-learn; five folds if None.
    scoring : str, callable, list, dict or None
        As in scikit-learn; None is the ``score`` of the estimator.
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

    Returns
    -------
    DataFrame
        A row per pair and fold: columns ``image``, ``text`` (those of the estimator's
        modalities), ``fold``, and ``score`` or one column per metric. Pairs are in the
        order of ``availability``.

    Raises
    ------
    ValueError
        If a pair or the scoring cannot be used or a column is absent.

    See Also
    --------
    AvailabilityRadarDisplay : Draws the radar plot.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import availability_grid
    >>> df = pd.DataFrame({"image": ["a.png"] * 8, "text": ["a cat"] * 8})
    >>> pairs = [(1.0, 0.3), (0.65, 0.65)]
    >>> grid = availability_grid(
    ...     DummyClassifier(), df, [0, 1] * 4, availability=pairs, cv=2
    ... )
    >>> grid.shape
    (4, 4)
    """
    table = Table.of([estimator], X, y, groups, image_column, text_column)
    scorer = Scorer(estimator, scoring, y)
    names = table.modalities
    draws = [draw_availability("availability", p, names) for p in availability]
    pairs = [tuple(map(float, pair)) for pair in availability]
    labels = [dict(zip(names, pair, strict=True)) for pair in pairs]
    frame = score_plans(
        estimator,
        table,
        _grid_plans(draws, labels, train_availability, names),
        cv=cv,
        scorer=scorer,
        random_state=random_state,
        n_jobs=n_jobs,
        verbose=verbose,
        name="availability_grid",
    )
    place = [
        pairs.index(pair) for pair in zip(*(frame[name] for name in names), strict=True)
    ]
    # Plans come fit by fit; a radar plot goes round in the order of the pairs.
    order = np.lexsort((frame["fold"], place))
    frame = frame.iloc[order].reset_index(drop=True)
    # For the title of a picture.
    frame.attrs["score"] = score_name(estimator, scoring, y)
    return frame


def _grid_plans(
    draws: list, labels: list, train_availability, modalities: tuple
) -> list:
    """What is blanked: a plan for each fit, with all test rows that it scores."""
    if isinstance(train_availability, str):
        check_choice("train_availability", train_availability, ("same",))
        return [(d, [d], [name]) for d, name in zip(draws, labels, strict=True)]
    if train_availability is None:
        return [(None, draws, labels)]
    drawn = draw_availability("train_availability", train_availability, modalities)
    return [(drawn, draws, labels)]
