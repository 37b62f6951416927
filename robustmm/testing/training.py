"""Checks of what a training does, and of what it leaves alone."""

import contextlib
import copy
import io

import numpy as np
import torch
from sklearn.metrics import log_loss
from sklearn.utils import get_tags
from skorch.callbacks import Callback

from ..training.dropout import ModalityDropout
from .subject import (
    Subject,
    applies_if,
    has_net,
    must_raise,
    needs,
    require,
    require_equal,
)


class Interrupt(Callback):
    """A user who presses Ctrl-C after the first batch."""

    def on_batch_end(self, net, **kwargs) -> None:
        """Press it."""
        raise KeyboardInterrupt


class Divergence(Callback):
    """A step that was too large: what is trained is NaN behind it."""

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        """Take it."""
        for _, parameter in net.get_all_learnable_params() if training else ():
            parameter.data.fill_(np.nan)


@applies_if(has_net)
def check_history_counts_epochs(subject: Subject) -> None:
    """The record of a training has a finite loss for each epoch."""
    fitted = subject.fitted
    epochs = len(fitted.history_)
    rule = "history_ must have a row per epoch and n_iter_ must count them"
    require(fitted.n_iter_ == epochs > 0, f"{rule}, got {fitted.n_iter_} and {epochs}.")
    losses = fitted.history_["train_loss"]
    require(np.isfinite(losses).all(), f"The train_loss must be finite, got {losses}.")
    trained, total = fitted.n_trainable_parameters_, fitted.n_parameters_
    rule = "n_trainable_parameters_ must not exceed n_parameters_"
    require(0 <= trained <= total, f"{rule}, got {trained} and {total}.")


