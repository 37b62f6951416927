"""What a fitted classifier makes of complete and incomplete rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from tqdm.auto import tqdm

from ..checks import check_choice, check_number
from ..data.frame import column_position, pattern_names
from ..missingness import missing_code
from ._runs import Table, draw_seeds
from ._scoring import Scorer
from .calibration import expected_calibration_error, one_column_per_label


def score_by_pattern(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    scoring: str | Callable | Sequence | dict | None = None,
    rows: str = "observed",
    calibration: bool = False,
    image_column: str | None = None,
    text_column: str | None = None,
) -> pd.DataFrame:
    """Score a fitted estimator on complete rows and on rows that miss a modality.

    Parameters
    ----------
    estimator : classifier
        Fitted; any that takes the frame, a pipeline as well.
    X : DataFrame of shape (n, ...)
        Test rows.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    scoring : str, callable, list, dict or None
        As in scikit-learn; None is the ``score`` of the estimator.
    rows : {"observed", "blanked"}
        ``"observed"`` sorts the rows by what they miss: what to expect of such rows,
        which may also be easier or harder. ``"blanked"`` takes the complete rows only
        and scores the same ones three times, as they are and without either cell: what
        the missing cell itself costs.
    calibration : bool
        Add the column ``expected_calibration_error``, how far probabilities are from
        the frequencies that they announce; for classifiers with ``predict_proba``.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.

    Returns
    -------
    DataFrame
        Index ``pattern``: ``complete``, ``text_missing`` (image only),
        ``image_missing`` (text only), with ``rows="observed"`` also ``both_missing``
        and ``all``; of other modalities by their names, as ``audio_missing``. Columns
        ``n_rows``, and ``score`` or one column per metric, NaN where there is no row.

    Raises
    ------
    ValueError
        If the scoring cannot be used, a column is absent, ``calibration`` is asked of
        a classifier without ``predict_proba`` or, with ``rows="blanked"``, no row is
        complete.

    See Also
    --------
    expected_calibration_error : What the column holds.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import score_by_pattern
    >>> df = pd.DataFrame({"image": ["a.png", None, "b.png"], "text": ["a", "b", "c"]})
    >>> y = [1, 0, 1]
    >>> scores = score_by_pattern(DummyClassifier().fit(df, y), df, y)
    >>> scores["score"].dropna().round(2).to_dict()
    {'complete': 1.0, 'image_missing': 0.0, 'all': 0.67}
    """
    check_choice("rows", rows, ("observed", "blanked"))
    if calibration and not hasattr(estimator, "predict_proba"):
        raise ValueError(
            "calibration needs a classifier with predict_proba, got "
            f"{type(estimator).__name__}."
        )
    table = Table.of([estimator], X, y, None, image_column, text_column)
    scorer = Scorer(estimator, scoring, y)
    patterns = table.rows.patterns
    if rows == "observed":
        names = pattern_names(table.modalities)
        parts = {name: table.take(patterns == name) for name in names}
        parts["all"] = table
    else:
        parts = blanked_parts(table)
    records = {
        name: {
            "n_rows": len(part),
            **(scorer(estimator, part.X, part.y) if len(part) else {}),
            **(_calibration(estimator, part) if calibration and len(part) else {}),
        }
        for name, part in parts.items()
    }
    scores = pd.DataFrame.from_dict(records, orient="index")
    return scores.rename_axis("pattern")


def _calibration(estimator: BaseEstimator, part: Table) -> dict[str, float]:
    proba = one_column_per_label(
        estimator.predict_proba(part.X), getattr(estimator, "classes_", None)
    )
    y = np.asarray(part.y.toarray() if hasattr(part.y, "toarray") else part.y)
    classes = None if y.ndim == 2 else estimator.classes_
    error = expected_calibration_error(y, proba, classes=classes)
    return {"expected_calibration_error": error}


def modality_importance(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    scoring: str | Callable | None = None,
    n_repeats: int = 5,
    random_state=None,
    image_column: str | None = None,
    text_column: str | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Measure how much the score of a fitted estimator falls without a modality.

    Two answers to two questions. *Permuted*: cells of the column change places among
    the rows that have one, so that each row says something wrong about itself. It
    shows how much the estimator relies on the modality, and is high where it relies on
    it blindly. *Blanked*: the cells are missing, where the row has the other modality
    left. It shows what it costs to lose the modality, and is low where the estimator
    notices, and makes do with the other one. A robust classifier has a high first and
    a low second number; one that falls as far when blanked as when permuted takes a
    missing cell for a real one.

    Parameters
    ----------
    estimator : classifier
        Fitted; any that takes the frame, a pipeline as well.
    X : DataFrame of shape (n, ...)
        Test rows.
    y : array-like of shape (n,), or indicator matrix of shape (n, L)
        Labels.
    scoring : str, callable or None
        One metric, as in scikit-learn; None is the ``score`` of the estimator.
    n_repeats : int
        Permutations of each column.
    random_state : int, Generator, RandomState or None
        Seeds the permutations.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    DataFrame of shape (2, 3)
        Index ``modality``: ``image``, ``text``, or the estimator's. Columns
        ``permuted`` and ``blanked``, the score as it is minus the score so changed, and
        ``permuted_sd``, the standard deviation of the first over the repeats.

    Raises
    ------
    ValueError
        If the scoring or ``n_repeats`` cannot be used or a column is absent.

    See Also
    --------
    sklearn.inspection.permutation_importance : The same for any column, missing cells
        included, so that rows change what they miss.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from robustmm import modality_importance
    >>> df = pd.DataFrame({"image": ["a.png", "b.png"], "text": ["a", "b"]})
    >>> clf = DummyClassifier().fit(df, [0, 1])
    >>> modality_importance(clf, df, [0, 1])["blanked"].tolist()
    [0.0, 0.0]
    """
    check_number("n_repeats", n_repeats, Integral, 1)
    table = Table.of([estimator], X, y, None, image_column, text_column)
    scorer = Scorer(estimator, scoring, y).single()
    X, here = table.X, table.rows.present
    rngs = [np.random.default_rng(s) for s in draw_seeds(random_state, n_repeats)]
    columns = table.columns.by_modality
    total = 1 + len(columns) * (n_repeats + 1)
    with tqdm(total=total, desc="modality_importance", disable=not verbose) as bar:

        def score(rows: pd.DataFrame) -> float:
            value = scorer(estimator, rows, y)["score"]
            bar.update()
            return value

        whole, records = score(X), []
        for place, (modality, column) in enumerate(columns.items()):
            falls = [
                whole - score(_permuted(X, column, here[:, place], rng)) for rng in rngs
            ]
            spread = np.std(falls, ddof=1) if n_repeats > 1 else np.nan
            blanked = whole - score(without_modality(table, modality).X)
            records.append((modality, np.mean(falls), spread, blanked))
    names = ["modality", "permuted", "permuted_sd", "blanked"]
    return pd.DataFrame(records, columns=names).set_index("modality")


