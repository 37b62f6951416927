"""A table's sounds or videos: named by content, looked up or decoded, and checked."""

import os
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .audio import AudioTransform
from .cache import ByteCache
from .decode import regular_file
from .faults import BadCell
from .folder_cache import FolderCache
from .frame import Rows
from .images import KEY_BYTES, in_order
from .video import VideoTransform

# The reason why a cell counts as missing and nobody is told: a video without sound.
NO_SOUND = ""
# What encoders read of either.
INPUTS = {"audio": "input_values", "video": "frame_values"}


class ClipCells:
    """The sounds or the videos of a table, as one encoder reads them.

    Parameters
    ----------
    rows : Rows
    modality : {"audio", "video"}
    transform : AudioTransform or VideoTransform
    cache : ByteCache, FolderCache or None
        Holds what was made of a cell, by content.

    Examples
    --------
    >>> from .audio import AudioTransform
    >>> rows = Rows.of({"audio": [(16000, np.zeros(800, "int16")), b""]}, [0, 1])
    >>> cells = ClipCells(rows, "audio", AudioTransform(n_mels=8, n_frames=4))
    >>> bank, key, reason = cells.read(0)
    >>> bank.shape, reason
    ((4, 8), None)
    >>> cells.read(1)
    (None, None, 'it is empty (zero bytes)')
    """

    def __init__(
        self,
        rows: Rows,
        modality: str,
        transform: AudioTransform | VideoTransform,
        cache: ByteCache | FolderCache | None = None,
    ) -> None:
        self.rows = rows
        self.modality = modality
        self.transform = transform
        self.cache = cache
        self._cells = rows.clips[modality]
        self._keys: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def read(
        self, i: int, draw: np.random.Generator | None = None
    ) -> tuple[np.ndarray | None, bytes | None, str | None]:
        """Return what is made of row `i`, its name and the reason why there is none.

        The name, (20,) bytes, is there where there is a cache and no draw. The reason
        is `NO_SOUND` for a file without a sound track.

        Parameters
        ----------
        draw : Generator or None
            Which frames of a video to take; None takes the even ones.

        Raises
        ------
        MemoryError
            If it does not fit into memory; it names the row's label.
        """
        cell = self._cells[i]
        if cell is None:
            return None, None, None
        try:
            if draw is not None or self.cache is None:
                made, key = self._made(cell, draw), None
            else:
                made, key = self._looked_up(i, cell)
        except BadCell as error:
            return None, None, str(error)
        except MemoryError as error:
            raise MemoryError(
                f"row {self.rows.index[i]!r}: its {self.modality} does not fit into "
                "memory"
            ) from error
        return (None, None, NO_SOUND) if made is None else (made, key, None)

    def _made(self, cell: Any, draw: np.random.Generator | None) -> np.ndarray | None:
        root = self.rows.image_root
        if self.modality == "audio":
            return self.transform.read(cell, root)
        return self.transform(cell, draw, root)

    def _looked_up(self, i: int, cell: Any) -> tuple[np.ndarray | None, bytes | None]:
        key = self._keys.get(i) or self._key(cell)
        if key is not None:
            if not isinstance(cell, str | os.PathLike):
                self._keys[i] = key  # a file may change
            found = self.cache.get(key)
            blank = self.transform.blank()
            if found is not None and _is_like(found, blank):
                return found, key
        made = self._made(cell, None)
        if made is not None:
            # What has no name of its own is named by what was made of it.
            key = key or self._digest(["made", made])
            self.cache.put(key, made)
        return made, key

    def _key(self, cell: Any) -> bytes | None:
        """Name what is made of a cell by its content; None if that is not known."""
        if isinstance(cell, str | os.PathLike):
            full = os.path.join(self.rows.image_root or "", cell)
            if os.path.isdir(full):
                return None
            path, status = regular_file(cell, self.rows.image_root)
            stamp = os.path.realpath(path), status.st_size, status.st_mtime_ns
            return self._digest([repr(stamp)])
        if isinstance(cell, bytes | bytearray | memoryview):
            return self._digest(["bytes", bytes(cell)])
        if isinstance(cell, np.ndarray):
            return self._digest(["array", cell])
        if isinstance(cell, tuple) and len(cell) == 2:
            return self._digest([repr(cell[0]), np.asarray(cell[1])])
        return None

    def _digest(self, parts: list) -> bytes:
        digest = blake2b(digest_size=KEY_BYTES)
        for part in (self.modality, self.transform.key, *parts):
            if isinstance(part, np.ndarray):
                # Equal bytes in another shape are another clip.
                digest.update(repr((part.shape, part.dtype.str)).encode())
                part = np.ascontiguousarray(part)
            if isinstance(part, str):
                part = part.encode("utf-8", "backslashreplace")
            digest.update(part)
        return digest.digest()


