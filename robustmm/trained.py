"""The classifier that every trained method completes with parameters and a module."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import Subset

from .base import BaseMultimodalClassifier
from .checks import check_choice, check_folder, check_number
from .data.targets import Targets, split_rows
from .training.checkpoint import fit_or_resume
from .training.device import RandomStream
from .training.dropout import ModalityDropout, automatic_probability
from .training.head import check_head, head_inputs, start_from_probe
from .training.net import (
    HEAD,
    SCHEDULES,
    BestWeights,
    LearningRate,
    Net,
    ProgressBar,
    learning_rate_callback,
)

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
        Hold out a part of the training rows, keep the weights of the epoch with the
        lowest loss there and stop when it does not fall any more.
    validation_fraction : float
        The part held out.
    n_iter_no_change : int
        Epochs without improvement after which early stopping ends the training.
    checkpoint_dir : path-like, optional
        Existing folder for the state after each epoch: a ``fit`` that was killed goes
        on from there when it is called again with the same parameters and rows, and
        on the CPU ends with the same weights, to the bit, as one that was not; up to
        rounding where frozen layers' states are kept in memory only. Needs a
        ``random_state``; a fit that ends removes its file. Callbacks in ``net_params``
        start anew.
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
    """

    max_epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 0.01
    lr_schedule: str = "linear"
    warmup: float = 0.1
    head_init: str = "random"
    head_lr: float | None = None
    modality_dropout: float | str = 0.0
    modality_dropout_per: str = "row"
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    checkpoint_dir: str | Path | None = None
    net_params: dict | None = None

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
        if self.modality_dropout != "auto":
            check_number("modality_dropout", self.modality_dropout, Real, 0, 1)
        check_choice("modality_dropout_per", self.modality_dropout_per, PER)
        check_folder("checkpoint_dir", self.checkpoint_dir, (None,))
        if self.checkpoint_dir is not None and self.random_state is None:
            raise ValueError(
                "random_state must be set with checkpoint_dir, or a fit could never be "
                "found again, got None."
            )

    def _split(self, rows: np.ndarray, targets: Targets, seed: int) -> tuple:
        if not self.early_stopping:
            return super()._split(rows, targets, seed)
        return split_rows(rows, targets, self.validation_fraction, seed)

    def _train(
        self, module: nn.Module, train: Subset, held_out: Subset, draws: RandomStream
    ) -> Net:
        # Known before the training, as the schedule has to end with the last step.
        n_batches = math.ceil(len(train) / self.batch_size)
        n_steps = n_batches * self.max_epochs
        split = predefined_split(held_out) if len(held_out) else None
        with self._progress(n_steps, "fit") as bar:
            callbacks = self._with_epoch_tasks(self._callbacks(n_steps, bar))
            options = {"train_split": split, "draws": draws}
            options |= self._start_options(module, train)
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
                self._checkpoints.append(file)
        # A fitted model in a grid search would hold the optimiser's two copies of all
        # that is trained, and the rows that were held out.
        net.release_training_memory()
        return net

    def _start_options(self, module: nn.Module, train: Subset) -> dict:
        """Return what the net does beside its steps, of the recipe of this class."""
        options: dict = {"modality_dropout": self._dropout(module, train)}
        if self.head_init == "probe":
            check_head(self._head_of(module)[0], type(self).__name__)
            options["start"] = self._start_head
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
        start_from_probe(head, inputs, *known)

    def _callbacks(self, n_steps: int, bar) -> list[Callback]:
        """Return what skorch tells of each step and epoch."""
        callbacks = [
            LearningRate(),
            learning_rate_callback(self.lr_schedule, self.warmup, n_steps),
            ProgressBar(bar),
        ]
        if self.early_stopping:
            # Behind the others: those that follow do not hear of the epoch it stops at.
            callbacks.append(BestWeights(self.n_iter_no_change))
        return callbacks

    def _net_options(self, module: nn.Module) -> dict:
        options = {
            "optimizer": torch.optim.AdamW,
            "optimizer__weight_decay": self.weight_decay,
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            **self._optimizer_options(),
            # Last: what the user says prevails over a method's recipe.
            **(self.net_params or {}),
        }
        if self.head_lr is not None:
            groups = options.get("optimizer__param_groups", [])
            # In front: the first group whose pattern fits a parameter has it.
            head = {"lr": self.head_lr, "weight_decay": 0.0, "name": HEAD}
            options["optimizer__param_groups"] = [
                (f"{self._head_name(module)}.*", head),
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
