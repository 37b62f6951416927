"""Each check finds what it is there to find, in a classifier that is broken so."""

import copy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from contract import ToyClassifier
from sklearn import get_config
from sklearn.linear_model import LogisticRegression
from toys import N_FEATURES, QuickClassifier

from robustmm import MAPClassifier
from robustmm.data.targets import Targets
from robustmm.testing import cells, check_estimator, parametrize_with_checks
from robustmm.testing.battery import CHECKS, checks_for
from robustmm.testing.parameters import check_parameters_are_documented
from robustmm.testing.subject import Subject

BROKEN = {}


def breaks(name):
    """Register a classifier that the check of this name must refuse."""

    def register(cls):
        BROKEN[name] = cls
        return cls

    return register


# The constructor and parameters ---------------------------------------------------


@breaks("check_constructor_has_defaults")
class NeedsAnArgument(QuickClassifier):
    def __init__(self, backbone, *, max_epochs=1):
        super().__init__(backbone, max_epochs=max_epochs)


@breaks("check_constructor_only_assigns")
class ReplacesAnArgument(QuickClassifier):
    def __init__(self, backbone="robustmm/tiny-clip", *, net_params=None):
        super().__init__(backbone, net_params=net_params or {})


@breaks("check_clone")
class ClonesItself(QuickClassifier):
    def __sklearn_clone__(self):
        return copy.copy(self)


