"""Audio cells: decoded to mono at one rate, and turned into AST's filter bank."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .cells import held_audio as held_audio
from .cells import is_null, is_sound_decoder
from .containers import container_format, opened_cell, read_sound
from .faults import BadAudio, clip_reasons, kept
from .sound_files import is_sound_file, mono, read_sound_file

SAMPLING_RATE = 16_000
MAX_SECONDS = 60.0
# Louder than this no sound is that is meant to be in [-1, 1].
_LOUDEST = 64.0
_MARGIN = 0.05
_FRAME, _HOP, _FFT = 400, 160, 512
_LOWEST_HZ = 20
_PRE_EMPHASIS = np.float32(0.97)
_FLOOR = np.float32(1.192092955078125e-07)


def decode_audio(
    cell: Any,
    *,
    max_seconds: float = MAX_SECONDS,
    root: str | Path | None = None,
    rate: int = SAMPLING_RATE,
) -> np.ndarray | None:
    """Decode an audio cell to mono at one rate.

    Channels are averaged. Files are read as far as `max_seconds`, whatever they say
    about their length. Formats of sound are read by soundfile, plain WAV also without
    it, and the sound of a video file by PyAV: ``pip install "robustmm[audio]"``.

    Parameters
    ----------
    cell : path, bytes, (rate, samples), dict or decoder
        See :func:`held_audio`. A path or bytes may be those of a video file.
    max_seconds : float
        What comes later is not read.
    root : path or None
        The folder that relative paths start from.
    rate : int
        Samples a second of the result.

    Returns
    -------
    ndarray of float32, shape (n,), or None
        None if the file has no sound track: then the sound is missing, not bad.

    Raises
    ------
    BadAudio
        With the reason: no such file, a URL, damaged, no samples, NaN among them, ...
    ImportError
        If what reads the format is not installed.

    Examples
    --------
    >>> tone = np.sin(np.arange(8000) / 10).astype("float32")
    >>> decode_audio((8000, tone)).shape
    (16000,)
    """
    with clip_reasons(BadAudio, "soundfile", "scipy", "av", "torchcodec"):
        found = _decoded(kept(held_audio, cell, BadAudio), max_seconds, root)
        if found is None:
            return None
        samples = _checked(found[1])
        return _checked(_resampled(samples, found[0], rate))


def _decoded(
    cell: Any, max_seconds: float, root: str | Path | None
) -> tuple[int, np.ndarray] | None:
    """Return (rate, mono samples) of what a table holds."""
    if is_null(cell):
        raise BadAudio("there is no cell")
    if isinstance(cell, tuple):
        return cell[0], mono(*cell, max_seconds)
    if is_sound_decoder(cell):
        return _from_decoder(cell, max_seconds)
    with opened_cell(cell, root) as stream:
        head = stream.read(16)
        stream.seek(0)
        if is_sound_file(head):
            return read_sound_file(stream, max_seconds)
        if container_format(stream) is None:
            raise BadAudio("not sound in a format that is read, or damaged")
        return read_sound(stream, max_seconds)


def _from_decoder(cell: Any, max_seconds: float) -> tuple[int, np.ndarray]:
    if hasattr(type(cell), "get_samples_played_in_range"):
        found = cell.get_samples_played_in_range(0, max_seconds)
        rate, samples = held_audio((found.sample_rate, found.data))
    else:
        rate, samples = held_audio((cell["sampling_rate"], cell["array"]))
    return rate, mono(rate, samples, max_seconds)


def _checked(samples: np.ndarray) -> np.ndarray:
    if samples.size == 0:
        raise BadAudio("it has no samples")
    if not np.isfinite(samples).all():
        raise BadAudio("its samples are not all finite")
    loudest = float(np.abs(samples).max())
    if loudest > _LOUDEST:
        raise BadAudio(
            f"float samples must be in about [-1, 1], got {loudest:.6g}: divide those "
            "of 16-bit sound by 32768"
        )
    return samples


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return samples
    # Here and not above, as it takes long to import.
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // divisor, rate // divisor)


@dataclass(frozen=True)
class AudioTransform:
    r"""A checkpoint's own preparation of sound: AST's filter bank, padded, normalised.

    The logarithm of :math:`n` triangular filters, linear on the mel scale from 20 Hz to
    half the rate, on windows of 25 ms every 10 ms, without padding at the edges; then
    cut or padded with zeros to `n_frames`, and :math:`(x - mean) / (2 \cdot std)`.

    Parameters
    ----------
    sampling_rate : int
    n_mels : int
        Filters.
    n_frames : int
        Windows, those of padding included.
    mean, std : float
        Of the values of the training set; the defaults are AudioSet's.

    Examples
    --------
    >>> transform = AudioTransform(n_mels=64, n_frames=128)
    >>> transform(np.zeros(16000, dtype=np.float32)).shape
    (128, 64)
    >>> round(transform.seconds, 3)
    1.295
    """

    sampling_rate: int = SAMPLING_RATE
    n_mels: int = 128
    n_frames: int = 1024
    mean: float = -4.2677393
    std: float = 4.5689974

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "AudioTransform":
        """Read the settings of an ASTFeatureExtractor, as ``audio_config`` has them.

        Parameters
        ----------
        config : mapping
            With ``sampling_rate``, ``num_mel_bins``, ``max_length``, ``do_normalize``,
            ``mean`` and ``std``.

        Raises
        ------
        ValueError
            If one is left out.

        Examples
        --------
        >>> config = {"sampling_rate": 16000, "num_mel_bins": 64, "max_length": 98}
        >>> config |= {"do_normalize": False, "mean": 0.0, "std": 1.0}
        >>> AudioTransform.from_config(config)
        AudioTransform(sampling_rate=16000, n_mels=64, n_frames=98, mean=0.0, std=0.5)
        """
        names = ("sampling_rate", "num_mel_bins", "max_length", "do_normalize")
        lacking = [n for n in (*names, "mean", "std") if config.get(n) is None]
        if lacking:
            raise ValueError(
                f"An audio config must be complete, {lacking} are left out; "
                "load_backbone(...).audio_config is."
            )
        rate, n_mels, n_frames = (int(config[name]) for name in names[:3])
        # What is not normalised is divided by one: by twice a half.
        mean, std = (0.0, 0.5)
        if config["do_normalize"]:
            mean, std = float(config["mean"]), float(config["std"])
        return cls(rate, n_mels, n_frames, mean, std)

    @property
    def key(self) -> str:
        """What the result depends on, as a stable str."""
        numbers = (self.sampling_rate, self.n_mels, self.n_frames, self.mean, self.std)
        return json.dumps(numbers)

    @property
    def seconds(self) -> float:
        """How much of a clip is looked at."""
        return ((self.n_frames - 1) * _HOP + _FRAME) / self.sampling_rate

    def read(self, cell: Any, root: str | Path | None = None) -> np.ndarray | None:
        """Decode an audio cell and make its filter bank, (n_frames, n_mels).

        None if the cell is a file without a sound track.

        Raises
        ------
        BadAudio
            If it cannot be read, or is shorter than one window.
        """
        # A little more: a resampled value depends on those around it.
        seconds = self.seconds + _MARGIN
        samples = decode_audio(
            cell, max_seconds=seconds, root=root, rate=self.sampling_rate
        )
        return None if samples is None else self(samples)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the filter bank of mono samples.

        Parameters
        ----------
        samples : ndarray of shape (n,)
            In [-1, 1], at `sampling_rate`.

        Returns
        -------
        ndarray of float32, shape (n_frames, n_mels)

        Raises
        ------
        BadAudio
            If there are fewer than 400 samples, or some are not finite.
        """
        samples = np.asarray(samples, dtype=np.float32)
        if samples.ndim != 1 or len(samples) < _FRAME:
            raise BadAudio(
                f"sound must have at least {_FRAME} samples at {self.sampling_rate} a "
                f"second, got shape {samples.shape}"
            )
        _checked(samples)
        bank = self.blank()
        values = _log_mel(samples, self.sampling_rate, self.n_mels, self.n_frames)
        bank[: len(values)] = (values - self.mean) / (2 * self.std)
        return bank

    def blank(self) -> np.ndarray:
        """Return what stands for a missing sound: padding, (n_frames, n_mels)."""
        padding = (0.0 - self.mean) / (2 * self.std)
        return np.full((self.n_frames, self.n_mels), padding, dtype=np.float32)


def _log_mel(samples: np.ndarray, rate: int, n_mels: int, most: int) -> np.ndarray:
    """Return the logarithms of filters by windows, at most so many, (t, n_mels)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP][:most]
    frames = frames - frames.mean(axis=1, keepdims=True)  # (t, 400)
    # The first sample is its own predecessor.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _PRE_EMPHASIS * before) * np.hanning(_FRAME).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, _FFT, axis=1)) ** 2  # (t, 257)
    return np.log(np.maximum(power @ mel_filters(rate, n_mels), _FLOOR))


@cache
def mel_filters(rate: int, n_mels: int) -> np.ndarray:
    """Return triangles on the mel scale: float32, (257, n_mels).

    Examples
    --------
    >>> mel_filters(16000, 128).shape
    (257, 128)
    """
    bins = _mel(np.arange(_FFT // 2 + 1) * (rate / _FFT))[:, None]  # (257, 1)
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(rate // 2), n_mels + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    filters.setflags(write=False)
    return filters


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
