"""Spark DataFrames: answered by ``mapInPandas`` in Spark's own Python workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from .answers import Question, answer_partition, columns_needed, empty_answers
from .packing import Opening, open_model

# By the kind of a NumPy type; what texts are kept as is not a NumPy type.
_TYPES = {"i": "long", "u": "long", "f": "double", "b": "boolean"}
_TYPES |= {"M": "timestamp_ntz"}


def predict_spark(
    frame, packed: tuple[str, bytes], model, opening: Opening, question: Question
):
    """Return the Spark DataFrame of the answers, in the order of ``frame``."""
    from pyspark.sql.types import StructType

    digest, content = packed
    columns = columns_needed(model, question, frame.columns)
    kept = [frame.schema[name] for name in question.keep]
    blank = pd.DataFrame(columns=list(question.keep), dtype=object)
    answers = empty_answers(model, question, blank).dtypes[len(kept) :]
    schema = StructType(kept)
    for name, dtype in answers.items():
        schema = schema.add(name, _TYPES.get(dtype.kind, "string"))
    answer = answer_batches(_sent(frame, content), digest, opening, question)
    return frame.select(*map(_quoted, columns)).mapInPandas(answer, schema)


def _quoted(name: str) -> str:
    # A dot would mean a field of a structure.
    return "`" + name.replace("`", "``") + "`"


def _sent(frame, content: bytes) -> Callable[[], bytes]:
    """Return what gives the bytes in a worker; each machine gets them once."""
    context = getattr(frame.sparkSession, "sparkContext", None)
    if context is None:  # Spark Connect has no broadcasts
        return lambda: content
    sent = context.broadcast(content)
    return lambda: sent.value


def answer_batches(
    fetch: Callable[[], bytes], digest: str, opening: Opening, question: Question
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return a function from the batches of a partition to their answers.

    Rows are named by their place in the partition, as Spark has no labels.
    """

    def answer(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        from pyspark import TaskContext

        task, done = TaskContext.get(), 0
        number = task.partitionId() if task else 0  # outside of Spark there is no task
        model = open_model(digest, fetch, opening)
        for batch in batches:
            batch.index = pd.RangeIndex(done, done + len(batch))
            done += len(batch)
            yield answer_partition(model, batch, number, question)

    return answer
