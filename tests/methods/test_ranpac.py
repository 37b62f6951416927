"""RanPAC: stages are one regression, and without the lift it is ridge."""

import pickle

import numpy as np
import pytest
from contract import frame_with_holes, small
from sklearn.linear_model import Ridge

import robustmm
from robustmm import RanPACClassifier


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(48, n_classes=4)


def ranpac(**params):
    return small(RanPACClassifier, **params)


@pytest.mark.parametrize("order", ["classes", "mixed", "backwards"])
def test_calls_in_any_order_are_one_fit(table, order):
    X, y = table
    by_class = [np.flatnonzero(y == c) for c in np.unique(y)]
    chunks = {
        "classes": by_class,
        "backwards": by_class[::-1],
        "mixed": np.array_split(np.random.default_rng(0).permutation(len(y)), 5),
    }[order]
    clf = ranpac(ridge=0.01)
    for chunk in chunks:
        clf.partial_fit(X.iloc[chunk], y[chunk])
    whole = ranpac(ridge=0.01).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), whole.predict_proba(X), atol=1e-4)


def test_without_random_features_it_ranks_as_ridge_regression(table):
    X, y = table
    clf = ranpac(n_features=0, ridge=0.01).fit(X, y)
    features = np.asarray(clf.transform(X), dtype=float)
    image, text, present = np.split(features, [128, 256], axis=1)
    norms = [np.linalg.norm(v, axis=1, keepdims=True) for v in (image, text)]
    units = [
        v / np.where(n > 0, n, 1) for v, n in zip((image, text), norms, strict=True)
    ]
    phi = np.concatenate([*units, present], axis=1)
    penalty = 0.01 * (phi**2).sum() / phi.shape[1]
    reference = Ridge(alpha=penalty, fit_intercept=False)
    scores = reference.fit(phi, y[:, None] == clf.classes_).predict(phi)
    logits = np.log(np.logaddexp(0, 20 * scores))
    np.testing.assert_allclose(clf.decision_function(X), logits, atol=1e-2)
    assert (clf.predict(X) == clf.classes_[scores.argmax(axis=1)]).all()


@pytest.mark.parametrize("way", ["pickle", "folder"])
def test_what_was_stored_goes_on(table, tmp_path, way):
    X, y = table
    early = np.isin(y, np.unique(y)[:2])
    clf = ranpac(random_state=None).partial_fit(X[early], y[early])
    if way == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    else:
        robustmm.save(clf, tmp_path)
        again = robustmm.load(tmp_path, device="cpu")
    for model in (clf, again):
        model.partial_fit(X[~early], y[~early])
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))


def test_several_labels_may_come_later(table):
    X, y = table
    Y = (y[:, None] == np.unique(y)).astype(int)
    clf = ranpac().partial_fit(X, Y[:, :2]).partial_fit(X, Y)
    assert clf.predict_proba(X).shape == (48, 4)
    proba = ranpac().fit(X, Y).predict_proba(X)
    assert ((proba > 0) & (proba < 1)).all()
    assert (proba.argmax(axis=1) == Y.argmax(axis=1)).mean() > 0.8


@pytest.mark.parametrize(("name", "value"), [("ridge", 0.0), ("n_features", -1)])
def test_bad_parameters_are_named(table, name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value!r}"):
        ranpac(**{name: value}).fit(*table)
