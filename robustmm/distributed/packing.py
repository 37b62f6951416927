"""A fitted model as bytes that are sent once, and opened once in each process."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from ..locks import ForkSafeLock
from ..persistence import load, save
from ..storage.folder import DOCUMENT

# What is random in a saved model: the names of its files, which end in a token.
_NAMED = re.compile(rb"((?:weights|tree|[a-z_]*backbone)-)[0-9a-f]{12}")
# Models that a process keeps open, the least recently used closed first.
_MOST_OPEN = 2
_OPEN: OrderedDict[tuple, Any] = OrderedDict()
_LOCK = ForkSafeLock()


@dataclass(frozen=True)
class Opening:
    """How workers open a model: the options of :func:`robustmm.load`, and a cache."""

    device: str = "auto"
    cache: str | None = None
    options: dict = field(default_factory=dict)


def pack_model(model: BaseEstimator | str | os.PathLike) -> tuple[str, bytes]:
    """Return a name by content of a fitted or saved model, and its files as a ZIP.

    Parameters
    ----------
    model : estimator or path-like
        A fitted one, or the folder that :func:`robustmm.save` made.

    Raises
    ------
    TypeError
        For anything else.
    NotFittedError, FileNotFoundError
        If it is not fitted, or if there is no saved model.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(20, n_classes=2, random_state=0)
    >>> clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    >>> pack_model(clf)[0] == pack_model(clf)[0]
    True
    """
    if isinstance(model, str | os.PathLike):
        return _pack_folder(Path(model))
    if not isinstance(model, BaseEstimator):
        raise TypeError(
            "model must be a fitted classifier or the path of a saved one, got "
            f"{type(model).__name__}."
        )
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder, "model"))
        return _pack_folder(Path(folder, "model"))


def _pack_folder(folder: Path) -> tuple[str, bytes]:
    if not (folder / DOCUMENT).is_file():
        raise FileNotFoundError(
            f"There is no saved model in {str(folder)!r}: it has no {DOCUMENT}."
        )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            packed.write(file, file.relative_to(folder).as_posix())
    # The document lists the sums of all other files, which `load` compares.
    known = _NAMED.sub(rb"\1", (folder / DOCUMENT).read_bytes())
    return hashlib.blake2b(known, digest_size=16).hexdigest(), content.getvalue()


def open_model(digest: str, fetch: Callable[[], bytes], opening: Opening) -> Any:
    """Return the model of this name; its bytes are fetched once per process."""
    key = digest, opening.device, opening.cache
    with _LOCK.held():
        if key not in _OPEN:
            while len(_OPEN) >= _MOST_OPEN:
                _OPEN.popitem(last=False)
            _OPEN[key] = unpack_model(fetch(), opening)
        _OPEN.move_to_end(key)
        return _OPEN[key]


def unpack_model(content: bytes, opening: Opening) -> Any:
    """Open a model from its ZIP; nothing in it is executed."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            packed.extractall(folder)
        # All is read by the end of it: no file is left to who is killed later.
        model = load(folder, opening.device, **opening.options)
    # The whole has a bar of its own, and no row comes twice unless the user says so.
    options = {"verbose": 0, "cache": opening.cache}
    for part in [model, *(member for _, member in getattr(model, "members_", []))]:
        taken = part.get_params(deep=False)
        part.set_params(**{k: v for k, v in options.items() if k in taken})
    return model
