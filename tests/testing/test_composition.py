"""Checks of life among scikit-learn's tools find what does not fit in."""

import numpy as np
import pytest
import torch
from broken import Broken, assert_found, checks_in
from sklearn import get_config
from toys import QuickClassifier

from robustmm.testing import composition
from robustmm.testing.subject import Subject

BROKEN = Broken()


@BROKEN.by("check_grid_search_over_a_pipeline")
class KeepsItsBatchSize(QuickClassifier):
    def set_params(self, **params):
        return super().set_params(**params | {"batch_size": 8})


@BROKEN.by("check_callbacks_are_told")
class TellsNoEpochs(QuickClassifier):
    def _with_epoch_tasks(self, callbacks):
        return callbacks


@BROKEN.by("check_global_configuration_makes_no_difference")
class LooksAtTheConfiguration(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if get_config()["transform_output"] == "pandas":
            X, y = X[::-1], y[::-1]
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_representations")
class HasNoName(QuickClassifier):
    def __repr__(self):
        return "a model"


@BROKEN.by("check_pickle_predicts_the_same")
class ForgetsWhatItLearned(QuickClassifier):
    def _restore(self, *args):
        super()._restore(*args)
        torch.nn.init.zeros_(self.net_.module_.head.weight)


@BROKEN.by("check_pickle_holds_no_frozen_weights")
class PicklesTooMuch(QuickClassifier):
    def __getstate__(self):
        return super().__getstate__() | {"ballast": bytes(10**6)}


@BROKEN.by("check_table_is_not_kept")
class KeepsTheTable(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.table_ = X
        return self


@BROKEN.by("check_sample_weight_is_routed")
class DropsWeights(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


def test_every_check_has_something_to_find():
    assert checks_in(composition) == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    assert_found(name, BROKEN[name])


class ForgetsItsHistory(QuickClassifier):
    def _restore(self, *args):
        super()._restore(*args)
        self.history_ = self.history_[:0]


class TakesNegativeWeights(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None:
            sample_weight = np.abs(sample_weight)
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    ("cls", "check", "rule"),
    [
        (ForgetsItsHistory, "pickle_predicts_the_same", "must keep history_"),
        (TakesNegativeWeights, "sample_weight_is_routed", "nothing was raised"),
        (KeepsTheTable, "table_is_not_kept", r"it kept \['table_'\]"),
        (PicklesTooMuch, "pickle_holds_no_frozen_weights", "must stay close to that"),
        (KeepsItsBatchSize, "grid_search_over_a_pipeline", "batch_size=6, got 8"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_rule_that_is_broken_is_said(cls, check, rule):
    with pytest.raises(AssertionError, match=rule):
        getattr(composition, f"check_{check}")(Subject(cls()))


def test_a_witness_writes_down_what_it_is_told():
    subject, witness = Subject(QuickClassifier()), composition.Witness()
    estimator = subject.fresh(max_epochs=2)
    if not hasattr(estimator, "set_callbacks"):
        pytest.skip("scikit-learn before 1.9")
    estimator.set_callbacks(witness).fit(*subject.table(9))
    assert witness.told == ["setup", "epoch", "epoch", "fit", "teardown"]