@breaks("check_fit_leaves_parameters_alone")
class SetsSomethingPublic(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        self.n_rows = len(X)
        return super().fit(X, y, sample_weight)


@breaks("check_bad_parameters_are_named")
class ChecksNothing(QuickClassifier):
    def _check_parameters(self):
        pass


@breaks("check_numbers_must_be_finite")
class TakesAnyRate(QuickClassifier):
    def _check_parameters(self):
        if np.isfinite(self.lr):
            super()._check_parameters()


@breaks("check_parameters_are_documented")
class MisspellsAParameter(MAPClassifier):
    """Declares one again, but for a letter.

    Parameters
    ----------
    max_epoch : int
        Passes over the rows.
    """

    max_epoch: int = 3


# Cells ----------------------------------------------------------------------------


class ReadsOtherwise(QuickClassifier):
    """Changes the table before it is read."""

    def _check_X(self, X, reset):
        rows = super()._check_X(X, reset)
        return super()._check_X(self._change(X.copy(), reset), reset) if rows else rows


def spelled(cell):
    return "missing" if cell is pd.NA else cell


@breaks("check_any_null_with_any_cell")
class ReadsNullsInPredict(ReadsOtherwise):
    def _change(self, X, reset):
        return X if reset else X.assign(text=X["text"].map(spelled))


@breaks("check_fit_takes_any_null")
class ReadsNullsInFit(ReadsOtherwise):
    def _change(self, X, reset):
        return X.assign(text=X["text"].map(spelled)) if reset else X


@breaks("check_text_of_any_dtype")
class ReadsCodes(ReadsOtherwise):
    def _change(self, X, reset):
        text = X["text"]
        if text.dtype != "category":
            return X
        return X.assign(text=text.cat.codes.astype(str))


@breaks("check_a_whole_column_may_be_missing")
class NeedsAnImage(ReadsOtherwise):
    def _change(self, X, reset):
        if X["image"].isna().all():
            raise ValueError("no images")
        return X


@breaks("check_array_is_read_by_position")
class LosesTextsOfArrays(ReadsOtherwise):
    def _change(self, X, reset):
        if isinstance(X, np.ndarray):
            X[:, 1] = "text"
        return X


@breaks("check_other_columns_are_ignored")
class ReadsThePrice(ReadsOtherwise):
    def _change(self, X, reset):
        return X.assign(text=X["price"].astype(str)) if "price" in X else X


@breaks("check_wrong_columns_are_named")
class TakesAnyColumns(QuickClassifier):
    def _check_X(self, X, reset):
        if isinstance(X, pd.DataFrame):
            X = X.set_axis(["image", "text"], axis=1)
        return super()._check_X(X, reset)


@breaks("check_empty_table_is_refused")
class PredictsNothing(QuickClassifier):
    def predict(self, X):
        return super().predict(X) if len(X) else np.array([])


@breaks("check_rows_without_any_modality_get_the_prior")
class GuessesEvenly(QuickClassifier):
    def _log_odds(self, X, **options):
        return self._evaluate(X, **options)[0]


@breaks("check_no_modality_at_all_is_an_error")
class FitsNothing(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        nothing = isinstance(X, pd.DataFrame) and X.isna().all(axis=None)
        return self if nothing else super().fit(X, y, sample_weight)


@breaks("check_bad_images_are_listed_by_row")
class DropsBadImages(ReadsOtherwise):
    def _change(self, X, reset):
        return X.assign(image=X["image"].map(lambda c: None if c == b"x" else c))

    def _screen(self, rows, backbone):
        mode, self.on_bad_image = self.on_bad_image, "missing"
        rows = super()._screen(rows, backbone)
        self.on_bad_image = mode
        return rows


@breaks("check_inputs_are_not_changed")
class WritesIntoTheTable(QuickClassifier):
    def predict(self, X):
        X.iloc[0, 1] = "seen"
        return super().predict(X)


# Targets --------------------------------------------------------------------------


@breaks("check_bad_targets_are_refused")
class NeedsNoTarget(QuickClassifier):
    def fit(self, X, y=None, sample_weight=None):
        return self if y is None else super().fit(X, y, sample_weight)


@breaks("check_labels_come_back")
class PredictsStrings(QuickClassifier):
    def predict(self, X):
        return super().predict(X).astype(str)


@breaks("check_three_classes")
class ScoresTwoClasses(QuickClassifier):
    def decision_function(self, X):
        scores = super().decision_function(X)
        return scores[:, :2] if scores.ndim == 2 else scores


@breaks("check_multilabel")
class SetsNoLabel(QuickClassifier):
    def predict(self, X):
        predicted = super().predict(X)
        return np.zeros_like(predicted) if predicted.ndim == 2 else predicted


@breaks("check_weight_of_zero_is_removal")
class KnowsNoZero(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight) + 1.0
        return super().fit(X, y, sample_weight)


@breaks("check_equal_weights_are_none")
class TurnsWeightedTables(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None and len(set(np.asarray(sample_weight))) == 1:
            X, y = X[::-1], y[::-1]
        return super().fit(X, y, sample_weight)


@breaks("check_weights_change_the_model")
@breaks("check_weight_on_nothing_is_refused")
@breaks("check_sample_weight_is_routed")
class DropsWeights(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


@breaks("check_bad_weights_are_refused")
class TakesAnyWeights(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None:
            sample_weight = np.abs(np.nan_to_num(sample_weight))
        return super().fit(X, y, sample_weight)


class Unweighted(Targets):
    def weights(self, class_weight, sample_weight):
        return sample_weight


@breaks("check_class_weight_changes_the_model")
@breaks("check_bad_class_weights_are_refused")
class DropsClassWeights(QuickClassifier):
    def _encode(self, y, *args, **kwargs):
        return Unweighted(**vars(super()._encode(y, *args, **kwargs)))


# Predictions ----------------------------------------------------------------------


@breaks("check_unfitted_says_so")
class PredictsUnfitted(QuickClassifier):
    def predict(self, X):
        return super().predict(X) if hasattr(self, "net_") else np.zeros(len(X))


@breaks("check_predictions_agree")
class PredictsTheWorst(QuickClassifier):
    def _to_labels(self, logits):
        return super()._to_labels(-logits)


@breaks("check_rows_are_predicted_one_by_one")
class CentresScores(QuickClassifier):
    def decision_function(self, X):
        scores = super().decision_function(X)
        return scores - scores.mean()


@breaks("check_predicting_is_repeatable")
class CountsPredictions(QuickClassifier):
    def predict(self, X):
        self.n_predicted_ = getattr(self, "n_predicted_", 0) + len(X)
        return super().predict(X)


@breaks("check_features_have_names")
class NamesOneFeature(QuickClassifier):
    def get_feature_names_out(self, input_features=None):
        return np.array(["feature"], dtype=object)


@breaks("check_heads_compute_in_float32")
class RoundsScores(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.head = torch.nn.Linear(N_FEATURES, n_outputs)
        return module


@breaks("check_outputs_must_be_finite")
class PredictsWhatIsNotFinite(QuickClassifier):
    def predict(self, X):
        try:
            return super().predict(X)
        except ValueError:
            return self.classes_[np.zeros(len(X), dtype=int)]


# Training -------------------------------------------------------------------------


@breaks("check_fitted_attributes")
class CountsEpochsWrongly(QuickClassifier):
    def _keep(self, net):
        super()._keep(net)
        self.n_iter_ = 7


@breaks("check_every_trained_parameter_moves")
class HasAnIdleParameter(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.idle = torch.nn.Parameter(torch.zeros(3))
        return module


@breaks("check_frozen_weights_do_not_move")
class CopiesFrozenWeights(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        for part in backbone.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    twin = torch.nn.Parameter(value.clone(), requires_grad=False)
                    part._parameters[name] = twin
        return super()._build_module(backbone, n_outputs)


@breaks("check_fit_is_repeatable")
class StartsAnywhere(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        with torch.no_grad():
            module.head.weight += np.random.default_rng().normal()
        return module


@breaks("check_global_generators_are_left_alone")
class DrawsANumber(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        np.random.default_rng(0)
        torch.rand(1)
        return super().fit(X, y, sample_weight)


@breaks("check_quiet_by_default")
class Talks(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        sys.stdout.write("fitting\n")
        return super().fit(X, y, sample_weight)


@breaks("check_refit_starts_anew")
class FitsOnce(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        return self if hasattr(self, "net_") else super().fit(X, y, sample_weight)


@breaks("check_failed_fit_changes_nothing")
class SaysThatItBegan(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        self.began_ = True
        return super().fit(X, y, sample_weight)


@breaks("check_interrupt_changes_nothing")
class CannotBeStopped(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except KeyboardInterrupt:
            return self


@breaks("check_diverging_fit_is_refused")
class KeepsWhatDiverged(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except ValueError:
            return self


@breaks("check_early_stopping_holds_rows_out")
class NeverStopsEarly(QuickClassifier):
    def _train(self, module, train, held_out, draws):
        self.early_stopping, before = False, self.early_stopping
        net = super()._train(module, train, held_out, draws)
        self.early_stopping = before
        return net

    def _keep(self, net):
        super()._keep(net)
        self.history_ = self.history_.drop(columns="valid_loss", errors="ignore")


# Composition ----------------------------------------------------------------------


@breaks("check_grid_search_over_a_pipeline")
class KeepsItsBatchSize(QuickClassifier):
    def set_params(self, **params):
        return super().set_params(**params | {"batch_size": 8})


@breaks("check_callbacks_are_told")
class TellsNoEpochs(QuickClassifier):
    def _with_epoch_tasks(self, callbacks):
        return callbacks


@breaks("check_global_configuration_makes_no_difference")
class LooksAtTheConfiguration(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if get_config()["transform_output"] == "pandas":
            X, y = X[::-1], y[::-1]
        return super().fit(X, y, sample_weight)


@breaks("check_representations")
class HasNoName(QuickClassifier):
    def __repr__(self):
        return "a model"


@breaks("check_pickle_predicts_the_same")
class ForgetsWhatItLearned(QuickClassifier):
    def _restore(self, *args):
        super()._restore(*args)
        torch.nn.init.zeros_(self.net_.module_.head.weight)


@breaks("check_pickle_holds_no_frozen_weights")
class PicklesTooMuch(QuickClassifier):
    def __getstate__(self):
        return super().__getstate__() | {"ballast": bytes(10**6)}


@breaks("check_table_is_not_kept")
class KeepsTheTable(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.table_ = X
        return self


def test_every_check_has_something_to_find():
    assert {check.__name__ for check in CHECKS} == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    cls = BROKEN[name]
    estimator = cls("robustmm/tiny-clip")
    (check,) = [c for c in checks_for(estimator) if c.__name__ == name]
    with pytest.raises((AssertionError, ValueError)):
        check(estimator)


def test_an_undocumented_parameter_is_found():
    class Undocumented(MAPClassifier):
        """Adds one without a word."""

        width: int = 3

    estimator = Undocumented("robustmm/tiny-vilt")
    with pytest.raises(AssertionError, match=r"not \['width'\]"):
        check_parameters_are_documented(Subject(estimator))


# The two ways to run them ---------------------------------------------------------


def test_all_failures_are_reported_or_the_first_is_raised():
    estimator = PredictsTheWorst()
    before = dict(vars(estimator))
    results = check_estimator(estimator, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert failed == ["check_multilabel", "check_predictions_agree"]
    assert len(results) == len(CHECKS)
    assert vars(estimator) == before
    with pytest.raises(AssertionError, match="set the labels whose probability"):
        check_estimator(estimator)


def test_checks_of_absent_parameters_are_left_out():
    class Plain(ToyClassifier):
        def __init__(self, backbone="robustmm/tiny-clip"):
            super().__init__(backbone)

    left_out = {c.__name__ for c in CHECKS} - {c.__name__ for c in checks_for(Plain())}
    assert left_out == {
        "check_bad_class_weights_are_refused",
        "check_bad_images_are_listed_by_row",
        "check_class_weight_changes_the_model",
        "check_diverging_fit_is_refused",
        "check_early_stopping_holds_rows_out",
        "check_every_trained_parameter_moves",
        "check_grid_search_over_a_pipeline",
        "check_heads_compute_in_float32",
        "check_interrupt_changes_nothing",
        "check_numbers_must_be_finite",
    }


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="subclass of BaseMultimodalClassifier"):
        check_estimator(LogisticRegression())
    with pytest.raises(ValueError, match='on_fail must be "raise" or None'):
        check_estimator(QuickClassifier(), on_fail="warn")


class Renamed(QuickClassifier):
    """Reads other columns than the default ones."""

    def __init__(self, *, image_column="photo", text_column="caption"):
        super().__init__()
        self.image_column = image_column
        self.text_column = text_column


def test_columns_may_have_other_names():
    estimator = Renamed()
    checked = [
        c for c in checks_for(estimator) if c.function.__module__ == cells.__name__
    ]
    assert len(checked) > 9
    for check in checked:
        check(estimator)


def test_pytest_gets_a_test_per_check():
    mark = parametrize_with_checks([QuickClassifier(), QuickClassifier()]).args
    names, cases = mark
    assert names == ("estimator", "check")
    assert len(cases) == 2 * len(CHECKS)
    assert cases[0].id == "QuickClassifier-check_bad_parameters_are_named"
