"""The linear probe is scikit-learn's regression on features computed once."""

import numpy as np
import pytest
from contract import frame_with_holes
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robustmm import LinearProbeClassifier
from robustmm.backbones import Stream
from robustmm.data import preprocess
from robustmm.data.cache import IMAGES, STATES

VILT, CLIP, BERT = "robustmm/tiny-vilt", "robustmm/tiny-clip", "robustmm/tiny-bert"


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(48, n_classes=3)


def decoded(monkeypatch):
    """A list that grows with every cell that is decoded."""
    seen, original = [], preprocess.decode
    monkeypatch.setattr(
        preprocess,
        "decode",
        lambda cell, *args: seen.append(cell) or original(cell, *args),
    )
    return seen


@pytest.mark.parametrize("name", ["robustmm/tiny-clip", "robustmm/tiny-vilt"])
def test_known_features_are_looked_up_before_a_picture_is_made(monkeypatch, name):
    X, y = frame_with_holes(16)
    clf = LinearProbeClassifier(name, device="cpu")
    without = clone(clf).set_params(cache=None).fit(X, y).decision_function(X)
    STATES.clear()
    IMAGES.clear()
    seen = decoded(monkeypatch)
    first = clone(clf).fit(X, y).decision_function(X)
    assert len(seen) >= X["image"].notna().sum()
    seen.clear()
    IMAGES.clear()
    again = clone(clf).fit(X, y)
    np.testing.assert_array_equal(again.decision_function(X), first)
    assert seen == []
    np.testing.assert_allclose(first, without, atol=1e-3)


@pytest.mark.parametrize("backbone", [VILT, CLIP])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_is_scikit_learns_regression_on_the_features(backbone, n_classes):
    X, y = frame_with_holes(36, n_classes=n_classes)
    weight = np.linspace(0.5, 2, len(y))
    clf = LinearProbeClassifier(backbone, C=0.3, class_weight="balanced")
    clf.fit(X, y, sample_weight=weight)
    features = np.asarray(clf.transform(X), dtype=float)
    counts = {label: (y == label).sum() for label in np.unique(y)}
    weight = weight / np.array([counts[label] for label in y])
    weight = weight / weight.mean()
    scaler = StandardScaler().fit(features, sample_weight=weight)
    reference = LogisticRegression(C=0.3, max_iter=1000)
    reference.fit(scaler.transform(features), y, sample_weight=weight)
    expected = reference.predict_proba(scaler.transform(features))
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-4)


def test_each_label_of_several_has_its_own_regression(table):
    X, _ = table
    Y = np.random.default_rng(0).integers(0, 2, (len(X), 3))
    Y[:, 1] = 0
    clf = LinearProbeClassifier(CLIP).fit(X, Y)
    features = np.asarray(clf.transform(X), dtype=float)
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    expected = reference.fit(features, Y[:, 2]).predict_proba(features)[:, 1]
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba[:, 2], expected, atol=1e-4)
    # A label that no row has: no regression, its (smoothed) frequency.
    np.testing.assert_allclose(proba[:, 1], 0.5 / (len(X) + 1), rtol=1e-5)


def test_candidates_and_folds_share_the_features(table, monkeypatch):
    X, y = table
    rows, run = [], Stream.run

    def count(self, tokens, *args, **kwargs):
        rows.append(len(tokens))
        return run(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Stream, "run", count)
    STATES.clear()
    clf = LinearProbeClassifier(CLIP)
    search = GridSearchCV(clf, {"C": [0.01, 0.1, 1.0]}, cv=3).fit(X, y)
    search.predict(X)
    cells = int(X.notna().to_numpy().sum())
    # A batch without images, or without texts, is run with one row to know the width.
    assert cells <= sum(rows) <= cells + 8
    rows.clear()
    LinearProbeClassifier(CLIP, cache=None).fit(X, y).predict(X)
    assert sum(rows) >= 2 * cells


def test_cached_features_are_those_computed_anew(table):
    X, y = table
    fresh = LinearProbeClassifier(VILT, pooling="both", cache=None).fit(X, y)
    kept = LinearProbeClassifier(VILT, pooling="both").fit(X, y)
    np.testing.assert_allclose(kept.transform(X), fresh.transform(X), atol=1e-5)
    other = LinearProbeClassifier(VILT, pooling="mean").fit(X, y)
    assert other.transform(X).shape[1] != kept.transform(X).shape[1]


@pytest.mark.parametrize(
    ("params", "width"),
    [
        ({"backbone": VILT}, 128),
        ({"backbone": VILT, "pooling": "mean"}, 2 * 128),
        ({"backbone": VILT, "pooling": "both"}, 3 * 128),
        ({"backbone": CLIP, "pooling": "mean"}, 2 * 128),
        ({"backbone": CLIP, "text_backbone": BERT, "pooling": "mean"}, 2 * 128),
        ({"backbone": BERT}, 128),
    ],
)
def test_width_of_the_features(table, params, width):
    X, y = table
    features = np.asarray(LinearProbeClassifier(**params).fit(X, y).transform(X))
    assert features.shape == (len(X), width + 2)
    np.testing.assert_array_equal(features[:, -2:], X.notna().to_numpy())


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_a_missing_cell_is_zero_for_two_encoders(table, pooling):
    X, y = table
    clf = LinearProbeClassifier(CLIP, pooling=pooling).fit(X, y)
    features = np.asarray(clf.transform(X))
    image, text = np.split(features[:, :-2], 2, axis=1)
    np.testing.assert_array_equal(image.any(axis=1), X["image"].notna())
    np.testing.assert_array_equal(text.any(axis=1), X["text"].notna())


@pytest.mark.parametrize(
    ("name", "value"), [("C", 0.0), ("pooling", "max"), ("max_iter", 0)]
)
def test_bad_parameters_are_named(table, name, value):
    clf = LinearProbeClassifier(CLIP).set_params(**{name: value})
    with pytest.raises(ValueError, match=f"{name} must be .*{value!r}"):
        clf.fit(*table)


def test_a_pickle_drops_what_the_first_release_kept_and_a_subclass_does_not():
    class Scheduled(LinearProbeClassifier):
        max_epochs: int = 3

    state = LinearProbeClassifier().__getstate__() | {"lr": 0.1, "max_epochs": 5}
    opened = [cls.__new__(cls) for cls in (LinearProbeClassifier, Scheduled)]
    for clf in opened:
        clf.__setstate__(state)
        assert not hasattr(clf, "lr")
    assert not hasattr(opened[0], "max_epochs")
    assert opened[1].max_epochs == 5
