"""Turn one image into pixels as the checkpoint expects them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .decode import MAX_PIXELS, decode
from .faults import BadImage

_HALF = (0.5, 0.5, 0.5)
# A picture so many times longer than wide is resized under any pixel cap.
_ELONGATED = 4
# Numbers that the CPU normalises at a time: what fits into its cache takes a fifth of
# what the temporaries of a whole batch take.
_AT_ONCE = 2**18

# What a complete description of images has to say.
_SETTINGS = ("do_resize", "size", "resample", "do_center_crop", "do_rescale")
_SETTINGS += ("rescale_factor", "do_normalize", "image_mean", "image_std")


@dataclass(frozen=True)
class ImageTransform:
    """A checkpoint's own image preparation: resize, crop, scale, normalise.

    The size is either fixed (`size`) or follows the picture: `shortest_edge`, with or
    without a `longest_edge` that is not exceeded, or ViLT's rule where a `size_divisor`
    is given: the longest edge is at most 1333/800 of `shortest_edge` and both edges are
    floored to a multiple of the divisor.

    Parameters
    ----------
    size : (height, width) or None
    shortest_edge, longest_edge : int or None
    crop_size : (height, width) or None
        What is cut from the centre afterwards, padded with black if it is larger.
    mean, std : tuple of 3 floats
        Of the channels, after scaling.
    resample : int
        Pillow's filter, 2 bilinear, 3 bicubic.
    rescale : float
        What 8-bit values are multiplied by.
    size_divisor : int or None
    max_pixels : int
        Larger pictures are refused, before they are decoded and after resizing.

    Examples
    --------
    >>> transform = ImageTransform(size=(8, 8))
    >>> pixels = transform(np.zeros((30, 20, 3), dtype=np.uint8))
    >>> pixels.shape
    (8, 8, 3)
    >>> transform.normalize(torch.as_tensor(pixels)[None]).unique()
    tensor([-1.])
    """

    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    crop_size: tuple[int, int] | None = None
    mean: tuple[float, ...] = _HALF
    std: tuple[float, ...] = _HALF
    resample: int = 2
    rescale: float = 1 / 255
    size_divisor: int | None = None
    max_pixels: int = MAX_PIXELS

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], max_pixels: int = MAX_PIXELS
    ) -> "ImageTransform":
        """Read complete image settings, as a backbone's ``image_config`` has them.

        Parameters
        ----------
        config : mapping
            The switches ``do_resize``, ``do_center_crop``, ``do_rescale`` and
            ``do_normalize``; ``size``, with height and width or with a shortest_edge;
            ``resample``, ``rescale_factor``, ``image_mean`` and ``image_std``;
            ``crop_size`` if images are cropped; ``size_divisor`` if ViLT's rule holds.
        max_pixels : int
            Of a picture.

        Raises
        ------
        ValueError
            If something is left out, a size is of a kind that is not supported, or the
            config leaves images in whatever size they have.
        """
        _check_complete(config)
        edges = _edges(config) if config["do_resize"] else {}
        crop = _pair("crop_size", config) if config["do_center_crop"] else None
        if not edges and crop is None:
            raise ValueError(
                "An image config must resize or crop images, got do_resize=False and "
                "do_center_crop=False."
            )
        normalizes = config["do_normalize"]
        return cls(
            **edges,
            crop_size=crop,
            mean=_channels("image_mean", config) if normalizes else (0.0,) * 3,
            std=_channels("image_std", config) if normalizes else (1.0,) * 3,
            resample=_filter(config["resample"]),
            rescale=_factor(config["rescale_factor"]) if config["do_rescale"] else 1.0,
            max_pixels=int(max_pixels),
        )

    @property
    def key(self) -> str:
        """What the uint8 result depends on, as a stable str.

        Where there is a result, it does not depend on `max_pixels`.
        """
        parts = (self.size, self.shortest_edge, self.longest_edge, self.crop_size)
        # Not mean, std and rescale: what is cached are the pixels before them.
        return json.dumps([*parts, self.resample, self.size_divisor])

    def __call__(self, cell: Any, image_root: str | Path | None = None) -> np.ndarray:
        """Decode, resize and crop one image cell.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)

        Raises
        ------
        BadImage
            If the cell cannot be read, or is so elongated that resizing it would exceed
            the pixel cap.
        """
        decoded = decode(cell, image_root, self.resized, self.max_pixels)
        height, width = self.resized(decoded.size)
        image = decoded.image
        if image.size != (width, height):
            # The box leaves out the strip that a JPEG at reduced scale is rounded up
            # by.
            image = image.resize((width, height), self.resample, box=decoded.box)
        return _center_crop(np.array(image), self.crop_size)

    @property
    def is_ragged(self) -> bool:
        """Whether the size of the result follows the picture."""
        return self.crop_size is None and self.size is None

    def check(self, cell: Any, image_root: str | Path | None = None) -> None:
        """Raise as calling this with an image cell would, for less.

        All of the cell is decoded, but a JPEG at the lowest scale that there is, and
        nothing is resized.

        Raises
        ------
        BadImage
            If the cell cannot be read, or would be too large when it is resized.
        """
        decoded = decode(cell, image_root, lambda size: (1, 1), self.max_pixels)
        self.resized(decoded.size)

    def may_make(self, picture: np.ndarray) -> bool:
        """Whether an array can be what calling this returned."""
        pixels = picture.dtype == np.uint8 and picture.ndim == 3
        pixels = pixels and picture.shape[2] == 3
        size = self.crop_size or self.size or picture.shape[:2]
        return pixels and 0 not in picture.shape and picture.shape[:2] == size

    def blank(self) -> np.ndarray:
        """Return the white picture that stands for a missing one: uint8, (H, W, 3)."""
        divisor = self.size_divisor or 1
        edge = (self.shortest_edge or 0) // divisor * divisor
        height, width = self.crop_size or self.size or (edge, edge)
        # A fixed size, not that of the picture that is gone: its shape, the number of
        # its patches, would tell something of it.
        return np.full((height, width, 3), 255, dtype=np.uint8)

    def normalize(
        self, batch: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scale and normalise uint8 pixels, where they are.

        Parameters
        ----------
        batch : tensor of uint8, shape (B, H, W, 3)
        out : tensor of float32, shape (B, 3, H, W), optional
            Written to and returned.

        Returns
        -------
        tensor of float32, shape (B, 3, H, W)
        """
        n, height, width, channels = batch.shape
        if out is None:
            out = torch.empty(n, channels, height, width, device=batch.device)
        mean, std = (_by_channel(x, batch.device) for x in (self.mean, self.std))
        size = max(1, _AT_ONCE // max(1, height * width * channels))
        if batch.device.type != "cpu":
            size = max(1, n)
        for pixels, values in zip(batch.split(size), out.split(size), strict=True):
            values.copy_(pixels.permute(0, 3, 1, 2))  # (b, 3, H, W)
            values.mul_(self.rescale).sub_(mean).div_(std)
        return out

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of a picture of `size` after resizing.

        Raises
        ------
        BadImage
            If that exceeds the pixel cap.
        """
        if self.size is not None:
            return self.size
        if self.shortest_edge is None:
            return size
        if self.size_divisor is not None:
            height, width = _divisible(size, self.shortest_edge, self.size_divisor)
        elif self.longest_edge is not None:
            height, width = _bounded(size, self.shortest_edge, self.longest_edge)
        else:
            height, width = _shortest(size, self.shortest_edge)
        # A cap below what the model reads anyway is meant for files.
        allowed = max(self.max_pixels, _ELONGATED * self.shortest_edge**2)
        if height * width > allowed:
            raise BadImage(f"too elongated to resize, got {size[1]} x {size[0]} pixels")
        return height, width


def _by_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Put a number per channel on a device, (3, 1, 1), without a wait for it."""
    # Filled there, as an upload would wait; and a tensor, as CUDA divides by a number
    # by multiplying with its rounded reciprocal.
    return torch.stack([torch.full((1, 1), v, device=device) for v in values])


def _check_complete(config: Mapping[str, Any]) -> None:
    lacking = [name for name in _SETTINGS if config.get(name) is None]
    if config.get("do_center_crop") and config.get("crop_size") is None:
        lacking.append("crop_size")
    if lacking:
        raise ValueError(
            f"An image config must be complete, {lacking} are left out; "
            "load_backbone(...).image_config is."
        )


def _edges(config: Mapping[str, Any]) -> dict[str, Any]:
    """The size-related fields of `ImageTransform`."""
    size = config["size"]
    if not isinstance(size, Mapping) or not {"height", "shortest_edge"} & set(size):
        raise ValueError(
            f"size must have height and width, or a shortest_edge, got {size!r}."
        )
    if "height" in size:
        return {"size": _pair("size", config)}
    edges = {name: size.get(name) for name in ("shortest_edge", "longest_edge")}
    edges["size_divisor"] = config.get("size_divisor")
    for name, edge in edges.items():
        edges[name] = None if edge is None else _edge(name, edge)
    _check_pixels("shortest_edge", (edges["shortest_edge"],) * 2)
    return edges


def _pair(name: str, config: Mapping[str, Any]) -> tuple[int, int]:
    size = config[name]
    if not isinstance(size, Mapping) or not {"height", "width"} <= set(size):
        raise ValueError(f"{name} must have height and width, got {size!r}.")
    pair = _edge(name, size["height"]), _edge(name, size["width"])
    _check_pixels(name, pair)
    return pair


def _edge(name: str, value: Any) -> int:
    if not _is_finite(value) or value < 1 or value != int(value):
        raise ValueError(f"{name} must be made of whole numbers from 1, got {value!r}.")
    return int(value)


def _check_pixels(name: str, size: tuple[int, int]) -> None:
    # Every missing image becomes a white one of this size.
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"{name} must give at most {MAX_PIXELS} pixels, got {size[0]} x {size[1]}."
        )


