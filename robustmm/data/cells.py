"""Cells of sound and of moving pictures: what they may be, with nothing read yet."""

import os
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

_FILES = (str, os.PathLike, bytes, bytearray, memoryview)
_MISSING = "or missing: None, NaN, pd.NA or NaT"
_AUDIO_RULE = (
    "An audio cell must be a path, the bytes of a file, (rate, samples), a dict with "
    f"array and sampling_rate or with bytes or path, a decoder, {_MISSING}"
)
_VIDEO_RULE = (
    "A video cell must be a path to a file or to a folder of frames, the bytes of a "
    "file, a list of image cells, a uint8 array of shape (T, H, W, 3), a dict with "
    f"bytes or path, a decoder, {_MISSING}"
)


def is_null(cell: Any) -> bool:
    """Whether `cell` is None, NaN, pd.NA or NaT; arrays and images never are."""
    # pd.isna answers per element on lists and arrays, so only scalars may reach it.
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def held_audio(cell: Any) -> Any:
    """Return what a table keeps of an audio cell; nothing is opened.

    Parameters
    ----------
    cell : path, bytes, (rate, samples), dict, decoder or missing
        Samples are floats in [-1, 1], or int16, int32 or uint8 as in files, of shape
        (n,) or with an axis of channels, before or behind. A dict has ``"array"`` or
        ``"raw"`` with ``"sampling_rate"``, or ``"bytes"`` with ``"path"``. Decoders are
        those of torchcodec, and what gives ``["array"]`` and ``["sampling_rate"]``.

    Returns
    -------
    None, path, bytes, (int, ndarray) or the decoder itself

    Raises
    ------
    ValueError
        With the rule, if it is anything else.

    Examples
    --------
    >>> held_audio({"bytes": None, "path": "dog.wav"})
    'dog.wav'
    >>> held_audio({"raw": np.zeros(3, dtype="int16"), "sampling_rate": 8000.0})
    (8000, array([0, 0, 0], dtype=int16))
    >>> held_audio((np.zeros(3), 8000))
    Traceback (most recent call last):
        ...
    ValueError: An audio cell of sound and rate must be (rate, samples), the rate \
first; got (ndarray, int).
    """
    if is_null(cell) or isinstance(cell, _FILES):
        return None if is_null(cell) else cell
    if isinstance(cell, Mapping):
        return _held_mapping(cell)
    if isinstance(cell, tuple | list) and len(cell) == 2:
        return _held_pair(*cell)
    if _is_array(cell) or isinstance(cell, tuple | list):
        raise ValueError(
            "An audio cell of samples needs their rate: (rate, samples) or "
            f"{{'array': samples, 'sampling_rate': rate}}; got a {_named(cell)} alone."
        )
    if is_sound_decoder(cell):
        return cell
    raise ValueError(f"{_AUDIO_RULE}; got {_named(cell)} {reprlib.repr(cell)}.")


def held_video(cell: Any) -> Any:
    """Return what a table keeps of a video cell; nothing is opened.

    Parameters
    ----------
    cell : path, bytes, list of image cells, ndarray, dict, decoder or missing
        An array is (T, H, W, 3) of uint8. A dict has ``"bytes"`` with ``"path"``.
        Decoders are those of torchcodec.

    Returns
    -------
    None, path, bytes, list, ndarray or the decoder itself

    Raises
    ------
    ValueError
        With the rule, if it is anything else.

    Examples
    --------
    >>> held_video({"bytes": b"...", "path": "dog.mp4"})
    b'...'
    >>> held_video(("frame1.png", "frame2.png"))
    ['frame1.png', 'frame2.png']
    >>> held_video(3.5)
    Traceback (most recent call last):
        ...
    ValueError: A video cell must be a path to a file or to a folder of frames, the \
bytes of a file, a list of image cells, a uint8 array of shape (T, H, W, 3), a dict \
with bytes or path, a decoder, or missing: None, NaN, pd.NA or NaT; got float 3.5.
    """
    if is_null(cell) or isinstance(cell, _FILES):
        return None if is_null(cell) else cell
    if isinstance(cell, Mapping) and cell and cell.keys() <= {"bytes", "path"}:
        return _held_file(cell, _VIDEO_RULE)
    if isinstance(cell, np.ndarray) and cell.dtype == object and cell.ndim == 1:
        return list(cell)  # pandas' own form of a list that comes from Arrow
    if isinstance(cell, tuple | list):
        return list(cell)
    if isinstance(cell, np.ndarray) or is_frame_decoder(cell):
        return cell
    raise ValueError(f"{_VIDEO_RULE}; got {_named(cell)} {reprlib.repr(cell)}.")


def is_sound_decoder(cell: Any) -> bool:
    """Whether `cell` is torchcodec's kind of sound, or Hugging Face's around it."""
    kind = type(cell)
    if hasattr(kind, "get_samples_played_in_range"):
        return True
    return hasattr(kind, "__getitem__") and not hasattr(kind, "__len__")


def is_frame_decoder(cell: Any) -> bool:
    """Whether `cell` is torchcodec's kind of video."""
    return hasattr(type(cell), "get_frame_at") and hasattr(type(cell), "__len__")


def _held_mapping(cell: Mapping) -> Any:
    for name in ("array", "raw"):
        if name in cell and "sampling_rate" in cell:
            return _held_pair(cell["sampling_rate"], cell[name])
    if cell and cell.keys() <= {"bytes", "path"}:
        return _held_file(cell, _AUDIO_RULE)
    keys = reprlib.repr(list(cell))
    raise ValueError(f"{_AUDIO_RULE}; got a dict with {keys}.")


def _held_file(cell: Mapping, rule: str) -> Any:
    data, path = cell.get("bytes"), cell.get("path")
    # No text in the place of bytes: it would be read as a path.
    if isinstance(data, bytes | bytearray | memoryview):
        return data
    if is_null(data) and (is_null(path) or isinstance(path, str | os.PathLike)):
        return None if is_null(path) else path
    kinds = f"bytes {_named(data)} and path {_named(path)}"
    raise ValueError(f"{rule}; got a dict with {kinds}.")


def _held_pair(rate: Any, samples: Any) -> tuple[int, np.ndarray]:
    if not _is_rate(rate):
        if _is_rate(samples) and not np.isscalar(rate):
            raise ValueError(
                "An audio cell of sound and rate must be (rate, samples), the rate "
                f"first; got ({_named(rate)}, {_named(samples)})."
            )
        raise ValueError(
            "The rate of an audio cell must be a whole number of samples a second, "
            f"got {reprlib.repr(rate)}."
        )
    return int(rate), _samples(samples)


def _samples(samples: Any) -> np.ndarray:
    try:
        values = np.asarray(samples)
        if values.dtype == object and values.ndim == 1 and len(values):
            values = np.stack(list(map(np.asarray, values)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The samples of an audio cell must be an array, got {_named(samples)}."
        ) from error
    known = values.dtype.kind == "f" or values.dtype in (np.int16, np.int32, np.uint8)
    if not known or values.ndim not in (1, 2):
        raise ValueError(
            "The samples of an audio cell must be floats, int16, int32 or uint8 of "
            "shape (n,), (n, channels) or (channels, n), got "
            f"{values.dtype} of shape {values.shape}."
        )
    return values


def _is_rate(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool) and value == value // 1 and value > 0


def _is_array(cell: Any) -> bool:
    return hasattr(type(cell), "__array__")


def _named(value: Any) -> str:
    return type(value).__name__