def _is_like(made: np.ndarray, blank: np.ndarray) -> bool:
    return made.shape == blank.shape and made.dtype == blank.dtype


def find_bad_clips(
    cells: ClipCells,
    num_workers: int = 0,
    progress: bool = False,
    dealt: tuple[int, int] = (0, 1),
) -> dict[tuple[int, str], str]:
    """Decode every clip once, which also fills the cache.

    Parameters
    ----------
    cells : ClipCells
    num_workers : int
        Threads that decode, 0 for none.
    progress : bool
        Show a bar.
    dealt : tuple (first, every)
        Of several processes, which clips are decoded in this one.

    Returns
    -------
    dict
        From (position, modality) to the reason, for each cell that cannot be read and,
        as `NO_SOUND`, for each that is without sound.
    """
    first, every = dealt
    positions = [i for i, cell in enumerate(cells._cells) if cell is not None]
    positions = positions[first::every]
    reasons = in_order(partial(_reason, cells), positions, num_workers)
    bar = tqdm(
        reasons, cells.modality, len(positions), disable=not progress, leave=False
    )
    return {
        (i, cells.modality): reason
        for i, reason in zip(positions, bar, strict=True)
        if reason is not None
    }


def _reason(cells: ClipCells, i: int) -> str | None:
    return cells.read(i)[2]


def collate_clips(
    items: list[dict[str, Any]],
    transforms: Mapping[str, AudioTransform | VideoTransform],
) -> dict[str, Any]:
    """Return what encoders read of the clips of a batch, and their names.

    Returns
    -------
    dict
        ``input_values`` (B, frames, mels) float32 of sounds, ``frame_values``
        (B, T, 3, H, W) float32 of videos, and ``audio_key``, ``video_key`` (B, 20)
        uint8, zeros where there is none, of items that have names. A missing clip is
        the transform's blank one. ``bad_audio`` and ``bad_video`` (B,), object arrays
        of reasons or None, only if a cell could not be read.
    """
    batch: dict[str, Any] = {}
    for modality, transform in transforms.items():
        blank = transform.blank()
        made = np.stack([blank if (x := row[modality]) is None else x for row in items])
        values = torch.from_numpy(made)
        if modality == "video":
            values = transform.normalize(values)
        batch[INPUTS[modality]] = values
        name = f"{modality}_key"
        if name in items[0]:
            keys = b"".join(row[name] or bytes(KEY_BYTES) for row in items)
            keys = torch.frombuffer(bytearray(keys), dtype=torch.uint8)
            batch[name] = keys.view(-1, KEY_BYTES)
        bad = [row["bad_clips"].get(modality) for row in items]
        if any(reason is not None for reason in bad):
            batch[f"bad_{modality}"] = np.array(bad, dtype=object)
    return batch


def hide_clips(
    batch: dict[str, Any],
    hidden: Mapping[str, torch.Tensor],
    transforms: Mapping[str, AudioTransform | VideoTransform],
) -> dict[str, Any]:
    """Return the entries of a batch in which some clips, (B,) bool, are missing."""
    changed = {}
    for modality, gone in hidden.items():
        name, key = INPUTS[modality], f"{modality}_key"
        blank = torch.from_numpy(transforms[modality].blank())[None]
        if modality == "video":
            blank = transforms[modality].normalize(blank)
        values = batch[name]
        gone = gone.view(-1, *[1] * (values.ndim - 1))
        changed[name] = torch.where(gone, blank, values)
        if key in batch:
            changed[key] = batch[key].masked_fill(gone.view(-1, 1), 0)
    return changed
