"""Fitted classifiers as folders of JSON and safetensors: nothing in them is executed.

A folder is complete at any moment: files are written under names of their own, then
``robustmm.json``, which says which of them count, takes the old one's place in one
step, and then what nobody names any more is removed.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._version import __version__
from ..backbones import save_checkpoint
from ..base import BaseMultimodalClassifier
from ..data.screening import warn_of_left_out
from ..storage.files import locked, replace_bytes, sync_folder, write_bytes
from ..storage.fitted import check_names, may_keep
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
from ..storage.left_out import can_pack, without_unstorable
from ..storage.values import pack
from ..table import TableClassifier
from ..training.device import resolve_device
from .foreign import FOREIGN, dump_foreign
from .opening import check_state, has_members, open_folder
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
    clf : BaseMultimodalClassifier, AutoMultimodalClassifier or scikit-learn's
        A fitted classifier, or an estimator of scikit-learn's around some. Of an
        automatic one the members are saved, those that are scikit-learn's with skops,
        and not its ``candidates``, ``cv`` and ``scoring`` where they are objects.
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
        For a parameter that JSON cannot hold; the message names it. Of ``net_params``
        and ``scoring``, what it cannot hold, such as a callback, is left out, with one
        warning. For a member that skops cannot open safely, and for a function that
        cannot be imported by its name, such as a lambda in a ``FunctionTransformer``.
    ImportError
        If something in it is scikit-learn's, and skops is not installed.
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
            "BaseMultimodalClassifier or an AutoMultimodalClassifier, got "
            f"{type(clf).__name__}."
        )
    check_is_fitted(clf)
    document, arrays, parts, tree = _describe(clf)
    dump_document(document)  # raises, before anything is written
    folder = Path(path)
    check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        try:
            _write_backbones(parts, folder, include_backbone, document)
            # A new name each time: the old document goes on meaning the old file until
            # it is replaced, whenever the process is killed.
            token = secrets.token_hex(6)
            document["weights"] = f"weights-{token}.safetensors"
            write_bytes(folder / document["weights"], save_arrays(arrays))
            if tree is not None:
                document["tree"] = f"tree-{token}.skops"
                write_bytes(folder / document["tree"], tree)
            names = [document[k] for k in ("weights", "tree") if k in document]
            document["files"] |= facts(folder, names)
            # The document must not reach the disk before what it names.
            sync_folder(folder)
            replace_bytes(folder / DOCUMENT, dump_document(document))
        finally:
            remove_unnamed(folder)


def load(
    path: str | Path,
    device: str = "auto",
    classes: Iterable[type[TableClassifier]] = (),
    *,
    trust_net_params: bool = False,
    trusted: Iterable[str | type] = (),
) -> BaseMultimodalClassifier | Any:
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
    classifier, or estimator of scikit-learn's
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
        If something in it is scikit-learn's, and skops is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import robustmm
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(20, n_classes=2, random_state=0)
    >>> clf = robustmm.LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    >>> folder = tempfile.mkdtemp() + "/model"
    >>> robustmm.save(clf, folder)
    >>> robustmm.load(folder, device="cpu").predict(X).shape
    (20,)
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
    """Return the JSON, arrays that it refers to, classifiers in it, and the tree.

    Each classifier comes with the part of the JSON that describes it. The tree is what
    stands around them, if anything does.
    """
    arrays: dict[str, np.ndarray] = {}
    head = {"format": "robustmm", "written_by": __version__, "files": {}}
    if isinstance(clf, TableClassifier):
        document = {"format_version": FORMAT_VERSION, **_model(clf, arrays, ""), **head}
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


def _model(clf: TableClassifier, arrays: dict, place: str) -> dict:
    """Describe a classifier; what its arrays are called begins with ``place``."""
    parameters, left = without_unstorable(clf._saved_parameters(), can_pack)
    if left:
        warn_of_left_out(left, "saved model")
        # A twin: the classifier itself keeps its callbacks.
        clf = copy(clf).set_params(**parameters)
    described = {
        "class": type(clf).__name__,
        "parameters": {k: pack(v, arrays, place + k) for k, v in parameters.items()},
        "backbones": {},
    }
    # Searches and column transformers keep what they cloned, which is not fitted.
    if not hasattr(clf, "classes_"):
        return described
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
    members = state.pop("members_", None) if has_members(type(clf)) else None
    check_state(type(clf), parameters, state)
    described["state"] = {k: pack(v, arrays, place + k) for k, v in state.items()}
    if members is not None:
        described["members"] = [
            {"name": name, **_member(member, arrays, f"{place}members_.{i}.")}
            for i, (name, member) in enumerate(members)
        ]
    return described


def _member(member, arrays: dict, place: str) -> dict:
    if isinstance(member, TableClassifier):
        return _model(member, arrays, place)
    content = np.frombuffer(dump_foreign(member), dtype=np.uint8)
    return {FOREIGN: pack(content, arrays, place + FOREIGN)}


def _write_backbones(parts: list, folder: Path, include: bool, document: dict) -> None:
    """Write frozen models into the folder, each once, or keep those that are there."""
    written: dict[str, str] = {}
    inside = [part for clf, model in parts for part in _parts(clf, model)]
    _write_trained(inside, folder, include, document, written)
    # What was cloned and not fitted names the same ones.
    for clf, model in inside:
        for parameter in () if hasattr(clf, "net_") else clf.get_params(deep=False):
            source = parameter.endswith("backbone") and str(clf._pinned(parameter))
            if source in written:
                model["backbones"][parameter] = written[source]


def _write_trained(
    parts: list, folder: Path, include: bool, document: dict, written: dict[str, str]
) -> None:
    for part, model in parts:
        if not hasattr(part, "net_"):
            continue
        backbone = part.net_.module_.backbone
        for parameter, value in part.get_params(deep=False).items():
            source = str(part._pinned(parameter))
            if source not in backbone.sources.values():
                continue
            name = written.get(source) or _place_of(value, folder, parameter)
            inside = _same(Path(value).parent, folder)
            inside = inside and BACKBONE.fullmatch(Path(value).name)
            if not inside and include and source not in written:
                _write_backbone(backbone, source, folder / name)
            elif not inside and not include:
                continue
            written[source] = name
            model["backbones"][parameter] = name
            files = [f"{name}/{file}" for file in sorted(os.listdir(folder / name))]
            document["files"] |= facts(folder, files)


def _place_of(value, folder: Path, parameter: str) -> str:
    """Return the name of a frozen model's folder: that which it has, or a new one."""
    place = Path(value)
    if BACKBONE.fullmatch(place.name) and _same(place.parent, folder):
        return place.name
    return f"{parameter}-{secrets.token_hex(6)}"


def _parts(clf, model: dict) -> Iterator[tuple[BaseMultimodalClassifier, dict]]:
    """Yield classifiers around a net, and what describes them."""
    if isinstance(clf, BaseMultimodalClassifier):
        yield clf, model
    members = getattr(clf, "members_", ())
    for (_, member), inside in zip(members, model.get("members", ()), strict=True):
        yield from _parts(member, inside)


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
