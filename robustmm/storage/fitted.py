"""What a fitted classifier's state may hold: types, sizes, and finite numbers only."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import numpy as np

# What every classifier has after ``fit``; what a method adds is its ``_KEPT``.
_FITTED = {
    *("classes_", "class_prior_", "feature_names_in_", "missing_report_", "n_iter_"),
    *("n_features_in_", "n_parameters_", "n_trainable_parameters_", "_multilabel"),
    *("_trained", "_sklearn_output_config"),
}
_COUNTS = {"n_iter_", "n_features_in_", "n_parameters_", "n_trainable_parameters_"}
_MAPPINGS = {"missing_report_", "_sklearn_output_config"}
# A class of the caller's own may keep anything, but not what others look for.
_FREE = re.compile(
    r"(?!(net_|history_|_skl_callbacks|_metadata_request|_checkpoints|_epoch_tasks)$)"
    r"(?!_sklearn)_?[a-z]\w*"
)
# Every epoch is a dictionary of skorch's again when the model is opened.
MAX_EPOCHS = 100_000
_MAX_COLUMNS = 100
# Beside the trained tensors: labels, frequencies, history.
_MAX_BYTES = 2**26
_NUMBERS = "biuf"


def may_keep(cls: type, name: str) -> bool:
    """Tell whether a fitted classifier of a class sets an attribute, and saves it."""
    if name in _FITTED or name in cls._KEPT:
        return True
    ours = cls.__module__.startswith("robustmm.")
    taken = hasattr(cls, name) or name in inspect.signature(cls).parameters
    return not ours and not taken and _FREE.fullmatch(name) is not None


def check_names(cls: type, state: dict) -> None:
    """Raise ValueError unless a fitted classifier of a class sets these attributes."""
    for name in state:
        if not may_keep(cls, name):
            raise ValueError(f"No fitted {cls.__name__} sets {name!r:.80}.")


def check_fitted(parameters: dict, state: dict, has_net: bool = True) -> None:
    """Raise ValueError unless a state can be that of a fitted classifier.

    Parameters
    ----------
    parameters, state : dict
        Both as they are saved; arrays may be views of a file, and are not read before
        their sizes are known to be small, or to be those of trained tensors.
    has_net : bool
        Whether its class is one around a net, whose tensors are in the state.
    """
    trained = state.get("_trained")
    if not isinstance(trained, dict if has_net else type(None)):
        raise ValueError("A saved model must hold what was trained, got none.")
    rest = {name: value for name, value in (trained or {}).items() if name != "tensors"}
    beside = [parameters, {**state, "_trained": rest}]
    size = sum(array.nbytes for array in _arrays(beside))
    if size > _MAX_BYTES:
        raise ValueError(
            "A saved model must hold labels, history and parameters in at most "
            f"{_MAX_BYTES} bytes, got {size}."
        )
    _check_labels(state)
    _check_columns(state)
    _check_counts(state)
    if not has_net:
        return
    _check_history(trained.get("history"))
    if not isinstance(trained.get("fingerprint"), str):
        raise ValueError("A saved model must name its backbone by a fingerprint.")


def check_tensors(tensors) -> None:
    """Raise ValueError unless trained tensors are arrays of finite numbers, by name."""
    for name, value in _named(tensors, "Trained tensors"):
        if value.dtype.kind not in _NUMBERS:
            raise ValueError(
                f"Trained tensors must be numbers, got {value.dtype} in {name!r:.200}."
            )
        if not _is_finite(value):
            raise ValueError(
                "Trained tensors must be finite numbers, got NaN or infinity in "
                f"{name!r:.200}."
            )


def _check_labels(state: dict) -> None:
    classes, prior = state.get("classes_"), state.get("class_prior_")
    labelled = isinstance(classes, np.ndarray) and classes.ndim == 1 and len(classes)
    if not labelled:
        raise ValueError("classes_ must be an array of labels, and is none.")
    like = isinstance(prior, np.ndarray) and prior.shape == classes.shape
    if not like or prior.dtype.kind != "f" or not _is_part(prior).all():
        raise ValueError(
            "class_prior_ must have a frequency in [0, 1] for each of the "
            f"{len(classes)} classes."
        )
    if not isinstance(state.get("_multilabel"), bool):
        raise ValueError("_multilabel must be true or false.")


def _check_columns(state: dict) -> None:
    names, count = state.get("feature_names_in_"), state.get("n_features_in_")
    if names is None:
        return
    flat = isinstance(names, np.ndarray) and names.ndim == 1
    if not flat or not all(isinstance(name, str) for name in names):
        raise ValueError("feature_names_in_ must be an array of names, and is none.")
    if count != len(names):
        raise ValueError(f"n_features_in_ must be {len(names)}, got {count!r:.80}.")


def _check_counts(state: dict) -> None:
    for name in _COUNTS & set(state):
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"{name} must be a count, got {state[name]!r:.80}.")
    for name in _MAPPINGS & set(state):
        if not isinstance(state[name], dict):
            raise ValueError(f"{name} must be a mapping, got {state[name]!r:.80}.")


def _is_part(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values <= 1 + 1e-6)  # a quotient of two sums; never NaN


def _check_history(history) -> None:
    columns = dict(_named(history, "The history"))
    lengths = {len(values) if values.ndim == 1 else -1 for values in columns.values()}
    long = lengths and max(lengths) > MAX_EPOCHS
    if len(columns) > _MAX_COLUMNS or len(lengths) > 1 or -1 in lengths or long:
        raise ValueError(
            f"The history must have at most {MAX_EPOCHS} epochs, and as many in each "
            f"column, got {sorted(lengths)[:3]}."
        )


def _named(value, what: str) -> Iterator[tuple[str, np.ndarray]]:
    named = isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(array, np.ndarray)
        for name, array in value.items()
    )
    if not named:
        raise ValueError(f"{what} must be arrays by name.")
    yield from value.items()


def _is_finite(array: np.ndarray) -> bool:
    # A sum needs no array of as many flags; it may overflow although nothing is wrong.
    with np.errstate(all="ignore"):
        total = array.sum(dtype=np.float64) if array.dtype.kind == "f" else 0.0
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


def _arrays(value) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict | list | tuple):
        inside = value.values() if isinstance(value, dict) else value
        for part in inside:
            yield from _arrays(part)
