"""Open a saved model that anyone may have written: compare first, then believe."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file as map_tensors

from .._version import __version__
from ..backbones import fitted_on
from ..backbones.hub import without_token
from ..base import BaseMultimodalClassifier
from ..storage.fitted import check_fitted, check_names, check_tensors
from ..storage.folder import check_files, included_backbones, named, read_document
from ..storage.tensors import check_shapes, without_memory
from ..storage.values import unpack
from ..training.device import RandomStream, resolve_device

# Longer texts have no use, and a table of positions for each token.
_MAX_TEXT_LENGTH = 2**15


def open_folder(
    folder: Path, device: str, classes: list[type], trust_net_params: bool
) -> tuple[BaseMultimodalClassifier, bool]:
    """Return the classifier, and whether it had ``net_params`` that it lost."""
    document = read_document(folder)
    cls = _find_class(document["class"], classes)
    check_names(cls, document["state"])
    check_files(folder, document)
    parameters, state = _unpack(folder, document)
    _check_fitted(cls, parameters, state)
    parameters, state = _keep(parameters, state)
    parameters |= _of_this_machine(parameters, device)
    included = included_backbones(folder, document, parameters)
    parameters |= included | _without_revisions(parameters, included)
    dropped = not trust_net_params and bool(parameters.get("net_params"))
    if dropped:
        parameters["net_params"] = None
    clf = _make(cls, parameters, document)
    try:
        with without_token():
            clf._check_parameters()
            _check_root(parameters.get("image_root"))
            _check_sizes(clf, state)
            clf.__setstate__(vars(clf) | state)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever a forged value leads to
        raise ValueError(
            f"The model in {named(folder)} is not a fitted {cls.__name__}: {error!r}"
        ) from error
    return clf, dropped


def _check_fitted(cls: type, parameters: dict, state: dict) -> None:
    try:
        check_fitted(parameters, state)
    except ValueError as error:
        raise ValueError(f"This is not a fitted {cls.__name__}: {error}") from error


def _find_class(
    name: str, classes: Iterable[type[BaseMultimodalClassifier]]
) -> type[BaseMultimodalClassifier]:
    known = {
        cls.__name__: cls for cls in [*_public(BaseMultimodalClassifier), *classes]
    }
    if name not in known:
        raise ValueError(
            f"The class of a saved model must be one of {sorted(known)}, got "
            f"{name!r:.80}; pass a class of your own as classes=[...]."
        )
    return known[name]


def _public(cls: type) -> Iterable[type]:
    for child in cls.__subclasses__():
        if child.__module__.startswith("robustmm.") and not inspect.isabstract(child):
            yield child
        yield from _public(child)


def _unpack(folder: Path, document: dict) -> tuple[dict, dict]:
    """Return parameters and state, whose arrays are views of a file, not yet read."""
    try:
        mapped = map_tensors(folder / document["weights"])
        arrays = {name: tensor.numpy() for name, tensor in mapped.items()}
        return tuple(
            {name: unpack(value, arrays) for name, value in document[part].items()}
            for part in ("parameters", "state")
        )
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"The model in {named(folder)} is damaged: {error}") from error


def _keep(parameters: dict, state: dict) -> tuple[dict, dict]:
    """Copy what a classifier keeps; the trained tensors are copied into its module."""
    tensors = state["_trained"].pop("tensors", None)
    parameters, state = copy.deepcopy((parameters, state))
    state["_trained"]["tensors"] = tensors
    return parameters, state


def _of_this_machine(parameters: dict, device: str) -> dict:
    """Return the parameters that do not travel with a model."""
    local = {"device": device, "checkpoint_dir": None}
    if parameters.get("cache") is not None:
        local["cache"] = "memory"
    return {name: value for name, value in local.items() if name in parameters}


def _without_revisions(parameters: dict, included: dict) -> dict:
    """Return the revisions that are left: a folder has none."""
    revision = parameters.get("revision")
    if isinstance(revision, dict):
        left = {k: v for k, v in revision.items() if k not in included}
        return {"revision": left or None}
    return {"revision": None} if revision and "backbone" in included else {}


def _make(cls: type, parameters: dict, document: dict) -> BaseMultimodalClassifier:
    try:
        return cls(**parameters)
    except TypeError as error:
        raise ValueError(
            f"The model was saved by robustmm {document.get('written_by')!r:.80}, "
            f"whose {cls.__name__} has other parameters than that of robustmm "
            f"{__version__}: {error}."
        ) from error


def _check_root(root) -> None:
    if not isinstance(root, str | os.PathLike | None):
        raise ValueError(f"image_root must be a path or None, got {root!r:.80}.")


def _check_sizes(clf: BaseMultimodalClassifier, state: dict) -> None:
    """Compare the trained tensors with the module before that is built."""
    length, trained = getattr(clf, "max_text_length", None), state["_trained"]
    if length is not None and length > _MAX_TEXT_LENGTH:
        raise ValueError(
            f"max_text_length must be at most {_MAX_TEXT_LENGTH}, got {length!r:.80}."
        )
    empty = copy.copy(clf)
    vars(empty).update(state)
    device = resolve_device(clf.device)
    known = trained["fingerprint"], type(clf).__name__, trained.get("inputs")
    with fitted_on(*known) as check:
        backbone = check(empty._load_backbone(device))
    with RandomStream(0, device).lent(), without_memory():
        module = empty._build_module(backbone.to("meta"), len(state["classes_"]))
    check_shapes(module, trained["tensors"])
    check_tensors(trained["tensors"])
