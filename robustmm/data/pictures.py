"""The pictures of a batch: bytes until they are where they are computed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cache import ByteCache
from .faults import BadImage
from .folder_cache import FolderCache
from .frame import format_rows
from .preprocess import ImageTransform


@dataclass(frozen=True, eq=False)
class Unread:
    """A picture that is made when it is asked for, as it may never be.

    Parameters
    ----------
    cell : image cell
    label : object
        The row's, for messages.
    image_root : path or None
    key : bytes
        What the picture is called in the cache.
    cache : ByteCache or FolderCache
    """

    cell: Any
    label: Any
    image_root: str | Path | None
    key: bytes
    cache: ByteCache | FolderCache

    def read(self, transform: ImageTransform) -> np.ndarray:
        """Return the picture, uint8 (H, W, 3).

        Raises
        ------
        ValueError
            If the image has become one that cannot be read.
        """
        picture = self.cache.get(self.key)
        if picture is not None and transform.may_make(picture):
            return picture
        try:
            picture = transform(self.cell, self.image_root)
        except BadImage as error:
            bad = [(self.label, str(error))]
            raise ValueError(f"{format_rows(bad, 'image cell cannot be read')}.") from (
                error
            )
        self.cache.put(self.key, picture)
        return picture


class Pictures:
    """The pictures of a batch, a quarter of the size of what encoders read.

    Parameters
    ----------
    images : sequence of ndarray of uint8, shape (h, w, 3), `Unread` or None
        None stands for a missing one, which is white.
    transform : ImageTransform

    Examples
    --------
    >>> transform = ImageTransform(size=(4, 4))
    >>> pictures = Pictures([np.zeros((4, 4, 3), np.uint8), None], transform)
    >>> len(pictures), pictures.pixels()["pixel_values"].shape
    (2, torch.Size([2, 3, 4, 4]))
    >>> pictures[[1]].pixels()["pixel_values"].unique()
    tensor([1.])
    """

    def __init__(
        self,
        images: Sequence[np.ndarray | Unread | None],
        transform: ImageTransform,
        packed: Tensor | None = None,
    ) -> None:
        # White before it is normalised: in the normalised space, that is 1 for ViLT and
        # another number for each channel of CLIP.
        self.images = [transform.blank() if im is None else im for im in images]
        self.transform = transform
        self._packed = packed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | Sequence[int] | slice) -> Pictures:
        """Take some rows, by position; nothing is copied."""
        places = range(len(self))[rows] if isinstance(rows, slice) else rows
        places = torch.as_tensor(places).tolist()
        return Pictures([self.images[i] for i in places], self.transform)

    def __getstate__(self) -> dict:
        # One tensor, which a worker hands over in shared memory.
        made, shapes = self._pack(), [getattr(im, "shape", None) for im in self.images]
        unread = [im for im in self.images if isinstance(im, Unread)]
        return {"made": made, "shapes": shapes, "unread": unread, "by": self.transform}

    def __setstate__(self, state: dict) -> None:
        unread, start, images = iter(state["unread"]), 0, []
        numbers = state["made"].numpy()
        for shape in state["shapes"]:
            size = 0 if shape is None else int(np.prod(shape))
            part = numbers[start : start + size]
            images.append(next(unread) if shape is None else part.reshape(shape))
            start += size
        self.__init__(images, state["by"], state["made"])

    @property
    def unread(self) -> list[bool]:
        """Which pictures are not made yet."""
        return [isinstance(image, Unread) for image in self.images]

    def read(self) -> Pictures:
        """Return them with all pictures made."""
        if not any(self.unread):
            return self
        made = [
            im.read(self.transform) if isinstance(im, Unread) else im
            for im in self.images
        ]
        return Pictures(made, self.transform)

    def pin_memory(self) -> Pictures:
        """Return them in memory that a device may copy beside the host."""
        twin = Pictures.__new__(Pictures)
        state = self.__getstate__()
        twin.__setstate__(state | {"made": state["made"].pin_memory()})
        return twin

    def hide(self, hidden: Tensor) -> Pictures:
        """Return them with the white picture in the place of some, (B,) bool."""
        pairs = zip(self.images, hidden.tolist(), strict=True)
        return Pictures([None if gone else im for im, gone in pairs], self.transform)

    @cached_property
    def _sizes(self) -> Tensor | None:
        """Height and width of pictures of several sizes, (B, 2), or None."""
        sizes = [image.shape[:2] for image in self.read().images]
        return None if len(set(sizes)) == 1 else torch.tensor(sizes)

    @property
    def mask(self) -> Tensor | None:
        """Where pictures of several sizes are when padded, (B, H, W) bool, or None."""
        return None if self._sizes is None else _inside(self._sizes, self._sizes)

    def pixels(
        self, upload: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> dict[str, Tensor]:
        """Return what encoders read, made where `upload` brings the bytes.

        Returns
        -------
        dict
            ``pixel_values`` (B, 3, H, W) float32. Where sizes differ, pictures are
            padded with zeros at the right and bottom and ``pixel_mask`` (B, H, W) long
            says where they are.

        Raises
        ------
        ValueError
            If an `Unread` cannot be made any more.
        """
        read = self.read()
        packed, sizes = upload(read._pack()), read._sizes
        if sizes is None:
            stacked = packed.view(len(read), *read.images[0].shape)
            return {"pixel_values": self.transform.normalize(stacked)}
        mask = _inside(upload(sizes), sizes).long()
        values = torch.zeros(len(mask), 3, *mask.shape[1:], device=packed.device)
        start = 0
        for place, image in zip(values, read.images, strict=True):
            part = packed[start : start + image.size].view(1, *image.shape)
            tall, wide, _ = image.shape
            # Normalised before it is padded: a zero of the padding is a zero for the
            # model.
            self.transform.normalize(part, out=place[None, :, :tall, :wide])
            start += image.size
        return {"pixel_values": values, "pixel_mask": mask}

    def _pack(self) -> Tensor:
        """Return the bytes of all pictures that are made, (n,)."""
        if self._packed is not None:
            return self._packed
        made = [im.ravel() for im in self.images if not isinstance(im, Unread)]
        # A copy even of one: cached images are read-only, which torch warns of.
        return torch.from_numpy(np.concatenate(made or [np.empty(0, np.uint8)]))


def _inside(sizes: Tensor, known: Tensor) -> Tensor:
    """Say where padded pictures are, (B, H, W) bool, by sizes (B, 2) on any device.

    Said apart, not read off the values as in ViLT's first code: a picture may hold a
    pixel that normalises to zero. It is made where it is needed, as it takes longer to
    copy than the pictures; `known` are the sizes on the host.
    """
    height, width = known.amax(dim=0).tolist()
    down = torch.arange(height, device=sizes.device) < sizes[:, :1]  # (B, H)
    right = torch.arange(width, device=sizes.device) < sizes[:, 1:]
    return down[:, :, None] & right[:, None, :]
