"""What a model says of a partition, as columns of types that are known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from ..checks import check_choice, check_number
from .pictures import Pictures

METHODS = ("predict", "predict_proba", "decision_function")
_PREFIX = {"predict": "prediction", "predict_proba": "proba"}


class PartitionError(ValueError):
    """A partition cannot be predicted; the message has its number and its rows.

    Parameters
    ----------
    partition : int or str
        Its number, with the file where there is one.
    rows : str
        The labels of the first and the last row of the piece that failed.
    reason : str
        What was wrong; for image cells, with their rows.

    Examples
    --------
    >>> str(PartitionError(3, "'a' to 'f'", "ValueError: no such column"))
    "partition 3 cannot be predicted, rows 'a' to 'f': ValueError: no such column"
    """

    def __init__(self, partition: int | str, rows: str, reason: str):
        super().__init__(partition, rows, reason)
        self.partition, self.rows, self.reason = partition, rows, reason

    def __str__(self) -> str:
        where = f"partition {self.partition} cannot be predicted"
        return f"{where}, rows {self.rows}: {self.reason}"


@dataclass(frozen=True)
class Question:
    """What is asked of each partition: see :func:`robustmm.distributed.predict`."""

    method: str = "predict"
    keep: tuple[str, ...] = ()
    batch_rows: int = 512
    pictures: Pictures = field(default_factory=Pictures)

    def __post_init__(self):
        check_choice("method", self.method, METHODS)
        check_number("batch_rows", self.batch_rows, int, 1)


def columns_needed(model, question: Question, names: Iterable[str]) -> list[str]:
    """Return the columns of a table that are read, in its order.

    Raises
    ------
    ValueError
        If one is absent, or has the name of an answer and is to be kept.
    """
    names = list(names)
    own = _columns_of(model)
    needed = dict.fromkeys([*(names if own is None else own), *question.keep])
    if absent := [name for name in needed if name not in names]:
        raise ValueError(
            f"The frame must have a column {absent[0]!r}, its columns are {names}."
        )
    answers = _answer_columns(model, question.method)
    if taken := [name for name in question.keep if name in answers]:
        raise ValueError(f"keep must not name an answer's column, got {taken[0]!r}.")
    return [name for name in names if name in needed]


def _columns_of(model) -> list[str] | None:
    """The columns that a model reads; None where it does not say."""
    parameters = model.get_params(deep=False)
    if {"image_column", "text_column"} <= set(parameters):
        return [model.image_column, model.text_column]
    known = getattr(model, "feature_names_in_", None)
    return None if known is None else [str(name) for name in known]


def _classifier(model):
    """The classifier inside of searches and pipelines."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, Pipeline):
            model = model[-1]
        else:
            return model


def _answer_columns(model, method: str) -> list[str]:
    several = bool(getattr(_classifier(model), "_multilabel", False))
    prefix = _PREFIX.get(method, "decision")
    single = method == "predict" or (
        method == "decision_function" and len(model.classes_) == 2
    )
    if single and not several:
        return [prefix]
    return [f"{prefix}_{name}" for name in model.classes_]


def empty_answers(model, question: Question, kept: pd.DataFrame) -> pd.DataFrame:
    """Return a frame without rows that has the columns and types of the answers.

    Parameters
    ----------
    kept : DataFrame
        The columns of ``question.keep``; its rows do not matter.
    """
    names = _answer_columns(model, question.method)
    labels = pd.Series(np.asarray(model.classes_)).iloc[:0]
    if question.method != "predict":
        labels = pd.Series([], dtype=np.float64)
    elif names != ["prediction"]:
        labels = pd.Series([], dtype=np.int64)
    kept = kept.iloc[:0]
    labels.index = kept.index
    return kept.assign(**dict.fromkeys(names, labels))


def answer_partition(
    model, frame: pd.DataFrame, number: int | str, question: Question
) -> pd.DataFrame:
    """Return the answers for a partition, whose index and order they keep."""
    kept = frame[list(question.keep)]
    parts = list(answer_pieces(model, frame, number, question))
    if not parts:
        return empty_answers(model, question, kept)
    return parts[0] if len(parts) == 1 else pd.concat(parts)


def answer_pieces(
    model, frame: pd.DataFrame, number: int | str, question: Question
) -> Iterator[pd.DataFrame]:
    """Yield the answers of ``question.batch_rows`` rows at a time.

    Raises
    ------
    PartitionError
        For rows that cannot be predicted.
    """
    for start in range(0, len(frame), question.batch_rows):
        piece = frame.iloc[start : start + question.batch_rows]
        try:
            yield _answers(model, piece, question)
        except (ValueError, TypeError, OSError) as error:
            rows = " to ".join(map(repr, piece.index[[0, -1]].tolist()))
            reason = f"{type(error).__name__}: {error}"
            raise PartitionError(number, rows, reason) from error


def _answers(model, piece: pd.DataFrame, question: Question) -> pd.DataFrame:
    values = getattr(model, question.method)(question.pictures.read(model, piece))
    answers = empty_answers(model, question, piece[list(question.keep)])
    columns = np.asarray(values).reshape(len(piece), -1).T
    names = answers.columns[len(question.keep) :]
    given = {
        name: pd.Series(column, index=piece.index, dtype=answers[name].dtype)
        for name, column in zip(names, columns, strict=True)
    }
    return piece[list(question.keep)].assign(**given)
