"""What a frozen model makes of a row, as one vector, computed once per content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .backbone import Backbone
from .host import HostBatch, TracedBatch, take_rows, upload, with_pixels
from .prefix import FrozenResults, Store, image_keys, text_keys
from .stream import Stream

POOLINGS = ("token", "mean", "both")
# What the encoders of clips read.
CLIPS = {"audio": "input_values", "video": "frame_values"}


class FrozenVectors(ABC):
    """Map a batch to one vector per row, with frozen encoders, once per content.

    A child says how long a vector is, and computes those that are not known.

    Parameters
    ----------
    backbone : Backbone
    store : Store or None
        Where vectors are kept, so that folds and candidates of a search share them.
    *settings : JSON values
        What vectors depend on beside the backbone and the content of a row.
    """

    def __init__(self, backbone: Backbone, store: Store | None, *settings):
        self.backbone = backbone
        self.store = store
        self.settings = settings
        # Now, not in the first batch: on a device, each weight has to come to the host.
        self._fingerprint = backbone.fingerprint if store is not None else None

    @property
    @abstractmethod
    def width(self) -> int:
        """Entries of a vector."""

    @abstractmethod
    def _encode(self, present: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Compute the vectors of a batch, (B, width)."""

    def __call__(
        self, present: Tensor, batch: dict[str, Tensor], image_key: Tensor | None = None
    ) -> Tensor:
        """Return the vectors of a batch, (B, width).

        Parameters
        ----------
        present : Tensor of shape (B, 2), bool
            Whether image and text are there, or the backbone's ``modalities``.
        batch : dict of Tensor
            Inputs of the encoders; with its ``"host"`` there is nothing to wait for,
            and its pictures are read in the place of ``pixel_values`` where a vector is
            unknown.
        image_key : Tensor of shape (B, 20), uint8, optional
            Names the image of each row; without it, and without that of the host, the
            store is not used.
        """
        device, host = present.device, batch.get("host")
        has_pictures = isinstance(host, HostBatch) and host.pictures is not None
        known = batch if host is None else vars(host)
        if image_key is None and "host" in batch:
            image_key = host.image_key
        keys = {"image": image_key} | {m: known.get(f"{m}_key") for m in CLIPS}
        read = {m for m, name in CLIPS.items() if name in batch}
        read |= {"image"} if "pixel_values" in batch or has_pictures else set()
        if self.store is None or any(keys[name] is None for name in read):
            return self._encode(present, with_pixels(batch, device))

        def compute(rows: list[int]) -> list[np.ndarray]:
            picked = take_rows({"present": present, **batch}, rows)
            picked = with_pixels(picked, device)
            encoded = self._encode(picked.pop("present"), picked)
            # What is kept has to come to the host: the one wait, once per row.
            return [vector.copy() for vector in encoded.cpu().numpy()]

        host = HostBatch.of(present, batch, self.backbone.modalities)
        contents = _contents(host, {m: keys[m] for m in keys if keys[m] is not None})
        vectors = self.results(contents, device, compute, (self.width,))
        return upload(torch.from_numpy(np.stack(vectors)), device)

    @property
    def results(self) -> FrozenResults:
        """The vectors in the store, by what is in a row."""
        backbone = self.backbone
        # A dummy image depends on the settings, too.
        settings = [*self.settings, backbone.max_text_length, backbone.image_config]
        return FrozenResults(self.store, self._fingerprint, *settings)

    def known(self, kind: str, number: torch.dtype) -> KnownRows | None:
        """Return what tells whether a row's vector is at hand; None without a store.

        Parameters
        ----------
        kind : str
            The type of the device.
        number : torch.dtype
            What matrix products run in there.
        """
        return None if self.store is None else KnownRows(self.results, kind, number)


class FrozenFeatures(FrozenVectors):
    r"""Map a batch to one vector per row, with frozen encoders.

    A joint encoder reads both cells of a row, the dummy in the place of a missing one.
    Of two encoders, each reads its own cell; where that is missing it is not run, and
    its part of the vector is zero. The last two entries say whether image and text are
    there; of other modalities there is one for each.

    Parameters
    ----------
    backbone : Backbone
    pooling : {"token", "mean", "both"}
        The pooled token, projected where the checkpoint has a projection; or the mean
        of what the last layer returns, over words and over patches, zero for a missing
        modality; or both, side by side.
    store : Store or None
        Where vectors are kept, so that folds and candidates of a search share them.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> encode = FrozenFeatures(load_backbone("robustmm/tiny-bert"))
    >>> ids = torch.tensor([[2, 3]])
    >>> batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    >>> encode(torch.tensor([[False, True]]), batch).shape
    torch.Size([1, 130])
    """

    def __init__(
        self, backbone: Backbone, pooling: str = "token", store: Store | None = None
    ):
        super().__init__(backbone, store, pooling)
        self.pooling = pooling

    @property
    def width(self) -> int:
        """Entries of a vector."""
        streams = self.backbone.streams.values()
        n_modalities = len(self.backbone.modalities)
        return sum(self._stream_width(stream) for stream in streams) + n_modalities

    @torch.no_grad()
    def _encode(self, present: Tensor, batch: dict[str, Tensor]) -> Tensor:
        parts = encode_streams(self.backbone, present, batch, self._vector)
        return torch.cat([*parts, present.float()], dim=1)

    def _vector(self, stream: Stream, present: Tensor, batch: dict) -> Tensor:
        """What one encoder makes of its rows, (B, d), (B, 2d), ..."""
        parts = []
        keep = stream.segments if self.pooling != "token" else ()
        tokens = stream.run(stream.embed(**batch), keep=keep)
        if self.pooling != "mean":
            parts.append(projected(stream, stream.pool(tokens)))
        if keep:
            normed = tokens.replace(stream.norm(tokens.values))
            for name in stream.segments:
                place = self.backbone.modalities.index(name)
                mean = stream.per_row(tokens, normed.mean(name))
                parts.append(mean * present[:, place, None])
        return torch.cat(parts, dim=1).float()

    def _stream_width(self, stream: Stream) -> int:
        width = 0
        if self.pooling != "mean":
            width += projected_width(stream)
        if self.pooling != "token":
            width += len(stream.segments) * stream.width
        return width


