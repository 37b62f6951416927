"""Name an image cell by what its picture depends on, and settle open pictures."""

import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from .decode import bad_image_reasons, check_size, regular_file
from .preprocess import ImageTransform

KEY_BYTES = 20


def image_key(
    cell: Any, image_root: str | Path | None, transform: ImageTransform
) -> bytes:
    """Name what `transform` makes of an image cell, by the cell's content.

    A path is named by the file it leads to, that file's size and its time of change;
    anything else by its bytes or pixels.

    Raises
    ------
    BadImage
        If the cell is not even there: no such file, a URL, a damaged open picture.
    """
    digest = blake2b(
        repr((type(cell).__name__, transform.key)).encode(), digest_size=KEY_BYTES
    )
    with bad_image_reasons():
        for part in _content(cell, image_root):
            digest.update(part)
    return digest.digest()


def _content(cell: Any, image_root: str | Path | None) -> list:
    """The parts of `cell` that its picture depends on."""
    if isinstance(cell, str | os.PathLike):
        path, status = regular_file(cell, image_root)
        stamp = (os.path.realpath(path), status.st_size, status.st_mtime_ns)
        return [repr(stamp).encode("utf-8", "backslashreplace")]
    if isinstance(cell, np.ndarray):
        about = (cell.shape, cell.dtype.str)
        return [repr(about).encode(), np.ascontiguousarray(cell)]
    if isinstance(cell, Image.Image):
        check_size(cell)
        about = (cell.mode, cell.size, cell.info.get("transparency"), cell.getpalette())
        turn = cell.getexif().get(ExifTags.Base.Orientation)
        return [repr((*about, turn)).encode(), cell.tobytes()]
    return [cell]
