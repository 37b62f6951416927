"""Sound and frames of files like MP4 and FLV, read by PyAV and never by their names.

PyAV hands a path to FFmpeg, which would dial a URL, and follow what a playlist names.
So it is given an open file, and told by the file's signature which format to expect.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .decode import opened_file, regular_file
from .faults import BadCell

# 8K video has about as many.
MAX_FRAME_PIXELS = 2**25
# Of all frames that are decoded: five minutes of full HD.
MAX_DECODED_PIXELS = 2**34
MAX_CHANNELS = 16
# Of sound, a second; a resampling filter is as long as the larger of two rates.
RATES = (1_000, 192_000)
_SIGNATURE = 16
_FORMATS = {
    "mp4": lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"),
    "matroska": lambda head: head[:4] == b"\x1a\x45\xdf\xa3",
    "flv": lambda head: head[:3] == b"FLV",
    "avi": lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ",
    "gif": lambda head: head[:6] in (b"GIF87a", b"GIF89a"),
    "asf": lambda head: head[:8] == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "mpeg": lambda head: head[:4] == b"\x00\x00\x01\xba",
    "ogg": lambda head: head[:4] == b"OggS",
}


@contextmanager
def opened_cell(cell: Any, root: str | Path | None = None) -> Iterator[BinaryIO]:
    """Open the file of a cell that is a path or bytes.

    Raises
    ------
    BadCell
        If it is empty, a URL, no regular file or not there.
    """
    if isinstance(cell, bytes | bytearray | memoryview):
        yield _not_empty(BytesIO(cell))
        return
    if not os.fspath(cell):
        raise BadCell("the path is an empty string")
    path, _ = regular_file(cell, root)
    with opened_file(path) as stream:
        yield _not_empty(stream)


def _not_empty(stream: BinaryIO) -> BinaryIO:
    if not stream.read(1):
        raise BadCell("it is empty (zero bytes)")
    stream.seek(0)
    return stream


def container_format(stream: BinaryIO) -> str | None:
    """Return FFmpeg's name of a container's format, by its signature."""
    stream.seek(0)
    head = stream.read(_SIGNATURE)
    stream.seek(0)
    return next((name for name, fits in _FORMATS.items() if fits(head)), None)


@contextmanager
def opened_container(stream: BinaryIO) -> Iterator[Any]:
    """Open a container, which PyAV reads through a Python file object.

    Raises
    ------
    BadCell
        If it is none of the formats that are read.
    ImportError
        If PyAV is not installed.
    """
    name = container_format(stream)
    if name is None:
        kinds = "MP4, WebM, MKV, FLV, AVI, GIF, ASF, MPEG or Ogg"
        raise BadCell(f"not a file in a format that is read, {kinds}, or damaged")
    need_av()
    import av

    with av.open(stream, format=name) as found:
        if name not in found.format.name.split(","):
            raise BadCell(f"not {name}, as it begins, but {found.format.name}")
        yield found


def need_av() -> None:
    """Raise ImportError, with the remedy, unless containers can be read."""
    # Here and not above: PyAV is optional, and large.
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ImportError('Video needs PyAV: pip install "robustmm[audio]".') from error


def count_frames(stream: BinaryIO, most: int) -> int:
    """Return how many frames the first video track of a container has.

    They are counted and not decoded; durations in a file are mere claims.

    Raises
    ------
    BadCell
        If there is no video track, no frame, or more than `most`.
    """
    with opened_container(stream) as container:
        track = _video_track(container)
        count = 0
        for packet in container.demux(track):
            count += packet.size > 0
            if count > most:
                raise BadCell(f"a clip must have at most {most} frames, got more")
    if count == 0:
        raise BadCell("it has no frames")
    return count


def frames_at(
    stream: BinaryIO, positions: np.ndarray, max_pixels: int
) -> Iterator[np.ndarray]:
    """Yield frames as uint8 (H, W, 3), upright, by their sorted positions.

    Where the file ends before a position, the last frame takes its place.

    Raises
    ------
    BadCell
        If there is none, or a frame has more than `max_pixels` pixels, or all that are
        decoded have too many.
    """
    wanted = [int(position) for position in positions]
    max_pixels = min(max_pixels, MAX_FRAME_PIXELS)
    place, frame = -1, None
    with opened_container(stream) as container:
        track = _video_track(container)
        # Holds on the codec and before the first frame; on the container it is ignored.
        codec = track.codec_context
        _check_frame(codec, max_pixels)
        codec.options = {"max_pixels": str(max_pixels)}
        codec.thread_count = 1
        budget = MAX_DECODED_PIXELS
        for frame in container.decode(track):
            place += 1
            _check_frame(frame, max_pixels)
            budget -= frame.width * frame.height
            if budget < 0:
                size = f"{frame.width} x {frame.height}"
                raise BadCell(f"its frames of {size} pixels are too many to decode")
            while wanted and wanted[0] == place:
                wanted.pop(0)
                yield _picture(frame)
            if not wanted:
                return
        if frame is None:
            raise BadCell("none of its frames can be decoded")
        last = _picture(frame)
    for _ in wanted:
        yield last


def _check_frame(frame: Any, max_pixels: int) -> None:
    if frame.width * frame.height > max_pixels:
        raise BadCell(
            f"a frame must have at most {max_pixels} pixels, got "
            f"{frame.width} x {frame.height}"
        )


def _video_track(container: Any) -> Any:
    # A cover of an album is one picture, and no film.
    tracks = [t for t in container.streams.video if t.codec_context is not None]
    if not tracks:
        raise BadCell("it has no video track")
    return tracks[0]


def _picture(frame: Any) -> np.ndarray:
    turns = round(getattr(frame, "rotation", 0) / 90)
    return np.rot90(frame.to_ndarray(format="rgb24"), turns)


def read_sound(stream: BinaryIO, max_seconds: float) -> tuple[int, np.ndarray] | None:
    """Return (rate, float32 samples) of a container's first sound track, mono.

    None without a sound track.

    Raises
    ------
    BadCell
        If there are no samples, or rate or channels are out of bounds.
    """
    import av

    with opened_container(stream) as container:
        tracks = container.streams.audio
        if not tracks:
            return None
        rate = tracks[0].rate or 0
        check_sound(rate, tracks[0].channels)
        change = av.AudioResampler(format="fltp", rate=rate)
        lacking, parts = int(max_seconds * rate), []
        for frame in container.decode(tracks[0]):
            check_sound(frame.sample_rate, frame.layout.nb_channels)
            parts += [part.to_ndarray().mean(axis=0) for part in change.resample(frame)]
            lacking -= frame.samples
            if lacking <= 0:
                break
    if not parts:
        raise BadCell("its sound has no samples")
    return rate, np.concatenate(parts)[: int(max_seconds * rate)]


def check_sound(rate: int, channels: int) -> None:
    """Raise `BadCell` unless sound of that many samples a second may be read."""
    low, high = RATES
    if not low <= rate <= high:
        raise BadCell(f"sound must have {low} to {high} samples a second, got {rate}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise BadCell(f"sound must have 1 to {MAX_CHANNELS} channels, got {channels}")
