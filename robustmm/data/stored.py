"""Tables in a file that a fit reads row by row, written piece by piece."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from .decode import check_array
from .faults import BadImage
from .frame import Rows, format_rows, read_rows
from .tables import as_frame

# Rows that are written at a time: what is read for one row is hardly more than it.
_ROWS = 1024
# Kinds of pictures that a PNG holds as they are.
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def store_table(
    frames: Any,
    path: str | Path,
    image_column: str = "image",
    text_column: str = "text",
) -> Any:
    """Write frames into one file, and return it as a table to fit on.

    For a table that is larger than the memory: the file is mapped, and a cell is read
    when its batch is made. No more than one of the frames is in memory at a time.
    Needs pyarrow.

    Parameters
    ----------
    frames : iterable of tables
        Such as ``pandas.read_csv(..., chunksize=10_000)``, the batches of a parquet
        file, or a Dask DataFrame. Images are paths, bytes, or open pictures and
        arrays, which are kept as PNG; all other columns stay what they are.
    path : path-like
        The file to write, as a rule with the ending ``.arrow``.
    image_column, text_column : str
        The two columns of cells.

    Returns
    -------
    pyarrow.Table
        ``fit`` takes it as it takes a DataFrame, and its columns as labels:
        ``clf.fit(table, table["label"])``. Later, :func:`open_table` opens the file.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    TypeError, ValueError
        For what ``fit`` refuses too, and for frames of other columns than the first;
        the message says which frame it was. No file is left then.

    Examples
    --------
    >>> import tempfile
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(40, n_classes=2, random_state=0)
    >>> X["label"] = y
    >>> frames = (X[i : i + 10] for i in range(0, 40, 10))
    >>> table = store_table(frames, tempfile.mkdtemp() + "/scenes.arrow")
    >>> clf = LinearProbeClassifier("robustmm/tiny-clip").fit(table, table["label"])
    >>> clf.score(table, table["label"]) > 0.5
    True
    """
    pa = _pyarrow()
    path = Path(path)
    part = path.with_name(path.name + ".part")
    columns, writer = (image_column, text_column), None
    if image_column == text_column:
        raise ValueError(
            f"image_column and text_column must be two columns, got {text_column!r}."
        )
    try:
        for number, frame in enumerate(_frames(frames)):
            try:
                table = _arrow(pa, frame, columns, writer and writer.schema)
            except (TypeError, ValueError) as error:
                raise type(error)(f"frame {number}: {error}") from error
            if writer is None:
                sink = pa.OSFile(os.fspath(part), "wb")
                writer = _Writer(pa, sink, table.schema)
            writer.write(table)
        if writer is None:
            raise ValueError("frames must have a frame at least, got none.")
        writer.close()
        os.replace(part, path)
    except BaseException:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
        raise
    return open_table(path)


def open_table(path: str | Path) -> Any:
    """Return the table of a file that :func:`store_table` wrote, mapped into memory.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    pyarrow.Table
        None of it is read yet. The file must stay as it is while the table is used.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    OSError, ValueError
        If there is no such file, or it is another one.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/rows.arrow"
    >>> rows = pd.DataFrame({"image": ["a.png", None], "text": ["a cat", "a dog"]})
    >>> _ = store_table([rows], path)
    >>> open_table(path).num_rows
    2
    """
    pa = _pyarrow()
    with pa.memory_map(os.fspath(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"path must be a file of store_table, got {str(path)!r}: {error}"
            ) from error


class _Writer:
    """A file of record batches of few rows."""

    def __init__(self, pa, sink, schema):
        self.schema, self._sink = schema, sink
        self._file = pa.ipc.new_file(sink, schema)

    def write(self, table) -> None:
        for batch in table.combine_chunks().to_batches(max_chunksize=_ROWS):
            self._file.write_batch(batch)

    def close(self) -> None:
        self._file.close()
        self._sink.close()


def _pyarrow():
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(
            'Tables in files need pyarrow: pip install "robustmm[arrow]".'
        ) from error
    return pyarrow


def _frames(frames: Any) -> Iterator[Any]:
    """One table after another: of what is one, of a Dask DataFrame, of an iterable."""
    if isinstance(frames, pd.DataFrame):
        yield frames
    elif hasattr(frames, "partitions"):
        for partition in frames.partitions:
            yield partition.compute()
    elif isinstance(frames, Iterable) and not isinstance(frames, str | bytes | dict):
        yield from frames
    else:
        raise TypeError(
            "frames must be an iterable of tables or a Dask DataFrame, got "
            f"{type(frames).__name__}."
        )


def _arrow(pa, frame: Any, columns: tuple[str, str], schema):
    """One frame as a table of pyarrow, of the columns of the first."""
    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else as_frame(frame)
    rows = read_rows(frame, *columns)
    others = frame.drop(columns=list(columns))
    kept = pa.Table.from_pandas(others, preserve_index=False)
    image = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    cells = {name: kept.column(name) for name in kept.column_names}
    cells[columns[0]] = pa.array(_images(rows), image)
    cells[columns[1]] = pa.array(list(rows.texts), pa.large_string())
    table = pa.table(cells)
    if schema is None:
        return table
    if set(table.column_names) != set(schema.names):
        raise ValueError(
            f"frames must have the columns of the first one, {schema.names}, got "
            f"{table.column_names}."
        )
    return table.select(schema.names).cast(schema)


def _images(rows: Rows) -> list[dict | None]:
    images: list[dict | None] = []
    odd = []
    for label, cell in zip(rows.index, rows.images, strict=True):
        try:
            images.append(_image(cell))
        except BadImage as error:
            odd.append((label, str(error)))
    if odd:
        raise ValueError(f"{format_rows(odd, 'image cells cannot be stored')}.")
    return images


def _image(cell: Any) -> dict | None:
    if cell is None:
        return None
    if isinstance(cell, np.ndarray):
        check_array(cell)
        grey = cell.ndim == 3 and cell.shape[2] == 1
        cell = Image.fromarray(cell[..., 0] if grey else cell)
    if isinstance(cell, Image.Image):
        if cell.mode not in _MODES:
            raise BadImage(
                f"an open picture must have a mode in {_MODES}, got {cell.mode!r}; "
                "pass its path, or the bytes of its file"
            )
        # How the picture is to be turned, if anything says so, goes along.
        png = BytesIO()
        cell.save(png, "PNG", compress_level=1, exif=cell.getexif())
        return {"bytes": png.getvalue(), "path": None}
    if isinstance(cell, str | os.PathLike):
        return {"bytes": None, "path": os.fspath(cell)}
    return {"bytes": bytes(cell), "path": None}
