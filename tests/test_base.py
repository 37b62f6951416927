"""What the base class does by itself, on the cheapest classifier there is."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from contract import frame_with_holes, public_classifiers, small
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import get_tags
from toys import QuickClassifier

import robustmm
from robustmm import LinearProbeClassifier


@pytest.fixture(scope="module")
def data():
    return frame_with_holes(12)


@pytest.fixture(scope="module")
def fitted(data):
    return QuickClassifier().fit(*data)


def test_tags_say_what_is_true():
    tags = get_tags(QuickClassifier())
    assert tags.estimator_type == "classifier"
    assert tags.input_tags.string
    assert tags.input_tags.allow_nan
    assert not tags.input_tags.sparse
    assert tags.target_tags.required
    assert tags.classifier_tags.multi_class
    assert tags.classifier_tags.multi_label
    assert not tags.array_api_support
    assert not tags.non_deterministic


def test_only_training_on_cuda_is_not_repeatable(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    by_device = {
        device: get_tags(QuickClassifier(device=device)).non_deterministic
        for device in ("cpu", "cuda", "cuda:1", "auto", torch.device("cuda"))
    }
    assert [d for d, tag in by_device.items() if not tag] == ["cpu"]


def test_labels_in_a_column_are_taken_with_a_warning(data, fitted):
    X, y = data
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        other = QuickClassifier().fit(X, y[:, None])
    np.testing.assert_array_equal(
        other.decision_function(X), fitted.decision_function(X)
    )


class Numbered(QuickClassifier):
    """Reads columns that have numbers instead of names."""

    def __init__(self):
        super().__init__()
        self.image_column, self.text_column = 0, 1


def test_columns_with_numbers_have_no_names(data, fitted):
    X, y = data
    numbered = X.set_axis([0, 1], axis=1)
    estimator = Numbered().fit(numbered, y)
    assert not hasattr(estimator, "feature_names_in_")
    assert estimator.n_features_in_ == 2
    np.testing.assert_array_equal(
        estimator.decision_function(numbered), fitted.decision_function(X)
    )


def test_names_and_numbers_do_not_mix_among_the_two(data, fitted):
    X, y = data
    with_number = X.assign(**{"extra": 1}).rename(columns={"extra": 1})
    clf = QuickClassifier().fit(with_number, y)
    np.testing.assert_array_equal(clf.predict_proba(X), fitted.predict_proba(X))
    clf, mixed = Numbered(), X.set_axis([0, "text"], axis=1)
    clf.text_column = "text"
    with pytest.raises(TypeError, match="only supported if all input features have"):
        clf.fit(mixed, y)


def test_features_of_rows_without_anything_are_zeros_of_full_width(fitted, data):
    X = data[0].iloc[:3].copy()
    X.iloc[:] = None
    with pytest.warns(UserWarning, match="3 of 3 rows have neither"):
        features = fitted.transform(X)
    assert features.shape == (3, len(fitted.get_feature_names_out()))
    assert not features.any()


def test_a_shallow_copy_shares_the_net(fitted, data):
    twin = copy.copy(fitted)
    assert twin.net_ is fitted.net_
    twin.set_params(on_bad_image="missing")
    assert fitted.on_bad_image == "raise"


def test_a_generator_as_random_state_goes_on(data):
    X, y = data
    generator = np.random.RandomState(0)
    first, second = (
        QuickClassifier(random_state=generator).fit(X, y).decision_function(X)
        for _ in range(2)
    )
    assert not np.array_equal(first, second)
    again = QuickClassifier(random_state=np.random.RandomState(0)).fit(X, y)
    np.testing.assert_array_equal(again.decision_function(X), first)


def test_what_is_no_table_is_refused(data, fitted):
    X, y = data
    rule = r"X must be a DataFrame .* or an object ndarray of shape \(n, 2\), got "
    for wrong in (X.to_dict(), X["text"].tolist(), "images"):
        with pytest.raises(TypeError, match=rule):
            QuickClassifier().fit(wrong, y)
        with pytest.raises(TypeError, match=rule):
            fitted.predict(wrong)


def test_index_of_the_table_does_not_matter(data, fitted):
    X, y = data
    expected = fitted.decision_function(X)
    for index in (
        np.zeros(len(X)),
        pd.MultiIndex.from_product([["a"], range(len(X))]),
        pd.date_range("2026-01-01", periods=len(X)),
    ):
        moved = X.set_axis(index, axis=0)
        other = QuickClassifier().fit(moved, pd.Series(y, index=index[::-1]))
        np.testing.assert_array_equal(other.decision_function(moved), expected)


def test_larger_images_than_asked_for_are_bad(data):
    X, y = data
    X = X.copy()
    X.iat[3, X.columns.get_loc("image")] = np.zeros((80, 90, 3), dtype=np.uint8)
    probe = LinearProbeClassifier("robustmm/tiny-clip", device="cpu").fit(X, y)
    assert probe.max_pixels == 178_956_970
    probe.set_params(max_pixels=7199)
    with pytest.raises(
        ValueError, match="row 'row3': an image must have 1 to 7199 pixels"
    ):
        probe.predict(X)
    with pytest.raises(
        ValueError, match="row 'row3': an image must have 1 to 7199 pixels"
    ):
        probe.fit(X, y)
    probe.set_params(on_bad_image="missing")
    with pytest.warns(UserWarning, match="1 image cells cannot be read"):
        assert list(probe.fit(X, y).missing_report_["bad_images"]) == ["row3"]
    assert probe.set_params(max_pixels=7200).predict(X).shape == (12,)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_a_pixel_cap_is_a_positive_whole_number(data, value):
    probe = LinearProbeClassifier("robustmm/tiny-clip", max_pixels=value)
    with pytest.raises((TypeError, ValueError), match=f"max_pixels must .*got {value}"):
        probe.fit(*data)


def test_unused_columns_may_have_one_name(data, fitted):
    X, y = data
    more = pd.DataFrame(np.zeros((12, 3)), columns=["a", "a", "b"], index=X.index)
    table = pd.concat([X, more], axis=1)
    clf = QuickClassifier().fit(table, y)
    assert clf.n_features_in_ == 2
    assert list(clf.feature_names_in_) == ["image", "text"]
    expected = fitted.predict_proba(X)
    for places in (range(5), [0, 1, 2, 4], [3, 1, 0]):
        part = table.iloc[:, places]
        np.testing.assert_array_equal(clf.predict_proba(part), expected)
    twice = pd.concat([X, X["text"]], axis=1)
    with pytest.raises(ValueError, match=r"must be unique, X has 2 columns .*'text'"):
        QuickClassifier().fit(twice, y)


# What a class stands on -----------------------------------------------------------

UNREADABLE = pd.DataFrame(
    {"image": ["no/such.png"] * 4, "text": ["a b", "c", "d", "e"]}
)
LABELS = ["x", "y"] * 2


@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda c: c.__name__)
def test_a_class_refuses_what_it_cannot_stand_on_before_an_image_is_opened(cls):
    if cls.STREAMS is None:
        small(cls, backbone="robustmm/tiny-bert", on_bad_image="missing").fit(
            UNREADABLE, LABELS
        )
        return
    joint = cls.STREAMS == ("joint",)
    wrong = f"robustmm/tiny-{'clip' if joint else 'bert'}"
    right = "robustmm/tiny-vilt" if joint else "robustmm/tiny-clip"
    # Encoders of what is not read by default, as of sounds, are None.
    known = cls().get_params().items()
    (name, *_) = [n for n, value in known if n.endswith("backbone") and value]
    rule = rf"{cls.__name__} stands on .* got '{wrong}', which offers \[.*{right}"
    with pytest.raises(ValueError, match=rule):
        small(cls, **{name: wrong}).fit(UNREADABLE, LABELS)


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("MAILClassifier", {"top_k": 9}, "top_k must be at most .* got 9"),
        ("MAILClassifier", {"n_experts": (2, 3)}, "n_experts must have a count for"),
        ("MoRAClassifier", {"n_layers": 99}, "n_layers must be at most"),
        ("MSPClassifier", {"prompt_layers": (0, 99)}, "prompt_layers must list"),
        ("MAPClassifier", {"prompt_layers": (0, 99)}, "prompt_layers must list"),
        ("MemPromptClassifier", {"shared_layers": (0, 99)}, "shared_layers must list"),
    ],
    ids=str,
)
def test_what_a_backbone_is_too_small_for_is_refused_before_an_image_is_opened(
    name, options, rule
):
    with pytest.raises(ValueError, match=rule):
        small(getattr(robustmm, name), **options).fit(UNREADABLE, LABELS)


def test_a_backbone_that_cannot_be_found_stays_an_error_of_its_own():
    with pytest.raises(OSError, match="cannot be found"):
        small(robustmm.MSPClassifier, backbone="no/such").fit(UNREADABLE, LABELS)


def test_a_small_instance_takes_no_parameter_that_the_class_has_not():
    assert small(robustmm.MSPClassifier, prompt_layers=1).prompt_layers == 1
    with pytest.raises(ValueError, match="prompt_layer"):
        small(robustmm.MSPClassifier, prompt_layer=1)
