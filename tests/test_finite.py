"""Numbers that are not finite come out nowhere: an error says where they began."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from contract import frame_with_holes, small
from sklearn import config_context
from toys import QuickClassifier, QuickModule

from robustmm import CMPTClassifier, DeLoClassifier, LinearProbeClassifier

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


# Weights -----------------------------------------------------------------------------

NOTHING = X.assign(image=[None, *X["image"][1:]], text=[None, *X["text"][1:]])
FIRST = np.eye(len(X))[0]


@pytest.mark.parametrize("weight", [1e308, 5e-324, np.nan])
@pytest.mark.parametrize("assume_finite", [False, True])
def test_sample_weights_without_a_mean_are_refused(weight, assume_finite):
    weights = np.full(len(X), weight)
    rule = "contains NaN" if np.isnan(weight) and not assume_finite else "have a sum"
    with (
        config_context(assume_finite=assume_finite),
        pytest.raises(ValueError, match=rule),
    ):
        QuickClassifier().fit(X, Y, sample_weight=weights)


@pytest.mark.parametrize("weight", [1e299 / 12, 1e-290])
def test_only_the_proportions_of_weights_matter(weight):
    weights = np.arange(1.0, 13)
    expected = QuickClassifier().fit(X, Y, sample_weight=weights)
    clf = QuickClassifier().fit(X, Y, sample_weight=weights / 12 * weight)
    np.testing.assert_allclose(clf.predict_proba(X), expected.predict_proba(X), 1e-5)
    np.testing.assert_allclose(clf.class_prior_, expected.class_prior_)


@pytest.mark.filterwarnings("ignore:1 of 12 rows have neither")
def test_weight_on_rows_without_any_modality_alone_is_refused():
    message = r"or a text, that can be read, got 1 rows of weight, .*: row 'row0': 2"
    with pytest.raises(ValueError, match=message):
        QuickClassifier().fit(NOTHING, Y, sample_weight=2 * FIRST)
    # Beside others, they count in the prior and change nothing else.
    clf = QuickClassifier().fit(NOTHING, Y, sample_weight=1 + 1e200 * FIRST)
    same = QuickClassifier().fit(NOTHING, Y, sample_weight=1 + FIRST)
    np.testing.assert_array_equal(clf.decision_function(X), same.decision_function(X))


@pytest.mark.filterwarnings("ignore:1 image cells cannot be read")
@pytest.mark.filterwarnings("ignore:1 of 12 rows have neither")
def test_weight_on_rows_with_bad_images_alone_is_refused():
    bad = NOTHING.assign(image=[b"none", *X["image"][1:]])
    clf = QuickClassifier(on_bad_image="missing")
    with pytest.raises(ValueError, match=r"got 1 rows of weight, .*: row 'row0': 1"):
        clf.fit(bad, Y, sample_weight=FIRST)


@pytest.mark.filterwarnings("ignore:6 of 12 rows have neither")
def test_class_weights_that_leave_nothing_to_train_on_are_refused():
    light, heavy = np.unique(Y)
    blank = X.where(pd.Series(light == Y, index=X.index), None)
    clf = QuickClassifier(class_weight={light: 0, heavy: 1})
    with pytest.raises(ValueError, match=r"times class_weight, .* got 0\.0"):
        clf.fit(blank, Y)


def test_class_weights_are_refused_before_a_backbone_is_loaded():
    clf = QuickClassifier(backbone="no/such/folder", class_weight={Y[0]: -1})
    with pytest.raises(ValueError, match=r"class_weight\['.*'\] must be in .* got -1"):
        clf.fit(X, Y)


def test_weights_of_many_calls_have_a_sum():
    clf = small(DeLoClassifier)
    for _ in range(2):
        clf.partial_fit(X, Y, sample_weight=np.full(12, 1e298))
    np.testing.assert_allclose(clf.class_prior_, [0.5, 0.5])
