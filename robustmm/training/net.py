"""The only skorch subclass: weighted losses, penalties, autocast, best weights."""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import NoReturn

import pandas as pd
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from ..backbones.host import HostBatch, is_asynchronous, upload
from ..data import Collate, bad_images_of
from .device import may_start_workers

# What a batch carries for the loss, the bookkeeping and the host, not for the device.
NOT_FOR_MODULE = frozenset({"sample_weight", "row", "bad", "image_key"})
# Held by the thread that switches a module to evaluation.
_SWITCHING = threading.Lock()


def _renew_lock() -> None:
    global _SWITCHING
    _SWITCHING = threading.Lock()


# A worker forked while another thread switches would wait for it for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class EarlyStop(Exception):
    """Raised by a callback to end the training in good order."""


class Net(NeuralNet):
    """A skorch net whose module returns logits, or ``(logits, penalty)``.

    The loss of a batch is the mean over its rows of weight times row loss, plus the
    penalty. Weights have mean 1 over the training set, so a batch mean is unbiased.

    Parameters
    ----------
    module : torch.nn.Module
        An instance; only its parameters that require a gradient are optimised.
    autocast : torch.dtype, optional
        The type that matrix products run in; None leaves everything in float32.
    draws : RandomStream, optional
        Lent to the training whenever it draws random numbers; None draws from torch's
        global generators as they are.
    forward_params : dict, optional
        What the module's ``forward`` gets beside the batch while it is trained.
    owner : str
        The class of the estimator, which errors name.
    **kwargs
        Passed to :class:`skorch.NeuralNet`.

    Attributes
    ----------
    damaged_ : dict from row to reason
        The images that could not be read when a batch of the training was made.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        autocast=None,
        draws=None,
        forward_params=None,
        owner="Net",
        **kwargs,
    ):
        super().__init__(module, **kwargs)
        self.autocast = autocast
        self.draws = draws
        # Not skorch's ``fit_params``: where scikit-learn routes metadata, a ``fit``
        # refuses those that nobody has requested.
        self.forward_params = forward_params
        self.owner = owner
        self.damaged_: dict[int, str] = {}

    def infer(self, x: dict, **fit_params) -> Tensor | tuple[Tensor, Tensor]:
        """Run the module on one batch, without the keys that are not for it."""
        params = self.forward_params or {}
        output = self.call(partial(operator.call, **params), x)
        return tuple(t.float() for t in output) if _is_pair(output) else output.float()

    def batches(self, data: Dataset) -> Sequence | DataLoader:
        """Return the (batch, targets) of rows in their order, to be predicted."""
        options = self.get_params_for("iterator_valid")
        size, collate = (
            options.get("batch_size", self.batch_size),
            options["collate_fn"],
        )
        # A loader of one batch is all cost, and its workers are more. One of a user's
        # own class may do anything.
        if self.iterator_valid is not DataLoader or not 0 < len(data) <= size:
            return self.get_iterator(data, training=False)
        return [collate([data[i] for i in range(len(data))])]

    def evaluate(self, batch: dict, read: Callable = operator.call) -> Tensor:
        """Return what is read from the module for one batch, with no gradient.

        Parameters
        ----------
        batch : dict of Tensor
        read : callable (module, **batch) -> Tensor of shape (B, k)
            The module's ``forward`` by default, which gives logits; or a method of its
            class, such as ``MAILModule.usage``.
        """
        # Switching takes a while, in which the module says already that it is done.
        with _SWITCHING:
            if self.module_.training:
                self._set_training(False)
        with torch.inference_mode():
            return self.call(read, batch).float().cpu()

    def call(self, function: Callable, x: dict):
        """Call ``function(module, **batch)`` on the net's device, under autocast."""
        self.damaged_.update(bad_images_of(x))
        device = torch.device(self.device)
        batch = {
            name: upload(value, device)
            for name, value in x.items()
            if name not in NOT_FOR_MODULE
        }
        if getattr(self.module_, "reads_host", False):
            batch["host"] = HostBatch.of(x["present"], x)
        enabled = self.autocast is not None
        with torch.autocast(device.type, dtype=self.autocast, enabled=enabled):
            return function(self.module_, **batch)

    def get_loss(self, y_pred, y_true, X=None, training=False) -> Tensor:
        """Weighted task loss plus the module's penalty; a scalar."""
        logits, penalty = y_pred if _is_pair(y_pred) else (y_pred, 0.0)
        loss = self.criterion_(logits, upload(y_true, logits.device))
        if loss.ndim == 2:
            loss = loss.mean(dim=1)  # (B, L) -> (B,)
        return (loss * upload(X["sample_weight"], loss.device)).mean() + penalty

    def get_all_learnable_params(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of what is trained; frozen parameters need no optimiser."""
        for name, parameter in self.module_.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def partial_fit(self, X, y=None, classes=None, **fit_params) -> Net:
        """Train on; unlike skorch's, a Ctrl-C propagates to the caller."""
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        with suppress(EarlyStop):
            self.fit_loop(X, y, **fit_params)
        self.notify("on_train_end", X=X, y=y)
        return self

    def run_single_epoch(
        self, iterator, training: bool, prefix: str, **options
    ) -> None:
        """Run an epoch; the order of its rows is drawn from the fit's own stream.

        Raises
        ------
        ValueError
            If its loss is not finite, or what it did to the weights; before callbacks
            see the epoch and write it down.
        """
        batches = self._drawn(iterator) if training else iterator
        super().run_single_epoch(batches, training, prefix, **options)
        name, epoch = f"{prefix}_loss", len(self.history)
        # Of losses that are numbers on this side already: nothing waits for a device.
        loss = sum(batch.get(name, 0.0) for batch in self.history[-1]["batches"])
        if not math.isfinite(loss):
            self._refuse(f"{name}={loss} in epoch {epoch}")
        if training and not self._is_finite():
            self._refuse(f"weights that are not finite behind epoch {epoch}")

    def _is_finite(self) -> bool:
        """Whether all that is trained is finite; asks the device once."""
        trained = [p.detach() for _, p in self.get_all_learnable_params()]
        return not trained or bool(
            torch.stack([p.isfinite().all() for p in trained]).all()
        )

    def _refuse(self, found: str) -> NoReturn:
        raise ValueError(
            f"{self.owner} must train with finite losses, got {found}. Lower lr, "
            f'{self.lr!r} now, pass precision="float32", or look at the inputs and '
            "their weights."
        )

    def _drawn(self, iterator) -> Iterator:
        with self._lent():
            batches = iter(iterator)
        while True:
            with self._lent():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def train_step(self, batch, **fit_params) -> dict:
        """Take one optimiser step; dropout draws from the fit's own stream."""
        with self._lent():
            return super().train_step(batch, **fit_params)

    def _lent(self):
        return nullcontext() if self.draws is None else self.draws.lent()

    def notify(self, method_name: str, **kwargs) -> None:
        """Call the callbacks; skorch's own stop by raising KeyboardInterrupt."""
        try:
            with self._lent():
                super().notify(method_name, **kwargs)
        except KeyboardInterrupt as interrupt:
            if _raised_by_callback(interrupt):
                raise EarlyStop from interrupt
            raise

    def release_training_memory(self) -> None:
        """Drop all that only a training needs: the module stays."""
        self.optimizer_.state.clear()
        self.train_split = self.draws = self.forward_params = None
        for _, parameter in self.get_all_learnable_params():
            parameter.grad = None


def _is_pair(output) -> bool:
    return isinstance(output, tuple)


def _raised_by_callback(error: BaseException) -> bool:
    """Whether the innermost frame is an ``on_...`` method of a skorch callback."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    module = frame.f_globals.get("__name__", "")
    return module.startswith("skorch.callbacks") and frame.f_code.co_name[:3] == "on_"


class BestWeights(Callback):
    """Keep the trainable weights of the best epoch, and stop when none gets better.

    Parameters
    ----------
    patience : int
        Epochs without a lower validation loss after which the training stops.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_train_begin(self, net, X=None, y=None, **kwargs) -> None:
        """Forget the best of an earlier training."""
        self.best_loss_, self.waited_, self.best_ = math.inf, 0, {}

    def on_epoch_end(self, net, **kwargs) -> None:
        """Copy the weights of a better epoch; stop after too many worse ones."""
        loss = net.history[-1, "valid_loss"]
        if loss < self.best_loss_:
            self.best_loss_, self.waited_ = loss, 0
            trained = net.get_all_learnable_params()
            self.best_ = {name: p.detach().clone() for name, p in trained}
            return
        self.waited_ += 1
        if self.waited_ >= self.patience:
            raise EarlyStop

    def on_train_end(self, net, X=None, y=None, **kwargs) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for name, parameter in net.get_all_learnable_params():
                if name in self.best_:
                    parameter.copy_(self.best_[name])
        self.best_ = {}


class ProgressBar(Callback):
    """Advance a tqdm bar by one per training batch, with the last losses beside it."""

    def __init__(self, bar):
        self.bar = bar

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        """Count one training batch."""
        if training:
            self.bar.update()

    def on_epoch_end(self, net, **kwargs) -> None:
        """Show the losses of the epoch that ended."""
        row = net.history[-1]
        losses = {k: row[k] for k in ("train_loss", "valid_loss") if k in row}
        self.bar.set_postfix(epoch=row["epoch"], **losses)


def _constant(x: float) -> float:
    return 1.0


def _linear(x: float) -> float:
    return 1.0 - x


def _cosine(x: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * x))


