"""The frozen layers before the first adapted one, run once per cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .host import take_rows, upload, with_pixels
from .stream import Stream
from .tokens import Tokens


class Store(Protocol):
    """What states are kept in: arrays by key."""

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the array, or None."""

    def put(self, key: bytes, array: np.ndarray) -> None:
        """Keep the array, or not."""

    def __contains__(self, key: bytes) -> bool:
        """Whether there is one."""


class FrozenResults:
    """What frozen layers make of cells, looked up by content or computed and kept.

    Parameters
    ----------
    store : Store
    *identity : JSON values
        What results depend on beside the content, the kind of device and the type of
        number that matrix products run in.
    dtype : {"float32", "float16"}
        What results are rounded to, also when they are new; one that holds a number
        above 65504, which 16 bits cannot, is not.

    Examples
    --------
    >>> class Kept(dict):
    ...     put = dict.__setitem__
    >>> lengths = FrozenResults(Kept(), "how long a text is")
    >>> texts = [b"a", b"bcd", b"a"]
    >>> def compute(rows):
    ...     print("computed:", rows)
    ...     return [np.array([len(texts[row])]) for row in rows]
    >>> lengths(texts, torch.device("cpu"), compute)
    computed: [0, 1]
    [array([1.], dtype=float32), array([3.], dtype=float32), array([1.], dtype=float32)]
    >>> lengths(texts[1:], torch.device("cpu"), compute)
    [array([3.], dtype=float32), array([1.], dtype=float32)]
    """

    def __init__(self, store: Store, *identity, dtype: str = "float32"):
        self.store = store
        self.identity = identity
        self.dtype = np.dtype(dtype)

    def __call__(
        self,
        contents: Sequence[bytes],
        device: torch.device,
        compute: Callable[[list[int]], Sequence[np.ndarray]],
        shape: tuple[int | None, ...] | None = None,
    ) -> list[np.ndarray]:
        """Return a result for each content; equal ones are computed once.

        Parameters
        ----------
        contents : sequence of bytes
            Name the cells of a batch.
        device : torch.device
            Where results are computed.
        compute : callable (rows) -> sequence of ndarray
            Gets the rows whose results are not known. Its arrays own their memory.
        shape : tuple of int or None, optional
            Of every result, in float32; None in it stands for any size. Anything else
            that the store has, as others may write to its files, is computed anew.
        """
        names = self._names(contents, device.type, _number(device.type))
        rows: dict[bytes, int] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, row)
        known = {name: self._known(name, shape) for name in rows}
        lacking = [name for name in rows if known[name] is None]
        computed = compute([rows[name] for name in lacking]) if lacking else []
        for name, result in zip(lacking, computed, strict=True):
            known[name] = self._rounded(result)
            self.store.put(name, known[name])
        return [known[name] for name in names]

    def _known(self, name: bytes, shape: tuple | None) -> np.ndarray | None:
        found = self.store.get(name)
        if found is None or shape is None:
            return found
        typed = found.dtype in (np.float32, self.dtype) and found.ndim == len(shape)
        sizes = zip(found.shape, shape, strict=False)
        fits = typed and all(n == m or (m is None and n) for n, m in sizes)
        return found if fits else None

    def has(self, content: bytes, kind: str, number: torch.dtype) -> bool:
        """Return whether the store has the result for a content.

        Parameters
        ----------
        content : bytes
        kind : str
            The type of the device that results are computed on.
        number : torch.dtype
            What matrix products run in there.
        """
        return self._names([content], kind, number)[0] in self.store

    def _rounded(self, result: np.ndarray) -> np.ndarray:
        if self.dtype == result.dtype:
            return result
        with np.errstate(over="ignore"):
            small = result.astype(self.dtype)
        return small if np.isfinite(small).all() else result

    def _names(
        self, contents: Sequence[bytes], kind: str, number: torch.dtype
    ) -> list[bytes]:
        about = [*self.identity, kind, str(number)]
        if self.dtype != np.float32:
            about.append(self.dtype.name)
        about = json.dumps(about)
        common = blake2b(about.encode(), digest_size=20)
        names = []
        for content in contents:
            digest = common.copy()
            digest.update(content)
            names.append(digest.digest())
        return names


def _number(kind: str) -> torch.dtype:
    """Return the type that matrix products run in here and now."""
    enabled = torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if enabled else torch.float32


