"""Prediction over partitions: of Dask, of Spark, or of files, on engines of others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from .answers import PartitionError as PartitionError
from .answers import Question
from .output import Output
from .packing import Opening, pack_model, unpack_model
from .pictures import Pictures


def predict(
    model: BaseEstimator | str | Path,
    frame: Any,
    *,
    method: str = "predict",
    output: str | Path | None = None,
    keep: Sequence[str] = (),
    batch_rows: int = 512,
    image_root: str | Path | None = None,
    storage_options: dict | None = None,
    device: str = "auto",
    cache: str | Path | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    **load_options,
) -> Any:
    """Predict a table that lies in partitions, each where it is.

    The model is saved with :func:`robustmm.save`, sent once to each worker and opened
    once in each process. Index and order of the rows stay. A row's answer is what
    ``model.predict`` gives it, up to the rounding of another batch.

    Parameters
    ----------
    model : estimator or path-like
        A fitted one, or the folder of a saved one.
    frame : Dask DataFrame, Spark DataFrame, or path of parquet files
        Of files: a folder, a pattern with ``*``, or one file, also on a file system of
        fsspec's (``"s3://bucket/shop"``). A file is a partition; joblib runs them,
        ``n_jobs`` at a time or on the engine of ``joblib.parallel_config``.
    method : {"predict", "predict_proba", "decision_function"}
        What to ask the model. Columns are ``prediction``, or ``proba_`` and
        ``decision_`` with the class; of several labels ``prediction_`` with the class,
        and of two classes one ``decision``.
    output : path-like, optional
        A new folder of parquet files, one for each partition; needed for files, not
        for Spark. Called again after an interruption, only partitions that are not
        there are predicted.
    keep : sequence of str
        Columns to return beside the answers, such as a key.
    batch_rows : int
        Rows that a worker holds decoded at a time.
    image_root : path-like, optional
        Where relative image paths start, in the place of the model's own. If it is a
        URL of fsspec's, pictures below it are fetched, and no others.
    storage_options : dict, optional
        Of the file systems of all URLs that are given here, such as keys.
    device : str
        Where workers compute.
    cache : {"memory", None} or path-like
        Whether workers keep decoded images and frozen features, for tables in which
        they repeat; a folder is shared by all.
    n_jobs : int, optional
        Files at a time, of parquet files only; Dask and Spark have workers of their
        own.
    verbose : int
        1 shows a bar where ``output`` is written.
    **load_options
        For :func:`robustmm.load` in each worker: ``classes``, ``trusted`` and
        ``trust_net_params``.

    Returns
    -------
    Dask DataFrame, Spark DataFrame, or list of str
        Lazy frames of the kind of ``frame``, with its partitions; with ``output``, the
        files of it.

    Raises
    ------
    PartitionError
        When it is computed: the number of a partition that cannot be predicted, and
        its rows. Spark raises an error of its own, with that message.
    TypeError
        If ``frame`` is nothing of that. A pandas table is for ``model.predict``.
    ValueError
        If a column is absent, or if ``output`` holds answers of another model, another
        input or another question.
    ImportError
        If pyarrow is not installed, and is needed.

    Examples
    --------
    >>> import os, tempfile
    >>> import pandas as pd
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(20, n_classes=2, random_state=0)
    >>> clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    >>> folder = tempfile.mkdtemp()
    >>> X[["text"]].assign(image=None).to_parquet(f"{folder}/texts.parquet")
    >>> files = predict(clf, f"{folder}/texts.parquet", output=f"{folder}/answers")
    >>> pd.read_parquet(files[0]).shape
    (20, 1)
    """
    root = None if image_root is None else os.fspath(image_root)
    options = storage_options or {}
    pictures = Pictures(root, options)
    question = Question(method, tuple(keep), batch_rows, pictures)
    opening = Opening(device, cache, _load_options(model, load_options))
    ask = _engine(frame, output, options, n_jobs, bool(verbose))
    packed = pack_model(model)
    return ask(packed=packed, opening=opening, question=question)


def _load_options(model, given: dict) -> dict:
    """Return the options of a loading, which knows the class of a model in memory."""
    if isinstance(model, str | os.PathLike) or _is_ours(model):
        return given
    return {"classes": [type(model)], **given}


def _is_ours(model) -> bool:
    return type(model).__module__.split(".")[0] in ("robustmm", "sklearn")


def _engine(frame, output, options: dict, n_jobs, verbose: bool):
    """Return the function that asks partitions of this kind."""
    out = None if output is None else Output(os.fspath(output), options)
    if isinstance(frame, str | os.PathLike):
        return partial(_ask_files, os.fspath(frame), out, options, n_jobs, verbose)
    kind = type(frame).__module__.partition(".")[0]
    if kind == "dask" and hasattr(frame, "map_partitions"):
        return partial(_ask_dask, frame, out, verbose)
    if kind == "pyspark" and hasattr(frame, "mapInPandas"):
        return partial(_ask_spark, frame, out)
    raise TypeError(
        "frame must be a Dask DataFrame, a Spark DataFrame or a path of parquet files, "
        f"got {type(frame).__name__}; a table in memory is for model.predict."
    )


def _ask_files(url, out, options, n_jobs, verbose, *, packed, opening, question):
    from .parquet import Source, predict_parquet

    if out is None:
        raise ValueError("output must be a folder for answers to files, got None.")
    source = Source(url, options)
    return predict_parquet(source, out, packed, opening, question, n_jobs, verbose)


def _ask_dask(frame, out, verbose, *, packed, opening, question):
    from .dask_frames import predict_dask, write_dask

    model = _opened_here(packed, opening)
    if out is None:
        return predict_dask(frame, packed, model, opening, question)
    return write_dask(frame, out, packed, model, opening, question, verbose)


def _ask_spark(frame, out, *, packed, opening, question):
    from .spark_frames import predict_spark

    if out is not None:
        raise ValueError(
            f"output must be None for a Spark DataFrame, got {out.url!r}: write what "
            "is returned, as with .write.parquet(path)."
        )
    model = _opened_here(packed, opening)
    return predict_spark(frame, packed, model, opening, question)


def _opened_here(packed, opening: Opening):
    """Open the model as workers will, for its columns: an error comes at once."""
    return unpack_model(packed[1], Opening("cpu", None, opening.options))
