"""Fitted classifiers as folders of JSON and safetensors: nothing in them is executed.

A folder is complete at any moment: files are written under names of their own, then
``robustmm.json``, which says which of them count, takes the old one's place in one
step, and then what nobody names any more is removed.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_arrays
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._version import __version__
from ..backbones import save_checkpoint
from ..base import BaseMultimodalClassifier
from ..storage.files import locked, replace_bytes, sync_folder, write_bytes
from ..storage.fitted import check_fitted, check_names, check_tensors, may_keep
from ..storage.folder import (
    BACKBONE,
    COMPOSITION_VERSION,
    DOCUMENT,
    FORMAT_VERSION,
    check_replaceable,
    dump_document,
    facts,
    may_be_in_backbone,
    named,
    remove_unnamed,
    while_saved,
)
from ..storage.values import pack
from ..training.device import resolve_device
from .opening import open_folder
from .tree import dump_tree, take_apart

# What scikit-learn keeps beside the parameters: classes of its own and of callbacks.
_NOT_SAVED = (
    *("_metadata_request", "_skl_callbacks", "_sklearn_version"),
    "_robustmm_version",
)


def save(clf: BaseEstimator, path: str | Path, include_backbone: bool = False) -> None:
    """Save a fitted classifier as a folder that :func:`load` opens without pickle.

    Or a ``Pipeline``, ``ColumnTransformer``, search, :class:`OutOfFoldFeatures` or any
    other estimator of scikit-learn's around classifiers: skops writes what is around,
    and each classifier inside is written as if it were alone.

    The folder holds parameters, labels and trained tensors. Frozen weights are named,
    by hub id or path and by fingerprint, unless they are included. Saving again to the
    same folder replaces the model in one step: whenever the process is killed, the
    folder holds the old model or the new one. Callbacks and metadata requests of
    scikit-learn are not saved, and neither is the ``memory`` of a pipeline.

    Parameters
    ----------
    clf : BaseMultimodalClassifier, or estimator of scikit-learn
        Fitted.
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
        the message names it. For a function that cannot be imported by its name, such
        as a lambda in a ``FunctionTransformer``.
    ImportError
        If it is more than a classifier, and skops is not installed.
    ValueError
        If the folder holds anything else, the backbone's files have changed, or the
        model is none that :func:`load` would open: numbers that are not finite, more
        than 100,000 epochs.

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
    if not isinstance(clf, BaseEstimator):
        raise TypeError(
            "clf, or what is inside of a pipeline or search, must be a "
            f"BaseMultimodalClassifier, got {type(clf).__name__}."
        )
    check_is_fitted(clf)
    document, arrays, parts, tree = _describe(clf)
    dump_document(document)  # raises, before anything is written
    folder = Path(path)
    check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        try:
            _write_backbones(parts, folder, include_backbone, document["files"])
            # A new name each time: the old document goes on meaning the old file until
            # it is replaced, whenever the process is killed.
            token = secrets.token_hex(6)
            contents = {
                "weights": (f"weights-{token}.safetensors", save_arrays(arrays))
            }
            if tree is not None:
                contents["tree"] = f"tree-{token}.skops", tree
            for kind, (name, content) in contents.items():
                write_bytes(folder / name, content)
                document[kind] = name
                document["files"] |= facts(folder, [name])
            # The document must not reach the disk before what it names.
            sync_folder(folder)
            replace_bytes(folder / DOCUMENT, dump_document(document))
        finally:
            remove_unnamed(folder)


def load(
    path: str | Path,
    device: str = "auto",
    classes: Iterable[type[BaseMultimodalClassifier]] = (),
    *,
    trust_net_params: bool = False,
    trusted: Iterable[str | type] = (),
) -> BaseEstimator:
    """Open what :func:`save` has written; nothing in it is executed.

    The folder's files are read as JSON and safetensors after their names, sizes and
    hashes have been compared with the folder's list, and sizes that it asks for with
    those of its files before memory is taken. Safe for models from strangers, who may
    still name a backbone that is looked up on the hub, without your token: see the page
    on security. If another process saves into the folder meanwhile, the new model is
    opened.

    Parameters
    ----------
    path : path-like
        The folder.
    device : str
        Where the classifier computes from now on: its ``device`` parameter.
    classes : iterable of type
        Classifiers of your own that the folder may hold; robustmm's are known.
    trust_net_params : bool
        Whether ``net_params``, which reach skorch and PyTorch as they are, are taken
        from the folder. Otherwise they are None, with a warning if they were not.
    trusted : iterable of str or type
        What may stand around classifiers beside scikit-learn's estimators: classes and
        functions, by their full names, which are imported and run. An error names those
        that a folder holds: list them here if you know who wrote it. The trees of a
        forest are among them, as forged ones may crash the process.

    Returns
    -------
    BaseMultimodalClassifier, or estimator of scikit-learn
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
        if the backbone differs from the one of the training, if numbers are not finite
        or not of the sizes that they must have, or if what stands around classifiers is
        neither known nor trusted.
    ImportError
        If it is more than a classifier, and skops is not installed.
    """
    # First: a wrong device is the caller's mistake and not the folder's.
    resolve_device(device)
    if isinstance(trusted, str | bool):
        raise TypeError(f"trusted must be a list of names, got {trusted!r}.")
    folder, classes, trusted = Path(path), list(classes), list(trusted)
    clf, dropped = while_saved(
        folder, partial(open_folder, folder, device, classes, trust_net_params, trusted)
    )
    if dropped:
        warnings.warn(
            f"The net_params of the model in {named(folder)} are left out: "
            "trust_net_params=True takes them, if you know who wrote them.",
            stacklevel=2,
        )
    return clf


