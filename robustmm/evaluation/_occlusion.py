"""The parts of one row, and tables of copies of it that lack one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from ..data.frame import MODALITIES, Rows, column_position, is_null
from ..data.tables import as_frame

# In the place of a text's only word: a blank text would be a missing one.
PLACEHOLDER = "."


def text_words(text: str | None, most: int) -> pd.DataFrame:
    """Return what stands between blanks, with its characters; empty without a text.

    Examples
    --------
    >>> text_words("two small boats", 3)["word"].tolist()
    ['two', 'small', 'boats']
    >>> text_words("two small boats", 2).to_numpy().tolist()
    [['two small', 0, 9], ['boats', 10, 15]]
    """
    text = text or ""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    # Rounded up: neighbours together, so that there are at most so many.
    size = -(-len(spans) // most) or 1
    groups = [spans[i : i + size] for i in range(0, len(spans), size)]
    ends = [(group[0][0], group[-1][1]) for group in groups]
    # As objects: pandas' own type of texts refuses lone surrogates.
    parts = pd.Series([text[start:stop] for start, stop in ends], dtype=object)
    words = pd.DataFrame(ends, columns=["start", "stop"], dtype=int)
    words.insert(0, "word", parts)
    return words.rename_axis("position")


def leave_out(text: str, start: int, stop: int) -> str:
    """Return a text without some characters; never a blank one.

    Examples
    --------
    >>> leave_out("two small boats", 4, 9), leave_out(" boats ", 1, 6)
    ('two boats', '.')
    """
    rest = f"{text[:start].rstrip()} {text[stop:].lstrip()}".strip()
    return rest or PLACEHOLDER


def grid_regions(image: Image.Image | None, shape: tuple[int, int]) -> pd.DataFrame:
    """Return the boxes of a grid (down, across) in pixels; empty without a picture.

    Examples
    --------
    >>> grid_regions(Image.new("RGB", (5, 1)), (2, 2)).to_numpy().tolist()
    [[0, 0, 0, 0, 2, 1], [0, 1, 2, 0, 5, 1]]
    """
    names = ["row", "column", "left", "top", "right", "bottom"]
    if image is None:
        return pd.DataFrame(columns=names, dtype=int)
    down, across = (
        np.linspace(0, edge, min(n, edge) + 1).astype(int)
        for edge, n in zip((image.height, image.width), shape, strict=True)
    )
    records = [
        (i, j, across[j], down[i], across[j + 1], down[i + 1])
        for i in range(len(down) - 1)
        for j in range(len(across) - 1)
    ]
    return pd.DataFrame(records, columns=names)


def cover(image: Image.Image, box: tuple, colour: tuple) -> Image.Image:
    """Return a copy of a picture with a box in one colour."""
    covered = image.copy()
    covered.paste(colour, box)
    return covered


class OneRow:
    """One row that was read, of which tables of changed copies are made.

    Parameters
    ----------
    X : table
        The row as the caller has it; it is left as it is.
    rows : Rows
        The same, its picture decoded.
    image_column, text_column : str
        Names of the two columns.
    """

    def __init__(self, X, rows: Rows, image_column: str, text_column: str):
        self.image, self.text = rows.images[0], rows.texts[0]
        # A classifier that was fitted on an array would warn of names.
        self._by_position = isinstance(X, np.ndarray)
        names = [image_column, text_column]
        self._frame = _one_frame(X, names)
        self._places = [column_position(self._frame, name) for name in names]

    @property
    def removable(self) -> list[str]:
        """The modalities that can be taken away: both or none."""
        both = self.image is not None and self.text is not None
        return list(MODALITIES) if both else []

    def table(self, cells: Sequence[tuple]) -> pd.DataFrame | np.ndarray:
        """Return a table with the row once for each (image, text), None for missing."""
        X = self._frame.iloc[[0] * len(cells)].reset_index(drop=True)
        columns = zip(*cells, strict=True)
        for place, own, values in zip(
            self._places, (self.image, self.text), columns, strict=True
        ):
            # What is missing stays what it was; what cannot be read is not so yet.
            if own is not None or not _is_missing(X.iloc[0, place]):
                X.isetitem(place, _column(values, X.dtypes.iloc[place]))
        return X.to_numpy(dtype=object) if self._by_position else X


def _is_missing(cell) -> bool:
    return is_null(cell) or (isinstance(cell, str) and not cell.strip())


def _column(values: Sequence, dtype) -> pd.Series:
    """Return cells as a column, of texts if it was one of texts."""
    strings = isinstance(dtype, pd.StringDtype) and all(
        value is None or isinstance(value, str) for value in values
    )
    return pd.Series(list(values), dtype=dtype if strings else object)


def _one_frame(X, names: list[str]) -> pd.DataFrame:
    """Return one row, of any kind of table, as a frame."""
    if isinstance(X, np.ndarray):
        return pd.DataFrame(X, columns=names, dtype=object)
    if isinstance(X, list | tuple):
        X = X[0]
    if not isinstance(X, pd.Series | Mapping):
        return as_frame(X)
    # Cell by cell: a Series has one type for all, and texts with lone surrogates fit
    # into no column of pandas but one of objects.
    return pd.DataFrame(
        {
            name: pd.Series([cell], dtype=object if isinstance(cell, str) else None)
            for name, cell in X.items()
        }
    )
