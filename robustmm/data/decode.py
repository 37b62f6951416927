"""Decode one image cell, whatever it is, into an upright RGB picture."""

import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin

from .faults import (
    NO_FILE,
    BadImage,
    bad_image_reasons,
    is_the_pictures_fault,
    short,
)
from .frame import held_image
from .inline import inline_bytes, is_inline

# Twice Pillow's own warning level, where Pillow refuses too.
MAX_PIXELS = 178_956_970

# Opening an EPS or WMF file starts a program (Ghostscript) or a system renderer.
_NEVER_OPENED = ("EPS", "WMF")
# A FIFO may take a file's place between two looks: do not wait for who writes to it.
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_URL = re.compile(r"(data:|[a-z][a-z0-9+.-]+://)", re.IGNORECASE)

# EXIF orientation -> what turns the stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# (height, width) of the upright picture -> the (height, width) it is wanted in.
Needed = Callable[[tuple[int, int]], tuple[int, int]]


@dataclass(frozen=True)
class Decoded:
    """One decoded picture.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB, upright, perhaps smaller than the file's picture.
    size : tuple of int
        The upright picture's full (height, width).
    box : tuple of float
        (left, top, right, bottom): the part of `image` that the picture fills. Decoding
        at reduced scale rounds the size up and leaves a strip outside.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]


def decode_image(
    cell: Any,
    image_root: str | Path | None = None,
    min_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode an image cell to an upright RGB picture.

    EXIF orientation is applied, transparency is composed on white, the first frame of
    an animation is taken, and every mode becomes RGB; pictures of more than 8 bits a
    channel are scaled. The cell itself is left as it is.

    Parameters
    ----------
    cell : str, path, PIL.Image.Image, bytes, ndarray or dict
        A path to a regular file, an open picture, the bytes of a file, also as base64
        or a ``data:`` URI, or a uint8 array of shape (H, W) or (H, W, C) with C = 1, 2
        (with alpha), 3 or 4 (with alpha); or a dict that holds bytes or a path.
    image_root : path or None
        The folder that relative paths start from.
    min_size : (height, width) or None
        Lets a JPEG be decoded at a fraction of its size, as long as that stays twice
        `min_size` both ways.
    max_pixels : int
        Larger pictures are refused, by the file's header, before they are decoded.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    BadImage
        With the reason: no such file, truncated, not an image, too large, a URL, ...

    Examples
    --------
    >>> import numpy as np
    >>> decode_image(np.zeros((2, 3), dtype=np.uint8)).getpixel((0, 0))
    (0, 0, 0)
    """
    needed = None if min_size is None else lambda size: min_size
    cell = held_image(cell)
    image = decode(cell, image_root, needed, max_pixels).image
    # The caller may draw on what it gets, and the cell is the table's.
    return image.copy() if image is cell else image


