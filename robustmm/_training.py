"""Pieces of training that need no estimator: the net, the split, the record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from ._device import may_start_workers
from ._net import Net
from ._targets import Targets
from .backbones import Backbone
from .data import Collate


def split_rows(
    rows: np.ndarray, targets: Targets, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions to train on and positions to hold out.

    Stratified by class where every class has a row for each side.
    """
    n_held = math.ceil(fraction * len(rows))
    labels = None
    if not targets.multilabel:
        counts = np.unique(targets.encoded[rows], return_counts=True)[1]
        smaller = min(n_held, len(rows) - n_held)
        if counts.min() >= 2 and smaller >= len(counts):
            labels = targets.encoded[rows]
    return tuple(
        train_test_split(rows, test_size=n_held, stratify=labels, random_state=seed)
    )


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
    params = ours | params
    if not may_start_workers():
        params |= {f"iterator_{k}__num_workers": 0 for k in ("train", "valid")}
    return Net(module, **params).initialize()


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


@contextmanager
def fitted_on(fingerprint: str, owner: str) -> Iterator[Callable[[Backbone], Backbone]]:
    """Refuse a backbone that a classifier was not fitted on.

    Parameters
    ----------
    fingerprint : str
        That of the backbone it was fitted on.
    owner : str
        The name of the classifier's class.

    Yields
    ------
    callable
        Returns the backbone it is given, if it is the same.

    Raises
    ------
    OSError
        If the backbone cannot be found inside the block.
    ValueError
        If it is another one.
    """

    def check(backbone: Backbone) -> Backbone:
        if backbone.fingerprint == fingerprint:
            return backbone
        raise ValueError(
            f"The backbone {backbone.sources} differs from the one this {owner} was "
            f"fitted on (fingerprint {backbone.fingerprint[:12]}, expected "
            f"{fingerprint[:12]}): put the original files back, or fit again."
        )

    try:
        yield check
    except OSError as error:
        raise OSError(
            f"The backbone that this {owner} was fitted on (fingerprint "
            f"{fingerprint[:12]}) cannot be loaded: {error}"
        ) from error


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return what an estimator has to itself: all but the shared frozen tensors."""
    own, seen = {}, set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not module.backbone.is_shared(tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            own[name] = tensor
    return own


def dump_tensors(module: nn.Module) -> dict[str, np.ndarray]:
    """Return CPU copies of :func:`own_tensors`."""
    return {
        name: tensor.detach().cpu().numpy().copy()
        for name, tensor in own_tensors(module).items()
    }


def load_tensors(module: nn.Module, values: dict[str, np.ndarray]) -> None:
    """Write what :func:`dump_tensors` returned into a module of the same build.

    Raises
    ------
    ValueError
        If names or shapes differ from the module's.
    """
    own = own_tensors(module)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: np.shape(value) for name, value in values.items()}
    if found != shapes:
        odd = sorted(set(found.items()) ^ set(shapes.items()))
        raise ValueError(
            "Trained tensors must have the names and shapes of the module's, got "
            f"{len(found)} for {len(shapes)}; they differ in {odd[:3]}."
        )
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(torch.from_numpy(np.array(value)))
