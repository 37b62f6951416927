"""What goes wrong while a picture is decoded, and what of it is the picture's fault."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from PIL import Image

# Where the classes of exceptions are from that damaged files cause in Pillow's readers:
# struct, zlib, gzip, ..., but not the modules that run something with a time limit.
_WORKERS = {"asyncio", "concurrent", "multiprocessing", "subprocess"}
_COMMON = (sys.stdlib_module_names - _WORKERS) | {"numpy"}

# How the reason begins that there is no file, which may be one reason for many rows.
NO_FILE = "no such file"

_DECODING: ContextVar[bool] = ContextVar("decoding", default=False)


class BadCell(ValueError):
    """A cell that cannot be read; the message is the reason, without a row."""


class BadImage(BadCell):
    """An image cell that cannot be read."""


class BadAudio(BadCell):
    """An audio cell that cannot be read."""


class BadVideo(BadCell):
    """A video cell that cannot be read."""


@contextmanager
def bad_image_reasons() -> Iterator[None]:
    """Turn what a picture does to its reader into `BadImage`, and keep warnings in.

    An exception is the picture's fault if its class is one of Python's or belongs to a
    package that reads pictures: plugins fail on damaged files in every way there is,
    with SyntaxError, struct.error, EOFError, AssertionError, ... All others pass: those
    of whoever runs this (a task queue's time limit, raised by a signal inside a codec),
    TimeoutError unless the file system raised it, MemoryError and KeyboardInterrupt.
    What Pillow warns of or logs meanwhile, in this thread, is not shown.
    """
    _hush_pillow()
    token = _DECODING.set(True)
    try:
        yield
    except Exception as error:
        if isinstance(error, BadImage) or not is_the_pictures_fault(error):
            raise
        # Some of Pillow's assertions have no message.
        reason = str(error) or type(error).__name__
        raise BadImage(f"cannot be decoded ({short(reason)})") from error
    finally:
        _DECODING.reset(token)


@contextmanager
def clip_reasons(bad: type[BadCell], *readers: str) -> Iterator[None]:
    """Turn what sound or video does to its reader into `bad`.

    An exception is the file's fault if its class is one of Python's, of NumPy's or of
    the packages `readers`, and also if reading a path or a picture said so before. All
    others pass, as in `bad_image_reasons`, and so does ImportError: it is no file's.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, bad | ImportError):
            raise
        if isinstance(error, BadCell):
            raise bad(str(error)) from error
        home = type(error).__module__.partition(".")[0]
        # FFmpeg calls it a lack of memory if a file asks for an absurd amount.
        if home not in readers and not is_the_pictures_fault(error):
            raise
        reason = str(error) or type(error).__name__
        raise bad(f"cannot be decoded ({short(reason)})") from error


def kept(hold: Callable[[Any], Any], cell: Any, bad: type[BadCell]) -> Any:
    """Return what a table keeps of a cell, or raise `bad` with the rule."""
    try:
        return hold(cell)
    except ValueError as error:
        # Reasons end where a message goes on.
        raise bad(str(error).removesuffix(".")) from error


def is_the_pictures_fault(error: Exception) -> bool:
    """Whether a reader raised `error` because of what it has read; by its class."""
    if isinstance(error, MemoryError):
        return False
    # The file system's has a number; without one it is somebody's time limit.
    if isinstance(error, TimeoutError) and error.errno is None:
        return False
    # A copy: another thread may register a plugin meanwhile.
    readers = {reader.__module__ for reader, _ in list(Image.OPEN.values())}
    homes = _COMMON | {name.partition(".")[0] for name in readers}
    return type(error).__module__.partition(".")[0] in homes


def short(text: str) -> str:
    """Quote a text that may have any length."""
    return repr(text if len(text) <= 160 else f"{text[:100]} ... {text[-50:]}")


class _Warnings:
    """What Pillow's modules know as ``warnings``: the same, but silent while decoding.

    The filters of that module belong to the whole process: who changes them for a
    moment changes them for all threads. This asks whose call it is.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    def warn(
        self, message, category=None, stacklevel=1, source=None, **options
    ) -> None:
        if not _DECODING.get():
            # One more level, this function, or the warning would be of this line.
            warnings.warn(message, category, stacklevel + 1, source, **options)


@cache
def _hush_pillow() -> None:
    Image.init()
    # A copy: a plug-in that another thread fails to import is gone the next moment.
    for name, module in list(sys.modules.items()):
        if not name.startswith("PIL."):
            continue
        if getattr(module, "warnings", None) is warnings:
            module.warnings = _Warnings()
        if hasattr(module, "logger"):
            logging.getLogger(name).addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING or not _DECODING.get()