def _contents(host: HostBatch, keys: dict[str, Tensor]) -> list[bytes]:
    """Name what is in each row: which cells, and what they hold."""
    named = {modality: image_keys(key) for modality, key in keys.items()}
    if host.input_ids is not None:
        named["text"] = text_keys(host.input_ids, host.attention_mask)
    nothing = [b""] * len(host.present)
    cells = zip(*(named.get(m, nothing) for m in host.modalities), strict=True)
    rows = zip(host.present.tolist(), cells, strict=True)
    return [_content(present, *names) for present, names in rows]


def _content(present: Sequence[bool], *names: bytes) -> bytes:
    """Name what is in one row: those of the cells that are there."""
    there = np.array(present, dtype=bool)
    parts = [name for name, here in zip(names, there, strict=True) if here]
    return there.tobytes() + b"".join(parts)


@dataclass(frozen=True)
class KnownRows:
    """Tells from what is in a row whether its vector is at hand."""

    results: FrozenResults
    kind: str
    number: torch.dtype

    def __call__(self, present: tuple, image_key: bytes, ids: Callable) -> bool:
        """Return whether it is; ``ids`` is called for the tokens of the text."""
        text = np.array(ids(), dtype=np.int64).tobytes()
        content = _content(present, image_key, text)
        return self.results.has(content, self.kind, self.number)


def encode_streams(
    backbone: Backbone, present: Tensor, batch: dict[str, Tensor], encode
) -> list[Tensor]:
    """Run every encoder on the rows that it has something to read of.

    Parameters
    ----------
    backbone : Backbone
    present : Tensor of shape (B, 2), bool
        Whether image and text are there, or the backbone's ``modalities``.
    batch : dict of Tensor
        Inputs of the encoders. Which rows are there is decided from its ``"host"``; a
        batch without asks the device, and waits.
    encode : callable (stream, present, batch) -> (b, w)
        Gets the rows of its batch.

    Returns
    -------
    list of Tensor
        (B, w) for each stream, zeros in the rows it was not run on.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> backbone = load_backbone("robustmm/tiny-bert")
    >>> ids = torch.tensor([[2, 7, 3], [2, 3, 0]])
    >>> batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    >>> def encode(stream, present, batch):
    ...     return stream.pool(stream.run(stream.embed(**batch)))
    >>> here = torch.tensor([[False, True], [False, False]])
    >>> (vectors,) = encode_streams(backbone, here, batch, encode)
    >>> vectors.shape, float(vectors[1].abs().sum())
    (torch.Size([2, 128]), 0.0)
    """
    parts = []
    for modality, stream in backbone.streams.items():
        if modality == "joint":  # it reads dummies too
            parts.append(encode(stream, present, batch))
            continue
        host = batch.get("host") or HostBatch(
            present.cpu(), modalities=backbone.modalities
        )
        rows = host.rows(modality)
        nothing = len(rows) == 0
        if nothing:  # run one row, for the width and the type; it counts for nothing
            rows = rows.new_zeros(1)
        picked = take_rows({"present": present, **batch}, rows)
        vectors = encode(stream, picked.pop("present"), picked)
        if nothing:
            vectors = vectors * 0.0
        empty = vectors.new_zeros(len(present), vectors.shape[1])
        filled = empty.index_copy(0, upload(rows, vectors.device), vectors)
        if isinstance(host, TracedBatch):  # it has run the others as well
            here = present[:, backbone.modalities.index(modality), None]
            filled = filled.where(here, 0.0)
        parts.append(filled)
    return parts


def projected(stream: Stream, pooled: Tensor) -> Tensor:
    """Apply the checkpoint's projection, where it has one, to rows (B, d).

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-clip")["text"]
    >>> pooled = torch.randn(3, stream.width)
    >>> projected(stream, pooled).shape[1] == projected_width(stream)
    True
    """
    return pooled if stream.projection is None else stream.projection(pooled)


def projected_width(stream: Stream) -> int:
    """Return the width of what :func:`~robustmm.backbones.projected` returns.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> projected_width(load_backbone("robustmm/tiny-bert")["text"])
    128
    """
    projection = stream.projection
    return stream.width if projection is None else projection.out_features
