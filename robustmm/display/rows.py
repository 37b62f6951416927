"""Rows of a table as a notebook shows them: thumbnails, and texts cut to their size."""

from __future__ import annotations

import base64
import html
import io
import reprlib
from dataclasses import replace
from numbers import Integral

import pandas as pd
from sklearn.base import BaseEstimator

from ..checks import check_number
from ..data import MAX_PIXELS, BadImage, decode_image
from ..data.frame import Rows
from ..data.tables import as_frame, column_position
from ..evaluation._columns import columns_of, common_value

# What a notebook's page bears: it keeps each thumbnail inside itself.
MAX_ROWS = 200
MAX_SIZE = 512
_MOST_COLUMNS = 20
_MOST_LETTERS = 200
_MISSING = "<i>missing</i>"
_CELL = "text-align:left;vertical-align:top;max-width:24em;overflow-wrap:anywhere"


class RowsDisplay:
    """Rows of a table, with thumbnails, as HTML that a notebook shows.

    Everything that comes from the table is escaped, and bounded: the number of rows and
    columns, the size of a thumbnail, the letters of a cell. Made by
    :func:`show_rows`.

    Parameters
    ----------
    header : list of str
        Names of the columns in HTML, the first for the labels of the rows.
    cells : list of list of str
        A row each, in HTML.
    caption : str
        What is shown of how much.

    Examples
    --------
    >>> RowsDisplay(["", "text"], [["0", "Snow."]], caption="1 of 1 rows")
    <RowsDisplay: 1 of 1 rows>
    """

    def __init__(self, header: list[str], cells: list[list[str]], caption: str):
        self.header = header
        self.cells = cells
        self.caption = caption

    def __repr__(self) -> str:
        return f"<RowsDisplay: {self.caption}>"

    def _repr_html_(self) -> str:
        head = "".join(_tagged("th", name) for name in self.header)
        body = "".join(
            f"<tr>{''.join(_tagged('td', cell) for cell in row)}</tr>"
            for row in self.cells
        )
        caption = html.escape(self.caption)
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{caption}</p>"
        )


def show_rows(
    X: pd.DataFrame,
    n: int = 10,
    *,
    estimator: BaseEstimator | None = None,
    size: int = 96,
    image_column: str | None = None,
    text_column: str | None = None,
    image_root=None,
) -> RowsDisplay:
    """Show the first rows of a table with thumbnails, as the last line of a cell.

    A missing cell is called missing, and an image that cannot be read shows the reason
    in its place. Columns beside the two follow, so that labels and predictions are
    shown where they are assigned: ``show_rows(df.assign(predicted=clf.predict(df)))``.

    Parameters
    ----------
    X : DataFrame of shape (n, ...)
        Rows, or another table with names that an estimator takes; of rows to choose,
        ``df.sample(10)``.
    n : int
        How many of the rows, at most 200.
    estimator : classifier, optional
        Says which the columns are, where paths start from and how large an image may
        be; also a pipeline or a search with such a classifier inside.
    size : int
        Longer edge of a thumbnail in pixels, at most 512.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"``.
    image_root : path-like, optional
        Folder that relative image paths start from; None takes the estimator's.

    Returns
    -------
    RowsDisplay
        A notebook shows it as a table.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is no table with names, a column is absent, or a number out of range.

    Examples
    --------
    >>> from robustmm import show_rows
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(30, n_classes=2, random_state=0)
    >>> show_rows(X.assign(label=y), 3)
    <RowsDisplay: 3 of 30 rows>
    """
    check_number("n", n, Integral, 1, MAX_ROWS)
    check_number("size", size, Integral, 1, MAX_SIZE)
    estimators = [] if estimator is None else [estimator]
    columns, X = columns_of(estimators, image_column, text_column), as_frame(X)
    if image_root is None:
        image_root = common_value(estimators, "image_root")
    places = [column_position(X, name) for name in columns.names]
    places += [i for i in range(X.shape[1]) if i not in places]
    shown = X.iloc[:n, places[:_MOST_COLUMNS]]
    rows = replace(columns.rows(X.iloc[:n]), image_root=image_root)
    max_pixels = common_value(estimators, "max_pixels", MAX_PIXELS)
    cells = [
        [
            _text(label),
            *(_cell(rows, name, i, size, max_pixels) for name in rows.modalities),
            *map(_text, shown.iloc[i, len(rows.modalities) :]),
        ]
        for i, label in enumerate(rows.index)
    ]
    caption = f"{len(shown)} of {len(X)} rows"
    if shown.shape[1] < len(places):
        caption += f", {shown.shape[1]} of {len(places)} columns"
    return RowsDisplay(["", *map(_text, shown.columns)], cells, caption)


def _cell(rows: Rows, modality: str, i: int, size: int, max_pixels: int) -> str:
    """A row's cell of a modality in HTML."""
    if modality == "image":
        return _thumbnail(rows, i, size, max_pixels)
    cell = rows.cells[modality][i]
    return _MISSING if cell is None else _text(cell)


def _thumbnail(rows: Rows, i: int, size: int, max_pixels: int) -> str:
    """The picture of a row in HTML, or why there is none."""
    if rows.images[i] is None:
        return _MISSING
    try:
        image = decode_image(rows.images[i], rows.image_root, (size, size), max_pixels)
    except BadImage as error:
        return f"<b>cannot be read:</b> {_text(error)}"
    image.thumbnail((size, size))
    stream = io.BytesIO()
    # Of what was decoded, never the file itself, which may be anything.
    image.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="">'


def _text(value) -> str:
    """A value in HTML, cut to its size."""
    plain = isinstance(value, str | BadImage) or (
        pd.api.types.is_scalar(value) and not isinstance(value, bytes)
    )
    said = str(value) if plain else reprlib.repr(value)
    if len(said) > _MOST_LETTERS:
        said = f"{said[:_MOST_LETTERS]} ..."
    # A lone surrogate could not be written into the page.
    return html.escape(said.encode("utf-8", "replace").decode())


def _tagged(tag: str, content: str) -> str:
    return f'<{tag} style="{_CELL}">{content}</{tag}>'
