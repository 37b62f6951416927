"""A state that was never one of a fitted classifier is refused by its values."""

import numpy as np
import pytest

from robustmm.storage.fitted import MAX_EPOCHS, check_fitted, check_tensors

HISTORY = {"epoch": np.arange(2), "train_loss": np.array([0.5, np.nan])}
STATE = {
    "classes_": np.array(["a", "b"]),
    "class_prior_": np.array([0.25, 0.75]),
    "_multilabel": False,
    "feature_names_in_": np.array(["image", "text"], dtype=object),
    "n_features_in_": 2,
    "n_iter_": 2,
    "missing_report_": {},
    "_trained": {"fingerprint": "0" * 64, "history": HISTORY, "tensors": {}},
}


def forged(value, *path):
    """The state with a value at a path."""
    state = {**STATE, "_trained": dict(STATE["_trained"])}
    owner = state if len(path) == 1 else state["_trained"]
    owner[path[-1]] = value
    return state


def test_an_honest_state_is_let_through():
    check_fitted({}, STATE)
    check_tensors({"a": np.zeros(3, np.float32), "b": np.array([2**40])})
    # A sum of these is no finite number, but each of them is.
    check_tensors({"a": np.full(3, 1e308)})


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        (None, ["_trained"], "must hold what was trained"),
        ([1], ["classes_"], "classes_ must be an array"),
        (np.zeros((2, 2)), ["classes_"], "classes_ must be an array"),
        (np.array([]), ["classes_"], "classes_ must be an array"),
        (np.array([0.5]), ["class_prior_"], "class_prior_ must have a frequency"),
        (np.array([np.nan, 1]), ["class_prior_"], "class_prior_ must have"),
        (np.array([-0.5, 1.5]), ["class_prior_"], "class_prior_ must have"),
        (np.array([0, 1]), ["class_prior_"], "class_prior_ must have"),
        (np.array(["a", "b"]), ["class_prior_"], "class_prior_ must have"),
        (None, ["class_prior_"], "class_prior_ must have"),
        (1, ["_multilabel"], "_multilabel must be"),
        (3, ["feature_names_in_"], "feature_names_in_ must be an array of names"),
        (np.zeros((1, 2)), ["feature_names_in_"], "feature_names_in_ must be an array"),
        (
            np.array([None, 1], object),
            ["feature_names_in_"],
            "feature_names_in_ must be",
        ),
        (3, ["n_features_in_"], "n_features_in_ must be 2, got 3"),
        (1.5, ["n_iter_"], "n_iter_ must be a count, got 1.5"),
        (-1, ["n_parameters_"], "n_parameters_ must be a count"),
        (True, ["n_trainable_parameters_"], "must be a count, got True"),
        ([], ["missing_report_"], r"missing_report_ must be a mapping, got \[\]"),
        (3, ["_sklearn_output_config"], "must be a mapping, got 3"),
        (3, ["_trained", "fingerprint"], "by a fingerprint"),
        (None, ["_trained", "history"], "arrays by name"),
        ({"epoch": [1]}, ["_trained", "history"], "arrays by name"),
        ({"a": np.zeros((2, 2))}, ["_trained", "history"], "in each column"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, ["_trained", "history"], "in each col"),
        ({"a": np.zeros(MAX_EPOCHS + 1)}, ["_trained", "history"], "100000 epochs"),
        (
            {str(i): np.zeros(1) for i in range(101)},
            ["_trained", "history"],
            "in each column",
        ),
        (np.zeros(10**7), ["anything_"], "at most 67108864 bytes"),
        ([{"a": (np.zeros(10**7),)}], ["anything_"], "at most 67108864 bytes"),
    ],
)
def test_what_was_never_fitted(value, path, message):
    with pytest.raises(ValueError, match=message):
        check_fitted({}, forged(value, *path))


def test_parameters_are_small_too():
    with pytest.raises(ValueError, match="at most 67108864 bytes, got 8"):
        check_fitted({"n_experts": np.broadcast_to(0.0, 10**10)}, STATE)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (None, "arrays by name"),
        ({"a": 3.0}, "arrays by name"),
        ({3: np.zeros(2)}, "arrays by name"),
        ({"a": np.array(["b"])}, "must be numbers, got <U1 in 'a'"),
        ({"a": np.array([None])}, "must be numbers"),
        ({"a": np.array([1, np.nan])}, "finite numbers, got NaN or infinity in 'a'"),
        ({"a": np.array([np.inf], np.float16)}, "finite numbers"),
    ],
)
def test_tensors_that_were_never_trained(tensors, message):
    with pytest.raises(ValueError, match=message):
        check_tensors(tensors)
