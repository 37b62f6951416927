"""The only skorch subclass: weighted losses, penalties, autocast, best weights."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import NoReturn

import pandas as pd
import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..adapters.whole_batch import part_of_batch
from ..backbones.host import HostBatch, is_asynchronous, upload, with_pixels
from ..data import MODALITIES, Collate, bad_images_of
from ..data.dataset import BAD
from ..locks import ForkSafeLock
from ..storage.tensors import own_tensors
from .clock import Clock
from .device import attention_of_any_shape, may_start_workers
from .processes import current
from .shares import (
    Share,
    SharedBatches,
    average_gradients,
    in_order,
    own_batches,
    own_stream,
    read_batches,
    shared_loader,
)

# What a batch carries for the loss, the bookkeeping and the host, not for the device.
NOT_FOR_MODULE = frozenset({"sample_weight", "row", "image_key", "pictures"}) | BAD
NOT_FOR_MODULE |= {"second_image_key", "second_pictures", "audio_key", "video_key"}
# What all processes are told of the rows that one of them has validated.
_KNOWN_OF_ROWS = ("present", "row", "sample_weight")
# Held by the thread that switches a module to evaluation.
_SWITCHING = ForkSafeLock()


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
    modality_dropout : ModalityDropout, optional
        Hides cells of each batch that is trained on.
    start : callable (net, rows), optional
        Called with the training rows before the training begins.
    clock : Clock, optional
        Ends the training, behind a step, when its time is spent.
    micro_batch_size : int, optional
        Rows that are computed at a time; a step adds up the gradients of as many parts
        as the batch has. None computes all of it at once.
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
    cut_ : bool
        Whether the clock has ended the training before its last step.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        autocast=None,
        draws=None,
        modality_dropout=None,
        start=None,
        clock=None,
        micro_batch_size=None,
        forward_params=None,
        owner="Net",
        **kwargs,
    ):
        super().__init__(module, **kwargs)
        self.autocast = autocast
        self.draws = draws
        self.modality_dropout = modality_dropout
        self.start = start
        self.clock = Clock(None) if clock is None else clock
        self.micro_batch_size = micro_batch_size
        self.cut_ = False
        self._closing = [0.0, 0.0]
        # Where several processes train: what this one computes of the step at hand, and
        # the random numbers that it alone draws.
        self._share: Share | None = None
        self._own = None
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
        with _SWITCHING.held():
            if self.module_.training:
                self._set_training(False)
        with torch.inference_mode():
            return self.call(read, batch).float().cpu()

    def read(
        self, rows: Dataset, read: Callable, advance: Callable | None = None
    ) -> list:
        """Return what is read of rows, batch by batch: [(B, k), ...].

        Of several processes that train together, each computes its part of the batches
        and all get the whole.

        Parameters
        ----------
        rows : Dataset
        read : callable (module, **batch) -> Tensor of shape (B, k)
        advance : callable (int), optional
            Told how many rows were read.
        """
        return read_batches(self, rows, lambda x, y: self.evaluate(x, read), advance)

    def call(self, function: Callable, x: dict):
        """Call ``function(module, **batch)`` on the net's device, under autocast."""
        self.damaged_.update(bad_images_of(x))
        # A thread takes over how many threads torch may use when it asks: without this,
        # the first product in a new one is split over all cores, and rounds otherwise.
        torch.get_num_threads()
        device = torch.device(self.device)
        batch = {
            name: upload(value, device)
            for name, value in x.items()
            if name not in NOT_FOR_MODULE
        }
        reads_host = getattr(self.module_, "reads_host", False)
        if reads_host or "pictures" in x:
            backbone = getattr(self.module_, "backbone", None)
            modalities = getattr(backbone, "modalities", MODALITIES)
            batch["host"] = HostBatch.of(x["present"], x, modalities)
        if not getattr(self.module_, "recalls", False):
            batch = with_pixels(batch, device)
        names = [name for name in x if name.startswith("second_")]
        if reads_host and names:
            second = {name.removeprefix("second_"): x[name] for name in names}
            batch["second_host"] = HostBatch.of(x["present"], second)
        if not reads_host:
            batch.pop("host", None)
        enabled = self.autocast is not None
        cast = torch.autocast(device.type, dtype=self.autocast, enabled=enabled)
        with attention_of_any_shape(device), cast:
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
        if self.start is not None:
            self.start(self, X)
        if current().size > 1:
            current().share_tensors(own_tensors(self.module_).values())
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
        if training:
            batches = self._drawn(iterator)
            super().run_single_epoch(batches, training, prefix, **options)
            self._closing[0] = self.clock.ask()
        elif iterator is None or current().size == 1:
            super().run_single_epoch(iterator, training, prefix, **options)
        else:
            self._validate_shared(iterator.dataset, prefix, **options)
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
        shared = isinstance(iterator, DataLoader) and iterator.batch_sampler
        shares = shared.shares if isinstance(shared, SharedBatches) else None
        if shares is not None and self.draws is not None:
            self._own = own_stream(self.draws, current())
        with self._lent():
            batches = iter(iterator)
        steps = 0
        while True:
            with self._lent():
                batch = next(batches, None)
            self.clock.ask()
            # Behind a step, and in time for what follows an epoch.
            self.cut_ = bool(batch and steps and self.clock.is_over(self._closing[1]))
            if batch is None or self.cut_:
                return
            self._share = shares.popleft() if shares is not None else None
            yield batch
            steps += 1

    def train_step(self, batch, **fit_params) -> dict:
        """Take one optimiser step; dropout draws from the fit's own stream."""
        share = self._share
        with self._lent():
            if self.modality_dropout is not None:
                x, y = batch
                whole = () if share is None else (share,)
                batch = self.modality_dropout(x, self.module_, *whole), y
            if share is None:
                return super().train_step(batch, **fit_params)
        # Of another length in each process; where it ends must not move what all draw.
        with nullcontext() if self._own is None else self._own.lent():
            return super().train_step(batch, **fit_params)

    def train_step_single(self, batch, **fit_params) -> dict:
        """Compute loss and gradients of one step, with the other processes if any."""
        if self._share is None:
            return self._compute(batch, **fit_params)
        processes, part = current(), self._share.part
        # Micro-batches are not as many in each process: what is to be known of all rows
        # of a step is known of those of a micro-batch, as in a single process.
        whole = self.micro_batch_size is None
        with part_of_batch(processes.add, part) if whole else nullcontext():
            step = self._compute(batch, **fit_params)
        trained = [p for _, p in self.get_all_learnable_params()]
        loss = average_gradients(trained, step["loss"], part, processes)
        return step | {"loss": loss}

    def _compute(self, batch, **fit_params) -> dict:
        """Compute loss and gradients of one batch, all at once or part by part."""
        x, y = batch
        size, total = self.micro_batch_size, len(y)
        if size is None or size >= total:
            return super().train_step_single(batch, **fit_params)
        self._set_training(True)
        losses, outputs = [], []
        for start in range(0, total, size):
            rows = slice(start, start + size)
            part, targets = {name: value[rows] for name, value in x.items()}, y[rows]
            output = self.infer(part, **fit_params)
            # Of the mean over the batch, the part of these rows.
            share = len(targets) / total
            loss = share * self.get_loss(output, targets, X=part, training=True)
            loss.backward()
            losses.append(loss.detach())
            outputs.append((output[0] if _is_pair(output) else output).detach())
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(outputs)}

    def _lent(self):
        return nullcontext() if self.draws is None else self.draws.lent()

    def notify(self, method_name: str, **kwargs) -> None:
        """Call the callbacks; skorch's own stop by raising KeyboardInterrupt."""
        if method_name == "on_epoch_begin" and len(self.history):
            self.clock.ask()
            self.cut_ = self.cut_ or self.clock.is_over(self._closing[1])
            if self.cut_:  # all have heard of the epoch that was the last
                raise EarlyStop
        if method_name == "on_batch_end" and self._share and kwargs.get("training"):
            self.history.record_batch("train_batch_size", len(self._share.rows))
        if method_name != "on_epoch_end":
            return self._tell(method_name, **kwargs)
        stopped = False
        try:
            self._tell(method_name, **kwargs)
        except EarlyStop:
            stopped = True
        # One process that stops, by a callback of the user's, stops all.
        if any(current().gather(stopped)):
            raise EarlyStop
        self._closing[1] = self.clock.ask() - self._closing[0]

    def _tell(self, method_name: str, **kwargs) -> None:
        try:
            with self._lent():
                super().notify(method_name, **kwargs)
        except KeyboardInterrupt as interrupt:
            if _raised_by_callback(interrupt):
                raise EarlyStop from interrupt
            raise

    def get_iterator(self, dataset: Dataset, training: bool = False):
        """Return the loader of a training or of anything else."""
        processes = current()
        if not training or processes.size == 1:
            return super().get_iterator(dataset, training)
        if self.iterator_train is not DataLoader:
            raise ValueError(
                "iterator_train in net_params must be torch's DataLoader where several "
                f"processes train, got {self.iterator_train!r}."
            )
        options = {"batch_size": self.batch_size}
        options |= self.get_params_for("iterator_train")
        return shared_loader(dataset, options, processes)

    def _validate_shared(
        self, dataset: Dataset, prefix: str, step_fn, **params
    ) -> None:
        """Run the validation of an epoch, every process a part of its batches."""
        found = []
        for x, y in own_batches(self, dataset):
            step = step_fn((x, y), **params)
            known = {name: x[name] for name in _KNOWN_OF_ROWS if name in x}
            loss, y_pred = float(step["loss"]), step["y_pred"].cpu()
            found.append((known, y, loss, y_pred))
        parts = in_order(current().gather(found))
        for x, y, loss, y_pred in parts:
            batch, told = (x, y), {"loss": torch.tensor(loss), "y_pred": y_pred}
            self.notify("on_batch_begin", batch=batch, training=False)
            self.history.record_batch(f"{prefix}_loss", loss)
            self.history.record_batch(f"{prefix}_batch_size", len(y))
            self.notify("on_batch_end", batch=batch, training=False, **told)
        self.history.record(f"{prefix}_batch_count", len(parts))

    def release_training_memory(self) -> None:
        """Drop all that only a training needs: the module stays."""
        self.optimizer_.state.clear()
        self.train_split = self.draws = self.forward_params = None
        self.modality_dropout = self.start = self._share = self._own = None
        self.clock = Clock(None)
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
    """Return a row per epoch: losses, score, seconds and the last learning rate."""
    names = ("epoch", "train_loss", "valid_loss", "valid_score", "dur")
    rows = []
    for epoch in net.history:
        row = {name: epoch[name] for name in names if name in epoch}
        # Those of the held-out rows come last, and have none.
        rates = [b["event_lr"] for b in epoch["batches"] if "event_lr" in b]
        rows.append(row | {"lr": rates[-1] if rates else net.lr})
    return pd.DataFrame(rows)


def restore_history(net: Net, history: pd.DataFrame) -> None:
    """Write the epochs of :func:`history_frame` into a new net."""
    for row in history.to_dict("records"):
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(name, value)