def check_fitted_attributes(subject: Subject) -> None:
    """The documented fitted attributes are there and agree."""
    fitted, (X, y) = subject.fitted, subject.table()
    rule = "feature_names_in_ must be the columns of the table"
    require_equal(fitted.feature_names_in_, list(X), rule)
    n_columns = len(subject.columns)
    rule = "n_features_in_ must count the columns."
    require(fitted.n_features_in_ == n_columns, rule)
    rule = "classes_ must be the sorted labels"
    require_equal(fitted.classes_, np.unique(y), rule)
    names = ("complete", *(f"{name}_missing" for name in subject.modalities))
    expected = dict.fromkeys(names, len(X) // len(names))
    found = {name: fitted.missing_report_[name] for name in expected}
    require(found == expected, f"missing_report_ must be {expected}, got {found}.")


@applies_if(lambda subject: has_net(subject) and subject.has("max_epochs"))
def check_every_trained_parameter_moves(subject: Subject) -> None:
    """No parameter that asks for a gradient is left out of the training."""
    estimator, before = subject.fresh(max_epochs=2, **subject.given(lr=1e-2)), {}
    build = estimator._build_module

    def remember(backbone, n_outputs):
        module = build(backbone, n_outputs)
        named = module.named_parameters()
        before.update({k: p.detach().clone() for k, p in named if p.requires_grad})
        return module

    # On the instance: weights before the training are seen nowhere else.
    estimator._build_module = remember
    estimator.fit(*subject.table())
    after = dict(estimator.net_.module_.named_parameters())
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    require(not still, f"Every trained parameter must move, these did not: {still}.")


@applies_if(has_net)
def check_frozen_weights_do_not_move(subject: Subject) -> None:
    """The backbone is as it was loaded, and shared with other estimators."""
    estimator = subject.fresh()
    device = next(subject.fitted.net_.module_.parameters()).device
    # Values, not fingerprints: these are computed once, and a move in place is shared.
    loaded = dict(estimator._load_backbone(device).named_parameters())
    before = {name: p.detach().clone() for name, p in loaded.items()}
    module = estimator.fit(*subject.table()).net_.module_
    moved = [name for name, p in loaded.items() if not torch.equal(p, before[name])]
    rule = "Training must leave the weights of the backbone alone"
    require(not moved, f"{rule}, it moved {moved[:5]}.")
    # By address: a view of the shared weights has Parameter objects of its own.
    theirs = {p.data_ptr() for p in loaded.values()}
    frozen = {p.data_ptr() for p in module.parameters() if not p.requires_grad}
    shared = not theirs or bool(theirs & frozen)
    require(shared, "The module must use the frozen weights it is given, not copies.")


def check_fit_is_repeatable(subject: Subject) -> None:
    """The same seed gives the same model, to the bit.

    Frozen states that were cached in other batches differ in the last bit, so two fits
    that both find full caches are compared.
    """
    first = subject.observed.estimator
    if get_tags(first).non_deterministic:
        return
    X, y = subject.table()
    weights = np.ones(len(X))
    require_equal(
        subject.fresh().fit(X, y, sample_weight=weights).decision_function(X),
        first.decision_function(X),
        "The same random_state must give the same model on the CPU",
    )


def check_global_generators_are_left_alone(subject: Subject) -> None:
    """``fit`` draws no random number from torch's or numpy's global generator."""
    seen = subject.observed
    rule = "fit must leave the global generator alone, that of"
    require(torch.equal(*seen.torch_state), f"{rule} torch.")
    require((seen.numpy_state[0] == seen.numpy_state[1]).all(), f"{rule} numpy.")


def check_quiet_by_default(subject: Subject) -> None:
    """With ``verbose=0`` nothing is written, with 1 there are progress bars."""
    if subject.estimator.verbose == 0:
        output = subject.observed.output
        require(not output, f"fit must write nothing by default, got {output[:200]!r}.")
    if subject.has("verbose"):
        shown = io.StringIO()
        # Where tqdm draws its bars.
        with contextlib.redirect_stderr(shown):
            subject.fresh(verbose=1).fit(*subject.table(6))
        require(shown.getvalue(), "fit must show its progress with verbose=1.")


def check_refit_starts_anew(subject: Subject) -> None:
    """A second ``fit`` forgets the first, its number of classes included."""
    X, y = subject.table()
    estimator = subject.fresh().fit(*subject.table(12, n_classes=3)).fit(X, y)
    require_equal(
        estimator.decision_function(X),
        subject.fitted.decision_function(X),
        "A second fit must forget the first",
        atol=1e-5,
    )


def check_failed_fit_changes_nothing(subject: Subject) -> None:
    """A ``fit`` that raises leaves the estimator as it was."""
    X, y = subject.table(6, n_classes=3)
    X.iloc[2, 0] = b"not a picture"  # found after the labels were taken
    raising = subject.given(on_bad_image="raise")
    fitted = copy.copy(subject.fitted).set_params(**raising)
    for estimator in (subject.fresh(**raising), fitted):
        before = dict(vars(estimator))
        rule = "fit must refuse images that cannot be read"
        with must_raise(ValueError, subject.modalities[0], rule):
            estimator.fit(X, y)
        rule = "A fit that raises must leave the estimator as it was"
        require(_same(vars(estimator), before), f"{rule}.")


@needs("net_params")
def check_interrupt_changes_nothing(subject: Subject) -> None:
    """Ctrl-C reaches the caller and leaves the estimator as it was."""
    estimator = subject.fresh(net_params={"callbacks": [Interrupt()]})
    before = dict(vars(estimator))
    try:
        estimator.fit(*subject.table(6))
    except KeyboardInterrupt:
        rule = "An interrupted fit must leave the estimator as it was"
        require(_same(vars(estimator), before), f"{rule}.")
    else:
        raise AssertionError("Ctrl-C in fit must reach the caller.")


@needs("net_params")
def check_diverging_fit_is_refused(subject: Subject) -> None:
    """A training that ends in NaN raises, says what to do, and changes nothing."""
    estimator = subject.fresh(net_params={"callbacks": [Divergence()]})
    before, name = dict(vars(estimator)), type(estimator).__name__
    rule = "fit must refuse a loss that is not finite"
    with must_raise(ValueError, f"{name}.*epoch 1.*lr.*precision.*inputs", rule):
        estimator.fit(*subject.table(6))
    rule = "A fit that diverged must leave the estimator as it was"
    require(_same(vars(estimator), before), f"{rule}.")


@needs("early_stopping", "max_epochs")
def check_early_stopping_holds_rows_out(subject: Subject) -> None:
    """Early stopping has a validation loss for every epoch."""
    estimator = subject.fresh(early_stopping=True, max_epochs=2)
    history = estimator.fit(*subject.table()).history_
    losses = history.get("valid_loss")
    has_losses = losses is not None and np.isfinite(losses).all()
    require(has_losses, f"Early stopping must have a valid_loss, got {history}.")


@needs("modality_dropout")
def check_hidden_cells_are_missing_cells(subject: Subject) -> None:
    """A cell that modality dropout takes away is like one that the table lacks."""
    X, y = subject.table()
    fitted = subject.fresh(**subject.given(dropout=0.0)).fit(X, y)
    X = X[X.notna().all(axis=1)]
    hidden = torch.eye(2, dtype=torch.bool).repeat(len(X), 1)[: len(X)]
    lost = X.mask(hidden.numpy(), None)
    module, collate = fitted.net_.module_, fitted._collate(fitted.net_.module_.backbone)
    whole, expected = (_batch(fitted, table, collate) for table in (X, lost))
    given = ModalityDropout(1.0, "row", collate).hide(whole, hidden, module)
    # Who hides cells itself does so while it is trained.
    module.train("hidden" in given)
    with torch.no_grad():
        outputs = [fitted.net_.infer(batch) for batch in (given, expected)]
    found, expected = (o[0] if isinstance(o, tuple) else o for o in outputs)
    rule = "A hidden cell must give the logits of a missing one"
    require_equal(found.cpu().numpy(), expected.cpu().numpy(), rule, atol=1e-4)


def _batch(fitted, X, collate) -> dict:
    data = fitted._dataset(fitted.net_.module_.backbone, fitted._check_X(X, False))
    return collate([data[i] for i in range(len(X))])[0]


@needs("head_init", "lr", "max_epochs")
def check_heads_start_from_a_probe(subject: Subject) -> None:
    """With ``head_init="probe"`` a training begins below the loss of the prior."""
    names = ("lr", "head_lr", "backbone_lr")
    still = subject.given(weight_decay=0.0, **dict.fromkeys(names, 1e-12))
    estimator = subject.fresh(head_init="probe", max_epochs=1, **still)
    X, y = subject.table()
    try:
        estimator.fit(X, y)
    except ValueError as error:
        # A module whose head cannot be found may say so.
        require("head_init" in str(error), f"fit must say why it failed, got {error}.")
        return
    prior = np.tile(estimator.class_prior_, (len(y), 1))
    losses = [log_loss(y, p) for p in (estimator.predict_proba(X), prior)]
    rule = (
        'With head_init="probe" and no step, the loss must be below that of the prior'
    )
    require(losses[0] < losses[1], f"{rule}, got {losses[0]:.3f}, {losses[1]:.3f}.")


def _same(attributes: dict, before: dict) -> bool:
    # By identity, not by value: a new array of equal numbers was set, too.
    return attributes.keys() == before.keys() and all(
        attributes[name] is value for name, value in before.items()
    )
