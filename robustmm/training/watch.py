"""What is looked at behind each epoch: held-out rows, and the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from skorch.callbacks import Callback

from ..data import Rows
from ..data.targets import Targets
from .clock import Clock
from .net import EarlyStop, Net
from .processes import current


@dataclass
class Run:
    """What one call of ``fit`` has beside its rows.

    Attributes
    ----------
    clock : Clock
    validation : tuple (X, y) or None
        As it was given.
    rows, targets : Rows and Targets, or None
        The same, read.
    """

    clock: Clock
    validation: tuple | None = None
    rows: Rows | None = None
    targets: Targets | None = None


def check_validation(pair) -> tuple | None:
    """Return ``(X, y)``, or None for None.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    if pair is None:
        return None
    rule = "validation_data must be a tuple (X, y)"
    if not isinstance(pair, tuple | list):
        raise TypeError(f"{rule}, got {type(pair).__name__}.")
    if len(pair) != 2:
        raise ValueError(f"{rule}, got {len(pair)} items; it takes no weights.")
    return tuple(pair)


@contextmanager
def validation_named() -> Iterator[None]:
    """Say of an error in the block that it is about the validation rows."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation_data: {error}") from error


class ValidationScore(Callback):
    """Record ``valid_score`` behind each epoch, from the logits of the held-out rows.

    Parameters
    ----------
    score : callable (net, logits (n, C), targets) -> float
        Targets are (n,) int, or (n, C) for several labels.
    """

    def __init__(self, score: Callable[[Net, np.ndarray, np.ndarray], float]):
        self.score = score

    def on_epoch_begin(self, net, **kwargs) -> None:
        """Forget those of the epoch before."""
        self.parts_ = []

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kw) -> None:
        """Keep what the validation computes anyway."""
        if not training:
            self.parts_.append((y_pred, batch[1]))

    def on_epoch_end(self, net, **kwargs) -> None:
        """Score all of it."""
        logits, targets = (
            torch.cat(part).cpu().numpy() for part in zip(*self.parts_, strict=True)
        )
        self.parts_ = []
        # All score, so that what raises does so in all; the first one's number counts.
        score = self.score(net, logits, targets)
        net.history.record("valid_score", current().from_first(lambda: score))

    def on_train_end(self, net, X=None, y=None, **kwargs) -> None:
        """Let go of the rows: the net keeps its callbacks when the fit is over."""
        self.score = None


def plain_score(net: Net, logits: np.ndarray, targets: np.ndarray) -> float:
    """Return accuracy, or of several labels the mean average precision.

    The mean is over labels that a row has; NaN if there is none.

    Examples
    --------
    >>> plain_score(None, np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    0.5
    """
    if targets.ndim == 1:
        return float((logits.argmax(axis=1) == targets).mean())
    pairs = zip(targets.T, logits.T, strict=True)
    return float(
        np.mean([average_precision_score(y, s) for y, s in pairs if y.any()] or np.nan)
    )


class BestWeights(Callback):
    """Keep the trainable weights of the best epoch, and stop when none gets better.

    Parameters
    ----------
    patience : int or None
        Epochs without a better one after which the training stops. None never stops
        it, and puts the best weights back only if the time limit has.
    monitor : {"valid_loss", "valid_score"}
        What is to be low, or to be high.
    """

    def __init__(self, patience: int | None, monitor: str = "valid_loss"):
        self.patience = patience
        self.monitor = monitor

    def on_train_begin(self, net, X=None, y=None, **kwargs) -> None:
        """Forget the best of an earlier training."""
        self.best_loss_, self.waited_, self.best_ = math.inf, 0, {}

    def on_epoch_end(self, net, **kwargs) -> None:
        """Copy the weights of a better epoch; stop after too many worse ones."""
        value = net.history[-1, self.monitor]
        loss = value if self.monitor == "valid_loss" else -value
        if loss < self.best_loss_:
            self.best_loss_, self.waited_ = loss, 0
            trained = net.get_all_learnable_params()
            self.best_ = {name: p.detach().clone() for name, p in trained}
            return
        self.waited_ += 1
        if self.patience is not None and self.waited_ >= self.patience:
            raise EarlyStop

    def on_train_end(self, net, X=None, y=None, **kwargs) -> None:
        """Put the best weights back."""
        best, self.best_ = self.best_, {}
        if self.patience is None and not net.cut_:
            return
        with torch.no_grad():
            for name, parameter in net.get_all_learnable_params():
                if name in best:
                    parameter.copy_(best[name])


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
        names = ("train_loss", "valid_loss", "valid_score")
        self.bar.set_postfix(
            epoch=row["epoch"], **{k: row[k] for k in names if k in row}
        )