def _channels(name: str, config: Mapping[str, Any]) -> tuple[float, ...]:
    values = config[name]
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"{name} must have one number per channel, got {values!r}.")
    if not all(map(_is_finite, values)) or (name == "image_std" and 0 in values):
        rule = "finite" + (" and not zero" if name == "image_std" else "")
        raise ValueError(f"{name} must be {rule}, got {values!r}.")
    return tuple(map(float, values))


def _factor(value: Any) -> float:
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"rescale_factor must be finite and positive, got {value!r}.")
    return float(value)


def _is_finite(value: Any) -> bool:
    # Python's whole numbers may be too large for a float.
    return isinstance(value, int | float) and abs(value) < 1e30


def _filter(resample: Any) -> int:
    if resample not in list(Image.Resampling):
        raise ValueError(
            f"resample must be the number of one of Pillow's filters, got {resample!r}."
        )
    return int(resample)


def _shortest(size: tuple[int, int], edge: int) -> tuple[int, int]:
    height, width = size
    # Cut off, not rounded, as the processors of the checkpoints do.
    longer = int(edge * max(size) / min(size))
    return (longer, edge) if width <= height else (edge, longer)


def _bounded(size: tuple[int, int], edge: int, longest: int) -> tuple[int, int]:
    """The shorter side becomes `edge`, or less so that the longer stays in bounds."""
    short, long = min(size), max(size)
    exact = min(float(edge), longest * short / long)
    new_short = max(1, round(exact))
    new_long = long if short == new_short else max(1, int(exact * long / short))
    return (new_long, new_short) if size[0] >= size[1] else (new_short, new_long)


def _divisible(size: tuple[int, int], edge: int, divisor: int) -> tuple[int, int]:
    """ViLT's size rule: COCO's 800 to 1333 at another scale, in whole patches."""
    scale = edge / min(size)
    bound = int(1333 / 800 * edge)
    exact = [edge if side == min(size) else scale * side for side in size]
    if max(exact) > bound:
        shrink = bound / max(exact)
        exact = [shrink * side for side in exact]
    # Rounded before it is floored, as in ViLT's processor.
    height, width = (
        max(divisor, int(side + 0.5) // divisor * divisor) for side in exact
    )
    return height, width


def _center_crop(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None:
        return pixels
    spare = [have - wanted for have, wanted in zip(pixels.shape, size, strict=False)]
    lacking = [max(0, -more) for more in spare]
    # An odd row goes in front, as in the processors of the checkpoints.
    around = [((lack + 1) // 2, lack // 2) for lack in lacking]
    top, left = (max(0, more) // 2 for more in spare)
    pixels = np.pad(pixels, [*around, (0, 0)]) if any(lacking) else pixels
    # A view would keep the whole picture alive in the cache, and off its budget.
    return pixels[top : top + size[0], left : left + size[1]].copy()
