"""Open a saved model that anyone may have written: compare first, then believe."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file as map_tensors
from sklearn.base import BaseEstimator

from .._version import __version__
from ..backbones import fitted_on
from ..backbones.hub import without_token
from ..base import BaseMultimodalClassifier
from ..storage.files import read_bytes
from ..storage.fitted import check_fitted, check_names, check_tensors
from ..storage.folder import (
    COMPOSITION_VERSION,
    check_files,
    included_backbones,
    named,
    read_document,
)
from ..storage.tensors import check_shapes, without_memory
from ..storage.values import TAG, unpack
from ..table import TableClassifier
from ..training.device import RandomStream, resolve_device
from .foreign import FOREIGN, load_foreign
from .tree import MAX_TREE, load_tree, members_of, put_together

# Longer texts have no use, and a table of positions for each token.
_MAX_TEXT_LENGTH = 2**15


def open_folder(
    folder: Path,
    device: str,
    classes: list[type],
    trust_net_params: bool,
    trusted: list[str | type],
) -> tuple[BaseEstimator, bool]:
    """Return the estimator, and whether it had ``net_params`` that it lost."""
    document = read_document(folder)
    around = document["format_version"] == COMPOSITION_VERSION
    models = list(document["members"].values()) if around else [document]
    for model in models:
        _check_model(model, classes, fitted=not around)
    _check_shared(models)
    check_files(folder, document)
    opening = _Opening(folder, document, device, classes, trust_net_params)
    if around:
        return opening.open_around(trusted), opening.dropped
    return opening.open(document), opening.dropped


def has_members(cls: type) -> bool:
    """Tell whether classifiers of a class hold others."""
    return "members_" in cls._KEPT


def _check_model(model: dict, classes: list[type], fitted: bool = True) -> None:
    """Raise unless this describes a classifier, before any file is read.

    One of a search or a column transformer may have no state, as it was not ``fitted``.
    """
    model = model if isinstance(model, dict) else {}
    fitted = fitted or "state" in model
    parts = [model.get(k) for k in ("parameters", "state")[: 1 + fitted]]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("A member of a saved model must have parameters and a state.")
    cls = _find_class(model.get("class"), classes)
    if not fitted:
        return
    check_names(cls, model["state"])
    members = model.get("members")
    if isinstance(members, list) != has_members(cls):
        raise ValueError(f"A saved {cls.__name__} has members, or lacks them.")
    for member in members or ():
        if not isinstance(member, dict) or not isinstance(member.get("name"), str):
            raise ValueError("A member of a saved model must have a name.")
        if FOREIGN not in member:
            _check_model(member, classes)


class _Opening:
    """One folder while it is opened."""

    def __init__(self, folder, document, device, classes, trust_net_params):
        self.folder, self.document, self.device = folder, document, device
        self.classes, self.trust_net_params = classes, trust_net_params
        self.arrays = self._map_arrays()
        self.dropped = False

    def open_around(self, trusted: list[str | type]) -> BaseEstimator:
        """Return what stands around classifiers, with these in their places."""
        expected = self.document["members"]
        content = read_bytes(self.folder / self.document["tree"], MAX_TREE)
        tree = load_tree(content, trusted)
        members = members_of(tree)
        places = {vars(member).get("key"): member for member in members}
        right = type(tree).__name__ == self.document["class"]
        if not right or set(places) != set(expected) or len(members) != len(expected):
            raise ValueError(
                f"The model in {named(self.folder)} must be a "
                f"{self.document['class']!r:.80} with a place for each of its "
                f"{len(expected)} members, got a {type(tree).__name__} with "
                f"{len(members)} places."
            )
        found = {id(member): self.open(expected[key]) for key, member in places.items()}
        return put_together(tree, found)

    def open(self, model: dict) -> TableClassifier:
        """Return the classifier that a part of the document describes."""
        cls = _find_class(model["class"], self.classes)
        parameters, state = self._unpack(model)
        if "state" in model:
            _check_fitted(cls, parameters, state)
        parameters, state = _keep(parameters, state)
        parameters |= _of_this_machine(parameters, self.device)
        listed = {**self.document, "backbones": model.get("backbones")}
        included = included_backbones(self.folder, listed, parameters)
        parameters |= included | _without_revisions(parameters, included)
        if not self.trust_net_params and parameters.get("net_params"):
            parameters["net_params"], self.dropped = None, True
        clf = _make(cls, parameters, self.document)
        if "state" in model:
            self._restore(clf, model, state)
        return clf

    def _restore(self, clf: TableClassifier, model: dict, state: dict) -> None:
        """Set what a fit left, after it was compared with what it can be."""
        cls = type(clf)
        if has_members(cls):
            state["members_"] = [self._member(m) for m in model["members"]]
        try:
            with without_token():
                clf._check_parameters()
                _check_root(vars(clf).get("image_root"))
                if isinstance(clf, BaseMultimodalClassifier):
                    _check_sizes(clf, state)
                else:
                    cls._check_saved(state)
                clf.__setstate__(vars(clf) | state)
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever a forged value leads to
            raise ValueError(
                f"The model in {named(self.folder)} is not a fitted {cls.__name__}: "
                f"{error!r}"
            ) from error

    def _member(self, model: dict) -> tuple:
        if FOREIGN not in model:
            return model["name"], self.open(model)
        content = unpack(model[FOREIGN], self.arrays)
        return model["name"], load_foreign(content)

    def _map_arrays(self) -> dict:
        """Return views of the file of arrays, which is not yet read."""
        try:
            mapped = map_tensors(self.folder / self.document["weights"])
            return {name: tensor.numpy() for name, tensor in mapped.items()}
        except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
            raise self._damage(error) from error

    def _unpack(self, model: dict) -> tuple[dict, dict]:
        """Return parameters and state, whose arrays are such views."""
        try:
            return tuple(
                {
                    name: unpack(value, self.arrays)
                    for name, value in model.get(part, {}).items()
                }
                for part in ("parameters", "state")
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise self._damage(error) from error

    def _damage(self, error: Exception) -> ValueError:
        return ValueError(f"The model in {named(self.folder)} is damaged: {error}")


def _check_shared(value) -> None:
    """Raise if an array is named twice: models would take more memory than files."""
    names, waiting = [], [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get(TAG) == "array":
                names.append(str(value.get("name")))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    if len(set(names)) < len(names):
        raise ValueError("No two parts of a saved model may name the same array.")


def check_state(cls: type, parameters: dict, state: dict) -> None:
    """Raise ValueError unless what is saved can be a fitted classifier of a class."""
    has_net = issubclass(cls, BaseMultimodalClassifier)
    check_fitted(parameters, state, has_net)
    if has_net:
        check_tensors(state["_trained"]["tensors"])
    else:
        cls._check_saved(state)


def _check_fitted(cls: type, parameters: dict, state: dict) -> None:
    try:
        check_fitted(parameters, state, issubclass(cls, BaseMultimodalClassifier))
    except ValueError as error:
        raise ValueError(f"This is not a fitted {cls.__name__}: {error}") from error


def _find_class(
    name: str, classes: Iterable[type[TableClassifier]]
) -> type[TableClassifier]:
    known = {cls.__name__: cls for cls in [*_public(TableClassifier), *classes]}
    if not isinstance(name, str) or name not in known:
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


def _keep(parameters: dict, state: dict) -> tuple[dict, dict]:
    """Copy what a classifier keeps; the trained tensors are copied into its module."""
    tensors = state.get("_trained", {}).pop("tensors", None)
    parameters, state = copy.deepcopy((parameters, state))
    if "_trained" in state:
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


def _make(cls: type, parameters: dict, document: dict) -> TableClassifier:
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
