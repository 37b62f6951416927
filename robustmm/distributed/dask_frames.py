"""Dask DataFrames: answered lazily, or written partition by partition."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from tqdm.auto import tqdm

from .answers import Question, answer_partition, columns_needed, empty_answers
from .output import Output, need_parquet
from .packing import Opening, open_model
from .parquet import about_question


def predict_dask(
    frame, packed: tuple[str, bytes], model, opening: Opening, question: Question
):
    """Return the Dask DataFrame of the answers, with the partitions of ``frame``."""
    import dask

    digest, content = packed
    columns = columns_needed(model, question, frame.columns)
    kept = frame._meta[list(question.keep)]
    # As a task of its own it is sent to each worker once, not with each partition.
    sent = dask.delayed(content, name=f"model-{digest}", traverse=False)
    return frame[columns].map_partitions(
        _answer,
        sent,
        digest=digest,
        opening=opening,
        question=question,
        meta=empty_answers(model, question, kept),
        enforce_metadata=False,
    )


def _answer(
    part: pd.DataFrame, content, digest, opening, question, partition_info=None
) -> pd.DataFrame:
    number = (partition_info or {}).get("number", 0)
    model = open_model(digest, lambda: content, opening)
    return answer_partition(model, part, number, question)


def write_dask(
    frame,
    output: Output,
    packed: tuple[str, bytes],
    model,
    opening: Opening,
    question: Question,
    verbose: bool,
) -> list[str]:
    """Predict and write the partitions that are not yet written."""
    import dask

    need_parquet()
    answers = predict_dask(frame, packed, model, opening, question)
    # Of Dask's own making: the same for the same files, or the same table in memory.
    about = {"model": packed[0], **about_question(question)}
    output.begin(about | {"input": frame._name, "partitions": frame.npartitions})
    names = [f"part-{number:05d}.parquet" for number in range(frame.npartitions)]
    done = output.written()
    parts = answers.to_delayed()
    write = dask.delayed(_write, pure=False)
    tasks = [
        write(output, name, part)
        for name, part in zip(names, parts, strict=True)
        if name not in done
    ]
    ready = len(names) - len(tasks)
    with tqdm(
        desc="predict",
        total=len(names),
        initial=ready,
        unit="partition",
        disable=not verbose,
    ) as bar:
        for _ in _run(tasks):
            bar.update()
    return output.finish()


def _write(output: Output, name: str, answers: pd.DataFrame) -> str:
    output.write(name, answers)
    return name


def _run(tasks: list) -> Iterator[str]:
    """Compute tasks where Dask would, and yield their results as they come."""
    client = _client()
    if client is None:
        import dask

        # Some at a time, so that the bar moves.
        for start in range(0, len(tasks), 8):
            yield from dask.compute(*tasks[start : start + 8])
        return
    from distributed import as_completed

    for _, result in as_completed(client.compute(tasks), with_results=True):
        yield result


def _client():
    """The client that Dask computes with; None where it uses this process."""
    try:
        from distributed import default_client
    except ImportError:
        return None
    try:
        return default_client()
    except ValueError:
        return None
