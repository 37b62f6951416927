"""The classifier that every trained method completes with parameters and a module."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length
from skorch.callbacks import Callback
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import Subset

from .annotations import TableLike
from .backbones import Backbone
from .backbones.compiled import check_compiler, why_not
from .base import BaseMultimodalClassifier
from .checks import check_choice, check_folder, check_number
from .data import Rows
from .data.frame import either_of
from .data.targets import Targets, encode_known, split_rows
from .training.checkpoint import fit_or_resume
from .training.clock import Clock
from .training.device import RandomStream
from .training.dropout import (
    ModalityDropout,
    automatic_probability,
    check_probability,
)
from .training.head import check_head, head_inputs, start_from_probe
from .training.net import Net
from .training.processes import current
from .training.schedule import (
    HEAD,
    SCHEDULES,
    LearningRate,
    learning_rate_callback,
)
from .training.scored import EpochScorer, check_scoring
from .training.watch import (
    BestWeights,
    ProgressBar,
    Run,
    ValidationScore,
    check_validation,
    plain_score,
    validation_named,
)

logger = logging.getLogger("robustmm")

PER = ("row", "batch")


class MultimodalClassifier(BaseMultimodalClassifier):
    """Base class of classifiers that are trained by gradient descent, with skorch.

    A method is a subclass with parameters and :meth:`_build_module`.

    Parameters
    ----------
    max_epochs : int
        Passes over the training rows.
    lr : float
        AdamW's learning rate.
    weight_decay : float
        Its decoupled weight decay.
    lr_schedule : {"constant", "linear", "cosine", "polynomial", "held_polynomial"}
        Decay of the learning rate after the warm-up. ``"held_polynomial"`` stays at a
        tenth during the warm-up instead of rising.
    warmup : float
        Part of the optimiser steps, in [0, 1], that is warm-up.
    head_init : {"random", "probe"}
        What the last layer of the head starts from: random weights, or logistic
        regression on what it reads of the training rows through the untrained module,
        whose penalty is chosen on held-out ones. The first loss is then about that of a
        linear probe.
    head_lr : float, optional
        Learning rate of the head, which is not decayed then; None treats it like all
        else. The schedule scales both.
    modality_dropout : float or "auto"
        Probability that a complete training row loses its image or its text in a step,
        each equally often, drawn anew in every step. A row that has one of them keeps
        it. ``"auto"`` leaves about a third of the rows complete: 2/3 if all are, less
        if the table has gaps, 0 if no more than a third are complete.
    modality_dropout_per : {"row", "batch"}
        Whether each row draws, or all complete rows of a batch lose the same.
    early_stopping : bool
        Hold out a part of the training rows, keep the weights of the epoch that is best
        there, and stop when none gets better any more.
    scoring : str, callable or None
        What the best epoch has: the lowest loss, or the highest score of this scorer of
        scikit-learn's, ``scorer(estimator, X, y)``, on the rows that are held out or
        given as ``validation_data``. They have the gaps of the table: no modality is
        dropped from them. ``valid_score`` in ``history_`` is this score; for None it is
        the accuracy, or the mean average precision of several labels.
    validation_fraction : float
        The part held out.
    n_iter_no_change : int
        Epochs without improvement after which early stopping ends the training.
    time_limit : float, optional
        Seconds from the beginning of ``fit``. The training stops behind the step at
        which they are spent, and makes one at least; the learning rate decays with the
        time where that is ahead of the steps. What is kept is the best epoch if rows
        are held out or given, otherwise what the last step left. The model then depends
        on how fast the machine is. Not with ``checkpoint_dir``.
    checkpoint_dir : path-like, optional
        Existing folder for the state after each epoch: a ``fit`` that was killed goes
        on from there when it is called again with the same parameters and rows, and
        on the CPU ends with the same weights, to the bit, as one that was not; up to
        rounding where frozen layers' states are kept in memory only. Needs a
        ``random_state``; a fit that ends removes its file. Callbacks in ``net_params``
        start anew.
    micro_batch_size : int, optional
        Rows that are computed at a time; a step adds up the gradients of the parts of
        its ``batch_size`` rows, where memory does not hold them all. None computes them
        at once. The steps are the same but for what is drawn, as in dropout.
    compile : bool
        Whether the encoders' layers run as torch's compiler makes them: the same up to
        rounding; whether faster depends on the machine. The first batches wait until
        they are compiled, which a process does once for all fits on encoders of one
        kind, for batches and texts of any size. Needs a C++ compiler.
    net_params : dict, optional
        Passed to the skorch net, for instance ``{"callbacks": [...]}`` or
        ``{"iterator_train__num_workers": 4}``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    net_ : Net
        The fitted skorch net; the others are listed at
        :class:`BaseMultimodalClassifier`.

    Examples
    --------
    A method is one file: a module, and a class that builds it. The page on adding a
    method has a whole one.

    >>> from robustmm import CMPTClassifier
    >>> issubclass(CMPTClassifier, MultimodalClassifier)
    True
    >>> CMPTClassifier(max_epochs=3, lr=1e-3).max_epochs
    3
    """

    max_epochs: int = 12
    lr: float = 1e-3
    weight_decay: float = 0.01
    lr_schedule: str = "linear"
    warmup: float = 0.1
    head_init: str = "random"
    head_lr: float | None = None
    modality_dropout: float | str = 0.0
    modality_dropout_per: str = "row"
    early_stopping: bool = False
    scoring: str | Callable | None = None
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    time_limit: float | None = None
    checkpoint_dir: str | Path | None = None
    micro_batch_size: int | None = None
    compile: bool = False
    net_params: dict | None = None

    # Parts of the module that learn as its head does, where they exist.
    _WITH_HEAD: ClassVar[tuple[str, ...]] = ()
    # What a call of ``fit`` has beside its rows, while it runs.
    _fitting: ClassVar[Run | None] = None

    def _optimizer_options(self) -> dict:
        """Return further skorch parameters of a method's recipe.

        Those in ``net_params`` prevail.
        """
        return {}

    def _forward_params(self) -> dict:
        """Return what the module's ``forward`` gets beside the batch in training."""
        return {}

    def _head_of(self, module: nn.Module) -> tuple[nn.Module | None, Callable]:
        """Return the head that is trained, and the function that reads its input.

        The function is called as ``read(module, **batch)`` and returns (B, w).
        """
        return getattr(module, "head", None), _features

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("max_epochs", self.max_epochs, Integral, 1)
        check_number("lr", self.lr, Real, 0, open="low")
        check_number("weight_decay", self.weight_decay, Real, 0)
        check_number("warmup", self.warmup, Real, 0, 1)
        check_number("n_iter_no_change", self.n_iter_no_change, Integral, 1)
        fraction = self.validation_fraction
        check_number("validation_fraction", fraction, Real, 0, 1, open="both")
        check_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        check_choice("head_init", self.head_init, ("random", "probe"))
        if self.head_lr is not None:
            check_number("head_lr", self.head_lr, Real, 0, open="low")
        check_probability("modality_dropout", self.modality_dropout)
        check_choice("modality_dropout_per", self.modality_dropout_per, PER)
        check_folder("checkpoint_dir", self.checkpoint_dir, (None,))
        if self.checkpoint_dir is not None and self.random_state is None:
            raise ValueError(
                "random_state must be set with checkpoint_dir, or a fit could never be "
                "found again, got None."
            )
        if self.micro_batch_size is not None:
            check_number("micro_batch_size", self.micro_batch_size, Integral, 1)
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, Real, 0, open="low")
            if self.checkpoint_dir is not None:
                raise ValueError(
                    "time_limit must be None with checkpoint_dir: a fit that goes on "
                    f"has another clock, got {self.time_limit!r}."
                )
        check_scoring(self.scoring)
        check_choice("compile", self.compile, (False, True))
        if self.compile:
            check_compiler()

    def _new_module(self, backbone: Backbone, draws: RandomStream, **options):
        module = super()._new_module(backbone, draws, **options)
        for stream in module.backbone.streams.values():
            stream.compile_blocks = self.compile
        return module

    def _restore(self, trained: dict) -> None:
        if self.compile and (reason := why_not()) is not None:
            # As with a device that is not there: a model opens anywhere.
            warnings.warn(
                f"compile=True, but torch cannot compile here; running the layers as "
                f"they are. Torch says {reason}",
                stacklevel=2,
            )
            self.compile = False
        super()._restore(trained)

    # Fitting ------------------------------------------------------------------------

    def fit(
        self,
        X: TableLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        validation_data: tuple | None = None,
    ) -> Self:
        """Train on rows whose image or text may be missing.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells; an array is read by position: image, text.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels, all texts, all numbers or all dates; an indicator matrix means
            multilabel.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in the loss; a row of weight zero is left out. Finite and
            not negative, with a sum in [1e-300, 1e300].
        validation_data : tuple (X, y), optional
            Further rows, which ``history_`` has a ``valid_loss`` and a ``valid_score``
            of for each epoch. Early stopping takes them in the place of a part of the
            training rows; without it they are only looked at. Each counts the same, and
            those without any modality do not.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For parameters, columns, cells, labels, weights or images that cannot be
            used, each with the rule and what was received; and for a training whose
            loss is not finite any more, with the epoch and what to try.
        """
        with self._running(validation_data):
            super().fit(X, y, sample_weight)
        return self

    @contextmanager
    def _running(self, validation_data=None) -> Iterator[None]:
        """Start the clock, and keep the validation rows while the block runs."""
        with self._unchanged_on_failure():
            pair = check_validation(validation_data)
            self._fitting = Run(Clock(self.time_limit), pair)
            yield
            del self._fitting

    def _fit_rows(self, rows: Rows, targets: Targets, sample_weight) -> None:
        run = self._fitting
        if run is not None and run.validation is not None:
            self._read_validation(run, targets)
        elif self.scoring is not None and not self.early_stopping:
            raise ValueError(
                "scoring needs rows to score: pass early_stopping=True, or "
                f"validation_data to fit, got scoring={self.scoring!r} alone."
            )
        super()._fit_rows(rows, targets, sample_weight)

    def _read_validation(self, run: Run, targets: Targets) -> None:
        X, y = run.validation
        with validation_named():
            run.rows = self._check_X(X, reset=False)
            run.targets = encode_known(y, targets)
            check_consistent_length(run.rows.index, run.targets.encoded)

    def _split(self, rows: np.ndarray, targets: Targets, seed: int) -> tuple:
        given = self._fitting is not None and self._fitting.validation is not None
        if given or not self.early_stopping:
            return super()._split(rows, targets, seed)
        return split_rows(rows, targets, self.validation_fraction, seed)

    def _watched(self, module: nn.Module, data, held_out: np.ndarray) -> Subset:
        if self._fitting is None or self._fitting.rows is None:
            return super()._watched(module, data, held_out)
        with validation_named():
            rows, _ = self._decoded(self._fitting.rows, module.backbone)
        there = np.flatnonzero(rows.present.any(axis=1))
        if len(there) == 0:
            raise ValueError(
                f"validation_data must have a row with {either_of(rows.modalities)}, "
                f"got {len(rows)} rows without."
            )
        weights = np.ones(len(rows), dtype=np.float32)
        options = self._fitting.targets.encoded, weights, "ignore"
        return Subset(self._dataset(module.backbone, rows, *options), there)

    def _train(
        self, module: nn.Module, train: Subset, held_out: Subset, draws: RandomStream
    ) -> Net:
        # Known before the training, as the schedule has to end with the last step.
        processes = current()
        n_batches = math.ceil(len(train) / (self.batch_size * processes.size))
        rows, train = train, self._with_random_frames(module, train)
        n_steps = n_batches * self.max_epochs
        clock = Clock(None) if self._fitting is None else self._fitting.clock
        split = predefined_split(held_out) if len(held_out) else None
        with self._progress(n_steps, "fit") as bar:
            callbacks = self._callbacks(n_steps, bar, held_out, clock)
            options = {"train_split": split, "draws": draws, "clock": clock}
            options |= self._start_options(module, rows)
            net = self._make_net(module, draws.device, callbacks, **options)
            net.forward_params = self._forward_params()
            if self.checkpoint_dir is None:
                net.fit(train)
            else:
                parameters = self.get_params(deep=False)
                name = type(self).__name__
                file = fit_or_resume(net, train, held_out, name, parameters)
                # Not removed here: what follows in ``fit`` may still fail, or be
                # stopped.
                if processes.is_first:
                    self._checkpoints.append(file)
        if net.cut_:
            logger.info(
                "%s: time_limit=%s is spent in epoch %d of %d.",
                type(self).__name__,
                self.time_limit,
                len(net.history),
                self.max_epochs,
            )
        # A fitted model in a grid search would hold the optimiser's two copies of all
        # that is trained, and the rows that were held out.
        net.release_training_memory()
        return net

    def _with_random_frames(self, module: nn.Module, train: Subset) -> Subset:
        """Return rows whose videos show other frames whenever they are asked for."""
        frozen = getattr(module, "recalls", False)
        if frozen or "video" not in getattr(train.dataset, "clips", ()):
            return train
        data = copy(train.dataset)
        data.random_frames = True
        return Subset(data, train.indices)

    def _start_options(self, module: nn.Module, train: Subset) -> dict:
        """Return what the net does beside its steps, of the recipe of this class."""
        options: dict = {"modality_dropout": self._dropout(module, train)}
        if self.head_init == "probe":
            check_head(self._head_of(module)[0], type(self).__name__)
            # Of the even frames of videos, whatever the steps will see.
            options["start"] = lambda net, _: self._start_head(net, train)
        return options

    def _dropout(self, module: nn.Module, train: Subset) -> ModalityDropout | None:
        probability = self.modality_dropout
        if probability == "auto":
            present = train.dataset.rows.present[train.indices]
            probability = automatic_probability(present)
        if probability == 0:
            return None
        collate = self._collate(module.backbone)
        return ModalityDropout(probability, self.modality_dropout_per, collate)

    def _start_head(self, net: Net, train: Subset) -> None:
        """Give the head the weights of a linear probe on what it reads."""
        head, read = self._head_of(net.module_)
        with self._progress(len(train), "start") as bar:
            inputs, *known = head_inputs(net, train, head, read, bar.update)
        self._refuse_not_finite(train.dataset.rows, train.indices, inputs)
        start_from_probe(head, inputs, *known, store=self._state_cache())

    def _callbacks(
        self, n_steps: int, bar, held_out: Subset, clock: Clock
    ) -> list[Callback]:
        """Return what skorch tells of each step and epoch."""
        callbacks = [
            LearningRate(),
            learning_rate_callback(self.lr_schedule, self.warmup, n_steps, clock),
            ProgressBar(bar),
        ]
        if self.early_stopping or (len(held_out) and self.time_limit is not None):
            patience = self.n_iter_no_change if self.early_stopping else None
            monitor = "valid_loss" if self.scoring is None else "valid_score"
            # Behind the others: those that follow do not hear of the epoch it stops at.
            callbacks.append(BestWeights(patience, monitor))
        callbacks = self._with_epoch_tasks(callbacks)
        # The first, so that all others find the score.
        scores = [ValidationScore(self._score(held_out))] if len(held_out) else []
        return scores + callbacks

    def _score(self, held_out: Subset) -> Callable:
        """Return the function (net, logits, targets) that scores an epoch."""
        if self.scoring is None:
            return plain_score
        evaluate = BaseMultimodalClassifier._evaluate
        return EpochScorer(self, held_out, *self._learned_classes(), evaluate)

    def _learned_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes that the training has outputs for, and their prior."""
        return self.classes_, self.class_prior_

    def _net_options(self, module: nn.Module) -> dict:
        options = {
            "optimizer": torch.optim.AdamW,
            "optimizer__weight_decay": self.weight_decay,
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            "micro_batch_size": self.micro_batch_size,
            **self._optimizer_options(),
            # Last: what the user says prevails over a method's recipe.
            **(self.net_params or {}),
        }
        if self.head_lr is not None:
            groups = options.get("optimizer__param_groups", [])
            names = [self._head_name(module), *self._WITH_HEAD]
            # In front: the first group whose pattern fits a parameter has it.
            head = {"lr": self.head_lr, "weight_decay": 0.0, "name": HEAD}
            options["optimizer__param_groups"] = [
                *((f"{name}.*", head) for name in names),
                *groups,
            ]
        return options

    def _head_name(self, module: nn.Module) -> str:
        head, _ = self._head_of(module)
        names = [name for name, part in module.named_modules() if part is head]
        if not names:
            raise ValueError(
                f"head_lr needs a module with a head, got {type(self).__name__}, whose "
                f"{type(module).__name__} has none."
            )
        return names[0]


def _features(module: nn.Module, **batch: torch.Tensor) -> torch.Tensor:
    """What the head of a module classifies, (B, d)."""
    return module.features(**batch)
