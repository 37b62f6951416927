"""``robustmm predict``: labels for the rows of a table of any length."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .labels import join_labels
from .models import (
    columns_of,
    for_model,
    image_root,
    in_words,
    is_plain,
    open_model,
    patterns_of,
    silent_about_empty_rows,
)
from .settings import UsageError
from .tables import check_new_file, open_rows, read_pieces, table_size

LABEL = "prediction"


def predict(arguments: argparse.Namespace) -> None:
    """Predict piece by piece, so that memory does not grow with the table."""
    if LABEL in arguments.keep:
        raise UsageError(f"--keep must not name {LABEL!r}, the column of labels.")
    if arguments.out is not None:
        check_new_file(arguments.out, arguments.force)
    model = open_model(arguments)
    needed = [*columns_of(model), *arguments.keep]
    counts: Counter = Counter()
    with _bar(arguments) as bar, open_rows(arguments.out, arguments.force) as write:
        pieces = read_pieces(
            arguments.table,
            needed,
            needed if is_plain(model) else arguments.keep,
            rest=not is_plain(model),
            advance=bar.update,
        )
        for piece in pieces:
            counts.update({"rows": len(piece)} | patterns_of(model, piece))
            write(_answers(model, piece, arguments))
    _summarise(counts)


def _bar(arguments: argparse.Namespace) -> tqdm:
    total, unit = table_size(arguments.table)
    return tqdm(
        total=total,
        unit=unit,
        unit_scale=True,
        desc="predict",
        disable=arguments.quiet,
    )


def _answers(model, piece: pd.DataFrame, arguments) -> pd.DataFrame:
    """The columns that are kept, the label and, if asked for, all probabilities."""
    with silent_about_empty_rows():
        X = for_model(model, piece, image_root(arguments))
        labels = model.predict(X)
        columns = {LABEL: labels}
        if labels.ndim == 2:
            separator = arguments.labels_separator
            columns = {LABEL: join_labels(labels, model.classes_, separator)}
        if arguments.proba:
            names = [f"proba_{name}" for name in model.classes_]
            proba = np.asarray(model.predict_proba(X))
            columns |= dict(zip(names, proba.T, strict=True))
    return piece[arguments.keep].assign(**columns)


def _summarise(counts: Counter) -> None:
    """Say on stderr, as stdout may be the table, what the rows were like."""
    n_rows, n_empty = counts.pop("rows", 0), counts["both_missing"]
    words = in_words(counts)
    sys.stderr.write(f"{n_rows} rows predicted{f' ({words})' if words else ''}\n")
    if n_empty:
        warnings.warn(
            f"{n_empty} of {n_rows} rows have neither image nor text: their prediction "
            "is the class prior of the training rows.",
            stacklevel=1,
        )
