"""The part of a batch that decisions are made from, in the memory of the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

# The columns of ``present`` where a backbone reads images and texts alone.
COLUMNS = {"image": 0, "text": 1}
# MPS and XPU also copy beside the host if told to, but from memory that is not pinned:
# they read it when it may hold another tensor, and numbers go wrong without a word.
ASYNCHRONOUS = frozenset({"cuda"})


class HostPictures(Protocol):
    """The pictures of a batch, of which some may not even be decoded yet."""

    def __getitem__(self, rows: Tensor) -> HostPictures:
        """Take some rows, by position."""

    def read(self) -> HostPictures:
        """Return them decoded."""

    @property
    def mask(self) -> Tensor | None:
        """Where they are in a padded batch, (B, H, W), if sizes differ."""

    def pixels(self, upload: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return the encoder's inputs, on the device that ``upload`` copies to."""


@dataclass(frozen=True, eq=False)
class HostBatch:
    """What a batch says about itself, where asking costs nothing.

    A GPU works off a queue. Whoever decides something from a tensor that lies there,
    such as which rows to run, waits until the queue is empty, and the GPU then waits
    for the next task. From these copies, all on the CPU, the same is decided at once.

    Parameters
    ----------
    present : Tensor of shape (B, 2), bool
        Whether image and text are there, or what ``modalities`` names.
    input_ids, attention_mask : Tensor of shape (B, T), int64, or None
    pixel_mask : Tensor of shape (B, H, W), bool or int64, or None
        True inside the image, where images of several sizes are padded.
    image_key : Tensor of shape (B, 20), uint8, or None
        Names the image of each row.
    pictures : HostPictures or None
        What :func:`with_pixels` makes the inputs of an image encoder of.
    audio_key, video_key : Tensor of shape (B, 20), uint8, or None
        Name the sound and the video of each row.
    modalities : tuple of str
        The columns of ``present``.

    Examples
    --------
    >>> host = HostBatch(torch.tensor([[True, True], [False, True]]))
    >>> host.rows("image"), host.missing("image")
    (tensor([0]), tensor([1]))
    >>> host.select([1]).present
    tensor([[False,  True]])
    """

    present: Tensor
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    pixel_mask: Tensor | None = None
    image_key: Tensor | None = None
    pictures: HostPictures | None = None
    audio_key: Tensor | None = None
    video_key: Tensor | None = None
    modalities: tuple[str, ...] = tuple(COLUMNS)

    @classmethod
    def of(
        cls,
        present: Tensor,
        batch: Mapping[str, Any],
        modalities: tuple[str, ...] = tuple(COLUMNS),
    ) -> HostBatch:
        """Return what a batch has as ``"host"``, or copies of its tensors.

        The copies wait for the device that the tensors are on.
        """
        if isinstance(batch.get("host"), cls):
            return batch["host"]
        found = {f.name: batch.get(f.name) for f in fields(cls)}
        found |= {"present": present, "modalities": modalities}
        tensors = {n: t.cpu() for n, t in found.items() if isinstance(t, Tensor)}
        return cls(**{**found, **tensors})

    def rows(self, modality: str) -> Tensor:
        """Return the positions of the rows that have a modality, (b,)."""
        return self.present[:, self.modalities.index(modality)].nonzero()[:, 0]

    def missing(self, modality: str) -> Tensor:
        """Return the positions of the other rows, (B - b,)."""
        return (~self.present[:, self.modalities.index(modality)]).nonzero()[:, 0]

    def complete(self) -> Tensor:
        """Return the positions of the rows that have all."""
        return self.present.all(dim=1).nonzero()[:, 0]

    def select(self, rows: Tensor | Sequence[int]) -> HostBatch:
        """Take some rows, by position."""
        rows, parts = torch.as_tensor(rows), dict(vars(self))
        modalities = parts.pop("modalities")
        taken = {n: None if t is None else t[rows] for n, t in parts.items()}
        return HostBatch(**taken, modalities=modalities)


class TracedBatch(HostBatch):
    """A batch that is traced, of which nothing is known: every row counts as there.

    What is computed from a missing cell's dummy has to be left out by what follows.
    None of the other tensors is there to be looked at.

    Examples
    --------
    >>> traced = TracedBatch(torch.tensor([[True, True], [False, True]]))
    >>> traced.rows("image"), traced.missing("image")
    (tensor([0, 1]), tensor([], dtype=torch.int64))
    """

    def rows(self, modality: str) -> Tensor:
        """Return the positions of all rows, (B,)."""
        return torch.arange(self.present.shape[0], device=self.present.device)

    def missing(self, modality: str) -> Tensor:
        """Return no position."""
        return torch.arange(0, device=self.present.device)

    def select(self, rows: Tensor | Sequence[int]) -> HostBatch:
        """Return the batch itself: all of its rows are taken, in order."""
        return self


def is_asynchronous(device: torch.device) -> bool:
    """Whether a device may copy from pinned memory while the host goes on."""
    return device.type in ASYNCHRONOUS


def upload(value: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device; on CUDA the host goes on at once.

    Examples
    --------
    >>> upload(torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    if value.device.type != "cpu" or not is_asynchronous(device):
        return value.to(device)
    # Contiguous: of a view all that it spans is pinned, and an expanded one cannot be.
    return value.contiguous().pin_memory().to(device, non_blocking=True)


def with_pixels(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch with the inputs of an image encoder, made on its device.

    Of the pictures in its ``"host"``; a batch without them is returned as it is.

    Parameters
    ----------
    batch : mapping of str to Tensor or HostBatch
    device : torch.device

    Returns
    -------
    dict
        With ``pixel_values`` (B, 3, H, W), and with ``pixel_mask`` (B, H, W) where
        sizes differ.

    Examples
    --------
    >>> ids = torch.tensor([[2, 3]])
    >>> with_pixels({"input_ids": ids}, torch.device("cpu"))
    {'input_ids': tensor([[2, 3]])}
    """
    host = batch.get("host")
    if host is None or host.pictures is None:
        return dict(batch)
    pictures = host.pictures.read()
    made = pictures.pixels(partial(upload, device=device))
    host = replace(host, pictures=None, pixel_mask=pictures.mask)
    return {**made, **batch, "host": host}


def take_rows(batch: Mapping[str, Any], rows: Tensor | Sequence[int]) -> dict[str, Any]:
    """Return some rows of a batch, of its host's copies as well.

    Parameters
    ----------
    batch : mapping of str to Tensor or HostBatch
    rows : Tensor of shape (b,), int64, or sequence of int
        Positions; a tensor must be on the CPU.

    Examples
    --------
    >>> take_rows({"input_ids": torch.tensor([[2, 3], [2, 7], [2, 9]])}, [0, 2])
    {'input_ids': tensor([[2, 3],
            [2, 9]])}
    """
    rows = torch.as_tensor(rows)
    tensors = [value for value in batch.values() if isinstance(value, Tensor)]
    places = {t.device: upload(rows, t.device) for t in tensors}
    return {
        name: value.select(rows)
        if isinstance(value, HostBatch)
        else value[places[value.device]]
        for name, value in batch.items()
    }
