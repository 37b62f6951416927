"""The input contract: a table with a column per modality, any cell missing."""

import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .cells import held_audio, held_video
from .cells import is_null as is_null
from .lazy import LazyCells, lazy_images, lazy_texts
from .tables import arrow_columns, read_columns
from .tables import column_position as column_position

# What a table has where nobody says otherwise, and what it may have.
MODALITIES = ("image", "text")
KNOWN_MODALITIES = ("image", "text", "audio", "video")
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


@cache
def pattern_names(modalities: tuple[str, ...] = MODALITIES) -> tuple[str, ...]:
    """Return what rows of some modalities may miss, by name, in the order of codes.

    A code is the sum over the modalities that are missing of a power of two: 1 is the
    last modality, 2 the one before. So the first name is of complete rows, the last of
    rows that miss all.

    Examples
    --------
    >>> pattern_names()
    ('complete', 'text_missing', 'image_missing', 'both_missing')
    >>> pattern_names(("audio", "video"))[1:3]
    ('video_missing', 'audio_missing')
    >>> pattern_names(("image", "text", "audio"))[3:]  # doctest: +NORMALIZE_WHITESPACE
    ('text+audio_missing', 'image_missing', 'image+audio_missing', 'image+text_missing',
     'all_missing')
    """
    n, names = len(modalities), ["complete"]
    for code in range(1, 2**n):
        lost = [m for i, m in enumerate(modalities) if code >> (n - 1 - i) & 1]
        names.append(f"{'+'.join(lost)}_missing")
    if n > 1:
        names[-1] = "both_missing" if n == 2 else "all_missing"
    return tuple(names)


def either_of(modalities: tuple[str, ...] = MODALITIES, last: str = "or") -> str:
    """Say what a row has that is not empty.

    Examples
    --------
    >>> either_of(), either_of(("image", "audio", "video"), "nor")
    ('an image or a text', 'an image, audio nor a video')
    """
    named = {"image": "an image", "audio": "audio"}
    *first, end = [named.get(name, f"a {name}") for name in modalities]
    return f"{', '.join(first)} {last} {end}" if first else end


def check_modalities(name: str, value: Any) -> tuple[str, ...]:
    """Return an ordered choice of modalities, or raise.

    Raises
    ------
    ValueError
        Unless `value` is a sequence of different names out of `KNOWN_MODALITIES`.

    Examples
    --------
    >>> check_modalities("modalities", ["audio", "video"])
    ('audio', 'video')
    """
    listed = isinstance(value, list | tuple) and len(value) > 0
    if not listed or not set(value) <= set(KNOWN_MODALITIES):
        raise ValueError(
            f"{name} must be one or more of {KNOWN_MODALITIES}, got {value!r}."
        )
    if len(set(value)) < len(value):
        raise ValueError(f"{name} must name each modality once, got {value!r}.")
    return tuple(value)


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Rows of two or more modalities as plain lists, with None where one is missing.

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
        The folder that relative paths start from.
    clips : dict from "audio" or "video" to list of length n
        Their cells; None where missing.
    modalities : tuple of str
        Which modalities the rows have, in the order of the columns of ``present``.

    Examples
    --------
    >>> rows = Rows(["a.png", None], ["a cat", "a dog"], [0, 1])
    >>> rows.present.tolist()
    [[True, True], [False, True]]
    >>> rows.patterns.tolist()
    ['complete', 'image_missing']
    >>> rows = Rows.of({"audio": ["a.wav", None], "video": [None, "b.mp4"]}, [0, 1])
    >>> rows.patterns.tolist()
    ['video_missing', 'audio_missing']
    """

    images: list
    texts: list
    index: list
    image_root: Path | None = None
    clips: Mapping[str, list] = field(default_factory=dict)
    modalities: tuple[str, ...] = MODALITIES

    @classmethod
    def of(
        cls, cells: Mapping[str, list], index: list, image_root: Path | None = None
    ) -> "Rows":
        """Return rows from the cells of each modality, by name and in order."""
        # Of a modality that is not read, every cell is missing.
        images, texts = (cells.get(m, [None] * len(index)) for m in MODALITIES)
        clips = {m: cells[m] for m in cells if m not in MODALITIES}
        return cls(images, texts, index, image_root, clips, tuple(cells))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"<{len(self)} Rows, image_root={self.image_root}>"

    @property
    def cells(self) -> dict[str, list]:
        """The cells of each modality, by name."""
        known = {"image": self.images, "text": self.texts, **self.clips}
        return {modality: known[modality] for modality in self.modalities}

    @property
    def present(self) -> np.ndarray:
        """Which modality each row has: bool, (n, M), columns as ``modalities``."""
        here = np.empty((len(self), len(self.modalities)), dtype=bool)
        for place, cells in enumerate(self.cells.values()):
            here[:, place] = _present(cells)
        return here

    @property
    def patterns(self) -> np.ndarray:
        """Each row's missing pattern, one of `pattern_names`: str, shape (n,)."""
        bits = 2 ** np.arange(len(self.modalities))[::-1]
        return np.array(pattern_names(self.modalities))[~self.present @ bits]

    def take(self, positions: Iterable[int]) -> "Rows":
        """Return the rows at integer `positions`, in that order."""
        positions = [int(position) for position in positions]
        images, texts, index, *clips = (
            values.take(positions)
            if isinstance(values, LazyCells)
            else [values[position] for position in positions]
            for values in (self.images, self.texts, self.index, *self.clips.values())
        )
        clips = dict(zip(self.clips, clips, strict=True))
        return Rows(images, texts, index, self.image_root, clips, self.modalities)

    def without(self, modality: str, positions: Iterable[int]) -> "Rows":
        """Return the rows with a modality's cells at `positions` missing."""
        gone, cells = set(positions), self.cells
        if isinstance(cells[modality], LazyCells):
            cells[modality] = cells[modality].without(gone)
        else:
            cells[modality] = [
                None if i in gone else cell for i, cell in enumerate(cells[modality])
            ]
        return Rows.of(cells, self.index, self.image_root)


