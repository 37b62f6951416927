"""The class tokens of a frozen joint encoder: what prompt methods ask their pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .backbone import Backbone
from .features import FrozenFeatures
from .host import COLUMNS, HostBatch, upload
from .prefix import Store
from .stream import Stream
from .tokens import Tokens

# The first token of the image, as a segment of its own.
IMAGE_CLASS = "image_class"
# What a batch holds of each modality.
_ENTRIES = {
    "image": ("pixel_values", "pixel_mask"),
    "text": ("input_ids", "attention_mask"),
}


def with_image_class(tokens: Tokens) -> Tokens:
    """Let the image's first token be a segment, which a run can keep alone.

    Examples
    --------
    >>> tokens = Tokens(torch.zeros(2, 5, 8), None, {"text": (0, 2), "image": (2, 5)})
    >>> with_image_class(tokens).spans["image_class"]
    (2, 3)
    """
    start, stop = tokens.span("image")
    spans = {}
    for name, span in tokens.spans.items():  # in its place: spans are in order
        if name == "image":
            spans[IMAGE_CLASS], span = (start, start + 1), (start + 1, stop)
        spans[name] = span
    return replace(tokens, spans=spans)


def class_tokens(stream: Stream, tokens: Tokens) -> Tensor:
    """Return the class tokens of image and text behind the final norm, (B, 2, d).

    ``tokens`` is what a run that kept the segment ``"image_class"`` has returned.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-vilt")["joint"]
    >>> batch = {"input_ids": torch.tensor([[2, 3]])}
    >>> batch["pixel_values"] = torch.zeros(1, 3, 64, 64)
    >>> tokens = with_image_class(stream.embed(**batch))
    >>> class_tokens(stream, stream.run(tokens, keep=IMAGE_CLASS)).shape
    torch.Size([1, 2, 128])
    """
    image = stream.norm(tokens[IMAGE_CLASS][:, 0])
    return torch.stack([image, stream.pool(tokens)], dim=1)


class FrozenClasses(FrozenFeatures):
    """Map a batch to the class tokens of a frozen joint encoder, once per content.

    Parameters
    ----------
    backbone : Backbone
        With a joint stream.
    store : Store or None
        Where they are kept.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> encode = FrozenClasses(load_backbone("robustmm/tiny-vilt"))
    >>> ids = torch.tensor([[2, 3]])
    >>> batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    >>> batch["pixel_values"] = torch.zeros(1, 3, 64, 64)
    >>> encode.tokens(torch.tensor([[True, True]]), batch).shape
    torch.Size([1, 2, 128])
    """

    def __init__(self, backbone: Backbone, store: Store | None = None):
        super().__init__(backbone, "classes", store)

    def tokens(
        self, present: Tensor, batch: dict[str, Tensor], image_key: Tensor | None = None
    ) -> Tensor:
        """Return the class tokens of image and text, (B, 2, d), without gradient."""
        vectors = self(present, batch, image_key)[:, : -len(COLUMNS)]
        return vectors.unflatten(1, (2, -1))

    def _vector(self, stream: Stream, present: Tensor, batch: dict) -> Tensor:
        tokens = with_image_class(stream.embed(**batch))
        tokens = stream.run(tokens, keep=IMAGE_CLASS)
        return class_tokens(stream, tokens).flatten(1).float()

    def _stream_width(self, stream: Stream) -> int:
        return 2 * stream.width


def hide_modality(
    batch: Mapping[str, Any], blank: Mapping[str, Tensor], modality: str
) -> dict[str, Any]:
    """Return a batch whose rows all lack a modality, as if they had always done so.

    Parameters
    ----------
    batch : mapping of str to Tensor or HostBatch
        With ``present`` (B, 2).
    blank : mapping of str to Tensor
        What a batch of one row without anything holds, on the CPU.
    modality : {"image", "text"}

    Examples
    --------
    >>> batch = {"present": torch.tensor([[True, True]]), "input_ids": torch.ones(1, 9)}
    >>> hidden = hide_modality(batch, {"input_ids": torch.zeros(1, 2)}, "text")
    >>> hidden["present"], hidden["input_ids"]
    (tensor([[ True, False]]), tensor([[0., 0.]]))
    """
    present, names = batch["present"], _ENTRIES[modality]
    hidden = {name: value for name, value in batch.items() if name not in names}
    fresh = {
        name: upload(blank[name], present.device).expand(len(present), *shape)
        for name in names
        if name in blank
        for shape in [blank[name].shape[1:]]
    }
    host = hidden.get("host")
    if isinstance(host, HostBatch):
        own = {n: blank.get(n) for n in names if hasattr(host, n)}
        own = {
            n: t if t is None else t.expand(len(present), *t.shape[1:])
            for n, t in own.items()
        }
        hidden["host"] = replace(host, present=_without(host.present, modality), **own)
    return hidden | fresh | {"present": _without(present, modality)}


def _without(present: Tensor, modality: str) -> Tensor:
    present = present.clone()
    present[:, COLUMNS[modality]] = False
    return present
