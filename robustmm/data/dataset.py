"""Rows to batches: a torch Dataset that decodes lazily, and its collate function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .audio import AudioTransform
from .cache import ByteCache
from .clips import NO_SOUND, ClipCells, collate_clips, hide_clips
from .folder_cache import FolderCache
from .frame import MODALITIES, Rows, format_rows
from .images import KEY_BYTES, ImageCells
from .pictures import Pictures
from .preprocess import ImageTransform
from .text import TextTokenizer
from .video import VideoTransform

# Entries of a batch that say what is wrong with its cells.
BAD = frozenset({"bad", "bad_audio", "bad_video"})


class MultimodalDataset(Dataset):
    """Rows as a torch dataset; an image is decoded when its row is asked for.

    Parameters
    ----------
    rows : Rows
    transform : ImageTransform or None
        None leaves images closed, for a model without an image stream.
    tokenizer : TextTokenizer or None
    targets : ndarray of int64, shape (n,), or of float32, shape (n, L), or None
    weights : ndarray of float32, shape (n,), or None
        Sample weights; ones where None.
    cache : ByteCache, FolderCache or None
        Holds transformed images by content.
    on_bad_image : {"raise", "record", "ignore"}
        An image that cannot be read raises a ValueError that names the row's label, or
        counts as missing, with the reason in ``item["bad"]`` or without. So does a
        sound or a video, with the reason in ``item["bad_clips"]``.
    clips : mapping from modality to AudioTransform or VideoTransform
        How sounds and videos are prepared; those of other modalities stay closed.

    Attributes
    ----------
    images : ImageCells
        The rows' images.
    clips : dict of str to ClipCells
        Their sounds and videos.
    random_frames : bool
        Whether the frames of videos are drawn, from torch's generator, whenever a row
        is asked for; otherwise they are even ones. False.
    recall : callable (present, key, ids) -> bool, or None
        Whether all that is computed from the picture of that key, in a row of those
        tokens, is at hand; ``ids`` is a function that returns them. `Unread` stands for
        such a picture, which is made only if it is asked for.

    Raises
    ------
    ValueError
        If `on_bad_image` is neither, or `targets` or `weights` have another length.

    Examples
    --------
    >>> rows = Rows([np.zeros((9, 9, 3), dtype=np.uint8), None], ["cat", "dog"], [0, 1])
    >>> dataset = MultimodalDataset(rows, ImageTransform(size=(4, 4)), None)
    >>> item, target = dataset[0]
    >>> item["image"].shape, item["present"], target
    ((4, 4, 3), (True, True), 0)
    """

    def __init__(
        self,
        rows: Rows,
        transform: ImageTransform | None,
        tokenizer: TextTokenizer | None,
        targets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        cache: ByteCache | FolderCache | None = None,
        on_bad_image: str = "raise",
        clips: Mapping[str, AudioTransform | VideoTransform] | None = None,
    ) -> None:
        if on_bad_image not in ("raise", "record", "ignore"):
            raise ValueError(
                "on_bad_image must be 'raise', 'record' or 'ignore', got "
                f"{on_bad_image!r}."
            )
        for name, values in (("targets", targets), ("weights", weights)):
            if values is not None and len(values) != len(rows):
                raise ValueError(
                    f"{name} must have {len(rows)} entries, got {len(values)}."
                )
        self.rows = rows
        self.transform = transform
        self.tokenizer = tokenizer
        self.targets = targets
        self.weights = weights
        self.on_bad_image = on_bad_image
        self.images = ImageCells(rows, transform, cache)
        # Of a modality that the rows lack, every cell is missing.
        self.clips = {
            name: ClipCells(rows, name, made, cache)
            for name, made in (clips or {}).items()
            if name in rows.clips
        }
        self.random_frames = False
        self.recall: Callable | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def text_lengths(self) -> np.ndarray:
        """Each row's number of characters, 0 without a text: int, shape (n,)."""
        # Good enough for an order, and no text is tokenised twice for it.
        return np.array([len(text or "") for text in self.rows.texts], dtype=np.int64)

    def __getitem__(self, i: int) -> tuple[dict[str, Any], Any]:
        """Return (item, target) of row `i`.

        The item holds ``row`` (int), ``image`` (uint8 array (H, W, 3), None where it is
        missing, or `Unread` where `recall` says that it is not needed), ``ids`` (list
        of int, empty without a tokenizer), ``weight`` (float), ``present`` (image,
        text: bools, or as the rows' ``modalities``) and ``bad`` (why the image could
        not be read, or None). With a transform and a cache also ``key``, the name of
        the image in the cache (bytes, None without an image), for those who keep what
        they compute from it. With clips also ``audio`` (float32, (frames, mels)) and
        ``video`` (uint8, (T, H, W, 3)), their names as ``audio_key`` and so on, and
        ``bad_clips`` (reasons by modality).
        The target is 0 where there are none.

        Raises
        ------
        ValueError
            If the image cannot be read and `on_bad_image` is "raise".
        """
        text, ids = self.rows.texts[i], self._ids(i)
        needed = None if self.recall is None else partial(self._is_needed, i, ids)
        image, key, bad = self.images.read(i, needed)
        self._refuse(i, "image", bad)
        present = {
            "image": self.rows.images[i] is not None and bad is None,
            "text": text is not None,
        }
        clips = self._read_clips(i, present) if self.rows.clips else {}
        present = tuple(present[name] for name in self.rows.modalities)
        weight = 1.0 if self.weights is None else float(self.weights[i])
        item = {
            "row": int(i),
            "image": image,
            # Tokenised row by row and padded by the batch: `Collate` knows its longest
            # text.
            "ids": ids,
            # With its only image gone, a row has nothing to be learned from.
            "weight": weight if any(present) or self._is_empty(i) else 0.0,
            "present": present,
            "bad": None if self.on_bad_image == "ignore" else bad,
            **clips,
        }
        if self.images.named:
            item["key"] = key
        return item, 0 if self.targets is None else self.targets[i]

    def _is_empty(self, i: int) -> bool:
        return all(cells[i] is None for cells in self.rows.cells.values())

    def _refuse(self, i: int, modality: str, bad: str | None) -> None:
        if bad and self.on_bad_image == "raise":
            named = [(self.rows.index[i], bad)]
            raise ValueError(
                format_rows(named, f"{modality} cell cannot be read") + "."
            )

    def _read_clips(self, i: int, present: dict[str, bool]) -> dict[str, Any]:
        """Return what an item has of sounds and videos, and note which are there."""
        draw, reasons, found = None, {}, {}
        if self.random_frames:
            seed = int(torch.randint(2**63 - 1, ()))
            draw = np.random.default_rng(seed)
        for name in self.rows.clips:
            present[name] = self.rows.clips[name][i] is not None
        for name, cells in self.clips.items():
            drawn = draw if name == "video" else None
            found[name], key, bad = cells.read(i, drawn)
            self._refuse(i, name, bad)
            if bad is not None:
                present[name], reasons[name] = False, bad
            if cells.cache is not None:
                found[f"{name}_key"] = key
        if self.on_bad_image == "ignore":
            # What is not there is no fault, and is told of all the same.
            reasons = {m: NO_SOUND for m in reasons if reasons[m] == NO_SOUND}
        return {**found, "bad_clips": reasons}

    def is_needed(self, i: int, key: bytes) -> bool:
        """Return whether the picture of row `i`, of that key, is to be looked at."""
        return self._is_needed(i, None, key)

    def _is_needed(self, i: int, ids: list[int] | None, key: bytes) -> bool:
        if self.recall is None:
            return True
        present = True, self.rows.texts[i] is not None
        return not self.recall(
            present, key, lambda: self._ids(i) if ids is None else ids
        )

    def _ids(self, i: int) -> list[int]:
        return [] if self.tokenizer is None else self.tokenizer(self.rows.texts[i])