def read_rows(
    X: Any,
    image_column: str = "image",
    text_column: str = "text",
    image_root: str | Path | None = None,
    blank_image: str = "bad",
    *,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """Read a table into `Rows`; no image, sound or video is opened.

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
        The folder that relative paths start from.
    blank_image : {"bad", "missing"}
        What an image cell is that is a blank string, or one of sound or video: one that
        cannot be read, or a missing one.
    columns : mapping from modality to column, or None
        Which modalities to read and from where, in order, in the place of the two.

    Returns
    -------
    Rows

    Raises
    ------
    TypeError
        If `X` is no table.
    ValueError
        If a column is absent or its name is used twice, if an array has another number
        of columns, or if cells have a type that none of the modality can have. The
        message names up to ten of the rows.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"image": ["cat.png", None], "text": ["  ", "a dog"]})
    >>> read_rows(df).patterns.tolist()
    ['text_missing', 'image_missing']
    """
    if columns is None:
        columns = {"image": image_column, "text": text_column}
    blank_is_null = blank_image == "missing"
    root = None if image_root is None else Path(image_root)
    if tuple(columns) == MODALITIES:
        lazy = _lazy(arrow_columns(X, *columns.values()), blank_is_null)
        if lazy is not None:
            return Rows(*lazy, range(len(lazy[0])), root)
    *cells, index = read_columns(X, *columns.values(), modalities=tuple(columns))
    named = {
        modality: _read(modality, column, index, blank_is_null)
        for modality, column in zip(columns, cells, strict=True)
    }
    return Rows.of(named, index, root)


def _lazy(columns: tuple | None, blank_is_null: bool) -> tuple | None:
    """Return image and text columns of pyarrow as cells that stay there, or None."""
    if columns is None:
        return None
    is_image = _is_text if blank_is_null else _is_any
    images = lazy_images(columns[0], held_image, is_image)
    texts = lazy_texts(columns[1], _is_text)
    return None if images is None or texts is None else (images, texts)


def _read(modality: str, cells: list, index: list, blank_is_null: bool) -> list:
    """Return the cells of a column as `Rows` hold them."""
    if modality == "image":
        cells = [_image(cell, blank_is_null) for cell in cells]
        _check_types(cells, _IMAGE_TYPES, index, _IMAGE_RULE)
        return cells
    if modality == "text":
        cells = [None if is_null(cell) else cell for cell in cells]
        _check_types(cells, (str,), index, _TEXT_RULE)
        # A blank text is what models read for a missing one, so it is one.
        return [text if text and text.strip() else None for text in cells]
    if blank_is_null:
        cells = [None if isinstance(c, str) and not c.strip() else c for c in cells]
    return _clips(modality, cells, index)


def _clips(modality: str, cells: list, index: list) -> list:
    hold = {"audio": held_audio, "video": held_video}[modality]
    held, wrong = [], []
    for label, cell in zip(index, cells, strict=True):
        try:
            held.append(hold(cell))
        except ValueError as error:
            wrong.append((label, str(error).removesuffix(".")))
    if wrong:
        raise ValueError(f"{format_rows(wrong, f'cells are no {modality}')}.")
    return held


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

    Of a cell that is neither path nor text, its size counts and not all that is in it.

    Examples
    --------
    >>> one, other = Rows(["a.png"], [None], [0]), Rows(["b.png"], [None], [0])
    >>> digest_rows(one) == digest_rows(one), digest_rows(one) == digest_rows(other)
    (True, False)
    """
    digest = blake2b(f"{len(rows)}".encode(), digest_size=16)
    # Of those in a file, no more than where they are: it may be larger than the memory.
    columns = [
        cells.present.tolist()
        if name == "image" and isinstance(cells, LazyCells)
        else cells
        for name, cells in rows.cells.items()
    ]
    for row in zip(*columns, strict=True):
        outline = repr(tuple(map(_outline, row)))
        digest.update(outline.encode("utf-8", "backslashreplace"))
    return digest.digest()


def _outline(cell: Any) -> Any:
    """Return a cell with sizes in the place of pixels, samples and bytes."""
    if isinstance(cell, np.ndarray | Image.Image):
        return np.shape(cell) if isinstance(cell, np.ndarray) else cell.size
    if isinstance(cell, bytes | bytearray | memoryview):
        return len(cell)
    if isinstance(cell, Mapping):
        return {name: _outline(part) for name, part in cell.items()}
    if isinstance(cell, list | tuple):
        return tuple(map(_outline, cell))
    return cell


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
