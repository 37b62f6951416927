"""Checks of a training find what it does that it should not."""

import sys

import numpy as np
import pytest
import torch
from broken import Broken, assert_found, checks_in
from toys import QuickClassifier

from robustmm.testing import training
from robustmm.testing.subject import Subject

BROKEN = Broken()


@BROKEN.by("check_fitted_attributes")
class LosesItsClasses(QuickClassifier):
    def _keep(self, net):
        super()._keep(net)
        self.classes_ = self.classes_[::-1]


@BROKEN.by("check_history_counts_epochs")
class CountsEpochsWrongly(QuickClassifier):
    def _keep(self, net):
        super()._keep(net)
        self.n_iter_ = 7


@BROKEN.by("check_every_trained_parameter_moves")
class HasAnIdleParameter(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.idle = torch.nn.Parameter(torch.zeros(3))
        return module


@BROKEN.by("check_frozen_weights_do_not_move")
class CopiesFrozenWeights(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        for part in backbone.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    twin = torch.nn.Parameter(value.clone(), requires_grad=False)
                    part._parameters[name] = twin
        return super()._build_module(backbone, n_outputs)


@BROKEN.by("check_fit_is_repeatable")
class StartsAnywhere(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        with torch.no_grad():
            module.head.weight += np.random.default_rng().normal()
        return module


@BROKEN.by("check_global_generators_are_left_alone")
class DrawsANumber(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        np.random.default_rng(0)
        torch.rand(1)
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_quiet_by_default")
class Talks(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        sys.stdout.write("fitting\n")
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_refit_starts_anew")
class FitsOnce(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        return self if hasattr(self, "net_") else super().fit(X, y, sample_weight)


@BROKEN.by("check_failed_fit_changes_nothing")
class SaysThatItBegan(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        self.began_ = True
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_interrupt_changes_nothing")
class CannotBeStopped(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except KeyboardInterrupt:
            return self


@BROKEN.by("check_early_stopping_holds_rows_out")
class NeverStopsEarly(QuickClassifier):
    def _train(self, module, train, held_out, draws):
        self.early_stopping, before = False, self.early_stopping
        net = super()._train(module, train, held_out, draws)
        self.early_stopping = before
        return net

    def _keep(self, net):
        super()._keep(net)
        self.history_ = self.history_.drop(columns="valid_loss", errors="ignore")


@BROKEN.by("check_diverging_fit_is_refused")
class KeepsWhatDiverged(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except ValueError:
            return self


@BROKEN.by("check_hidden_cells_are_missing_cells")
class SeesWhatIsHidden(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.reads_hidden = True
        return module


@BROKEN.by("check_heads_start_from_a_probe")
class StartsAtRandom(QuickClassifier):
    def _start_head(self, net, train):
        pass


def test_every_check_has_something_to_find():
    assert checks_in(training) == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    assert_found(name, BROKEN[name])


class SaysNothingOfHeads(QuickClassifier):
    def _head_of(self, module):
        raise ValueError("No.")


class CountsTooMany(QuickClassifier):
    def _keep(self, net):
        super()._keep(net)
        self.n_trainable_parameters_ = self.n_parameters_ + 1


class MovesTheBackbone(QuickClassifier):
    def _keep(self, net):
        super()._keep(net)
        with torch.no_grad():
            next(net.module_.backbone.parameters()).add_(0.125)


class DrawsFromTorch(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        torch.rand(1)
        return super().fit(X, y, sample_weight)


class DrawsFromNumPy(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        np.random.rand()
        return super().fit(X, y, sample_weight)


class ShowsNoProgress(QuickClassifier):
    def __init__(self, backbone="robustmm/tiny-clip", *, verbose=0):
        super().__init__(backbone)
        self.__dict__["verbose"] = verbose

    def _progress(self, total, what, quiet=False):
        return super()._progress(total, what, quiet=True)

    def _screen(self, rows, backbone):
        verbose, self.verbose = self.verbose, 0
        rows = super()._screen(rows, backbone)
        self.verbose = verbose
        return rows


@pytest.mark.parametrize(
    ("cls", "check", "rule"),
    [
        (LosesItsClasses, "fitted_attributes", "classes_ must be the sorted labels"),
        (CountsTooMany, "history_counts_epochs", "must not exceed n_parameters_"),
        (CopiesFrozenWeights, "frozen_weights_do_not_move", "not copies"),
        (DrawsFromTorch, "global_generators_are_left_alone", "that of torch"),
        (DrawsFromNumPy, "global_generators_are_left_alone", "that of numpy"),
        (Talks, "quiet_by_default", r"write nothing by default, got 'fitting\\n'"),
        (ShowsNoProgress, "quiet_by_default", "must show its progress"),
        (SeesWhatIsHidden, "hidden_cells_are_missing_cells", "logits of a missing one"),
        (StartsAtRandom, "heads_start_from_a_probe", "below that of the prior, got"),
        (SaysNothingOfHeads, "heads_start_from_a_probe", "why it failed, got No"),
        (HasAnIdleParameter, "every_trained_parameter_moves", r"\['idle'\]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_rule_that_is_broken_is_said(cls, check, rule):
    with pytest.raises(AssertionError, match=rule):
        getattr(training, f"check_{check}")(Subject(cls()))


def test_a_weight_that_moves_in_place_is_found():
    backbone = MovesTheBackbone()._load_backbone(torch.device("cpu"))
    shared = next(backbone.parameters())
    before = shared.detach().clone()
    try:
        with pytest.raises(AssertionError, match=r"leave the weights .*, it moved"):
            training.check_frozen_weights_do_not_move(Subject(MovesTheBackbone()))
    finally:
        shared.copy_(before)


def test_ctrl_c_is_pressed_after_the_first_batch():
    batches = []

    class Watched(training.Interrupt):
        def on_batch_begin(self, net, **kwargs):
            batches.append(1)

    X, y = Subject(QuickClassifier()).table()
    with pytest.raises(KeyboardInterrupt):
        QuickClassifier(net_params={"callbacks": [Watched()]}).fit(X, y)
    assert len(batches) == 1
