"""The frozen layers before the first adapted one, run once per cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .stream import Stream
from .tokens import Tokens


class Store(Protocol):
    """What states are kept in: arrays by key."""

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the array, or None."""

    def put(self, key: bytes, array: np.ndarray) -> None:
        """Keep the array, or not."""


def kept(store: Store, key: bytes, *shape: int | None) -> np.ndarray | None:
    """Return what a store has, if it is float32 of a shape; None stands for any size.

    A store's files may have been changed by others.
    """
    array = store.get(key)
    if array is None or array.dtype != np.float32 or array.ndim != len(shape):
        return None
    sizes = zip(array.shape, shape, strict=True)
    return array if all(n == m or (m is None and n) for n, m in sizes) else None


class FrozenPrefix:
    """Compute what enters a layer of a frozen stream, or look it up by cell.

    Nothing before that layer is trained and nothing there is random, so the states of
    a cell are the same in every epoch, fold and candidate of a grid. They are stored in
    float32, without padding; in a causal stream without what follows the pooled token,
    which nothing reads.

    Parameters
    ----------
    stream : Stream
        Pools its first token or, if it is causal, the end-of-text token.
    stop : int
        The layer that the states enter.
    store : Store or None
        Where states are kept; None computes them every time.
    identity : str
        What the states depend on beside the cell: fingerprint, image settings.
    """

    def __init__(
        self, stream: Stream, stop: int, store: Store | None = None, identity: str = ""
    ):
        self.stream = stream
        self.stop = stop
        self.store = store
        self.identity = identity

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, Tensor], keys: Sequence[bytes] | None
    ) -> Tokens:
        """Return the tokens that enter the layer, for a batch of cells.

        Parameters
        ----------
        batch : dict of Tensor
            Inputs of the stream's ``embed``, (B, ...).
        keys : sequence of bytes, or None
            Names the content of each cell; None computes all of them.
        """
        if self.store is None or keys is None:
            return self._encode(batch)
        names = self._names(keys)
        rows = {name: row for row, name in reversed(list(enumerate(names)))}
        width = self.stream.width
        states = {name: kept(self.store, name, None, width) for name in rows}
        lacking = [name for name in rows if states[name] is None]
        if lacking:
            picked = torch.tensor([rows[name] for name in lacking])
            encoded = self._encode(
                {name: value[picked.to(value.device)] for name, value in batch.items()}
            )
            for name, state in zip(lacking, self._split(encoded), strict=True):
                states[name] = state
                self.store.put(name, state)
        device = next(iter(batch.values())).device
        return self._join([states[name] for name in names], device)

    def _encode(self, batch: dict[str, Tensor]) -> Tokens:
        tokens = self.stream.embed(**batch)
        if self.stream.causal:
            # Padding comes after the pooled token, which cannot see it.
            tokens = Tokens(tokens.values, None, tokens.spans, tokens.anchor)
        return self.stream.run(tokens, stop=self.stop)

    def _names(self, keys: Sequence[bytes]) -> list[bytes]:
        kind = next(self.stream.parameters()).device.type
        number = torch.float32
        if torch.is_autocast_enabled(kind):
            number = torch.get_autocast_dtype(kind)
        capacity = getattr(self.stream, "capacity", None)  # longer: other positions
        about = [self.identity, self.stream.modality, self.stop, capacity]
        common = blake2b(json.dumps([*about, kind, str(number)]).encode())
        names = []
        for key in keys:
            digest = common.copy()
            digest.update(key)
            names.append(digest.digest()[:20])
        return names

    def _split(self, tokens: Tokens) -> list[np.ndarray]:
        """Take the states of the cells apart, (l, d) each."""
        values = tokens.values.float().cpu().numpy()
        if self.stream.causal:
            stops = (tokens.anchor + 1).tolist()
        elif tokens.mask is not None:
            stops = tokens.mask.sum(dim=1).tolist()
        else:
            stops = [tokens.length] * len(tokens)
        return [row[:stop].copy() for row, stop in zip(values, stops, strict=True)]

    def _join(self, states: list[np.ndarray], device: torch.device) -> Tokens:
        """Put cells of any length into one batch."""
        lengths = torch.tensor([len(state) for state in states])
        longest = int(lengths.max())
        ragged = int(lengths.min()) < longest
        make = np.zeros if ragged else np.empty
        values = make((len(states), longest, self.stream.width), np.float32)
        for row, state in zip(values, states, strict=True):
            row[: len(state)] = state
        mask, anchor = None, torch.zeros_like(lengths)
        if self.stream.causal:
            anchor = lengths - 1
        elif ragged:
            mask = (torch.arange(longest) < lengths[:, None]).to(device)
        spans = {self.stream.segments[0]: (0, longest)}
        return Tokens(
            torch.from_numpy(values).to(device), mask, spans, anchor.to(device)
        )


def text_keys(input_ids: Tensor, attention_mask: Tensor) -> list[bytes]:
    """Name each text of a batch, (B, T), by its tokens.

    Examples
    --------
    >>> ids = torch.tensor([[2, 7, 3], [2, 3, 0]])
    >>> padded = torch.tensor([[2, 3]])
    >>> keys = text_keys(ids, ids > 0)
    >>> keys[0] != keys[1], keys[1:] == text_keys(padded, padded > 0)
    (True, True)
    """
    rows = zip(
        input_ids.cpu().numpy(), attention_mask.bool().cpu().numpy(), strict=True
    )
    return [ids[attended].tobytes() for ids, attended in rows]
