"""Numbers that are not finite come out nowhere: an error says where they began."""

import copy
import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from sklearn import config_context
from toys import QuickClassifier, QuickModule

from robustmm import CMPTClassifier, LinearProbeClassifier

METHODS = ("predict", "predict_proba", "decision_function", "transform")
X, Y = frame_with_holes(12)


class OverflowingModule(QuickModule):
    """Takes what half precision would make of long texts for its features."""

    limit = torch.inf

    def features(self, **batch):
        features = super().features(**batch)
        return features.where(features[:, 2:3] < self.limit, torch.inf)


class Overflowing(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        return OverflowingModule(backbone, n_outputs)


@pytest.fixture(scope="module")
def overflowing():
    """A fitted model whose longest three texts make features that are not finite."""
    clf = Overflowing().fit(X, Y)
    lengths = clf.transform(X)[:, 2]
    clf.net_.module_.limit = np.sort(lengths)[-3]
    assert (lengths >= clf.net_.module_.limit).sum() == 3
    return clf, list(X.index[lengths >= clf.net_.module_.limit])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("assume_finite", [False, True])
def test_outputs_that_are_not_finite_are_an_error(method, assume_finite, overflowing):
    clf, rows = overflowing
    predict = getattr(clf, method)
    expected = "; ".join(f"row {row!r}: (nan|-?inf)" for row in rows)
    message = (
        "^Overflowing must compute finite numbers, got 3 rows with others: "
        rf'{expected}\. Half precision overflows early: fit with precision="float32"'
    )
    with config_context(assume_finite=assume_finite):
        with pytest.raises(ValueError, match=message):
            predict(X)
        assert len(predict(X.drop(index=rows))) == len(X) - 3


@pytest.mark.parametrize("cls", [CMPTClassifier, LinearProbeClassifier])
def test_weights_that_are_not_finite_predict_nothing(cls):
    clf = pickle.loads(pickle.dumps(small(cls).fit(X, Y)))
    torch.nn.init.constant_(clf.net_.module_.head.bias, torch.nan)
    with pytest.raises(ValueError, match="12 rows with others: row 'row0': nan"):
        clf.predict_proba(X)
    assert np.isfinite(clf.transform(X)).all()


class OverflowingProbe(LinearProbeClassifier):
    """Its encoders cannot hold a row without a text."""

    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        encode = module.encode

        def overflow(present, *args):
            features = encode(present, *args).clone()
            features[present[:, 0] & ~present[:, 1], 5] = torch.nan
            return features

        module.encode = overflow
        return module


@pytest.mark.parametrize("assume_finite", [False, True])
def test_a_probe_of_features_that_are_not_finite_is_refused(assume_finite):
    clf = small(OverflowingProbe)
    before = copy.copy(vars(clf))
    message = r"got 4 rows with others: row 'row1': nan; row 'row4': nan; "
    with (
        config_context(assume_finite=assume_finite),
        pytest.raises(ValueError, match=message),
    ):
        clf.fit(X, Y)
    assert vars(clf) == before
