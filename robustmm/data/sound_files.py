"""Files of sound alone: WAV, FLAC, Ogg, MP3 and AIFF, by libsndfile or by SciPy."""

import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ..locks import ForkSafeLock
from .containers import check_sound
from .faults import BadCell

_BLOCK = 2**15
# SciPy reads all of a file.
_MOST_BYTES_WITHOUT_SOUNDFILE = 2**28
_SIGNATURES = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"caff")
# What one step of a sample is of the range: as in the files' own definitions.
_STEPS = {"int16": 2**15, "int32": 2**31, "uint8": 2**7}
# A filter of warnings belongs to the whole process.
_LOCK = ForkSafeLock()


def is_sound_file(head: bytes) -> bool:
    """Whether a file that begins like this is read here."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    # MP3: a tag, or the eleven bits of a frame.
    mp3 = head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    return mp3 or head.startswith(_SIGNATURES)


def read_sound_file(stream: BinaryIO, max_seconds: float) -> tuple[int, np.ndarray]:
    """Return (rate, float32 samples) of a file, mono, of its first seconds.

    Raises
    ------
    BadCell
        If rate or channels are out of bounds.
    ImportError
        If the format needs soundfile, which is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        return _read_wav(stream, max_seconds, error)
    with soundfile.SoundFile(_Steady(stream)) as sound:
        rate = sound.samplerate
        check_sound(rate, sound.channels)
        # Block by block, as a few seconds of many channels may fill the memory.
        blocks = sound.blocks(
            _BLOCK, frames=int(max_seconds * rate), dtype="float32", always_2d=True
        )
        return rate, _joined(block.mean(axis=1) for block in blocks)


class _Steady:
    """A file in which nobody can seek to a place in front of its beginning.

    Damaged headers have libsndfile try, in a callback whose errors nobody can catch.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.read, self.readinto, self.tell = stream.read, stream.readinto, stream.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError):
            return self._stream.tell()


def _joined(blocks: Iterator[np.ndarray]) -> np.ndarray:
    parts = list(blocks)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _read_wav(
    stream: BinaryIO, max_seconds: float, error: ImportError
) -> tuple[int, np.ndarray]:
    from scipy.io import wavfile

    if stream.read(4) not in (b"RIFF", b"RIFX"):
        raise ImportError(
            'Sound that is no plain WAV needs soundfile: pip install "robustmm[audio]".'
        ) from error
    size = stream.seek(0, 2)
    stream.seek(0)
    if size > _MOST_BYTES_WITHOUT_SOUNDFILE:
        raise ImportError(
            f"A WAV file of {size} bytes needs soundfile: pip install "
            '"robustmm[audio]".'
        ) from error
    with _LOCK.held(), warnings.catch_warnings():
        # Of parts of the file that it does not know, and need not.
        warnings.simplefilter("ignore")
        rate, samples = wavfile.read(stream)
    return rate, mono(rate, samples, max_seconds)


def mono(rate: int, samples: np.ndarray, max_seconds: float) -> np.ndarray:
    """Return samples as float32 in [-1, 1], (n,), the mean of the channels.

    Parameters
    ----------
    rate : int
    samples : ndarray of shape (n,), (n, channels) or (channels, n)
        Floats, or int16, int32 or uint8. The shorter axis is that of the channels.
    max_seconds : float

    Raises
    ------
    BadCell
        If rate or channels are out of bounds.

    Examples
    --------
    >>> mono(8000, np.array([[0, 2**14], [2**15 - 2, 0]], dtype=np.int16), 1).tolist()
    [0.25, 0.499969482421875]
    """
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    check_sound(rate, samples.shape[1] if samples.ndim == 2 else 1)
    # Before any copy: a broadcast array takes no memory yet.
    samples = samples[: int(max_seconds * rate)]
    values = samples.astype(np.float32)
    if samples.dtype.kind != "f":
        if samples.dtype == np.uint8:
            values -= 2**7
        values /= _steps(samples.dtype)
    return values if values.ndim == 1 else values.mean(axis=1)


def _steps(dtype: Any) -> int:
    if dtype.name not in _STEPS:
        raise BadCell(f"samples must be floats or {list(_STEPS)}, got {dtype}")
    return _STEPS[dtype.name]