def blanked_parts(table: Table) -> dict[str, Table]:
    """Return the complete rows by pattern: as they are, and without either cell.

    The same rows each time: scores then differ by what is missing, and not by which
    rows miss it.
    """
    complete = table.take(table.rows.patterns == "complete")
    if not len(complete):
        raise ValueError(
            f'rows="blanked" needs rows with {_all_of(table.modalities)}, got none '
            f"among {len(table)}."
        )
    parts = {"complete": complete}
    for modality in reversed(table.modalities):
        parts[f"{modality}_missing"] = without_modality(complete, modality)
    return parts


def _all_of(modalities: tuple[str, ...]) -> str:
    """Say what a complete row has."""
    if modalities == ("image", "text"):
        return "both an image and a text"
    return " and ".join(modalities)


def without_modality(table: Table, modality: str) -> Table:
    """Take a modality from every row that has another one."""
    # Only where another modality is there, so that no row is left with nothing: that
    # would be scored by the prior.
    code = missing_code(modality, table.modalities)
    return table.without(np.full(len(table), code))


def _permuted(
    X: pd.DataFrame, column: str, here: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """Return a copy in which the cells that are there have changed places."""
    place = column_position(X, column)
    at = np.flatnonzero(here)
    order = np.arange(len(X))
    order[at] = rng.permutation(at)
    result = X.copy()
    values = pd.Series(X.iloc[:, place].array.take(order), index=X.index, name=column)
    result.isetitem(place, values)
    return result
