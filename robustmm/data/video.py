"""Video cells: a few frames of a file, a folder, a list or an array."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .cells import held_video as held_video
from .cells import is_frame_decoder, is_null
from .containers import (
    count_frames,
    frames_at,
    opened_cell,
    read_sound,
)
from .faults import BadAudio, BadVideo, clip_reasons, kept
from .preprocess import ImageTransform

# Five minutes at 30 a second.
MAX_FRAMES = 9000
_FILES = (bytes, bytearray, memoryview, str, os.PathLike)
_DIGITS = re.compile(r"(\d+)")


def frame_positions(
    n: int, n_frames: int, draw: np.random.Generator | None = None
) -> np.ndarray:
    """Return which frames of a clip are looked at: int, sorted, shape (n_frames,).

    The clip is cut into equal segments. Each gives its middle frame, or one at random;
    where there are fewer frames than segments, some are taken more than once.

    Parameters
    ----------
    n : int
        Frames that the clip has.
    n_frames : int
        Frames that are wanted.
    draw : Generator or None
        None takes the middles.

    Examples
    --------
    >>> frame_positions(30, 3), frame_positions(2, 3)
    (array([ 5, 15, 25]), array([0, 1, 1]))
    >>> frame_positions(30, 3, np.random.default_rng(0))
    array([ 6, 12, 20])
    """
    share = 0.5 if draw is None else draw.random(n_frames)
    places = (np.arange(n_frames) + share) * n / n_frames
    return np.minimum(places.astype(np.int64), n - 1)


@dataclass(frozen=True)
class VideoTransform:
    """A few frames of a clip, each prepared as the checkpoint's own images.

    Parameters
    ----------
    image : ImageTransform
        How a frame is resized and cropped, to one size for all.
    n_frames : int
    max_frames : int
        Longer clips are refused.

    Raises
    ------
    ValueError
        If the size of what `image` makes follows the picture.

    Examples
    --------
    >>> transform = VideoTransform(ImageTransform(size=(8, 8)), n_frames=2)
    >>> transform(np.zeros((5, 30, 20, 3), dtype=np.uint8)).shape
    (2, 8, 8, 3)
    """

    image: ImageTransform
    n_frames: int = 3
    max_frames: int = MAX_FRAMES

    def __post_init__(self) -> None:
        if self.image.is_ragged:
            raise ValueError(
                "The frames of a video must have one size, got image settings whose "
                "size follows the picture: set a fixed size or a crop."
            )

    @property
    def key(self) -> str:
        """What the uint8 result depends on, beside the draw, as a stable str."""
        return json.dumps([self.image.key, self.n_frames])

    def __call__(
        self,
        cell: Any,
        draw: np.random.Generator | None = None,
        root: str | Path | None = None,
    ) -> np.ndarray:
        """Decode the frames of one video cell that are looked at.

        Parameters
        ----------
        cell : path, bytes, list of image cells, ndarray, dict or decoder
            See :func:`held_video`. A path may lead to a folder of frames, which are
            taken in the order of their names, numbers in them counted as numbers.
        draw : Generator or None
            One random frame of each equal segment; None takes each one's middle.
        root : path or None
            The folder that relative paths start from.

        Returns
        -------
        ndarray of uint8, shape (n_frames, H, W, 3)

        Raises
        ------
        BadVideo
            With the reason: no such file, a URL, damaged, no frames, too many, ...
        ImportError
            If PyAV is not installed and the cell is a file.
        """
        with clip_reasons(BadVideo, "av", "torchcodec"):
            cell = kept(held_video, cell, BadVideo)
            if isinstance(cell, str | os.PathLike) and _is_folder(cell, root):
                cell = _frames_of_folder(cell, root, self.max_frames)
            if isinstance(cell, _FILES):
                return self._of_file(cell, draw, root)
            return self._of_sequence(cell, draw, root)

    def _of_file(self, cell: Any, draw, root) -> np.ndarray:
        with opened_cell(cell, root) as stream:
            n = count_frames(stream, self.max_frames)
            positions = frame_positions(n, self.n_frames, draw)
            frames = frames_at(stream, positions, self.image.max_pixels)
            return np.stack([self.image(frame) for frame in frames])

    def _of_sequence(self, cell: Any, draw, root) -> np.ndarray:
        if is_null(cell):
            raise BadVideo("there is no cell")
        if isinstance(cell, np.ndarray):
            _check_array(cell)
        if len(cell) == 0:
            raise BadVideo("it has no frames")
        places = frame_positions(len(cell), self.n_frames, draw).tolist()
        # Each once, however often it is wanted.
        made = {i: self.image(_frame(cell, i), root) for i in sorted(set(places))}
        return np.stack([made[i] for i in places])

    def blank(self) -> np.ndarray:
        """Return what stands for a missing video: white, uint8 (n_frames, H, W, 3)."""
        return np.stack([self.image.blank()] * self.n_frames)

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Scale and normalise uint8 frames, where they are.

        Parameters
        ----------
        batch : tensor of uint8, shape (B, n_frames, H, W, 3)

        Returns
        -------
        tensor of float32, shape (B, n_frames, 3, H, W)
        """
        return self.image.normalize(batch.flatten(0, 1)).unflatten(0, batch.shape[:2])


def sound_of(
    cell: Any, *, max_seconds: float = 60.0, root: str | Path | None = None
) -> tuple[int, np.ndarray] | None:
    """Return the sound of a video cell as an audio cell, (rate, mono samples).

    Parameters
    ----------
    cell : video cell
    max_seconds : float
        What comes later is not read.
    root : path or None
        The folder that relative paths start from.

    Returns
    -------
    (int, ndarray of float32, shape (n,)) or None
        None where there is no sound track, and for cells that have none: lists, arrays
        and folders of frames.

    Raises
    ------
    BadAudio
        If the file or its sound cannot be read.

    Examples
    --------
    >>> sound_of(np.zeros((5, 30, 20, 3), dtype=np.uint8)) is None
    True
    """
    with clip_reasons(BadAudio, "av"):
        cell = kept(held_video, cell, BadAudio)
        if not isinstance(cell, _FILES):
            return None
        if isinstance(cell, str | os.PathLike) and _is_folder(cell, root):
            return None
        with opened_cell(cell, root) as stream:
            return read_sound(stream, max_seconds)


def _is_folder(path: str | os.PathLike, root: str | Path | None) -> bool:
    # The empty path would be the folder that others start from.
    return bool(os.fspath(path)) and os.path.isdir(os.path.join(root or "", path))


def _frames_of_folder(
    path: str | os.PathLike, root: str | Path | None, most: int
) -> list[str]:
    folder = os.path.abspath(os.path.join(root or "", path))
    kinds = Image.registered_extensions()
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in kinds:
                names.append(entry.name)
            if len(names) > most:
                raise BadVideo(f"a clip must have at most {most} frames, got more")
    return [os.path.join(folder, name) for name in sorted(names, key=_by_number)]


def _by_number(name: str) -> list:
    # Frame 10 comes after frame 9.
    parts = _DIGITS.split(name)
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def _check_array(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise BadVideo(
            "an array must be uint8 of shape (T, H, W, 3), got "
            f"{frames.dtype} of shape {frames.shape}"
        )


def _frame(clip: Sequence, i: int) -> Any:
    if not is_frame_decoder(clip):
        return clip[i]
    # torchcodec's have their channels first.
    return np.asarray(clip.get_frame_at(i).data).transpose(1, 2, 0)