@dataclass(frozen=True)
class KnownImages:
    """Tells from an image's key whether its states are at hand."""

    results: FrozenResults
    kind: str
    number: torch.dtype

    def __call__(self, present: tuple, image_key: bytes, ids: Callable) -> bool:
        """Return whether they are; of its row, nothing else matters."""
        return self.results.has(image_key, self.kind, self.number)


class FrozenPrefix:
    """Compute what enters a layer of a frozen stream, or look it up by cell.

    Nothing before that layer is trained and nothing there is random, so the states of
    a cell are the same in every epoch, fold and candidate of a grid. They are stored
    without padding; in a causal stream without what follows the pooled token,
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
    dtype : {"float32", "float16"}
        Of the states; the smaller one is an approximation.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-bert")["text"]
    >>> ids = torch.tensor([[2, 7, 3]])
    >>> batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    >>> tokens = FrozenPrefix(stream, stop=2)(batch, keys=None)
    >>> stream.pool(stream.run(tokens, start=2)).shape
    torch.Size([1, 128])
    """

    def __init__(
        self,
        stream: Stream,
        stop: int,
        store: Store | None = None,
        identity: str = "",
        dtype: str = "float32",
    ):
        self.stream = stream
        self.stop = stop
        self.store = store
        self.identity = identity
        self.dtype = dtype

    @property
    def results(self) -> FrozenResults:
        """The states in the store, by cell."""
        capacity = getattr(self.stream, "capacity", None)  # longer: other positions
        about = [self.identity, self.stream.modality, self.stop, capacity]
        return FrozenResults(self.store, *about, dtype=self.dtype)

    def known(self, kind: str, number: torch.dtype) -> KnownImages | None:
        """Return what tells whether an image's states are at hand, or None; see
        :meth:`FrozenFeatures.known`."""
        return None if self.store is None else KnownImages(self.results, kind, number)

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, Tensor], keys: Sequence[bytes] | None
    ) -> Tokens:
        """Return the tokens that enter the layer, for a batch of cells.

        Parameters
        ----------
        batch : dict of Tensor
            Inputs of the stream's ``embed``, (B, ...), maybe with a ``"host"``, whose
            pictures are read in the place of ``pixel_values`` where states are unknown.
        keys : sequence of bytes, or None
            Names the content of each cell; None computes all of them.
        """
        device = next(self.stream.parameters()).device
        if self.store is None or keys is None:
            return self._encode(with_pixels(batch, device))

        def compute(rows: list[int]) -> list[np.ndarray]:
            picked = with_pixels(take_rows(batch, rows), device)
            return self._split(self._encode(picked))

        states = self.results(keys, device, compute, (None, self.stream.width))
        return self._join(states, device)

    def _encode(self, batch: dict[str, Tensor]) -> Tokens:
        tokens = self.stream.embed(**batch)
        if self.stream.causal:
            # Padding comes after the pooled token, which cannot see it.
            tokens = Tokens(tokens.values, None, tokens.spans, tokens.anchor)
        return self.stream.run(tokens, stop=self.stop)

    def _split(self, tokens: Tokens) -> list[np.ndarray]:
        """Take the states of the cells apart, (l, d) each."""
        values, ends = tokens.values.float(), self._ends(tokens)
        if ends is None:
            return [row.copy() for row in values.cpu().numpy()]
        # Ends travel with values: the host waits for each copy that it is sent.
        packed = torch.cat([values.flatten(1), ends[:, None].to(values.dtype)], dim=1)
        packed = packed.cpu().numpy()  # (B, L * d + 1)
        states, ends = packed[:, :-1].reshape(values.shape), packed[:, -1].astype(int)
        return [row[:end].copy() for row, end in zip(states, ends, strict=True)]

    def _ends(self, tokens: Tokens) -> Tensor | None:
        """Where the states of each cell end, (B,); None for all rows."""
        if self.stream.causal:
            return tokens.anchor + 1
        return None if tokens.mask is None else tokens.mask.sum(dim=1)

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
            mask = upload(torch.arange(longest) < lengths[:, None], device)
        spans = {self.stream.segments[0]: (0, longest)}
        states = upload(torch.from_numpy(values), device)
        return Tokens(states, mask, spans, upload(anchor, device))


def image_keys(image_key: Tensor) -> list[bytes]:
    """Name each image of a batch, from (B, 20) uint8.

    Examples
    --------
    >>> image_keys(torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8))
    [b'\\x01\\x02', b'\\x03\\x04']
    """
    return [key.tobytes() for key in image_key.cpu().numpy()]


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
