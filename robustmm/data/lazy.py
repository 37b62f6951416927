"""Cells that stay where a table of pyarrow keeps them, in a file for instance."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

# Cells that are made into Python's objects at a time, to look at them.
_SLICE = 4096
_TEXTS = ("string", "large_string", "string_view", "null")
_BYTES = ("binary", "large_binary", "binary_view")
_PARTS = {"bytes", "path"}


class LazyCells:
    """A column of a table of pyarrow, of which a cell is read when it is asked for.

    What is kept for each row is whether it has a cell, and where.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
    present : ndarray of shape (n,), bool
        Which rows have a cell; others are None.
    read : callable (object) -> object
        What a cell is of what the table has.
    places : ndarray of shape (n,), int, optional
        Where in the column each row's cell is; in its order by default.

    Examples
    --------
    >>> import pyarrow as pa
    >>> column = pa.chunked_array([["a cat", "a dog"], ["", "a cow"]])
    >>> cells = LazyCells(column, np.array([True, True, False, True]), str.upper)
    >>> list(cells), cells.take([3, 2])[0]
    (['A CAT', 'A DOG', None, 'A COW'], 'A COW')
    """

    def __init__(
        self,
        column,
        present: np.ndarray,
        read: Callable[[Any], Any],
        places: np.ndarray | None = None,
    ):
        self.column, self.present, self.read = column, present, read
        self.places = places

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, i: int) -> Any:
        i = operator.index(i)
        if not self.present[i]:
            return None
        i = range(len(self))[i]
        place = i if self.places is None else int(self.places[i])
        return self.read(self.column[place].as_py())

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def take(self, positions: Iterable[int]) -> LazyCells:
        """Return the cells of some rows, in that order."""
        at = np.fromiter(positions, dtype=np.int64)
        places = at if self.places is None else self.places[at]
        return LazyCells(self.column, self.present[at], self.read, places)

    def without(self, positions: Iterable[int]) -> LazyCells:
        """Return the cells with those of some rows missing."""
        present = self.present.copy()
        present[list(positions)] = False
        return LazyCells(self.column, present, self.read, self.places)


def lazy_images(column, read: Callable, is_there: Callable) -> LazyCells | None:
    """Return a column of paths, of bytes, or of ``{"bytes", "path"}``; else None.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
    read : callable (object) -> object
        What a cell is of what the table has.
    is_there : callable (object) -> bool
        Whether a cell that is text is one. Of bytes, all are.
    """
    kind = _kind(column)
    if kind in _TEXTS:
        return LazyCells(column, _looked_at(column, is_there), read)
    if kind in _BYTES:
        return LazyCells(column, _valid(column), read)
    if not kind.startswith("struct<"):
        return None
    parts = {column.type.field(i).name: i for i in range(column.type.num_fields)}
    kinds = {name: str(column.type.field(i).type) for name, i in parts.items()}
    fits = {"bytes": _BYTES, "path": _TEXTS}
    if not set(parts) <= _PARTS or any(kinds[p] not in fits[p] for p in parts):
        return None
    filled = np.zeros(len(column), dtype=bool)
    for name, i in parts.items():
        # Of bytes, by whether they are there: looking at them would read all rows.
        look = _valid if name == "bytes" else partial(_looked_at, is_there=is_there)
        found = [look(chunk.field(i)) for chunk in column.chunks]
        filled |= np.concatenate([filled[:0], *found])
    return LazyCells(column, _valid(column) & filled, read)


def lazy_texts(column, is_there: Callable) -> LazyCells | None:
    """Return a column of texts; None for one of anything else."""
    if _kind(column) not in _TEXTS:
        return None
    return LazyCells(column, _looked_at(column, is_there), _same)


def _same(cell: Any) -> Any:
    return cell


def _kind(column) -> str:
    """The name of what the cells are, also where equal ones are kept once."""
    kind = column.type
    return str(getattr(kind, "value_type", kind)) if _is_dictionary(kind) else str(kind)


def _is_dictionary(kind) -> bool:
    return str(kind).startswith("dictionary<")


def _looked_at(column, is_there: Callable) -> np.ndarray:
    found = np.zeros(len(column), dtype=bool)
    for start in range(0, len(column), _SLICE):
        cells = column.slice(start, _SLICE).to_pylist()
        found[start : start + len(cells)] = [
            c is not None and is_there(c) for c in cells
        ]
    return found


def _valid(column) -> np.ndarray:
    return np.array(column.is_valid(), dtype=bool).reshape(len(column))
