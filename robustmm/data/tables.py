"""Tables of any kind, read as columns by name, or of an array by position."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

# A table of a thousand columns must not make a message of as many names.
_MOST_NAMES = 20
_RULE = (
    "X must be a DataFrame (pandas, polars or pyarrow), a list of dicts, a dict or "
    "Series for one row, or an object ndarray of shape (n, 2)"
)

# Names of the columns, what gives the cells of one by its position, labels of rows.
_Named = tuple[list, Callable[[int], list], list | None]


def read_columns(
    X: Any, *columns: str, modalities: Sequence[str] = ("image", "text")
) -> tuple[list, ...]:
    """Return the cells of a table's columns, one list each, and the labels of its rows.

    Only these columns are read. What each kind of table is: see `read_rows`.

    Parameters
    ----------
    X : table
    *columns : str
        Their names, in order.
    modalities : sequence of str
        What is in each.

    Raises
    ------
    TypeError
        If `X` is no table; the message says what to pass.
    ValueError
        If a column is absent or its name is used twice, or if an array has another
        number of columns.

    Examples
    --------
    >>> read_columns({"text": "a cat", "image": None, "price": 3}, "image", "text")
    ([None], ['a cat'], [0])
    """
    if isinstance(X, np.ndarray):
        return _by_position(X, modalities)
    if isinstance(X, list | tuple) and not X:
        return *([] for _ in columns), []
    names, cells, labels = _by_name(X, dict(zip(modalities, columns, strict=True)))
    found = [
        cells(_position(names, column, f", or pass {modality}_column="))
        for modality, column in zip(modalities, columns, strict=True)
    ]
    return *found, list(range(len(found[0]))) if labels is None else labels


def arrow_columns(X: Any, image_column: str, text_column: str) -> tuple | None:
    """Return the two columns of a table of pyarrow as they are; None for any other.

    Raises
    ------
    ValueError
        If a column is absent or its name is used twice.
    """
    if not _is_a("pyarrow", "Table", X):
        return None
    wanted = {"image_column": image_column, "text_column": text_column}
    return tuple(
        X.column(_position(list(X.column_names), column, f", or pass {parameter}="))
        for parameter, column in wanted.items()
    )


def as_frame(X: Any) -> pd.DataFrame:
    """Return a table with all its columns as a pandas DataFrame; one stays itself.

    Raises
    ------
    TypeError
        If `X` is no table whose columns have names.

    Examples
    --------
    >>> as_frame([{"image": None, "text": "a cat"}, {"text": "a dog"}])["text"].tolist()
    ['a cat', 'a dog']
    """
    if isinstance(X, pd.DataFrame):
        return X
    if _is_a("polars", "DataFrame", X) or _is_a("pyarrow", "Table", X):
        return X.to_pandas()
    if _are_records(X):
        return pd.DataFrame(X)
    raise TypeError(
        "X must be a DataFrame (pandas, polars or pyarrow) or a list of dicts, got "
        f"{type(X).__name__}."
    )


def column_position(X: pd.DataFrame, column: str) -> int:
    """Return where the one column called `column` stands in `X`.

    Raises
    ------
    ValueError
        If no column or more than one has that name.
    """
    return _position(list(X.columns), column)


def _position(names: list, column: Any, advice: str = "") -> int:
    if column not in names:
        shown = f"{names[:_MOST_NAMES]}"
        if len(names) > _MOST_NAMES:
            shown = f"{len(names)} columns, of which the first are {shown}"
        raise ValueError(
            f"X must have a column {column!r}, its columns are {shown}."
            + _close(names, column, advice)
        )
    if names.count(column) > 1:
        raise ValueError(
            f"Column names must be unique, X has {names.count(column)} columns named "
            f"{column!r}."
        )
    return names.index(column)


def _close(names: list, column: Any, advice: str) -> str:
    """Say which names are like one that is not there."""
    words = {str(name).casefold().strip(): name for name in reversed(names)}
    wanted = str(column).casefold().strip()
    like = difflib.get_close_matches(wanted, list(words), n=3, cutoff=0.6)
    # A longer name of the same thing, such as "image_path", is like it, too.
    like += [word for word in words if wanted in word and word not in like][:3]
    if not like:
        return ""
    found = [words[word] for word in like[:3]]
    advice = f"{advice}{found[0]!r}" if advice else ""
    return f" Close to it: {found}; rename it{advice}."


def _by_position(X: np.ndarray, modalities: Sequence[str]) -> tuple[list, ...]:
    if X.ndim != 2 or X.shape[1] != len(modalities):
        raise ValueError(
            f"An array X must have {len(modalities)} columns, "
            f"{' and '.join(modalities)}, in that order, got shape {X.shape}."
        )
    return *(list(column) for column in X.T), list(range(len(X)))


def _by_name(X: Any, wanted: Mapping[str, str]) -> _Named:
    if isinstance(X, pd.DataFrame):
        # By position: where names repeat, X[name] is a table, not a column.
        return list(X.columns), lambda i: X.iloc[:, i].tolist(), X.index.tolist()
    if _is_row(X, wanted):
        label = 0 if getattr(X, "name", None) is None else X.name
        row = list(X.items())
        return [name for name, _ in row], lambda i: [row[i][1]], [label]
    if _are_records(X):
        # As pandas does: what a record lacks is missing.
        names = list(dict.fromkeys(name for record in X for name in record))
        return names, lambda i: [record.get(names[i]) for record in X], None
    if _is_a("polars", "DataFrame", X):
        return list(X.columns), lambda i: X.to_series(i).to_list(), None
    if _is_a("pyarrow", "Table", X):
        return list(X.column_names), lambda i: X.column(i).to_pylist(), None
    raise TypeError(f"{_RULE}, got {type(X).__name__}{_advice(X, wanted)}.")


def _is_row(X: Any, wanted: Mapping[str, str]) -> bool:
    if isinstance(X, pd.Series):
        return any(name in X.index for name in wanted.values())
    return isinstance(X, Mapping) and not _has_columns(X, wanted)


def _are_records(X: Any) -> bool:
    listed = isinstance(X, list | tuple) and len(X) > 0
    return listed and all(isinstance(record, Mapping) for record in X)


def _has_columns(X: Mapping, wanted: Mapping[str, str]) -> bool:
    """Whether a mapping holds columns, where one row holds cells."""
    cells = {modality: X.get(name) for modality, name in wanted.items()}
    # A dict in the place of a text is a column as DataFrame.to_dict writes it; in that
    # of an image it may hold bytes. A list may be the frames of one video.
    return isinstance(cells.get("text"), Mapping) or any(
        isinstance(cell, pd.Series | pd.Index)
        or (modality in ("image", "text") and _is_listed(cell))
        for modality, cell in cells.items()
    )


def _is_listed(cell: Any) -> bool:
    return isinstance(cell, list | tuple) or (
        isinstance(cell, np.ndarray) and cell.dtype.kind in "OUS"
    )


def _advice(X: Any, wanted: Mapping[str, str]) -> str:
    """Say what to write for a table that is not read."""
    names = list(wanted.values())
    if isinstance(X, Mapping):
        return " of columns; pass pd.DataFrame(X)"
    if isinstance(X, pd.Series):
        missed = " and ".join(map(repr, names))
        return f" without {missed}; pass the frame, not a column"
    if hasattr(X, "collect"):
        return "; pass X.collect()"
    if hasattr(X, "to_pandas"):
        return "; pass X.to_pandas()"
    if not isinstance(X, list | tuple):
        return ""
    if all(isinstance(row, list | tuple) for row in X):
        return f"; pass pd.DataFrame(X, columns={names})"
    odd = next(row for row in X if not isinstance(row, Mapping))
    return f" of {type(odd).__name__}; pass a dict for each row"


def _is_a(module: str, name: str, X: Any) -> bool:
    """Whether `X` is of a class of a module, which nobody has to have installed."""
    # Whoever holds such an object has imported its module.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(X, kind)
