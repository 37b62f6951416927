"""Turn one image into pixels and one text into ids, as the checkpoint expects them.

Decoding is in `decode`, the tokenizer in `text`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .decode import MAX_PIXELS, decode
from .decode import BadImage as BadImage
from .decode import decode_image as decode_image
from .text import TextTokenizer as TextTokenizer

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)

# Older preprocessor files leave out what was the default of their processor's class.
# "square" says what a bare number means as size: both edges, or the shorter one.
_PLAIN = {"square": True, "size": 224, "resample": 2, "mean": _HALF, "std": _HALF}
_CLIP = {
    "square": False,
    "size": 224,
    "crop": 224,
    "resample": 3,
    "mean": _CLIP_MEAN,
    "std": _CLIP_STD,
}
_FAMILIES = {
    "CLIP": _CLIP,
    "ChineseCLIP": _CLIP,
    "Bit": _CLIP,
    "ViT": _PLAIN,
    "DeiT": {**_PLAIN, "size": 256, "crop": 224, "resample": 3},
    "Siglip": {**_PLAIN, "resample": 3},
    "Vilt": {**_PLAIN, "square": False, "size": 384, "resample": 3, "divisor": 32},
}


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

    Examples
    --------
    >>> transform = ImageTransform.from_config({"size": {"height": 8, "width": 8}})
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ImageTransform":
        """Read the content of a ``preprocessor_config.json``.

        Parameters
        ----------
        config : mapping
            Keys left out take the defaults of the processor class that the file names.

        Raises
        ------
        ValueError
            If the size is of a kind that is not supported, or the config leaves images
            in whatever size they have.
        """
        family = _family(config)
        edges = _edges(config, family) if config.get("do_resize", True) else {}
        crops = config.get("do_center_crop", "crop" in family)
        crop = config.get("crop_size") or family.get("crop", 224) if crops else None
        if not edges and crop is None:
            raise ValueError(
                "An image config must resize or crop images, got do_resize=False and "
                "no do_center_crop."
            )
        normalizes = config.get("do_normalize", True)
        mean = _either(config.get("image_mean"), family["mean"])
        std = _either(config.get("image_std"), family["std"])
        rescales = config.get("do_rescale", True)
        return cls(
            **edges,
            crop_size=None if crop is None else _pair(crop),
            mean=_channels(mean if normalizes else 0),
            std=_channels(std if normalizes else 1),
            resample=int(_either(config.get("resample"), family["resample"])),
            rescale=config.get("rescale_factor") or 1 / 255 if rescales else 1.0,
        )

    @property
    def key(self) -> str:
        """What the uint8 result depends on, as a stable str."""
        parts = (self.size, self.shortest_edge, self.longest_edge, self.crop_size)
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
        decoded = decode(cell, image_root, self._resized)
        height, width = self._resized(decoded.size)
        image = decoded.image
        if image.size != (width, height):
            image = image.resize((width, height), self.resample, box=decoded.box)
        return _center_crop(np.array(image), self.crop_size)

    def blank(self) -> np.ndarray:
        """Return the white picture that stands for a missing one: uint8, (H, W, 3)."""
        divisor = self.size_divisor or 1
        edge = (self.shortest_edge or 0) // divisor * divisor
        height, width = self.crop_size or self.size or (edge, edge)
        return np.full((height, width, 3), 255, dtype=np.uint8)

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Scale and normalise uint8 pixels.

        Parameters
        ----------
        batch : tensor of uint8, shape (B, H, W, 3)

        Returns
        -------
        tensor of float32, shape (B, 3, H, W)
        """
        mean = torch.tensor(self.mean, device=batch.device)
        std = torch.tensor(self.std, device=batch.device)
        values = (batch.float() * self.rescale - mean) / std
        return values.permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of a picture of `size` after resizing."""
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
        if height * width > MAX_PIXELS:
            raise BadImage(f"too elongated to resize, got {size[1]} x {size[0]} pixels")
        return height, width


def _family(config: Mapping[str, Any]) -> dict[str, Any]:
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    name = (name or "").split("ImageProcessor")[0].split("FeatureExtractor")[0]
    unnamed = "Vilt" if "size_divisor" in config else "ViT"
    return _FAMILIES.get(name) or _FAMILIES[unnamed]


def _edges(config: Mapping[str, Any], family: dict[str, Any]) -> dict[str, Any]:
    """The size-related fields of `ImageTransform`."""
    size = config.get("size") or family["size"]
    if isinstance(size, int) and not family["square"]:
        size = {"shortest_edge": size}
    if not isinstance(size, Mapping) or "height" in size:
        return {"size": _pair(size)}
    if "shortest_edge" not in size:
        raise ValueError(
            "size must be a number, height and width, or shortest_edge, "
            f"got {dict(size)!r}."
        )
    longest = size.get("longest_edge")
    return {
        "shortest_edge": int(size["shortest_edge"]),
        "longest_edge": None if longest is None else int(longest),
        "size_divisor": config.get("size_divisor") or family.get("divisor"),
    }


def _either(value: Any, default: Any) -> Any:
    return default if value is None else value


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if "height" not in size or "width" not in size:
            raise ValueError(f"size must have height and width, got {dict(size)!r}.")
        return int(size["height"]), int(size["width"])
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def _channels(values: Any) -> tuple[float, ...]:
    values = values if isinstance(values, list | tuple) else (values,) * 3
    return tuple(float(value) for value in values)


def _shortest(size: tuple[int, int], edge: int) -> tuple[int, int]:
    height, width = size
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
    height, width = (
        max(divisor, int(side + 0.5) // divisor * divisor) for side in exact
    )
    return height, width


def _center_crop(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None:
        return pixels
    spare = [have - wanted for have, wanted in zip(pixels.shape, size, strict=False)]
    lacking = [max(0, -more) for more in spare]
    around = [((lack + 1) // 2, lack // 2) for lack in lacking]
    top, left = (max(0, more) // 2 for more in spare)
    pixels = np.pad(pixels, [*around, (0, 0)]) if any(lacking) else pixels
    return pixels[top : top + size[0], left : left + size[1]].copy()
