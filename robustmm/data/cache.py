"""Keep decoded images by content, under a byte budget."""

import os
import threading
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from .decode import bad_image_reasons, check_size, regular_file
from .preprocess import ImageTransform

KEY_BYTES = 20


class ByteCache:
    """Arrays by key, the least recently used dropped first, under a byte budget.

    All methods may be called from any thread. A pickle carries the budget and no
    arrays; those of the process-wide `IMAGES` and `STATES` open as the other process's.

    Parameters
    ----------
    max_bytes : int
        The budget. 0 keeps nothing.

    Raises
    ------
    ValueError
        If `max_bytes` is negative.

    Examples
    --------
    >>> cache = ByteCache(max_bytes=100)
    >>> cache.put(b"a", np.zeros(60, dtype=np.uint8))
    >>> cache.put(b"b", np.zeros(60, dtype=np.uint8))
    >>> cache.get(b"a") is None, cache.nbytes
    (True, 60)
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {max_bytes!r}.")
        self.max_bytes = int(max_bytes)
        self._arrays: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._arrays)

    def __reduce__(self) -> str | tuple:
        for name in ("IMAGES", "STATES"):
            if self is globals()[name]:
                return name
        return type(self), (self.max_bytes,)

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays held."""
        return self._nbytes

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the array of `key`, read-only, or None."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: bytes, array: np.ndarray) -> None:
        """Hold `array`, unless it alone is over the budget.

        Only a read-only view is handed out again; the array must own its memory for
        the budget to be true.
        """
        held = array.view()
        held.flags.writeable = False
        with self._lock:
            self._drop(key)
            if held.nbytes > self.max_bytes:
                return
            while self._nbytes + held.nbytes > self.max_bytes:
                self._drop(next(iter(self._arrays)))
            self._arrays[key] = held
            self._nbytes += held.nbytes

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._arrays.clear()
            self._nbytes = 0

    def _drop(self, key: bytes) -> None:
        dropped = self._arrays.pop(key, None)
        if dropped is not None:
            self._nbytes -= dropped.nbytes

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


IMAGES = ByteCache(2**30)
"""The process's decoded images; estimators, folds and candidates share it."""

STATES = ByteCache(2**31)
"""The process's hidden states of frozen layers, for the methods that keep them."""

# A worker forked while another thread holds the lock would wait for it for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IMAGES._renew_lock)
    os.register_at_fork(after_in_child=STATES._renew_lock)


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
