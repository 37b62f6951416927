"""The head of a module before its first step: what it reads, and a probe's weights."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable
from functools import partial

import numpy as np
import sklearn
import torch
from torch import nn
from torch.utils.data import Subset

from ..data import ByteCache, FolderCache
from .net import Net
from .probe import choose_penalty, rare, solve_probe
from .shares import read_batches


def check_head(head: nn.Module | None, owner: str) -> None:
    """Raise ValueError unless a head says what its last layer reads."""
    last = getattr(head, "last", None)
    if not (hasattr(head, "hidden") and isinstance(last, nn.Linear)):
        raise ValueError(
            f'head_init="probe" needs a module whose head is a LinearHead, a '
            f"TwoLayerHead, or has hidden() and last as they do, got {owner}, whose "
            f"head is {type(head).__name__}."
        )


def head_inputs(
    net: Net, rows: Subset, head: nn.Module, read: Callable, advance: Callable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the last layer of a head reads of each row, targets and weights.

    Parameters
    ----------
    net : Net
        With the untrained module, which is asked in evaluation mode.
    rows : Subset
        Of a MultimodalDataset.
    head : Module
    read : callable (module, **batch) -> (B, w)
        What the head is given.
    advance : callable (int)
        Told how many rows were read.

    Raises
    ------
    ValueError
        If the logits of the module are not those of its head.
    """

    def hidden(module, **batch):
        return head.hidden(read(module, **batch))

    unchecked = [True]

    def read_batch(batch, target) -> tuple:
        inputs = net.evaluate(batch, hidden).numpy()
        if unchecked:
            unchecked.clear()
            _check_logits(net, batch, head, inputs)
        # Weights of the batch: an image that is damaged by now may have been all a row
        # had.
        return inputs, target.numpy(), batch["sample_weight"].numpy()

    parts = zip(*read_batches(net, rows, read_batch, advance), strict=True)
    return tuple(map(np.concatenate, parts))


def _check_logits(net: Net, batch: dict, head: nn.Module, inputs: np.ndarray) -> None:
    forward = partial(operator.call, **(net.forward_params or {}))
    logits = net.evaluate(batch, forward)
    with torch.no_grad():
        here = torch.from_numpy(inputs).to(head.last.weight.device)
        expected = head.last(here).cpu()
    if not np.isfinite(inputs).all():
        return  # the caller names the rows
    # Half precision may differ in the third digit from one call to the next.
    scale = 1e-2 * float(logits.abs().max()) + 1e-4
    if expected.shape != logits.shape or not torch.allclose(
        logits, expected, rtol=0, atol=scale
    ):
        raise ValueError(
            f'head_init="probe" needs a module whose logits are head(features(batch)), '
            f"got others from {net.owner}: features must return what the head reads."
        )


def start_from_probe(
    head: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    store: ByteCache | FolderCache | None = None,
) -> None:
    """Give the last layer of a head the weights of a logistic regression.

    Parameters
    ----------
    head : Module
    inputs : ndarray of shape (n, w)
        What its last layer reads.
    targets : ndarray of int of shape (n,), or of shape (n, L)
    weights : ndarray of shape (n,)
    store : ByteCache, FolderCache or None
        Where regressions are kept: candidates of a search that differ in what starts
        without an effect, as the rank of an adapter, begin with the same one.
    """
    last, kept = head.last, weights > 0
    known = inputs[kept], targets[kept], weights[kept]
    key = _name_of(*known, last.out_features)
    solved = None if store is None else store.get(key)
    if solved is None:
        solved = _solve(*known, last.out_features)
        if store is not None:
            store.put(key, solved)
    solved = torch.tensor(solved)
    with torch.no_grad():
        last.weight.copy_(solved[:, 1:])
        last.bias.copy_(solved[:, 0])


def _solve(inputs, targets, weights, n_outputs: int) -> np.ndarray:
    """Return intercepts and coefficients side by side, (n_outputs, 1 + w)."""
    known = inputs.astype(np.float64), targets, weights, n_outputs
    C = choose_penalty(*known)
    coef, intercept = solve_probe(*known, C=C, absent=rare(len(inputs)))
    # In float32 already: not every device has 64 bits.
    return np.column_stack([intercept, coef]).astype(np.float32)


def _name_of(*known) -> bytes:
    """Name the regression of these rows by all that it follows from."""
    name = hashlib.blake2b(f"probe {sklearn.__version__}".encode(), digest_size=20)
    for part in map(np.ascontiguousarray, known):
        name.update(f"{part.dtype} {part.shape} ".encode())
        name.update(part)
    return name.digest()
