"""Keep arrays by key under a byte budget: in memory, or as files."""

from __future__ import annotations

import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from ..locks import ForkSafeLock
from .folder_cache import FolderCache

logger = logging.getLogger("robustmm")


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

    Epochs ask for the same arrays in another order, and the one used last is the one
    that is needed last. While one runs, what fits is kept and the rest refused:

    >>> with cache.holding():
    ...     _ = cache.get(b"b")
    ...     cache.put(b"c", np.zeros(60, dtype=np.uint8))
    >>> b"b" in cache, b"c" in cache
    (True, False)
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {max_bytes!r}.")
        self.max_bytes = int(max_bytes)
        # In the order of their last use, and when that was; a tick is a use.
        self._arrays: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._used: dict[bytes, int] = {}
        self._tick = self._nbytes = 0
        # When each block that holds what it uses began, and which one was refused room.
        self._holds: list[int] = []
        self._full: int | None = None
        self._lock = ForkSafeLock()

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, key: bytes) -> bool:
        """Whether there is an array of `key`; asking is a use of it."""
        return self.get(key) is not None

    def __reduce__(self) -> str | tuple:
        for name in ("IMAGES", "STATES"):
            if self is globals()[name]:
                return name
        return type(self), (self.max_bytes,)

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays held."""
        return self._nbytes

    @property
    def is_full(self) -> bool:
        """Whether an array was refused to keep others, and still would be."""
        return self._full in self._holds[:1]

    @property
    def is_crowded(self) -> bool:
        """Whether so much is held that a table may find no room beside it."""
        return self._nbytes > self.max_bytes / 2

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep what is used from now on until the block ends: what is new may be
        refused, and what was not used since is dropped for it."""
        with self._lock.held():
            self._tick += 1
            began = self._tick
            self._holds.append(began)
        try:
            yield
        finally:
            with self._lock.held():
                self._holds.remove(began)

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the array of `key`, read-only, or None."""
        with self._lock.held():  # also to read, which moves what is read to the end
            found = self._arrays.get(key)
            if found is not None:
                self._use(key)
            return found

    def put(self, key: bytes, array: np.ndarray) -> None:
        """Hold `array`, unless it alone is over the budget, or others are held fast.

        Only a read-only view is handed out again; the array must own its memory for
        the budget to be true.
        """
        # The caller's own array stays writable.
        held = array.view()
        held.flags.writeable = False
        with self._lock.held():
            self._drop(key)
            if self._make_room(held.nbytes):
                self._arrays[key] = held
                self._nbytes += held.nbytes
                self._use(key)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock.held():
            self._arrays.clear()
            self._used.clear()
            self._nbytes, self._full = 0, None

    def _use(self, key: bytes) -> None:
        self._tick += 1
        self._used[key] = self._tick
        self._arrays.move_to_end(key)

    def _drop(self, key: bytes) -> None:
        found = self._arrays.pop(key, None)
        if found is not None:
            self._nbytes -= found.nbytes
            del self._used[key]

    def _make_room(self, nbytes: int) -> bool:
        """Drop what was used least recently; whether that makes enough room."""
        # Since the block that began first: one in another thread, or around this one,
        # may be in the middle of its epoch.
        held_since = self._holds[0] if self._holds else self._tick
        while nbytes <= self.max_bytes < self._nbytes + nbytes:
            oldest = next(iter(self._arrays))
            if self._used[oldest] > held_since:
                break
            self._drop(oldest)
        fits = self._nbytes + nbytes <= self.max_bytes
        if self._holds and not fits:
            self._full = held_since
        return fits


IMAGES = ByteCache(2**30)
"""The process's decoded images; estimators, folds and candidates share it."""

STATES = ByteCache(2**31)
"""The process's hidden states of frozen layers, for the methods that keep them."""


@functools.cache
def _of_folder(folder: str) -> FolderCache:
    return FolderCache(folder)


def open_cache(
    cache: str | os.PathLike | None, in_memory: ByteCache
) -> ByteCache | FolderCache | None:
    """Return what an estimator's parameter ``cache`` means.

    Parameters
    ----------
    cache : {"memory", None} or path-like
        A path is a folder; one object counts its bytes for the whole process. Where
        there is no such folder, as when a model is opened elsewhere, nothing is kept,
        which is logged.
    in_memory : ByteCache
        The one for ``"memory"``.
    """
    if cache is None or cache == "memory":
        return in_memory if cache == "memory" else None
    if not os.path.isdir(cache):
        logger.warning("Nothing is kept: there is no folder %s.", cache)
        return None
    # By its real path, so that two names of a folder share one count.
    return _of_folder(os.path.realpath(cache))


@contextmanager
def holding(*caches: ByteCache | FolderCache | None) -> Iterator[None]:
    """Keep in each cache what is used inside the block, as far as it fits.

    For a fit, or a prediction, of a table that may be larger than a cache: what was
    read first stays, and is found in every epoch. What no one asked for since the block
    began is dropped for what is new, so blocks that follow each other make room.

    Examples
    --------
    >>> cache = ByteCache(max_bytes=100)
    >>> with holding(cache, None):
    ...     for key in (b"a", b"b"):
    ...         cache.put(key, np.zeros(60, dtype=np.uint8))
    >>> b"a" in cache, b"b" in cache
    (True, False)
    """
    with ExitStack() as stack:
        for cache in caches:
            if cache is not None:
                stack.enter_context(cache.holding())
        yield
