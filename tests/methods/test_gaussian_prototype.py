"""Class Gaussians: scikit-learn's LDA on frozen vectors, streamed in any order."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from contract import frame_with_holes, small
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import robustmm
from robustmm import GaussianPrototypeClassifier, continual_matrix

VILT, CLIP, BERT = "robustmm/tiny-vilt", "robustmm/tiny-clip", "robustmm/tiny-bert"


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(48, n_classes=4)


def prototypes(**params):
    return small(GaussianPrototypeClassifier, **params)


@pytest.mark.parametrize("backbone", [VILT, CLIP, BERT])
def test_it_is_the_sum_of_two_ldas_of_the_vectors(table, backbone):
    X, y = table
    if backbone == BERT:
        X, y = X[X["text"].notna()], y[X["text"].notna().to_numpy()]
    clf = prototypes(backbone=backbone, shrinkage=0.3).fit(X, y)
    features = np.asarray(clf.transform(X), dtype=float)
    n = 1 if backbone == BERT else 2
    present = features[:, -n:].astype(bool)
    expected = np.log(clf.class_prior_) * np.ones((len(X), 1))
    for part, here in zip(
        np.split(features[:, :-n], n, axis=1), present.T, strict=True
    ):
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3)
        lda.fit(part[here], y[here])
        expected[here] += lda.decision_function(part[here]) - np.log(lda.priors_)
    gaps = [v - v[:, :1] for v in (clf.decision_function(X), expected)]
    np.testing.assert_allclose(*gaps, atol=2e-3, rtol=1e-3)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[expected.argmax(axis=1)])


@pytest.mark.parametrize("order", ["classes", "mixed", "rows", "backwards"])
def test_calls_in_any_order_are_one_fit(table, order):
    X, y = table
    chunks = {
        "classes": [np.flatnonzero(y == c) for c in np.unique(y)],
        "backwards": [np.flatnonzero(y == c) for c in np.unique(y)[::-1]],
        "mixed": np.array_split(np.random.default_rng(0).permutation(len(y)), 5),
        "rows": np.arange(len(y))[:, None][:12],
    }[order]
    clf = prototypes()
    for chunk in chunks:
        clf.partial_fit(X.iloc[chunk], y[chunk])
    used = np.concatenate(chunks)
    whole = prototypes().fit(X.iloc[used], y[used])
    np.testing.assert_array_equal(clf.classes_, whole.classes_)
    np.testing.assert_allclose(clf.class_prior_, whole.class_prior_)
    np.testing.assert_allclose(
        clf.decision_function(X), whole.decision_function(X), atol=2e-3, rtol=1e-3
    )


def test_means_of_other_classes_stay_to_the_bit(table):
    X, y = table
    early = np.isin(y, np.unique(y)[1:3])
    clf = prototypes().partial_fit(X[early], y[early])
    before = clf.net_.module_.sums
    clf.partial_fit(X[~early], y[~early])
    for old, new in zip(before.kinds, clf.net_.module_.sums.kinds, strict=True):
        assert torch.equal(old.means, new.means[1:3])
        assert not torch.equal(old.scatter, new.scatter)


def test_the_order_of_stages_changes_nothing(table):
    X, y = table
    stages = [(X[y == c], y[y == c]) * 2 for c in np.unique(y)]
    scores = [
        continual_matrix(prototypes(), order).iloc[:, -1].mean()
        for order in (stages, stages[::-1], stages[1::2] + stages[::2])
    ]
    assert max(scores) - min(scores) < 1e-9


@pytest.mark.parametrize("way", ["pickle", "folder"])
def test_what_was_stored_goes_on(table, tmp_path, way):
    X, y = table
    early = np.isin(y, np.unique(y)[:2])
    clf = prototypes().partial_fit(X[early], y[early])
    if way == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    else:
        robustmm.save(clf, tmp_path)
        again = robustmm.load(tmp_path, device="cpu")
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    for model in (clf, again):
        model.partial_fit(X[~early], y[~early])
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    np.testing.assert_array_equal(again.class_prior_, clf.class_prior_)


def test_a_weight_of_two_is_a_row_twice(table):
    X, y = table
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    again = np.repeat(np.arange(len(y)), weights)
    clf = prototypes()
    for part in np.array_split(np.arange(len(y)), 3):
        clf.partial_fit(X.iloc[part], y[part], sample_weight=weights[part])
    whole = prototypes().fit(X.iloc[again], y[again])
    np.testing.assert_allclose(clf.class_prior_, whole.class_prior_)
    np.testing.assert_allclose(
        clf.decision_function(X), whole.decision_function(X), atol=2e-3, rtol=1e-3
    )


def test_a_modality_that_a_class_never_had_speaks_neither_for_nor_against(table):
    X, y = table
    last = np.unique(y)[-1]
    X = X.copy()
    X["text"] = X["text"].fillna("a picture")
    X.loc[y == last, "image"] = None
    clf = prototypes().fit(X, y)
    images = X[X["image"].notna()].assign(text=None)
    proba = clf.predict_proba(images)
    np.testing.assert_allclose(proba[:, -1], clf.class_prior_[-1], atol=1e-5)
    assert (clf.predict(X[y == last]) == last).mean() > 0.5


def test_labels_may_be_announced_and_come_later(table):
    X, y = table
    first = y == np.unique(y)[0]
    clf = prototypes().partial_fit(X[first], y[first], classes=["zebra"])
    assert clf.predict_proba(X)[:, -1].max() == 0
    assert (clf.predict(X) == y[first][0]).all()
    clf.partial_fit(X[~first][:8], ["zebra"] * 8)
    assert len(clf.classes_) == 2


def test_several_labels_come_in_any_columns(table):
    X, y = table
    Y = pd.get_dummies(y).astype(int)
    first, rest = Y.columns[:2], Y.columns[1:]
    clf = (
        prototypes()
        .partial_fit(X[:24], Y[first][:24])
        .partial_fit(X[24:], Y[rest][24:])
    )
    assert list(clf.classes_) == list(Y.columns)
    proba = clf.predict_proba(X)
    assert ((proba > 0) & (proba < 1)).all()
    expected = [Y[first[0]][:24].mean(), Y[first[1]].mean(), *Y[rest[1:]][24:].mean()]
    np.testing.assert_allclose(clf.class_prior_, expected)
    alone = prototypes().fit(X, Y)
    hits = (alone.predict_proba(X).argmax(axis=1) == Y.to_numpy().argmax(axis=1)).mean()
    assert hits > 0.8
    with pytest.raises(ValueError, match="without names must have the columns"):
        clf.partial_fit(X, np.eye(3, dtype=int)[np.arange(len(X)) % 3])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"shrinkage": 1.1}, r"shrinkage must be in \[0, 1\], got 1.1"),
        ({"covariance": "full"}, "covariance must be one of"),
        ({"layers": (7, 0)}, r"layers must have for the image an int in \[-5, 4\]"),
        ({"layers": 3}, "layers must be a pair"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(table, params, message):
    with pytest.raises(ValueError, match=message):
        prototypes(**params).fit(*table)


def test_by_default_the_shrinkage_follows_the_rows(table):
    X, y = table
    scores = [
        prototypes(shrinkage="oas").fit(X, y, sample_weight=w).decision_function(X)
        for w in (None, np.full(len(y), 3.0))
    ]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-2)
    assert GaussianPrototypeClassifier().shrinkage == "oas"


def test_calls_must_agree(table):
    X, y = table
    clf = prototypes().partial_fit(X, y)
    with pytest.raises(ValueError, match="of the kind of the first call"):
        clf.partial_fit(X, np.arange(len(X)) % 2)
    with pytest.raises(ValueError, match="layers must stay those of the first call"):
        clf.set_params(layers=(1, 0)).partial_fit(X, y)
    with pytest.raises(ValueError, match="must have a column 'text'"):
        clf.set_params(layers=None).partial_fit(X[["image"]], y)
    assert clf.predict_proba(X).shape == (48, 4)


def test_a_fit_forgets_what_was_there(table):
    X, y = table
    clf = prototypes().partial_fit(X, y)
    two = np.isin(y, np.unique(y)[:2])
    clf.fit(X[two], y[two])
    fresh = prototypes().fit(X[two], y[two])
    np.testing.assert_array_equal(clf.decision_function(X), fresh.decision_function(X))
