"""Sums of frozen vectors: what all methods that keep them share."""

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small

from robustmm import GaussianPrototypeClassifier, RanPACClassifier
from robustmm.backbones import Stream
from robustmm.data.cache import STATES
from robustmm.streaming import StreamingClassifier

X, Y = frame_with_holes(24, n_classes=3)
METHODS = pytest.mark.parametrize(
    "cls", [GaussianPrototypeClassifier, RanPACClassifier], ids=lambda c: c.__name__
)


@METHODS
def test_they_are_streaming_classifiers(cls):
    assert issubclass(cls, StreamingClassifier)


@METHODS
def test_vectors_are_computed_once_per_row(cls, monkeypatch):
    rows, run = [], Stream.run

    def count(self, tokens, *args, **kwargs):
        rows.append(len(tokens))
        return run(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Stream, "run", count)
    STATES.clear()
    clf = small(cls).partial_fit(X[:12], Y[:12]).partial_fit(X[12:], Y[12:])
    clf.predict(X)
    small(cls).fit(X, Y)
    assert sum(rows) == X["image"].notna().sum()


@METHODS
def test_a_failure_leaves_what_was_known(cls):
    clf = small(cls).partial_fit(X[:12], Y[:12])
    before, proba = dict(vars(clf)), clf.predict_proba(X)
    sums = [b.clone() for b in clf.net_.module_.sums.buffers()]
    bad = X.copy()
    bad.iloc[6:, 0] = b"no picture"  # found when the labels have been taken
    for learn in (clf.partial_fit, clf.fit):
        with pytest.raises(ValueError, match="image cells"):
            learn(bad, Y)
    assert vars(clf) == before
    kept = clf.net_.module_.sums.buffers()
    assert all(torch.equal(a, b) for a, b in zip(sums, kept, strict=True))
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


@METHODS
def test_an_earlier_model_stays_as_it_was(cls):
    clf = small(cls).partial_fit(X[:12], Y[:12])
    module = clf.net_.module_
    before = [b.clone() for b in module.sums.buffers()]
    clf.partial_fit(X[12:], Y[12:])
    assert clf.net_.module_ is not module
    after = module.sums.buffers()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@METHODS
def test_rows_of_weight_zero_and_without_cells_are_left_out(cls):
    weights = np.ones(24)
    weights[20:] = 0
    empty = X.copy()
    empty.iloc[18:20] = None
    with pytest.warns(UserWarning, match="neither image nor text"):
        clf = small(cls).partial_fit(empty, Y, sample_weight=weights)
    fresh = small(cls).fit(X[:18], Y[:18])
    own = [c.net_.module_.sums for c in (clf, fresh)]
    for one, two in zip(*(s.buffers() for s in own), strict=True):
        torch.testing.assert_close(one, two)


@METHODS
def test_a_single_class_may_come_first_but_is_no_fit(cls):
    one = Y[0] == Y
    clf = small(cls).partial_fit(X[one], Y[one])
    assert clf.predict_proba(X).tolist() == [[1.0]] * 24
    assert clf.decision_function(X).shape == (24, 1)
    with pytest.raises(ValueError, match="only one class"):
        small(cls).fit(X[one], Y[one])


@METHODS
def test_the_prior_is_of_all_calls(cls):
    clf = small(cls)
    for part in np.array_split(np.arange(24), 4):
        clf.partial_fit(X.iloc[part], Y[part])
    expected = np.unique(Y, return_counts=True)[1] / 24
    np.testing.assert_allclose(clf.class_prior_, expected)
    assert clf.n_iter_ == 1
    assert clf.history_["train_loss"].notna().all()
