"""The input contract: a table with an image and a text column, any cell missing."""

import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from .lazy import LazyCells, lazy_images, lazy_texts
from .tables import arrow_columns, read_columns
from .tables import column_position as column_position

MODALITIES = ("image", "text")
PATTERNS = ("complete", "text_missing", "image_missing", "both_missing")

_IMAGE_TYPES = (
    str,
    os.PathLike,
    Image.Image,
    bytes,
    bytearray,
    memoryview,
    np.ndarray,
)
_IMAGE_RULE = (
    "An image cell must be a path, a PIL image, bytes, base64 text, a uint8 array or a "
    "dict with bytes or path, or missing: None, NaN, pd.NA or NaT"
)
_TEXT_RULE = (
    "A text cell must be a str, or missing: None, NaN, pd.NA, NaT or a blank str"
)
# A million bad cells must not make a message of a million lines.
_MOST_NAMED = 10


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Image+text rows as plain lists, with None where a modality is missing.

    Parameters
    ----------
    images : list of length n, or LazyCells
        Image cells: a path, base64 text, a PIL image, bytes or a uint8 array; None
        where missing.
    texts : list of length n, or LazyCells
        A str each; None where missing.
    index : list or range of length n
        The rows' labels, for messages.
    image_root : Path or None
        The folder that relative image paths start from.

    Examples
    --------
    >>> rows = Rows(["a.png", None], ["a cat", "a dog"], [0, 1])
    >>> rows.present.tolist()
    [[True, True], [False, True]]
    >>> rows.patterns.tolist()
    ['complete', 'image_missing']
    """

    images: list
    texts: list
    index: list
    image_root: Path | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"<{len(self)} Rows, image_root={self.image_root}>"

    @property
    def present(self) -> np.ndarray:
        """Which modality each row has: bool, shape (n, 2), columns as `MODALITIES`."""
        here = np.empty((len(self), 2), dtype=bool)
        here[:, 0], here[:, 1] = _present(self.images), _present(self.texts)
        return here

    @property
    def patterns(self) -> np.ndarray:
        """Each row's missing pattern, one of `PATTERNS`: str, shape (n,)."""
        image, text = (~self.present).T
        # The order of PATTERNS is that of these two bits.
        return np.array(PATTERNS)[2 * image + text]

    def take(self, positions: Iterable[int]) -> "Rows":
        """Return the rows at integer `positions`, in that order."""
        positions = [int(position) for position in positions]
        images, texts, index = (
            values.take(positions)
            if isinstance(values, LazyCells)
            else [values[position] for position in positions]
            for values in (self.images, self.texts, self.index)
        )
        return Rows(images, texts, index, self.image_root)


def read_rows(
    X: Any,
    image_column: str = "image",
    text_column: str = "text",
    image_root: str | Path | None = None,
    blank_image: str = "bad",
) -> Rows:
    """Read a table into `Rows`; no image is opened.

    Parameters
    ----------
    X : table or ndarray of shape (n, 2)
        A DataFrame of pandas or polars, a table of pyarrow, a list of dicts, and a dict
        or Series for one row are read by column name; what a dict of a list lacks is
        missing. An array is read by position: images, then texts. A missing cell is
        None, NaN, pd.NA or NaT, and for text a blank string.
    image_column, text_column : str
        The two columns' names. Other columns are ignored.
    image_root : path or None
        The folder that relative image paths start from.
    blank_image : {"bad", "missing"}
        What an image cell is that is a blank string: one that cannot be read, or a
        missing one.

    Returns
    -------
    Rows

    Raises
    ------
    TypeError
        If `X` is no table.
    ValueError
        If a column is absent or its name is used twice, if an array has not two
        columns, or if cells have a type that no image or text can have. The message
        names up to ten of the rows.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"image": ["cat.png", None], "text": ["  ", "a dog"]})
    >>> read_rows(df).patterns.tolist()
    ['text_missing', 'image_missing']
    """
    blank_is_null = blank_image == "missing"
    root = None if image_root is None else Path(image_root)
    columns = arrow_columns(X, image_column, text_column)
    if columns is not None:
        images = lazy_images(
            columns[0], held_image, _is_text if blank_is_null else _is_any
        )
        texts = lazy_texts(columns[1], _is_text)
        if images is not None and texts is not None:
            return Rows(images, texts, range(len(texts)), root)
    images, texts, index = read_columns(X, image_column, text_column)
    images = [_image(cell, blank_is_null) for cell in images]
    texts = [None if is_null(cell) else cell for cell in texts]
    _check_types(images, _IMAGE_TYPES, index, _IMAGE_RULE)
    _check_types(texts, (str,), index, _TEXT_RULE)
    # A blank text is what models read for a missing one, so it is one.
    texts = [text if text and text.strip() else None for text in texts]
    return Rows(images, texts, index, root)


