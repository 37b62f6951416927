"""Keep arrays by key as files in a folder, under a byte budget."""

from __future__ import annotations

import io
import logging
import math
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ..locks import ForkSafeLock

logger = logging.getLogger("robustmm")

# Bytes of files in a cache's folder; a B/16 image takes 0.6 MB of states.
FOLDER_BYTES = 2**36
# An overfull folder is emptied to this part of its budget.
_ROOM = 0.9
# What numpy writes before an array, and what stands behind it here.
_HEADER, _SUM = 128, 4
_LARGEST = 2**30
# Where it can be left alone, the file that a link leads to is.
_FOLLOWS = os.utime not in os.supports_follow_symlinks
# Opening a FIFO would wait for ever; a link could lead anywhere.
_CAREFULLY = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
)


class FolderCache:
    """Arrays by key as files in a folder, the least recently used dropped first.

    The counterpart of :class:`ByteCache` for what does not fit into memory, or is to
    be found again by other processes. Files are written under another name and then
    moved, so that no reader sees half of one, and end with a sum of key and content.
    Whatever else is found in the place of a file, and NaN or infinity in one, counts as
    absent. That, a folder that cannot be written to and a full disk are logged, once.

    Parameters
    ----------
    folder : path-like
        An existing folder.
    max_bytes : int
        The budget.

    Raises
    ------
    ValueError
        If there is no such folder.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     FolderCache(folder).put(b"a", np.arange(3))
    ...     FolderCache(folder).get(b"a").tolist()
    [0, 1, 2]
    """

    def __init__(self, folder: str | os.PathLike, max_bytes: int = FOLDER_BYTES):
        if not Path(folder).is_dir():
            raise ValueError(f"The folder of a cache must exist, got {str(folder)!r}.")
        # Absolute, or another working directory would mean another folder.
        self.folder = Path(folder).resolve()
        self.max_bytes = int(max_bytes)
        self._nbytes: int | None = None
        # When each block that holds what it uses began, and which one was refused room.
        self._holds: list[int] = []
        self._full: int | None = None
        self._lock = ForkSafeLock()
        self._told: set[str] = set()

    def __reduce__(self) -> tuple:
        return type(self), (self.folder, self.max_bytes)

    def __len__(self) -> int:
        return len(self._files())

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a file of `key`, whatever is in it; asking is a use."""
        file = self._file(key)
        try:
            regular = stat.S_ISREG(os.lstat(file).st_mode)
        except OSError:
            return False
        if not regular or file.parent.is_symlink():
            return False
        _set_used(file)
        return True

    @property
    def nbytes(self) -> int:
        """The bytes of the files."""
        return sum(status.st_size for status, _ in self._files())

    @property
    def is_full(self) -> bool:
        """Whether an array was refused to keep others, and still would be."""
        return self._full in self._holds[:1]

    @property
    def is_crowded(self) -> bool:
        """Whether so much is held that a table may find no room beside it."""
        return (self._nbytes or 0) > self.max_bytes / 2

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep what is used from now on until the block ends: what is new may be
        refused, and what was not used since is dropped for it."""
        with self._lock.held():
            # Blocks that begin in one tick of the clock are still two.
            began = max(time.time_ns(), *self._holds, 0) + 1
            self._holds.append(began)
        try:
            yield
        finally:
            with self._lock.held():
                self._holds.remove(began)

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the array of `key`, read-only, or None."""
        try:
            # Read, not mapped: a mapped file that is cut ends the process.
            return _unpack(key, self._read(self._file(key)))
        except FileNotFoundError:
            return None
        except Exception as error:  # numpy parses a header in more ways than one
            self._say("is computed anew where a file is no array of this cache", error)
            return None

    def put(self, key: bytes, array: np.ndarray) -> None:
        """Write `array`, unless it alone is over the budget, others are held fast, or
        it is not finite."""
        size = array.nbytes + _HEADER + _SUM
        if size > min(self.max_bytes, _LARGEST) or not _is_finite(array):
            return
        try:
            if self._make_room(size):
                self._write(key, self._file(key), array)
        except OSError as error:
            self._say("cannot keep an array", error)

    def clear(self) -> None:
        """Delete all files of the cache."""
        with self._lock.held():
            for _, file in self._files():
                with suppress(OSError):
                    file.unlink()
            self._nbytes = None

    def _say(self, what: str, error: Exception) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s %s: %s", self.folder, what, error)

    def _file(self, key: bytes) -> Path:
        name = key.hex()
        # 256 folders, as many file systems are slow with a million files in one.
        return self.folder / name[:2] / f"{name}.npy"

    def _files(self) -> list[tuple[os.stat_result, Path]]:
        found = []
        for file in self.folder.glob("[0-9a-f][0-9a-f]/*.npy"):
            # Another process may just have dropped it.
            with suppress(OSError):
                status = os.lstat(file)
                if stat.S_ISREG(status.st_mode) and not file.parent.is_symlink():
                    found.append((status, file))
        return found

    def _read(self, file: Path) -> bytes:
        if file.parent.is_symlink():
            raise ValueError(f"{file.parent.name} is a link")
        descriptor = os.open(file, os.O_RDONLY | _CAREFULLY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise ValueError(f"{file.name} is no file, or too large a one")
            with open(descriptor, "rb", closefd=False) as stream:
                data = stream.read()
            _set_used(file)
        finally:
            os.close(descriptor)
        return data

    def _write(self, key: bytes, file: Path, array: np.ndarray) -> None:
        file.parent.mkdir(exist_ok=True)
        if file.parent.is_symlink():
            raise OSError(f"{file.parent} is a link")
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        content.write(_sum(key, content.getbuffer()))
        # In the same folder: a file is moved in one step on one file system only.
        handle, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content.getbuffer())
            _set_used(Path(name))
            os.replace(name, file)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def _make_room(self, nbytes: int) -> bool:
        """Drop what was used least recently; whether that makes enough room."""
        with self._lock.held():
            # Listing a large folder takes longer than computing what it would keep.
            if self.is_full:
                return False
            # Counted at the first writing, as reading alone must not list the folder.
            if self._nbytes is None:
                self._nbytes = self.nbytes
            self._nbytes += nbytes
            if self._nbytes > self.max_bytes:
                # Other processes write here too: count again.
                self._nbytes = self._drop_oldest(self.max_bytes - nbytes) + nbytes
            if self._nbytes > self.max_bytes:
                self._nbytes -= nbytes
                self._full = self._holds[0] if self._holds else None
                return False
        return True

    def _drop_oldest(self, limit: int) -> int:
        """Delete files until they are within ``limit``; return what they hold."""
        about = self._files()
        held = sum(status.st_size for status, _ in about)
        if held <= limit:
            return held
        for status, file in sorted(about, key=lambda pair: pair[0].st_mtime_ns):
            fast = self._holds and status.st_mtime_ns >= self._holds[0]
            if held <= _ROOM * limit or fast:
                break
            with suppress(OSError):
                file.unlink()
                held -= status.st_size
        return held


def _set_used(file: Path) -> None:
    """Set the age of a file in use: what was used last is dropped last."""
    # By this clock, not by that of the file system, which blocks are compared with.
    now = time.time_ns()
    with suppress(OSError):  # a folder that may only be read
        os.utime(file, ns=(now, now), follow_symlinks=_FOLLOWS)


def _sum(key: bytes, content) -> bytes:
    return zlib.crc32(content, zlib.crc32(key)).to_bytes(_SUM, "little")


def _unpack(key: bytes, data: bytes) -> np.ndarray:
    """Return the array in a file's content; raise ValueError for anything else."""
    content = memoryview(data)[:-_SUM]
    if _sum(key, content) != data[-_SUM:]:
        raise ValueError(f"{key.hex()}.npy is damaged, or not of this cache")
    stream = io.BytesIO(content[: 2 * _HEADER])
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{key.hex()}.npy is of another format")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    count = math.prod(shape)
    whole = count * dtype.itemsize == len(content) - stream.tell()
    if dtype.kind not in "biuf" or not whole:
        raise ValueError(f"{key.hex()}.npy holds {shape} of {dtype}")
    array = np.frombuffer(content, dtype, count, stream.tell())
    array = array.reshape(shape, order="F" if by_column else "C")
    if not _is_finite(array):
        raise ValueError(f"{key.hex()}.npy holds NaN or infinity")
    return array


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
