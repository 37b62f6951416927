"""From words to a classifier."""

import argparse

import pytest

from robustmm import CMPTClassifier, MAILClassifier, MultimodalClassifier
from robustmm.commands import settings
from robustmm.commands.arguments import make_parser
from robustmm.commands.settings import (
    DEFAULT_METHOD,
    UsageError,
    known_methods,
    make_classifier,
    parse_setting,
)


def asked(*words):
    fixed = ["fit", "t.csv", "--label", "kind", "--out", "model"]
    return make_classifier(make_parser().parse_args([*fixed, *words]))


def test_all_classifiers_that_options_can_make_are_known():
    methods = known_methods()
    assert methods["MAILClassifier"] is MAILClassifier
    assert MultimodalClassifier not in methods.values()
    assert DEFAULT_METHOD in methods


def test_a_classifier_that_must_be_given_another_is_left_out(monkeypatch):
    class MetaClassifier:
        def __init__(self, estimator):
            self.estimator = estimator

        def predict(self, X):
            """Nothing."""

    monkeypatch.setattr(settings.robustmm, "MetaClassifier", MetaClassifier, False)
    assert "MetaClassifier" not in known_methods()


def test_options_are_parameters():
    words = ["--method", "mail", "--backbone", "a", "--set", "rank=2", "--seed", "5"]
    clf = asked(*words, "--text-column", "title", "--device", "cpu")
    assert isinstance(clf, MAILClassifier)
    found = (clf.backbone, clf.rank, clf.random_state, clf.text_column, clf.device)
    assert found == ("a", 2, 5, "title", "cpu")


def test_a_backbone_is_both_encoders_where_a_class_has_two():
    clf = asked("--method", "CMPTClassifier", "--backbone", "a", "--text-backbone", "b")
    assert isinstance(clf, CMPTClassifier)
    assert (clf.image_backbone, clf.text_backbone) == ("a", "b")


def test_several_backbones_are_for_classes_that_try_them():
    words = ["--backbone", "a", "--backbone", "b"]
    assert asked(*words, "--method", "automultimodal").backbones == ["a", "b"]
    with pytest.raises(UsageError, match="must be given once for this class"):
        asked(*words, "--method", "mail")


def test_a_misspelt_parameter_is_guessed():
    with pytest.raises(UsageError, match=r"'rnak'. Did you mean 'rank'\?"):
        asked("--method", "mail", "--set", "rnak=3")


def test_a_time_limit_goes_to_classes_that_have_one(monkeypatch):
    class TimedClassifier(MAILClassifier):
        time_limit: float | None = None

    monkeypatch.setattr(settings.robustmm, "TimedClassifier", TimedClassifier, False)
    assert asked("--method", "timed", "--time-limit", "9").time_limit == 9.0

    class HastyClassifier:
        def __init__(self, haste=1):
            self.haste = haste

        def predict(self, X):
            """Nothing."""

    monkeypatch.setattr(settings.robustmm, "HastyClassifier", HastyClassifier, False)
    with pytest.raises(UsageError, match="HastyClassifier has no parameter 'time_lim"):
        asked("--method", "hasty", "--time-limit", "9")


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("a=None", ("a", None)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a=x=y", ("a", "x=y")),
        ("a=", ("a", "")),
        ("a={'b': 1}", ("a", {"b": 1})),
    ],
)
def test_values_are_literals_or_texts(words, setting):
    assert parse_setting(words) == setting


@pytest.mark.parametrize("words", ["a", "=1", "1a=2"])
def test_a_setting_has_a_name_and_a_value(words):
    with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=VALUE"):
        parse_setting(words)
