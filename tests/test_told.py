"""Tasks that are found or told, with the smallest method that has them."""

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, small

from robustmm import DeLoClassifier
from robustmm.told import INFERENCES, TaskFindingClassifier


@pytest.fixture(scope="module")
def learned():
    """Two tasks of two classes each; tests must not change it."""
    X, y = frame_with_holes(32, n_classes=4)
    clf = small(DeLoClassifier, static=True)
    for labels in np.split(np.unique(y), 2):
        rows = np.isin(y, labels)
        clf.partial_fit(X[rows], y[rows])
    return clf, X, y


def test_a_method_inherits_how_tasks_are_found():
    assert DeLoClassifier.__mro__[1].__name__ == TaskFindingClassifier.__name__
    params = DeLoClassifier().get_params()
    assert params["task_inference"] in INFERENCES
    assert (params["keys_per"], params["key_layers"]) == ("class", (1, 0))


def test_tasks_are_found(learned):
    clf, X, y = learned
    truth = np.isin(y, clf.task_classes_[1]).astype(int)
    assert (clf.predict_task(X) == truth).mean() > 0.8
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)


def test_told_tasks_are_no_prediction(learned):
    clf, X, _ = learned
    told = clf.with_tasks(np.zeros(len(X), dtype=int))
    np.testing.assert_array_equal(told.predict_task(X), clf.predict_task(X))
    assert set(told.predict(X)) <= set(clf.task_classes_[0])


def test_what_is_kept_is_named(learned):
    clf, _, _ = learned
    assert clf._keys == {"per": "class", "layers": [1, 0]}
    paper = small(DeLoClassifier, static=True, task_inference="nearest")
    X, y = frame_with_holes(12)
    assert paper.fit(X, y)._keys is None
    assert clf._keys is not None
    refitted = paper.set_params(task_inference="gaussian").fit(X, y)
    assert refitted._keys == clf._keys


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_inference", "told"),
        ("keys_per", "row"),
        ("shrinkage", 2.0),
        ("key_layers", (0, 9)),
        ("key_layers", ("pooled", 0)),
    ],
)
def test_bad_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must"):
        small(DeLoClassifier, **{name: value}).fit(*frame_with_holes(6))


def test_a_row_weighs_what_it_is_given(learned):
    _, X, y = learned
    weights = np.random.default_rng(0).uniform(1, 2, len(y))
    clf = small(DeLoClassifier, static=True).fit(X, y, sample_weight=weights)
    rows = clf.net_.module_.tasks[0].moments.rows
    expected = [weights[y == c].sum() for c in clf.classes_]
    np.testing.assert_allclose(rows / rows.sum(), np.array(expected) / sum(expected))


def test_several_labels_have_a_gaussian_per_task():
    X, _ = frame_with_holes(12)
    Y = pd.DataFrame({"war": [0, 1] * 6, "drama": [1, 1, 0] * 4})
    clf = small(DeLoClassifier, static=True).partial_fit(X, Y)
    clf.partial_fit(X, Y.add_prefix("late "))
    assert [len(t.moments.rows) for t in clf.net_.module_.tasks] == [1, 1]
    assert set(clf.predict_task(X)) <= {0, 1}
