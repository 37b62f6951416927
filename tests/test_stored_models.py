"""Models that earlier versions have stored open, predict the same, and learn on."""

import json
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from contract import public_classifiers
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning

import robustmm

FIXTURES = Path(__file__).parent / "fixtures"
MODELS = sorted(file.parent for file in FIXTURES.glob("*/*/expected.npz"))
STORED = [
    file
    for folder in MODELS
    for file in sorted(folder.iterdir())
    if file.name != "expected.npz"
]
FIRST_RELEASE = FIXTURES / "0.1.0.dev0"
AGAIN = ["0.1.0.dev0/DeLoClassifier"]


def named(path):
    return str(path.relative_to(FIXTURES))


def open_skops(file):
    untrusted = skops.io.get_untrusted_types(file=file)
    assert [name.rpartition(".")[2] for name in untrusted] == [file.parent.name]
    return skops.io.load(file, trusted=untrusted)


OPEN = {
    "model.joblib": joblib.load,
    "model.pickle": lambda file: pickle.loads(file.read_bytes()),
    "model.skops": open_skops,
    "saved": lambda folder: robustmm.load(folder, device="cpu"),
}


def opened(stored):
    with warnings.catch_warnings():
        # Another release of scikit-learn; none of its objects are inside.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return OPEN[stored.name](stored)


def expected(folder):
    """Rows, and what the version that stored the model made of them."""
    values = np.load(folder / "expected.npz")
    images = [values.get(f"image{i}") for i in range(len(values["texts"]))]
    rows = pd.DataFrame({"image": pd.Series(images, dtype=object)})
    return rows.assign(text=values["texts"]), values


def assert_predicts(clf, rows, values):
    proba = clf.predict_proba(rows)
    np.testing.assert_allclose(proba, values["proba"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(rows).astype(str), values["labels"])
    features = clf.transform(rows)
    np.testing.assert_allclose(features, values["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stored", STORED, ids=named)
def test_it_opens_and_predicts_the_same(stored):
    rows, values = expected(stored.parent)
    assert_predicts(opened(stored), rows, values)


@pytest.mark.parametrize("folder", MODELS, ids=named)
def test_all_its_parameters_are_there(folder):
    stored = json.loads(str(expected(folder)[1]["parameters"]))
    for name in ("model.pickle", "saved"):
        clf = opened(folder / name)
        assert clf.get_params().keys() >= stored.keys()
        found = {name: repr(clf.get_params()[name]) for name in stored}
        assert found == stored
        # Parameters that came later have their defaults.
        later = clf.get_params().keys() - stored.keys()
        fresh = type(clf)().get_params()
        assert {n: clf.get_params()[n] for n in later} == {n: fresh[n] for n in later}


@pytest.mark.parametrize("folder", MODELS, ids=named)
def test_it_is_saved_again_and_cloned(folder, tmp_path):
    rows, values = expected(folder)
    for name in ("model.pickle", "saved"):
        clf = opened(folder / name)
        robustmm.save(clf, tmp_path / name)
        assert_predicts(robustmm.load(tmp_path / name, device="cpu"), rows, values)
        assert_predicts(pickle.loads(pickle.dumps(clf)), rows, values)
        assert clone(clf).get_params() == clf.get_params()
        assert not hasattr(clone(clf), "classes_")


@pytest.mark.parametrize("folder", MODELS, ids=named)
def test_it_learns_anew(folder):
    rows, _ = expected(folder)
    X = pd.concat([rows, rows], ignore_index=True)
    y = np.tile(["left", "right"], len(rows))
    new = clone(opened(folder / "model.pickle"))
    fresh = new.fit(X, y).predict_proba(X)
    for name in ("model.pickle", "saved"):
        clf = opened(folder / name)
        # What a class has no use for any more would be saved, and refused then.
        if not hasattr(clf, "task_classes_"):
            assert vars(clf).keys() <= vars(new).keys()
        np.testing.assert_allclose(clf.fit(X, y).predict_proba(X), fresh, atol=1e-5)
        assert clf.classes_.tolist() == ["left", "right"]


@pytest.mark.parametrize("name", ["model.pickle", "saved"])
@pytest.mark.parametrize("model", AGAIN)
def test_tasks_go_on(model, name):
    folder = FIXTURES / model
    rows, _ = expected(folder)
    clf, untouched = opened(folder / name), opened(folder / name)
    assert len(clf.task_classes_) == 2
    clf.partial_fit(rows, ["new", "newer", "newest"] * 2)
    assert [len(labels) for labels in clf.task_classes_] == [2, 2, 3]
    assert set(clf.classes_) == {*untouched.classes_, "new", "newer", "newest"}
    n_rows = untouched._seen_weights[0]
    np.testing.assert_allclose(clf.class_prior_.sum(), 1)
    assert clf._seen_weights[0] == n_rows + len(rows)
    told = np.zeros(len(rows), int)
    for task in (0, 1):
        labels = [c.with_tasks(told + task).predict(rows) for c in (clf, untouched)]
        np.testing.assert_array_equal(*labels)
        own, kept = (c.net_.module_.tasks[task].state_dict() for c in (clf, untouched))
        assert all(torch.equal(own[key], kept[key]) for key in kept)
    clf.partial_fit(rows, np.resize(untouched.task_classes_[0], len(rows)))
    assert len(clf.task_classes_) == 3


def test_every_class_of_the_first_release_is_stored():
    stored = {folder.name for folder in MODELS if folder.parent == FIRST_RELEASE}
    assert len(stored) == 9
    assert stored <= {cls.__name__ for cls in public_classifiers()}
    for way in OPEN:
        assert sum(file.name == way for file in STORED) >= 2


def test_no_stored_model_is_left_out():
    folders = {file.parent for file in FIXTURES.glob("*/*/model.pickle")}
    assert folders == {file.parent for file in FIXTURES.glob("*/*/saved")}
    assert folders == set(MODELS)


def test_stored_models_are_small():
    for release in FIXTURES.glob("*/"):
        files = [file for file in release.rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) < 3_100_000
