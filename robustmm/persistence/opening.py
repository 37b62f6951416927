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
from ..training.device import RandomStream, resolve_device
from .tree import MAX_TREE, load_tree, members_of, put_together

# Longer texts have no use, and a table of positions for each token.
_MAX_TEXT_LENGTH = 2**15


def open_folder(
    folder: Path,
    device: str,
    classes: list[type],
    trust_net_params: bool,
    trusted: list[str | type] = (),
) -> tuple[BaseEstimator, bool]:
    """Return the estimator, and whether it had ``net_params`` that it lost."""
    document = read_document(folder)
    opening = _Opening(folder, document, device, classes, trust_net_params)
    if document["format_version"] == COMPOSITION_VERSION:
        return opening.open_around(trusted), opening.dropped
    cls = _find_class(document["class"], classes)
    check_names(cls, document["state"])
    check_files(folder, document)
    opening.map_arrays()
    return opening.open(document), opening.dropped


class _Opening:
    """One folder while it is opened."""

    def __init__(self, folder, document, device, classes, trust_net_params):
        self.folder, self.document, self.device = folder, document, device
        self.classes, self.trust_net_params = classes, trust_net_params
        self.dropped = False

    def map_arrays(self) -> None:
        """Make views of the file of arrays, which is not yet read."""
        try:
            mapped = map_tensors(self.folder / self.document["weights"])
        except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
            raise self._damage(error) from error
        self.arrays = {name: tensor.numpy() for name, tensor in mapped.items()}

    def open(self, model: dict) -> BaseMultimodalClassifier:
        """Return the fitted classifier that a part of the document describes."""
        cls = _find_class(model["class"], self.classes)
        parameters, state = self._unpack(model)
        _check_fitted(cls, parameters, state)
        parameters, state = _keep(parameters, state)
        clf = self._make(cls, model, parameters)
        try:
            with without_token():
                clf._check_parameters()
                _check_root(clf.get_params(deep=False).get("image_root"))
                _check_sizes(clf, state)
                clf.__setstate__(vars(clf) | state)
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever a forged value leads to
            raise ValueError(
                f"The model in {named(self.folder)} is not a fitted {cls.__name__}: "
                f"{error!r}"
            ) from error
        return clf

    def open_around(self, trusted: list[str | type]) -> BaseEstimator:
        """Return what stands around classifiers, with these in their places."""
        folder, document = self.folder, self.document
        models = list(document["members"].values())
        for model in models:
            self._check_model(model)
        check_files(folder, document)
        _check_shared(models)
        self.map_arrays()
        tree = load_tree(read_bytes(folder / document["tree"], MAX_TREE), trusted)
        places = {member.__dict__.get("key"): member for member in members_of(tree)}
        self._check_places(tree, places)
        found = {}
        for key, member in places.items():
            model = document["members"][key]
            found[id(member)] = self._open_member(model)
        return put_together(tree, found)

    def _open_member(self, model: dict) -> BaseMultimodalClassifier:
        if "state" in model:
            return self.open(model)
        cls = _find_class(model["class"], self.classes)
        parameters, _ = self._unpack(model)
        return self._make(cls, model, copy.deepcopy(parameters))

    def _check_model(self, model) -> None:
        """Raise unless this describes a classifier, before any file is read."""
        model = model if isinstance(model, dict) else {}
        kinds = {"class": str, "parameters": dict}
        kinds |= {"state": dict} if "state" in model else {}
        if not all(isinstance(model.get(k), kind) for k, kind in kinds.items()):
            raise self._damage("a member lacks its class, parameters or state")
        cls = _find_class(model["class"], self.classes)
        check_names(cls, model.get("state", {}))

    def _check_places(self, tree: BaseEstimator, places: dict) -> None:
        """Raise unless each described classifier has one place in the tree."""
        expected, count = self.document["members"], len(members_of(tree))
        right = type(tree).__name__ == self.document["class"]
        if not right or set(places) != set(expected) or count != len(expected):
            raise ValueError(
                f"The model in {named(self.folder)} must be a "
                f"{self.document['class']!r:.80} with a place for each of its "
                f"{len(expected)} members, got a {type(tree).__name__} with {count} "
                "places."
            )

    def _make(self, cls: type, model: dict, parameters: dict):
        """Return the classifier with parameters only."""
        parameters |= _of_this_machine(parameters, self.device)
        listed = {**self.document, "backbones": model.get("backbones")}
        included = included_backbones(self.folder, listed, parameters)
        parameters |= included | _without_revisions(parameters, included)
        if not self.trust_net_params and parameters.get("net_params"):
            parameters["net_params"], self.dropped = None, True
        return _make(cls, parameters, self.document)

    def _unpack(self, model: dict) -> tuple[dict, dict]:
        """Return parameters and state, whose arrays are views, not yet read."""
        try:
            return tuple(
                {k: unpack(v, self.arrays) for k, v in model.get(part, {}).items()}
                for part in ("parameters", "state")
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise self._damage(error) from error

    def _damage(self, error) -> ValueError:
        return ValueError(f"The model in {named(self.folder)} is damaged: {error}")


def _check_shared(models: list[dict]) -> None:
    """Raise if an array is named twice: models would take more memory than files."""
    names, waiting = [], list(models)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get(TAG) == "array":
                names.append(str(value.get("name")))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    if len(set(names)) < len(names):
        raise ValueError("No two members of a saved model may name the same array.")


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