class Collate:
    """Make one batch of dataset items; an instance can be pickled.

    Parameters
    ----------
    transform : ImageTransform or None
        None gives batches without pixels.
    tokenizer : TextTokenizer or None
        None gives batches without text.
    with_weights : bool
        Whether the batch holds ``sample_weight``.
    clips : mapping from modality to AudioTransform or VideoTransform
        What makes sounds and videos; None of them gives batches without.
    modalities : tuple of str
        The columns of ``present``.
    """

    def __init__(
        self,
        transform: ImageTransform | None,
        tokenizer: TextTokenizer | None,
        with_weights: bool = True,
        clips: Mapping[str, AudioTransform | VideoTransform] | None = None,
        modalities: tuple[str, ...] = MODALITIES,
    ) -> None:
        self.transform = transform
        self.tokenizer = tokenizer
        self.with_weights = with_weights
        self.clips = dict(clips or {})
        self.modalities = modalities

    def __call__(
        self, items: list[tuple[dict[str, Any], Any]]
    ) -> tuple[dict[str, Any], torch.Tensor]:
        """Return (batch, targets).

        Returns
        -------
        batch : dict
            ``present`` (B, 2) bool, columns image and text; ``row`` (B,) long;
            ``sample_weight`` (B,) float32. With a tokenizer ``input_ids`` and
            ``attention_mask`` (B, T) long, padded to the longest text; a missing text
            is that of ``""``. With a transform ``pictures``, `Pictures` of length B,
            bytes until the net has them on its device.
            ``bad`` (B,), an object array of reasons or None, only if an image could not
            be read; see `bad_images_of`.
            ``image_key`` (B, 20) uint8, zeros without an image, only for a dataset that
            has a cache. Of sounds and videos: see `collate_clips`.
        targets : tensor of long, shape (B,), or float32, shape (B, L)
        """
        rows = [item for item, _ in items]
        batch: dict[str, Any] = {
            "present": torch.tensor([row["present"] for row in rows]),
            "row": torch.tensor([row["row"] for row in rows]),
        }
        if self.with_weights:
            weights = [row["weight"] for row in rows]
            batch["sample_weight"] = torch.tensor(weights, dtype=torch.float32)
        if self.tokenizer is not None:
            batch |= pad_ids([row["ids"] for row in rows], self.tokenizer.pad_id)
        if self.transform is not None:
            images = [row["image"] for row in rows]
            batch["pictures"] = Pictures(images, self.transform)
        # Known from the dataset, so either all items have one or none has.
        if "key" in rows[0]:
            keys = b"".join(row["key"] or bytes(KEY_BYTES) for row in rows)
            # A bytearray may be written to; torch warns of bytes, which may not.
            batch["image_key"] = torch.frombuffer(bytearray(keys), dtype=torch.uint8)
            batch["image_key"] = batch["image_key"].view(-1, KEY_BYTES)
        bad = [row["bad"] for row in rows]
        if any(bad):
            # One entry per row, as of all else in a batch.
            batch["bad"] = np.array(bad, dtype=object)
        if self.clips:
            batch |= collate_clips(rows, self.clips)
        return batch, torch.from_numpy(np.stack([target for _, target in items]))

    def hide(
        self, batch: dict[str, Any], hidden: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return a batch in which more cells are missing, as if they had always been.

        Parameters
        ----------
        batch : dict
            What calling this returned, on the CPU; it is left as it is.
        hidden : tensor of bool, shape (B, M)
            Which cells to take away, in the order of ``modalities``.
        """
        none = torch.zeros(len(hidden), dtype=torch.bool)
        gone = dict(zip(self.modalities, hidden.unbind(dim=1), strict=True))
        image, text = gone.get("image", none), gone.get("text", none)
        batch = {**batch, "present": batch["present"] & ~hidden}
        if "input_ids" in batch:
            # Padded like the others: no text is shorter than a missing one, which has
            # special tokens alone.
            longest = [self.tokenizer.pad_id] * batch["input_ids"].shape[1]
            texts = pad_ids([self.tokenizer(None), longest], self.tokenizer.pad_id)
            for name, values in texts.items():
                batch[name] = torch.where(text[:, None], values[:1], batch[name])
        if "pictures" in batch and image.any():
            batch["pictures"] = batch["pictures"].hide(image)
        if "image_key" in batch:
            batch["image_key"] = batch["image_key"].masked_fill(image[:, None], 0)
        gone = {name: gone[name] for name in self.clips}
        return batch | hide_clips(batch, gone, self.clips)


def bad_images_of(batch: dict[str, Any]) -> dict[int | tuple[int, str], str]:
    """Return which rows of a batch have an image that cannot be read, and why.

    By row; of sounds and videos by row and modality, `NO_SOUND` for silent files.

    Examples
    --------
    >>> bad = np.array([None, "it is empty"], dtype=object)
    >>> bad_images_of({"row": torch.tensor([4, 7]), "bad": bad})
    {7: 'it is empty'}
    >>> bad_images_of({"row": torch.tensor([4, 7])})
    {}
    """
    found: dict[int | tuple[int, str], str] = {}
    for name in BAD & batch.keys():
        pairs = zip(batch["row"].tolist(), batch[name], strict=True)
        modality = name.removeprefix("bad_")
        found |= {
            row if name == "bad" else (row, modality): reason
            for row, reason in pairs
            if reason is not None
        }
    return found


def pad_ids(texts: list[list[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad token ids to the longest text: input_ids and attention_mask, (B, T) long.

    Examples
    --------
    >>> pad_ids([[2, 7, 3], [2, 3]], pad_id=0)["attention_mask"].tolist()
    [[1, 1, 1], [1, 1, 0]]
    """
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[i, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}