def _describe(clf: BaseEstimator) -> tuple[dict, dict, list, bytes | None]:
    """Return the JSON, arrays that it refers to, its classifiers, what is around them.

    A classifier comes with the part of the JSON that describes it.
    """
    arrays: dict[str, np.ndarray] = {}
    head = {"format": "robustmm", "written_by": __version__, "files": {}}
    if isinstance(clf, BaseMultimodalClassifier):
        document = {"format_version": FORMAT_VERSION, **_model(clf, arrays, "")}
        document |= head
        return document, arrays, [(clf, document)], None
    tree, found = take_apart(clf)
    members = {key: _model(part, arrays, f"{key}.") for key, part in found.items()}
    document = {
        **head,
        "format_version": COMPOSITION_VERSION,
        "class": type(clf).__name__,
        "members": members,
    }
    parts = [(part, members[key]) for key, part in found.items()]
    return document, arrays, parts, dump_tree(tree)


def _model(clf: BaseMultimodalClassifier, arrays: dict, place: str) -> dict:
    """Describe a classifier; what its arrays are called begins with ``place``."""
    parameters = clf.get_params(deep=False)
    model = {
        "class": type(clf).__name__,
        "parameters": {k: pack(v, arrays, place + k) for k, v in parameters.items()},
        "backbones": {},
    }
    # Searches and column transformers keep what they cloned, which is not fitted.
    if _is_fitted(clf):
        state = _state_of(clf, parameters)
        model["state"] = {k: pack(v, arrays, place + k) for k, v in state.items()}
    return model


def _is_fitted(clf: BaseMultimodalClassifier) -> bool:
    return hasattr(clf, "net_")


def _state_of(clf: BaseMultimodalClassifier, parameters: dict) -> dict:
    """Return what a fit has left, all of which :func:`load` will take."""
    # A method may leave parameters of the base class at values of its own.
    given = vars(type(clf)(**parameters))
    state = {
        name: value
        for name, value in clf.__getstate__().items()
        if name not in given and name not in _NOT_SAVED
    }
    if type(clf).__module__.startswith("robustmm."):
        # A pickle of an earlier release may have left attributes that are none today.
        state = {k: v for k, v in state.items() if may_keep(type(clf), k)}
    check_names(type(clf), state)
    check_fitted(parameters, state)
    check_tensors(state["_trained"]["tensors"])
    return state


def _write_backbones(parts: list, folder: Path, include: bool, files: dict) -> None:
    """Write frozen models into the folder, each once, or keep those that are there."""
    places: dict[tuple, str] = {}
    for clf, model in parts:
        if _is_fitted(clf):
            _write_backbones_of(clf, model, folder, include, places)
    # What was cloned and not fitted names the same ones.
    known = {source: name for (source, _), name in places.items()}
    for clf, model in parts:
        for parameter in () if _is_fitted(clf) else clf.get_params(deep=False):
            name = parameter.endswith("backbone") and str(clf._pinned(parameter))
            if name in known:
                model["backbones"][parameter] = known[name]
    for name in set(places.values()):
        inside = [f"{name}/{file}" for file in sorted(os.listdir(folder / name))]
        files |= facts(folder, inside)


def _write_backbones_of(
    clf: BaseMultimodalClassifier, model: dict, folder: Path, include: bool, places
) -> None:
    backbone = clf.net_.module_.backbone
    for parameter, value in clf.get_params(deep=False).items():
        source = str(clf._pinned(parameter))
        if source not in backbone.sources.values():
            continue
        key, place = (source, backbone.fingerprint), Path(value)
        if BACKBONE.fullmatch(place.name) and _same(place.parent, folder):
            places[key] = place.name
        elif include and key not in places:
            places[key] = f"{parameter}-{secrets.token_hex(6)}"
            _write_backbone(backbone, source, folder / places[key])
        if key in places:
            model["backbones"][parameter] = places[key]


def _write_backbone(backbone, source: str, folder: Path) -> None:
    save_checkpoint(backbone, source, folder)
    for file in folder.iterdir():
        if may_be_in_backbone(file.name):
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
        else:
            file.unlink()
    sync_folder(folder)


def _same(one: Path, other: Path) -> bool:
    return one.is_dir() and os.path.samefile(one, other)