def _polynomial(x: float) -> float:
    return (1.0 - x) ** 0.9


# Decay after the warm-up, as a function of the part of the training that is done.
SCHEDULES = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "held_polynomial": _polynomial,
}


def learning_rate_factor(
    schedule: str, warmup: float, n_steps: int
) -> Callable[[int], float]:
    """Return the function from optimiser step to the factor of the learning rate.

    The first ``warmup * n_steps`` steps rise linearly to 1, or stay at 0.1 for
    ``"held_polynomial"`` (the recipe of CMPT, section 4.2); then the schedule decays.
    """
    n_warm = round(warmup * n_steps)
    decay, held = SCHEDULES[schedule], schedule == "held_polynomial"

    def factor(step: int) -> float:
        if step < n_warm:
            return 0.1 if held else (step + 1) / n_warm
        done = (step - n_warm) / max(1, n_steps - n_warm)
        return decay(min(1.0, done))

    return factor


def learning_rate_callback(schedule: str, warmup: float, n_steps: int) -> LRScheduler:
    """Return skorch's scheduler callback for one of ``SCHEDULES``, step by step."""
    factor = learning_rate_factor(schedule, warmup, n_steps)
    return LRScheduler(policy=LambdaLR, lr_lambda=factor, step_every="batch")


def make_net(module: nn.Module, collate: Collate, params: dict) -> Net:
    """Return an initialised net; ``params`` are skorch's and prevail."""
    ours = {
        "criterion__reduction": "none",
        "iterator_train__shuffle": True,
        "iterator_train__collate_fn": collate,
        "iterator_valid__collate_fn": collate,
        # Without one of its own, a loader draws from torch's global generator.
        "iterator_valid__generator": torch.Generator(),
        "callbacks__print_log": None,
        "verbose": 0,
    }
    params = ours | loader_options(params["device"]) | params
    if not may_start_workers():
        params |= {f"iterator_{k}__num_workers": 0 for k in ("train", "valid")}
    return Net(module, **params).initialize()


def loader_options(device: str) -> dict:
    """Return how batches are loaded for a device: pinned, where that is of use.

    Examples
    --------
    >>> loader_options("cuda:1")
    {'iterator_train__pin_memory': True, 'iterator_valid__pin_memory': True}
    >>> loader_options("cpu")
    {}
    """
    if not is_asynchronous(torch.device(device)):
        return {}
    return {f"iterator_{part}__pin_memory": True for part in ("train", "valid")}


def history_frame(net: Net) -> pd.DataFrame:
    """Return a row per epoch: losses, seconds and the last learning rate."""
    names = ("epoch", "train_loss", "valid_loss", "dur")
    rows = []
    for epoch in net.history:
        row = {name: epoch[name] for name in names if name in epoch}
        rows.append(row | {"lr": epoch["batches"][-1].get("event_lr", net.lr)})
    return pd.DataFrame(rows)


def restore_history(net: Net, history: pd.DataFrame) -> None:
    """Write the epochs of :func:`history_frame` into a new net."""
    for row in history.to_dict("records"):
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(name, value)
