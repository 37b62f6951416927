"""Fitted classifiers as folders of JSON and safetensors: nothing in them is executed.

A folder is complete at any moment: files are written under names of their own, then
``robustmm.json``, which says which of them count, takes the old one's place in one
step, and then what nobody names any more is removed.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from sklearn.utils.validation import check_is_fitted

from ._version import __version__
from .backbones import save_checkpoint
from .base import BaseMultimodalClassifier
from .storage.files import locked, replace_bytes, sync_folder, write_bytes
from .storage.folder import (
    BACKBONE,
    DOCUMENT,
    FORMAT_VERSION,
    IN_BACKBONE,
    check_files,
    check_replaceable,
    facts,
    included_backbones,
    named,
    read_document,
    remove_unnamed,
)
from .storage.values import pack, unpack
from .training.device import resolve_device

_STATE_NAME = re.compile(r"_?[a-z][a-z0-9_]*")
# What scikit-learn keeps beside the parameters: classes of its own and of callbacks.
_NOT_SAVED = ("_metadata_request", "_skl_callbacks", "_sklearn_version")


def save(
    clf: BaseMultimodalClassifier, path: str | Path, include_backbone: bool = False
) -> None:
    """Save a fitted classifier as a folder that :func:`load` opens without pickle.

    The folder holds parameters, labels and trained tensors. Frozen weights are named,
    by hub id or path and by fingerprint, unless they are included. Saving again to the
    same folder replaces the model in one step: whenever the process is killed, the
    folder holds the old model or the new one. Callbacks and metadata requests of
    scikit-learn are not saved.

    Parameters
    ----------
    clf : BaseMultimodalClassifier
        A fitted classifier.
    path : path-like
        A folder: a new one, an empty one, or a saved model to replace.
    include_backbone : bool
        Also write the frozen weights (as float32 safetensors), tokenizer and image
        settings into the folder, which then opens on a machine without the hub.

    Raises
    ------
    NotFittedError
        If the classifier is not fitted.
    TypeError
        For a parameter that JSON cannot hold, such as a callback in ``net_params``;
        the message names it.
    ValueError
        If the folder holds anything else, or the backbone's files have changed.

    Examples
    --------
    >>> import os, tempfile
    >>> from robustmm import CMPTClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(24, n_classes=2, random_state=0)
    >>> clf = CMPTClassifier("robustmm/tiny-clip", "robustmm/tiny-bert", max_epochs=1)
    >>> folder = os.path.join(tempfile.mkdtemp(), "model")
    >>> save(clf.fit(X, y), folder)
    >>> bool((load(folder).predict(X) == clf.predict(X)).all())
    True
    """
    if not isinstance(clf, BaseMultimodalClassifier):
        raise TypeError(
            f"clf must be a BaseMultimodalClassifier, got {type(clf).__name__}."
        )
    check_is_fitted(clf)
    document, arrays = _describe(clf)
    folder = Path(path)
    check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        try:
            _write_backbones(clf, folder, include_backbone, document)
            # A new name each time: the old document goes on meaning the old file until
            # it is replaced, whenever the process is killed.
            name = f"weights-{secrets.token_hex(6)}.safetensors"
            write_bytes(folder / name, save_arrays(arrays))
            document["weights"] = name
            document["files"] |= facts(folder, [name])
            # The document must not reach the disk before what it names.
            sync_folder(folder)
            text = json.dumps(document, indent=1, allow_nan=False)
            replace_bytes(folder / DOCUMENT, text.encode())
        finally:
            remove_unnamed(folder)


def load(
    path: str | Path,
    device: str = "auto",
    classes: Iterable[type[BaseMultimodalClassifier]] = (),
) -> BaseMultimodalClassifier:
    """Open a classifier that :func:`save` has written; nothing in it is executed.

    The folder's files are read as JSON and safetensors after their names, sizes and
    hashes have been compared with the folder's list. Safe for models from strangers as
    far as running code is concerned; one may still ask for much memory, or name a
    backbone that is looked up on the hub.

    Parameters
    ----------
    path : path-like
        The folder.
    device : str
        Where the classifier computes from now on: its ``device`` parameter.
    classes : iterable of type
        Classifiers of your own that the folder may hold; robustmm's are known.

    Returns
    -------
    BaseMultimodalClassifier
        With ``cache`` and ``checkpoint_dir``, if they were folders, back at their
        defaults; an included backbone's parameter is its folder.

    Raises
    ------
    FileNotFoundError
        If there is no saved model under the path.
    OSError
        If the backbone cannot be found.
    ValueError
        If the folder is damaged, incomplete, of a newer format or of an unknown class,
        or if the backbone differs from the one of the training.
    """
    # First: a wrong device is the caller's mistake and not the folder's.
    resolve_device(device)
    folder = Path(path)
    document = read_document(folder)
    cls = _find_class(document["class"], classes)
    check_files(folder, document)
    try:
        arrays = load_arrays((folder / document["weights"]).read_bytes())
        parameters, state = (
            {name: unpack(value, arrays) for name, value in document[part].items()}
            for part in ("parameters", "state")
        )
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"The model in {named(folder)} is damaged: {error}") from error
    parameters |= _of_this_machine(parameters, device)
    parameters |= included_backbones(folder, document, parameters)
    clf = _make(cls, parameters, document)
    _check_state(clf, state)
    try:
        clf.__setstate__(vars(clf) | state)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever a forged value leads to
        raise ValueError(
            f"The model in {named(folder)} is not a fitted {cls.__name__}: {error!r}"
        ) from error
    return clf


# Saving ------------------------------------------------------------------------------


def _describe(clf: BaseMultimodalClassifier) -> tuple[dict, dict[str, np.ndarray]]:
    """Return what goes into the JSON, and the arrays that it refers to."""
    parameters, arrays = clf.get_params(deep=False), {}
    # A method may leave parameters of the base class at values of its own.
    given = vars(type(clf)(**parameters))
    state = {
        name: value
        for name, value in clf.__getstate__().items()
        if name not in given and name not in _NOT_SAVED
    }
    # For pickles; the document says it as "written_by".
    state.pop("_robustmm_version")
    document = {
        "format": "robustmm",
        "format_version": FORMAT_VERSION,
        "written_by": __version__,
        "class": type(clf).__name__,
        "parameters": {k: pack(v, arrays, k) for k, v in parameters.items()},
        "backbones": {},
        "state": {k: pack(v, arrays, k) for k, v in state.items()},
        "files": {},
    }
    return document, arrays


def _write_backbones(
    clf: BaseMultimodalClassifier, folder: Path, include: bool, document: dict
) -> None:
    """Write frozen models into the folder, or keep the ones that are there."""
    backbone = clf.net_.module_.backbone
    for parameter, value in clf.get_params(deep=False).items():
        if str(value) not in backbone.sources.values():
            continue
        place = Path(value)
        name = f"{parameter}-{secrets.token_hex(6)}"
        if BACKBONE.fullmatch(place.name) and _same(place.parent, folder):
            name = place.name
        elif include:
            _write_backbone(backbone, str(value), folder / name)
        else:
            continue
        document["backbones"][parameter] = name
        inside = [f"{name}/{file}" for file in sorted(os.listdir(folder / name))]
        document["files"] |= facts(folder, inside)


def _write_backbone(backbone, source: str, folder: Path) -> None:
    save_checkpoint(backbone, source, folder)
    for file in folder.iterdir():
        if IN_BACKBONE.fullmatch(file.name):
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
        else:
            file.unlink()
    sync_folder(folder)


def _same(one: Path, other: Path) -> bool:
    return one.is_dir() and os.path.samefile(one, other)


# Opening -----------------------------------------------------------------------------


def _find_class(
    name: str, classes: Iterable[type[BaseMultimodalClassifier]]
) -> type[BaseMultimodalClassifier]:
    known = {
        cls.__name__: cls for cls in [*_public(BaseMultimodalClassifier), *classes]
    }
    if name not in known:
        raise ValueError(
            f"The class of a saved model must be one of {sorted(known)}, got {name!r}; "
            "pass a class of your own as classes=[...]."
        )
    return known[name]


def _public(cls: type) -> Iterable[type]:
    for child in cls.__subclasses__():
        # A stranger's subclass counts only if it is passed: a folder must not choose
        # among all that happens to be imported.
        if child.__module__.startswith("robustmm.") and not inspect.isabstract(child):
            yield child
        yield from _public(child)


def _of_this_machine(parameters: dict, device: str) -> dict:
    """Return the parameters that do not travel with a model."""
    local = {"device": device, "checkpoint_dir": None}
    if parameters.get("cache") is not None:
        local["cache"] = "memory"
    return {name: value for name, value in local.items() if name in parameters}


def _make(cls: type, parameters: dict, document: dict) -> BaseMultimodalClassifier:
    try:
        return cls(**parameters)
    except TypeError as error:
        raise ValueError(
            f"The model was saved by robustmm {document.get('written_by')!r}, whose "
            f"{cls.__name__} has other parameters than that of robustmm "
            f"{__version__}: {error}."
        ) from error


def _check_state(clf: BaseMultimodalClassifier, state: dict) -> None:
    for name in state:
        known = name in vars(clf) or hasattr(type(clf), name)
        if known or not _STATE_NAME.fullmatch(name):
            raise ValueError(f"No fitted {type(clf).__name__} sets {name!r}.")
    if not isinstance(state.get("_trained"), dict):
        raise ValueError("A saved model must hold what was trained, got none.")
