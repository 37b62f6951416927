"""Rows whose cells are prepared for a second model as well, beside the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .dataset import Collate, MultimodalDataset
from .frame import Rows, format_rows
from .images import KEY_BYTES, ImageCells, image_key

PREFIX = "second_"


class PairedCollate(Collate):
    """Make a batch that holds the inputs of two models.

    Parameters
    ----------
    first : Collate
        What it makes stands under the usual names.
    second : Collate
        Of what it makes, ``pictures``, ``input_ids``, ``attention_mask`` and
        ``image_key`` are in the batch as ``second_pictures`` and so on, bytes until
        somebody asks for them. :meth:`hide` leaves these as they are: who reads them
        must ask ``present``.
    """

    def __init__(self, first: Collate, second: Collate) -> None:
        super().__init__(first.transform, first.tokenizer, first.with_weights)
        self.second = second

    def __call__(
        self, items: list[tuple[dict[str, Any], Any]]
    ) -> tuple[dict[str, Any], torch.Tensor]:
        """Return (batch, targets); ``group`` (B,) long is -1 where it is not known."""
        batch, targets = super().__call__(items)
        other, _ = self.second([(item["second"], target) for item, target in items])
        read = ("pictures", "input_ids", "attention_mask", "image_key")
        batch |= {PREFIX + name: other[name] for name in read if name in other}
        batch["group"] = torch.tensor([item["group"] for item, _ in items])
        return batch, targets


class PairedDataset(MultimodalDataset):
    """A dataset whose items hold the inputs of two models.

    Parameters
    ----------
    rows : Rows
    collate : PairedCollate
        Knows how both prepare a cell.
    **options : object
        Those of :class:`MultimodalDataset`.

    Attributes
    ----------
    groups : ndarray of int64 of shape (n,), or None
        Which rows have the same picture, after :meth:`mark_groups`.

    Examples
    --------
    >>> from .preprocess import ImageTransform
    >>> first, second = (Collate(ImageTransform(size=(n, n)), None) for n in (4, 6))
    >>> rows = Rows([np.zeros((9, 9, 3), dtype=np.uint8), None], ["cat", "dog"], [0, 1])
    >>> pair = PairedCollate(first, second)
    >>> dataset = PairedDataset(rows, pair)
    >>> batch, _ = pair([dataset[0], dataset[1]])
    >>> len(batch["pictures"])
    2
    >>> batch["second_pictures"].pixels()["pixel_values"].shape
    torch.Size([2, 3, 6, 6])
    """

    def __init__(self, rows: Rows, collate: PairedCollate, **options) -> None:
        super().__init__(rows, collate.transform, collate.tokenizer, **options)
        second = collate.second
        self._pictures = ImageCells(rows, second.transform, options.get("cache"))
        self._tokenizer = second.tokenizer
        self.groups: np.ndarray | None = None

    def mark_groups(self) -> None:
        """Find out which rows have the same picture; one without is on its own."""
        names: dict[object, int] = {}
        found = []
        for i, cell in enumerate(self.rows.images):
            name: object = i
            if cell is not None:
                name = image_key(cell, self.rows.image_root, self._pictures.transform)
            found.append(names.setdefault(name, len(names)))
        self.groups = np.array(found, dtype=np.int64)

    def __getitem__(self, i: int) -> tuple[dict[str, Any], Any]:
        """Return (item, target); ``second`` is an item of its own.

        Raises
        ------
        ValueError
            If the image cannot be read for one of the models and `on_bad_image` is
            "raise".
        """
        item, target = super().__getitem__(i)
        picture, key, bad = None, None, None
        if item["present"][0]:
            # Once more: it may be damaged by now, or too long for this model's size.
            picture, key, bad = self._pictures.read(i)
        if bad is not None:
            item = self._without_image(item, i, bad)
        text, tokenize = self.rows.texts[i], self._tokenizer
        item["second"] = {
            "row": item["row"],
            "image": picture,
            "key": key,
            "ids": [] if tokenize is None else tokenize(text),
            "weight": item["weight"],
            "present": item["present"],
            "bad": None,
        }
        item["group"] = -1 if self.groups is None else int(self.groups[i])
        return item, target

    def _without_image(self, item: dict, i: int, bad: str) -> dict:
        if self.on_bad_image == "raise":
            named = [(self.rows.index[i], bad)]
            raise ValueError(format_rows(named, "image cell cannot be read") + ".")
        lost = {"image": None, "present": (False, item["present"][1])}
        if "key" in item:
            lost["key"] = bytes(KEY_BYTES)
        if not item["present"][1]:
            lost["weight"] = 0.0
        return {**item, **lost, "bad": bad if self.on_bad_image == "record" else None}
