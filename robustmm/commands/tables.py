"""Tables in files: read as a whole or in pieces, and written in pieces."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
# Rows of a piece: enough for batches of texts of about one length, few enough that
# their images, where the cells hold them, fit into memory.
PIECE = 512


def table_format(path: str | os.PathLike) -> str:
    """Return the format that a file's suffix names.

    Examples
    --------
    >>> table_format("products.CSV")
    '.csv'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"A table must be one of {list(FORMATS)}, got {str(path)!r}.")
    return suffix


def read_table(
    path: str | os.PathLike, needed: Sequence[str], texts: Sequence[str]
) -> pd.DataFrame:
    """Read a table as a whole; see `read_pieces`."""
    pieces = list(read_pieces(path, needed, texts, size=None))
    if not pieces:
        raise ValueError(f"{str(path)!r} must have a row at least, got none.")
    return pd.concat(pieces)


def read_pieces(
    path: str | os.PathLike,
    needed: Sequence[str],
    texts: Sequence[str],
    *,
    rest: bool = True,
    size: int | None = PIECE,
    advance: Callable[[int], object] = lambda n: None,
) -> Iterator[pd.DataFrame]:
    """Read the rows of a table piece by piece; they are numbered from 0.

    In a text file only an empty cell is missing: a caption "None" or "NA" is a caption.

    Parameters
    ----------
    path : path-like
        A file of one of `FORMATS`.
    needed : sequence of str
        Columns that must be there.
    texts : sequence of str
        Columns that are texts even where they look like numbers.
    rest : bool
        Whether other columns are read, too.
    size : int or None
        Rows of a piece; None reads all at once.
    advance : callable
        Told after each piece how much of `table_size` has been read since the last.

    Raises
    ------
    ValueError
        If the file is no table of its format, or lacks a column.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no table {str(path)!r}.")
    kind = table_format(path)
    read = {".jsonl": _json_lines, ".parquet": _parquet}.get(
        kind, partial(_delimited, separator=SEPARATORS.get(kind))
    )
    start = 0
    with _reasons(path):
        for piece, done in read(path, needed, texts, rest, size):
            if not rest:
                piece = piece.loc[:, list(dict.fromkeys(needed))]
            piece.index = pd.RangeIndex(start, start := start + len(piece))
            if len(piece):
                yield piece
            advance(done)


def table_size(path: str | os.PathLike) -> tuple[int, str]:
    """Return how much there is to read of a table, and in what unit."""
    if table_format(path) != ".parquet":
        return os.path.getsize(path), "B"
    with _reasons(path):
        return _parquet_file(path).metadata.num_rows, "row"


@contextmanager
def _reasons(path) -> Iterator[None]:
    """Name the file where a library only says what is wrong with it."""
    try:
        yield
    except (ValueError, UnicodeDecodeError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


def _delimited(path, needed, texts, rest, size, separator):
    # Of the first line only: which columns a piece has is not what the file has.
    names = pd.read_csv(path, sep=separator, nrows=0).columns.tolist()
    _check_columns(path, needed, names)
    options = {
        "sep": separator,
        "dtype": {name: str for name in texts if name in names},
        "keep_default_na": False,
        "na_values": [""],
        "usecols": None if rest else list(dict.fromkeys(needed)),
    }
    with open(path, "rb") as stream:
        if size is None:
            yield pd.read_csv(stream, low_memory=False, **options), 0
            return
        yield from _told(stream, pd.read_csv(stream, chunksize=size, **options))


def _json_lines(path, needed, texts, rest, size):
    with open(path, "rb") as stream:
        for number, (piece, done) in enumerate(_told(stream, _objects(stream, size))):
            # A key that only some rows have may be absent from a later piece.
            if number == 0:
                _check_columns(path, needed, piece.columns.tolist())
            absent = [name for name in needed if name not in piece.columns]
            yield piece.assign(**dict.fromkeys(absent)), done


def _objects(stream, size):
    """Frames of up to ``size`` lines, an object each; read_json would find dates."""
    before = 0
    while lines := list(itertools.islice(stream, size)):
        parsed = [_object(line, before + i) for i, line in enumerate(lines, 1)]
        yield pd.DataFrame([row for row in parsed if row is not None])
        before += len(lines)


def _object(line: bytes, number: int) -> dict | None:
    if not line.strip():
        return None
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} must be an object, got {type(row).__name__}")
    return row


def _told(stream, pieces):
    """Each piece, with the bytes that were read for it."""
    before = 0
    for piece in pieces:
        yield piece, stream.tell() - before
        before = stream.tell()


def _parquet(path, needed, texts, rest, size):
    file = _parquet_file(path)
    names = file.schema_arrow.names
    _check_columns(path, needed, names)
    columns = None if rest else list(dict.fromkeys(needed))
    rows = size or max(1, file.metadata.num_rows)
    for batch in file.iter_batches(rows, columns=columns):
        yield batch.to_pandas(), len(batch)


def _parquet_file(path):
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(
            "Tables in .parquet need pyarrow: pip install pyarrow."
        ) from error
    return ParquetFile(path)


def _check_columns(path, needed: Sequence[str], names: list[str]) -> None:
    if absent := [name for name in needed if name not in names]:
        raise ValueError(
            f"{str(path)!r} must have a column {absent[0]!r}, its columns are {names}."
        )


@contextmanager
def open_rows(
    path: str | os.PathLike | None, force: bool = False
) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write rows piece by piece: into a new file, or to stdout as CSV where it is None.

    The file has its name only once all went well. What is yielded takes a piece.

    Raises
    ------
    ValueError
        If the file's suffix is none of `FORMATS`, or it exists and ``force`` is false.
    """
    if path is None:
        yield partial(_write_delimited, sys.stdout, ",", [])
        return
    check_new_file(path, force)
    # In the same folder, as a file cannot be renamed across file systems.
    draft = Path(f"{path}.{secrets.token_hex(4)}.part")
    try:
        with _WRITERS[table_format(path)](draft) as write:
            yield write
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def check_new_file(path: str | os.PathLike, force: bool) -> None:
    """Raise unless rows may be written to a path."""
    table_format(path)
    if os.path.exists(path) and not force:
        raise ValueError(f"{str(path)!r} exists; --force replaces it.")


def _write_delimited(stream, separator, told: list, frame: pd.DataFrame) -> None:
    frame.to_csv(stream, sep=separator, header=not told, index=False)
    told.append(True)


@contextmanager
def _delimited_writer(path, separator: str):
    with open(path, "w", encoding="utf-8", newline="") as stream:
        yield partial(_write_delimited, stream, separator, [])


@contextmanager
def _json_writer(path):
    with open(path, "w", encoding="utf-8") as stream:
        yield partial(_write_json, stream)


def _write_json(stream, frame: pd.DataFrame) -> None:
    frame.to_json(stream, orient="records", lines=True, force_ascii=False)


@contextmanager
def _parquet_writer(path):
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writers: list = []

    def write(frame: pd.DataFrame) -> None:
        schema = writers[0].schema if writers else None
        table = pyarrow.Table.from_pandas(frame, schema, preserve_index=False)
        if not writers:
            writers.append(ParquetWriter(path, table.schema))
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


_WRITERS = {
    ".csv": partial(_delimited_writer, separator=","),
    ".tsv": partial(_delimited_writer, separator="\t"),
    ".jsonl": _json_writer,
    ".parquet": _parquet_writer,
}