def _present(cells: Sequence) -> np.ndarray | list[bool]:
    if isinstance(cells, LazyCells):
        return cells.present
    return [cell is not None for cell in cells]


def _is_text(cell: str) -> bool:
    return bool(cell.strip())


def _is_any(cell: str) -> bool:
    return True


def _image(cell: Any, blank_is_null: bool) -> Any:
    """The image cell itself, what a dict of it holds, or None."""
    cell = held_image(cell)
    if blank_is_null and isinstance(cell, str) and not cell.strip():
        return None
    return None if is_null(cell) else cell


def digest_rows(rows: Rows) -> bytes:
    """Return a hash of a table by which processes tell whether theirs are the same.

    Of an image that is no path, its size counts and not all that is in it.

    Examples
    --------
    >>> one, other = Rows(["a.png"], [None], [0]), Rows(["b.png"], [None], [0])
    >>> digest_rows(one) == digest_rows(one), digest_rows(one) == digest_rows(other)
    (True, False)
    """
    digest = blake2b(f"{len(rows)}".encode(), digest_size=16)
    # Of those in a file, no more than where they are: it may be larger than the memory.
    lazy = isinstance(rows.images, LazyCells)
    images = rows.images.present.tolist() if lazy else rows.images
    for cell, text in zip(images, rows.texts, strict=True):
        if isinstance(cell, np.ndarray | Image.Image):
            cell = np.shape(cell) if isinstance(cell, np.ndarray) else cell.size
        elif isinstance(cell, bytes | bytearray | memoryview):
            cell = len(cell)
        digest.update(repr((cell, text)).encode("utf-8", "backslashreplace"))
    return digest.digest()


def held_image(cell: Any) -> Any:
    """Return what ``{"bytes": ..., "path": ...}`` holds; any other cell stays itself.

    That is how Hugging Face's data sets keep a picture that is not decoded.
    """
    if not isinstance(cell, Mapping) or not cell:
        return cell
    if not cell.keys() <= {"bytes", "path"}:
        return cell
    data, path = cell.get("bytes"), cell.get("path")
    # No text in the place of bytes: it would be read as a path.
    if isinstance(data, bytes | bytearray | memoryview):
        return data
    named = is_null(path) or isinstance(path, str | os.PathLike)
    return path if is_null(data) and named else cell


def is_null(cell: Any) -> bool:
    """Whether `cell` is None, NaN, pd.NA or NaT; arrays and images never are."""
    # pd.isna answers per element on lists and arrays, so only scalars may reach it.
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def format_rows(
    problems: Mapping[Any, str] | Sequence[tuple[Any, str]], what: str
) -> str:
    """Say what is wrong with which rows: at most ten of them, and a count.

    Parameters
    ----------
    problems : mapping from index label to reason, or sequence of (label, reason)
        The pairs are for tables in which a label stands more than once.
    what : str
        What all have in common, such as ``"image cells cannot be read"``.

    Examples
    --------
    >>> format_rows({"a": "no such file", 7: "is a directory"}, "bad images")
    "2 bad images: row 'a': no such file; row 7: is a directory"
    """
    pairs = list(problems.items() if isinstance(problems, Mapping) else problems)
    named = "; ".join(f"row {label!r}: {why}" for label, why in pairs[:_MOST_NAMED])
    more = len(pairs) - _MOST_NAMED
    return f"{len(pairs)} {what}: {named}" + (f" (and {more} more)" if more > 0 else "")


def _check_types(cells: list, types: tuple, index: list, rule: str) -> None:
    wrong = [
        # reprlib, as the wrong cell may be a text of a megabyte.
        (label, f"{type(cell).__name__} {reprlib.repr(cell)}")
        for label, cell in zip(index, cells, strict=True)
        if cell is not None and not isinstance(cell, types)
    ]
    if wrong:
        raise ValueError(f"{rule}; got {format_rows(wrong, 'other')}.")
