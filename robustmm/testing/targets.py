"""Checks of labels and weights."""

import warnings

import numpy as np
import pandas as pd
from sklearn.utils import get_tags

from .subject import (
    Subject,
    applies_if,
    must_raise,
    needs,
    require,
    require_equal,
)

# Targets of six rows that fit refuses, and what the message says.
BAD_TARGETS = (
    (None, "requires y to be passed, but the target y is None"),
    (["a"] * 6, "only one class"),
    ([1.5, 2.5, 3.5] * 2, "Unknown label type"),
    (["a", "b"] * 2, "inconsistent numbers of samples"),
    ([1.0, np.nan] * 3, "NaN"),
    (["a", None] * 3, "NaN"),
    (["a", np.nan] * 3, "NaN"),
    (np.array(["2026-01-01", "NaT"] * 3, dtype="datetime64[D]"), "NaN|NaT"),
    (["a", 1] * 3, "one type"),
)
# Two labels of a type; strings are what all the other checks use.
# Not 0 and 1, or an index would pass for a label.
LABELS = ([12, 10], [True, False])


def check_bad_targets_are_refused(subject: Subject) -> None:
    """Labels that cannot be learned are an error that says why."""
    X, _ = subject.table(6)
    for y, message in BAD_TARGETS:
        with must_raise(ValueError, message, f"fit must refuse the labels {y}"):
            subject.fresh().fit(X, y)


def check_labels_come_back(subject: Subject) -> None:
    """``predict`` returns labels of the type that ``fit`` was given."""
    X, names = subject.table(6)
    for labels in LABELS:
        y = np.array(labels)[(names == names[0]).astype(int)]
        estimator = subject.fresh().fit(X, y)
        rule = f"classes_ must be the sorted labels {labels}"
        require_equal(estimator.classes_, np.unique(y), rule)
        predicted = estimator.predict(X)
        same = predicted.dtype == y.dtype and set(predicted) <= set(labels)
        rule = f"predict must return labels of {labels} with dtype {y.dtype}"
        require(same, f"{rule}, got {predicted[:3]} with dtype {predicted.dtype}.")


def check_three_classes(subject: Subject) -> None:
    """Each of three classes has a score and a probability."""
    X, y = subject.table(12, n_classes=3)
    estimator = subject.fresh().fit(X, y)
    for method in ("decision_function", "predict_proba"):
        shape = getattr(estimator, method)(X).shape
        rule = f"{method} must return (n, 3) for three classes"
        require(shape == (12, 3), f"{rule}, got {shape} for n=12.")


@applies_if(lambda subject: get_tags(subject.estimator).classifier_tags.multi_label)
def check_multilabel(subject: Subject) -> None:
    """An indicator table is learned; its columns name the classes."""
    X, _ = subject.table(12)
    indicators = np.random.default_rng(0).integers(0, 2, (12, 3))
    Y = pd.DataFrame(indicators, columns=["drama", "comedy", "war"])
    estimator = subject.fresh().fit(X, Y)
    rule = "The columns of a table of indicators must be classes_"
    require_equal(estimator.classes_, list(Y), rule)
    proba = estimator.predict_proba(X)
    within = proba.shape == (12, 3) and proba.min() >= 0 and proba.max() <= 1
    require(within, "predict_proba must be (n, n_labels) in [0, 1] for indicators.")
    rule = "predict must set the labels whose probability exceeds 0.5"
    require_equal(estimator.predict(X), (proba > 0.5).astype(int), rule)


def check_weight_of_zero_is_removal(subject: Subject) -> None:
    """A row of weight zero might as well not be there."""
    X, y = subject.table(12)
    weights = np.ones(12)
    weights[[1, 6]] = 0
    kept = weights > 0
    require_equal(
        subject.fresh().fit(X, y, sample_weight=weights).decision_function(X),
        subject.fresh().fit(X[kept], y[kept]).decision_function(X),
        "A row of weight zero must count as removed",
        atol=1e-5,
    )


def check_equal_weights_are_none(subject: Subject) -> None:
    """Only the ratios of sample weights matter."""
    X, y = subject.table()
    estimator = subject.fresh().fit(X, y, sample_weight=[3.0] * len(X))
    require_equal(
        estimator.decision_function(X),
        subject.fitted.decision_function(X),
        "Equal sample weights must have no effect",
        atol=1e-5,
    )


def check_weights_change_the_model(subject: Subject) -> None:
    """Rows that weigh more are fitted more: weights are not dropped on the way."""
    X, y = subject.table()
    heavy = y == subject.fitted.classes_[1]
    # Far apart, so that one epoch of a tiny model shows it.
    weights = np.where(heavy, 1000.0, 0.001)
    estimator = subject.fresh().fit(X, y, sample_weight=weights)
    gain = estimator.predict_proba(X) - subject.fitted.predict_proba(X)
    rule = "Sample weights on one class must raise its probability"
    require(gain[:, 1].mean() > 0, f"{rule}, it changed by {gain[:, 1].mean()}.")


def check_bad_weights_are_refused(subject: Subject) -> None:
    """Weights must be as many as rows, not negative, not all zero, with a sum."""
    X, y = subject.table(6)
    for weights, message in (
        ([1.0] * 5, "inconsistent|shape"),
        ([-1.0] + [1.0] * 5, "[Nn]egative"),
        ([0.0] * 6, "zero"),
        ([np.nan] + [1.0] * 5, "NaN"),
        ([1e308] * 6, "sample_weight.*inf"),
    ):
        rule = f"fit must refuse sample_weight={weights}"
        with must_raise(ValueError, message, rule):
            subject.fresh().fit(X, y, sample_weight=weights)


def check_weight_on_nothing_is_refused(subject: Subject) -> None:
    """Some row that has a modality must have a weight."""
    X, y = subject.table(6)
    X.iloc[0] = None
    rule = "fit must refuse sample_weight that is zero where there is a modality"
    with warnings.catch_warnings(), must_raise(ValueError, "weight.*row0", rule):
        warnings.simplefilter("ignore")
        subject.fresh().fit(X, y, sample_weight=np.eye(6)[0])


@needs("class_weight")
def check_bad_class_weights_are_refused(subject: Subject) -> None:
    """Weights of classes must be finite, not negative, not all zero, and of classes."""
    X, y = subject.table(6)
    one, other = np.unique(y)
    for weights, message in (
        ({one: -1.0, other: 1.0}, f"{one}.*-1"),
        ({one: np.inf, other: 1.0}, f"{one}.*inf"),
        ({one: 1.0, other: np.nan}, f"{other}.*nan"),
        ({one: 0.0, other: 0.0}, "zero"),
        ({one: 1.0, f"{other}s": 2.0}, f"{other}s"),
    ):
        rule = f"fit must refuse class_weight={weights}"
        with must_raise(ValueError, f"class_weight.*{message}", rule):
            subject.fresh(class_weight=weights).fit(X, y)


@needs("class_weight")
def check_class_weight_changes_the_model(subject: Subject) -> None:
    """A class that weighs more is predicted more, by the labels given to ``fit``."""
    X, y = subject.table()
    light, heavy = subject.fitted.classes_
    estimator = subject.fresh(class_weight={heavy: 1000, light: 0.001}).fit(X, y)
    gain = estimator.predict_proba(X) - subject.fitted.predict_proba(X)
    rule = "class_weight on one class must raise its probability"
    require(gain[:, 1].mean() > 0, f"{rule}, it changed by {gain[:, 1].mean()}.")
