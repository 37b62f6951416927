"""Parquet files in, parquet files out: a partition is a file, joblib runs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from .answers import (
    PartitionError,
    Question,
    answer_pieces,
    columns_needed,
    empty_answers,
)
from .output import Output, need_parquet
from .packing import Opening, open_model

_FOOTER = 8  # bytes at the end: the length of the metadata before them, and a mark


@dataclass(frozen=True)
class Source:
    """Parquet files of a folder, of a pattern, or one.

    Parameters
    ----------
    url : str
        A path or URL.
    storage_options : dict
        Of the file system.
    """

    url: str
    storage_options: dict = field(default_factory=dict)

    def system(self) -> tuple:
        """Return the file system, and the path in it."""
        from fsspec.core import url_to_fs

        files, base = url_to_fs(self.url, **self.storage_options)
        return files, base.rstrip("/")

    def files(self) -> tuple[str, list[str]]:
        """Return the folder of all files, and their names in order.

        Raises
        ------
        FileNotFoundError
            If there are none.
        """
        files, base = self.system()
        if files.isfile(base):
            found, folder = [base], base.rpartition("/")[0]
        elif files.isdir(base):
            found, folder = files.find(base), base
        else:
            found = files.glob(base)
            folder = os.path.commonpath([os.path.dirname(f) for f in found] or [""])
        names = [file[len(folder) + 1 :] for file in sorted(found)]
        names = [name for name in names if _is_table(name) or folder != base]
        if not names:
            raise FileNotFoundError(f"There are no parquet files in {self.url!r}.")
        return folder, names


def _is_table(name: str) -> bool:
    parts = name.split("/")
    return name.endswith(".parquet") and not any(p[0] in "._" for p in parts if p)


def predict_parquet(
    source: Source,
    output: Output,
    packed: tuple[str, bytes],
    opening: Opening,
    question: Question,
    n_jobs: int | None,
    verbose: bool,
) -> list[str]:
    """Predict each file that is not yet done; return the files of answers."""
    need_parquet()
    digest, content = packed
    if f"{output.url}/".startswith(f"{source.url.rstrip('/')}/"):
        raise ValueError(
            f"output must be outside of the input {source.url!r}, got {output.url!r}: "
            "answers would be read as rows."
        )
    folder, rows, about = _read_footers(source)
    output.begin({"model": digest, **about_question(question), "input": about})
    output.put_model(digest, content)
    done = output.written()
    todo = [(n, name) for n, name in enumerate(rows) if name not in done]
    call = partial(_predict_file, source, folder, output, digest, opening, question)
    total, ready = sum(rows.values()), sum(rows[n] for n in done if n in rows)
    with tqdm(
        desc="predict", total=total, initial=ready, unit="row", disable=not verbose
    ) as bar:
        for n_rows in _run((delayed(call)(n, name) for n, name in todo), n_jobs):
            bar.update(n_rows)
    return output.finish()


def about_question(question: Question) -> dict:
    """Return what answers depend on beside the model and the rows."""
    return {
        "method": question.method,
        "keep": list(question.keep),
        "image_root": question.pictures.root,
    }


def _read_footers(source: Source) -> tuple[str, dict[str, int], str]:
    """Return the folder, the rows of each file, and a sum of names, sizes, footers.

    A footer has the sizes, counts, least and greatest values of all columns.
    """
    import pyarrow.parquet as pq

    files, _ = source.system()
    folder, names = source.files()
    sums, rows = hashlib.blake2b(digest_size=16), {}
    for number, name in enumerate(names):
        path = f"{folder}/{name}"
        try:
            with files.open(path, "rb") as stream:
                rows[name] = pq.ParquetFile(stream).metadata.num_rows
            size = files.size(path)
            length = files.cat_file(path, size - _FOOTER, size - _FOOTER // 2)
            length = int.from_bytes(length, "little")
            footer = files.cat_file(path, size - _FOOTER - length, size)
        except (ValueError, OSError) as error:
            raise _unreadable(number, name, error) from error
        sums.update(repr((name, size)).encode() + footer)
    return folder, rows, sums.hexdigest()


def _unreadable(number: int, name: str, error: Exception) -> PartitionError:
    where, reason = f"{number} ({name})", f"{type(error).__name__}: {error}"
    return PartitionError(where, "all", reason)


def _run(calls: Iterator, n_jobs: int | None) -> Iterator[int]:
    """Results as they come, where the backend of joblib can say so."""
    backend, _ = get_active_backend()
    streams = backend.supports_return_generator
    return_as = "generator_unordered" if streams else "list"
    # One file at a time: a batch of some would be lost as a whole.
    yield from Parallel(n_jobs=n_jobs, return_as=return_as, batch_size=1)(calls)


def _predict_file(
    source: Source,
    folder: str,
    output: Output,
    digest: str,
    opening: Opening,
    question: Question,
    number: int,
    name: str,
) -> int:
    """Predict one file, piece by piece; return its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    model = open_model(digest, partial(output.model, digest), opening)
    files, _ = source.system()
    done = 0
    with files.open(f"{folder}/{name}", "rb") as stream:
        table = pq.ParquetFile(stream)
        schema, columns = _schemas(model, table, question)
        with output.draft(name) as draft, pq.ParquetWriter(draft, schema) as writer:
            for piece in _pieces(table, columns, question.batch_rows, number, name):
                where = f"{number} ({name})"
                for answers in answer_pieces(model, piece, where, question):
                    writer.write_table(pa.Table.from_pandas(answers, schema))
                done += len(piece)
    return done


def _schemas(model, table, question: Question) -> tuple:
    """Return the schema of the answers, and the columns to read."""
    import pyarrow as pa

    known = table.schema_arrow
    blank = known.empty_table().to_pandas()
    columns = columns_needed(model, question, blank.columns)
    answers = empty_answers(model, question, blank[list(question.keep)])
    schema = pa.Schema.from_pandas(answers)
    for name in {*question.keep, *schema.names} & set(known.names):
        # Of a piece without any value no type could be told.
        schema = schema.set(schema.get_field_index(name), known.field(name))
    return schema, columns


def _pieces(table, columns, size: int, number: int, name: str) -> Iterator:
    """Pieces of a file with the labels that pandas gave its rows."""
    done = 0
    try:
        for batch in table.iter_batches(size, columns=_with_index(table, columns)):
            piece = batch.to_pandas()
            if isinstance(piece.index, pd.RangeIndex):
                piece.index = pd.RangeIndex(done, done + len(piece))
            done += len(piece)
            yield piece
    except (ValueError, OSError) as error:
        raise _unreadable(number, name, error) from error


def _with_index(table, columns: list[str]) -> list[str]:
    about = table.schema_arrow.pandas_metadata or {}
    index = [name for name in about.get("index_columns", ()) if isinstance(name, str)]
    return list(dict.fromkeys([*columns, *index]))
