"""Saved models as commands open them."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

import robustmm

from ..data.frame import KNOWN_MODALITIES, MODALITIES, pattern_names, read_rows
from ..data.inline import is_inline

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def open_model(arguments: argparse.Namespace):
    """Open the model of a command."""
    model = robustmm.load(arguments.model, device=arguments.device)
    # Commands have bars of their own, over the whole table; and no row comes twice, so
    # that what is kept of it would only take memory.
    options = {"verbose": 0, "cache": None}
    if arguments.on_bad_image is not None:
        options["on_bad_image"] = arguments.on_bad_image
    for part in [model, *(member for _, member in getattr(model, "members_", []))]:
        taken = part.get_params(deep=False)
        part.set_params(**{k: v for k, v in options.items() if k in taken})
    return model


def image_root(arguments: argparse.Namespace) -> str:
    """Return where relative image paths start: as asked, or beside the table."""
    return arguments.image_root or os.path.dirname(os.path.abspath(arguments.table))


def is_plain(model) -> bool:
    """Whether a model reads a column per modality alone; pipelines may read others."""
    return {"image_column", "text_column"} <= set(model.get_params(deep=False))


def columns_of(model) -> list[str]:
    """Return the columns that a table must have, as far as a model says."""
    if is_plain(model):
        return list(_by_modality(model).values())
    return [str(name) for name in getattr(model, "feature_names_in_", [])]


def _by_modality(model) -> dict[str, str]:
    names = getattr(model, "modalities", MODALITIES)
    return {name: getattr(model, f"{name}_column") for name in names}


def for_model(model, table: pd.DataFrame, root: str) -> pd.DataFrame:
    """Return the columns that a model reads, with image paths that start at a root.

    Whole paths, as an ensemble or a pipeline has folders in many places, and a model
    that is moved elsewhere must not look for images where it was fitted.
    """
    X = table[columns_of(model)] if is_plain(model) else table
    parameters = model.get_params(deep=True).items()
    of_files = {f"{name}_column" for name in KNOWN_MODALITIES if name != "text"}
    named = {v for k, v in parameters if k.rpartition("__")[2] in of_files}
    columns = [name for name in named if name in X.columns]
    return X.assign(**{c: [_rooted(cell, root) for cell in X[c]] for c in columns})


def _rooted(cell, root: str):
    # A blank cell and a URL are left to the model, which knows what to say of them.
    is_path = isinstance(cell, str) and cell.strip() and not _URL.match(cell)
    return os.path.join(root, cell) if is_path and not is_inline(cell) else cell


def patterns_of(model, X: pd.DataFrame) -> dict[str, int]:
    """Count rows by what they miss; nothing where the columns are not known."""
    if not is_plain(model):
        return {}
    rows = read_rows(X, columns=_by_modality(model))
    names, patterns = pattern_names(rows.modalities), rows.patterns
    return {name: int((patterns == name).sum()) for name in names}


def in_words(counts: dict[str, int]) -> str:
    """Return counts of patterns as a phrase.

    Examples
    --------
    >>> in_words({"complete": 3, "text_missing": 0, "image_missing": 1})
    '3 complete, 1 image missing'
    """
    parts = [f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n]
    return ", ".join(parts)


@contextmanager
def silent_about_empty_rows() -> Iterator[None]:
    """Leave out a warning that would come with each piece; commands count the rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rows have (neither|no) [a-z ]+: their")
        yield


def several_labels(model, X: pd.DataFrame) -> bool:
    """Whether a model gives each row any number of labels."""
    return np.ndim(model.predict(X.iloc[:1])) == 2


def check_new_model(path: str | os.PathLike, force: bool) -> None:
    """Raise unless a model may be saved to a path."""
    folder = Path(path)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ValueError(f"{str(path)!r} exists; --force replaces a saved model.")