def decode(
    cell: Any,
    image_root: str | Path | None = None,
    needed: Needed | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode as `decode_image` does, with the size wanted given as a function of the
    picture's own size; the picture may be the cell itself, not a copy."""
    with bad_image_reasons(), _opened(cell, image_root, max_pixels) as image:
        check_picture(image, max_pixels)
        full_size, scale = image.size, 1.0
        # Not an open picture: draft would change the caller's object.
        if needed is not None and image is not cell and image.format == "JPEG":
            scale = _draft(image, needed)
        image.load()
        return _upright(image, full_size, scale)


def check_picture(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `BadImage` unless a picture may be read, by its format and size."""
    if image.format in _NEVER_OPENED:
        raise BadImage(
            f"{image.format} pictures are never rendered, as that may start a program; "
            "pass a copy() of one that is"
        )
    # The size is that of the header here: nothing is decoded yet.
    check_size(image.size, max_pixels)


def check_array(array: np.ndarray, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `BadImage` unless an array may be read, before anything is copied."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in range(5):
        raise BadImage(
            "an array must be uint8 of shape (H, W) or (H, W, 1 to 4), "
            f"got {array.dtype} of shape {array.shape}"
        )
    if array.size == 0:
        raise BadImage(f"an array must have pixels, got shape {array.shape}")
    # Before any copy: a broadcast array of 10^12 pixels takes no memory yet.
    check_size(array.shape[1::-1], max_pixels)


def check_size(size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raise `BadImage` unless (width, height) make 1 to `max_pixels` pixels."""
    width, height = size
    if not 0 < width * height <= max_pixels:
        raise BadImage(
            f"an image must have 1 to {max_pixels} pixels, got {width} x {height}"
        )


def regular_file(
    path: str | os.PathLike, image_root: str | Path | None = None
) -> tuple[str, os.stat_result]:
    """Return the absolute path and status of an image file, without opening it.

    Raises
    ------
    BadImage
        If it is a URL or anything but a regular file.
    """
    if isinstance(path, str) and _URL.match(path):
        raise BadImage(f"URLs are never opened: {short(path)}; pass a downloaded file")
    if not os.fspath(path):
        raise BadImage(
            'the path is an empty string; blank_image="missing" takes it as missing'
        )
    # join leaves an absolute path as it is, whatever the root.
    full = os.path.abspath(os.path.join(image_root or "", path))
    hint = "" if image_root or os.path.isabs(path) else "; image_root is not set"
    with _path_reasons(full, hint):
        status = os.stat(full)
    _check_regular(full, status)
    return full, status


@contextmanager
def _path_reasons(path: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BadImage(f"{NO_FILE}: {short(path)}{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(f"cannot be opened: {short(path)} ({reason})") from error


def _check_regular(path: str, status: os.stat_result) -> None:
    # Reading a FIFO or a device would wait for whatever writes to it.
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(f"not a regular file: {short(path)}")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAITING)


@contextmanager
def opened_file(path: str) -> Iterator[BinaryIO]:
    """Open a file that was regular a moment ago, and see that it still is."""
    with _path_reasons(path):
        # Closed below, where what goes wrong is the picture's fault, not the path's.
        stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    with stream:
        _check_regular(path, os.fstat(stream.fileno()))
        yield stream


@contextmanager
def _opened(
    cell: Any, image_root: str | Path | None, max_pixels: int
) -> Iterator[Image.Image]:
    if isinstance(cell, Image.Image):
        yield cell
    elif isinstance(cell, np.ndarray):
        check_array(cell, max_pixels)
        # fromarray knows gray pictures without an axis of channels only.
        yield Image.fromarray(cell[..., 0] if cell.shape[2:] == (1,) else cell)
    elif isinstance(cell, bytes | bytearray | memoryview):
        yield _identify(BytesIO(cell))
    elif isinstance(cell, str) and is_inline(cell):
        yield _identify(BytesIO(inline_bytes(cell)))
    elif isinstance(cell, str | os.PathLike):
        path, _ = regular_file(cell, image_root)
        with opened_file(path) as stream:
            yield _identify(stream)
    else:
        raise BadImage(f"no image cell has the type {type(cell).__name__}")


def _identify(stream: BinaryIO) -> Image.Image:
    # Image.open would do, but for its warning about large pictures: silencing that
    # changes the process-wide filters, which no thread may do while others run. Trying
    # Pillow's registered readers by signature leaves the size to check_size alone.
    Image.init()
    prefix = stream.read(16)
    if not prefix:
        raise BadImage("it is empty (zero bytes)")
    for name in Image.ID:
        reader, accepts = Image.OPEN[name]
        if name in _NEVER_OPENED or accepts is None:
            continue
        # Multi-picture JPEGs: the base reader takes the first and warns of nothing.
        reader = JpegImagePlugin.JpegImageFile if name == "JPEG" else reader
        try:
            # A str would say what is not installed that the format needs.
            if accepts(prefix) and not isinstance(accepts(prefix), str):
                stream.seek(0)
                return reader(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise BadImage("not an image in a format that Pillow can identify, or damaged")


def _draft(image: Image.Image, needed: Needed) -> float:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8; return the factor, 1 if it is not."""
    width, height = image.size
    swapped = orientation(image) >= 5
    tall, wide = needed((width, height) if swapped else (height, width))
    wanted = (2 * tall, 2 * wide) if swapped else (2 * wide, 2 * tall)
    # Twice what is wanted, so that the resizing still has two pixels for each: a
    # picture decoded at just the size would alias.
    drafted = image.draft(image.mode, wanted)
    return 1.0 if drafted is None else drafted[1][2] / width


def _upright(image: Image.Image, full_size: tuple[int, int], scale: float) -> Decoded:
    # After load(): a PNG may hold its EXIF behind the pixels, and Pillow turns TIFF and
    # AVIF pictures itself, which removes the tag.
    turn = orientation(image)
    image = _to_rgb(image)
    if turn == 1:
        width, height = image.size if scale == 1 else full_size
        return Decoded(image, (height, width), (0, 0, width * scale, height * scale))
    width, height = image.size if scale == 1 else full_size
    image = image.transpose(_TURNS[turn])
    if turn >= 5:
        width, height = height, width
    # Where the stored picture's first column and row are after turning.
    left = image.width - width * scale if turn in (2, 3, 6, 7) else 0
    top = image.height - height * scale if turn in (3, 4, 7, 8) else 0
    box = (left, top, left + width * scale, top + height * scale)
    return Decoded(image, (height, width), box)


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 to 8, for how a picture is stored; 1 is upright."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        if not is_the_pictures_fault(error):
            raise
        return 1  # a picture with damaged metadata is still a picture
    return turn if turn in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    # Pillow's convert would clip values of more than 8 bits to 255: white pictures.
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_8_bits(np.asarray(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Premultiplied modes convert only to their own plain mode.
    image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
    image = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def _to_8_bits(values: np.ndarray) -> Image.Image:
    """Scale gray values by the range that their type and extent suggest."""
    if not np.isfinite(values).all():
        raise BadImage("its pixel values are not all finite")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255 and values.dtype.itemsize > 2:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 65535 and values.dtype.kind != "f":
        low, high = 0.0, 65535.0
    # A picture of one value: what it is divided by does not matter.
    spread = (high - low) or 1.0
    # In float64, as 32-bit integers do not fit into a float32.
    scaled = np.rint((values.astype(np.float64) - low) * (255 / spread))
    return Image.fromarray(scaled.astype(np.uint8))
