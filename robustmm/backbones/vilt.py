"""ViLT: one transformer over the words of a text and the patches of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .host import HostBatch
from .image import as_grid, resize_grid
from .layout import Layout
from .stream import Stream
from .text import TextPositions, dense_pooler, embed_words, first_row, unless_full
from .tokens import Tokens

VILT = Layout(
    "vilt",
    {
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "out": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    activation="intermediate.intermediate_act_fn",
    norms=("layernorm_before", "layernorm_after"),
)


class ViltStream(TextPositions, Stream):
    """ViLT; pools the class token of the text.

    Unlike in Hugging Face's ``ViltModel``, patches stay in raster order and none is
    left out at random, so results are reproducible.
    """

    modality = "joint"
    segments = ("text", "image")
    position_owner = "embeddings.text_embeddings"

    def __init__(self, model: nn.Module):
        super().__init__(
            model.config,
            model.embeddings,
            model.encoder.layer,
            VILT,
            final_norm=model.layernorm,
            pooler=dense_pooler(model),
        )

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        host: HostBatch | None = None,
        **_: Tensor,
    ) -> Tokens:
        """Embed texts (B, T) and images (B, 3, H, W).

        ``pixel_mask`` (B, H, W) is 1 inside the image, which starts at the top left,
        where images of different sizes were padded to a batch. With ``host``, nothing
        is asked of the device.
        """
        text = self.embed_text(input_ids)
        kinds = self.embeddings.token_type_embeddings.weight
        patches = self.embeddings.patch_embeddings.projection(pixel_values)
        image, image_mask = self._embed_image(patches, pixel_mask)  # (B, V, d)
        mask = _join_masks(text, attention_mask, image, image_mask)
        values = torch.cat([text, image + kinds[1]], dim=1)  # (B, T + V, d)
        size, total = text.shape[1], values.shape[1]
        spans = {"text": (0, size), "image": (size, total)}
        mask = unless_full(mask, *self._known_masks(patches, host))
        return Tokens(values, mask, spans, first_row(input_ids))

    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Embed texts alone, (B, T) to (B, T, d), as they are beside an image."""
        self._check_length(input_ids)
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = embed_words(self.embeddings.text_embeddings, input_ids, place)
        # ViLT's own types, 0 text and 1 image, on top of BERT's.
        return words + self.embeddings.token_type_embeddings.weight[0]

    def _embed_image(
        self, patches: Tensor, pixel_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        table = self.embeddings.position_embeddings[0]
        grid, mask = as_grid(table[1:]), None
        if pixel_mask is None:
            size = patches.shape[2:]
            # align_corners as in ViLT's training, unlike the ViTs.
            places = resize_grid(grid, size, "bilinear", align_corners=True)
        else:
            mask = self._patch_mask(patches, pixel_mask)  # (B, h, w)
            # Each image's own positions, as if it stood alone in the batch.
            places = _resize_each(grid, mask)
            mask = F.pad(mask.flatten(1), (1, 0), value=True)
        first = self.embeddings.cls_token[0] + table[:1]
        patches = (patches + places).flatten(2).transpose(1, 2)  # (B, h * w, d)
        start = first.expand(len(patches), -1, -1)
        return torch.cat([start, patches], dim=1), mask

    def _patch_mask(self, patches: Tensor, pixel_mask: Tensor) -> Tensor:
        """Say which patches begin inside the image, (B, h, w)."""
        down, right = self.embeddings.patch_embeddings.projection.stride
        height, width = patches.shape[2:]
        # The corner decides, as it did in ViLT; cut, as the convolution drops a rest
        # that is no whole patch.
        return pixel_mask[:, ::down, ::right][:, :height, :width].bool()

    def _known_masks(self, patches: Tensor, host: HostBatch | None) -> list[Tensor]:
        """Return what the mask is made of, on the CPU."""
        if host is None or host.attention_mask is None:
            return []
        if host.pixel_mask is None:
            return [host.attention_mask]
        return [host.attention_mask, self._patch_mask(patches, host.pixel_mask)]


def _resize_each(grid: Tensor, mask: Tensor) -> Tensor:
    """Interpolate positions (1, d, h, w) to the size of each image, (B, d, H, W)."""
    axes = []
    for sizes in (mask[:, :, 0].sum(dim=1), mask[:, 0, :].sum(dim=1)):
        longest = mask.shape[1 + len(axes)]
        # An image of one row of patches has the first position, not a division by 0.
        steps = (
            torch.arange(longest, device=mask.device)
            / (sizes - 1).clamp(min=1)[:, None]
        )
        axes.append(2 * steps - 1)  # (B, H) and (B, W); beyond 1 outside the image
    down, right = axes
    shape = mask.shape
    points = [right[:, None, :].expand(shape), down[:, :, None].expand(shape)]
    # Clamped, which is what padding with the border does; MPS has that from 2.13 on.
    # What is asked outside an image belongs to padding, which nobody reads.
    points = torch.stack(points, dim=-1).to(grid.dtype).clamp(-1, 1)
    grid = grid.expand(len(mask), -1, -1, -1)
    return F.grid_sample(grid, points, mode="bilinear", align_corners=True)


def _join_masks(
    text: Tensor, text_mask: Tensor | None, image: Tensor, image_mask: Tensor | None
) -> Tensor | None:
    if text_mask is None and image_mask is None:
        return None
    pairs = ((text, text_mask), (image, image_mask))
    return torch.cat(
        [
            values.new_ones(values.shape[:2], dtype=torch.bool)
            if mask is None
            else mask.bool()
            for values, mask in pairs
        ],
        dim=1,
    )
