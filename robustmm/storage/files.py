"""Files that are either as they were or complete, whenever the process ends."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Opening a FIFO or a device would wait for ever; a link could lead anywhere.
_CAREFULLY = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
)
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be read.

    Raises
    ------
    ValueError
        If there is none, or anything but a file: a link, a folder, a FIFO, a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _CAREFULLY)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise ValueError(f"{str(path)!r} must be a file, and there is none.") from error
    # Where there is no O_NOFOLLOW, the path still says that it is a link.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or os.path.islink(path):
        os.close(descriptor)
        raise ValueError(f"{str(path)!r} must be a file, and is something else.")
    with open(descriptor, "rb") as stream:
        yield stream


def read_bytes(path: Path, most: int) -> bytes:
    """Return what a file holds, if it is a file of at most so many bytes."""
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise ValueError(
                f"{str(path)!r} must have at most {most} bytes, got {size}."
            )
        return stream.read()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def replace_bytes(path: Path, data: bytes) -> None:
    """Put a file in the place of another in one step, which a kill cannot halve."""
    # In the same folder: across file systems, a move is a copy, which a kill can halve.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_bytes(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same lock out, where the system can.

    The lock ends with the process, so a kill leaves none.
    """
    if os.name != "posix":
        yield
        return
    import fcntl  # not on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
