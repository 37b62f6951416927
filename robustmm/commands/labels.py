"""Labels in the cells of a table, one or several, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer

from ..data.frame import is_null


def read_labels(
    column: pd.Series, separator: str | None = None, classes: Sequence | None = None
) -> pd.Series | pd.DataFrame:
    """Return labels as a fit takes them: a column, or indicators of several labels.

    Parameters
    ----------
    column : Series of shape (n,)
        Cells.
    separator : str, optional
        What stands between the labels of one cell; None means one label each.
    classes : sequence of length L, optional
        The columns of the indicators, in this order; those that are there if None.

    Raises
    ------
    ValueError
        For an empty separator, a row without a label where there must be one, or a
        label that is none of ``classes``.

    Examples
    --------
    >>> read_labels(pd.Series(["War|Love", "War", None]), "|").to_dict("list")
    {'Love': [1, 0, 0], 'War': [1, 1, 0]}
    """
    if separator is None:
        return _one_label(column, classes)
    if not separator:
        raise ValueError(f"--labels-separator must be a text, got {separator!r}.")
    several = [_split(cell, separator) for cell in column]
    names = sorted({name for cell in several for name in cell})
    _check_known(names, classes)
    binarizer = MultiLabelBinarizer(classes=classes)
    indicators = binarizer.fit_transform(several)
    return pd.DataFrame(indicators, column.index, binarizer.classes_)


def join_labels(indicators: np.ndarray, classes: Sequence, separator: str) -> list[str]:
    """Return the names of the labels of each row, (n, L), as one text."""
    names = np.asarray(classes, dtype=object).astype(str)
    return [separator.join(names[row.astype(bool)]) for row in np.asarray(indicators)]


def _one_label(column: pd.Series, classes: Sequence | None) -> pd.Series:
    if (null := column.isna()).any():
        raise ValueError(
            f"Every row must have a label, got {null.sum()} without one, of which the "
            f"first is row {column.index[null].tolist()[0]!r}."
        )
    # A part of the table may have only labels that look like numbers.
    if classes is not None and all(isinstance(name, str) for name in classes):
        column = column.astype(str)
    _check_known(column.unique().tolist(), classes)
    return column


def _split(cell, separator: str) -> list[str]:
    names = [] if is_null(cell) else str(cell).split(separator)
    return [name.strip() for name in names if name.strip()]


def _check_known(names: Sequence, classes: Sequence | None) -> None:
    unknown = [] if classes is None else [n for n in names if n not in list(classes)]
    if unknown:
        raise ValueError(
            f"Labels must be those of the model, {list(classes)}, got {unknown[:5]}."
        )
