"""Image encoders: ViT, DeiT, DINOv2 and SigLIP; and image embeddings in general."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layout import Layout
from .stream import Stream
from .text import dense_pooler, first_row
from .tokens import Tokens

_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
_MLP = {"up": "mlp.fc1", "down": "mlp.fc2"}

# Of SigLIP too, whose layers have the same names.
CLIP = Layout(
    "clip",
    {
        **{name: f"self_attn.{path}" for name, path in _ATTENTION.items()},
        "out": "self_attn.out_proj",
        **_MLP,
    },
    activation="mlp.activation_fn",
    norms=("layer_norm1", "layer_norm2"),
)
VIT = Layout(
    "vit",
    {
        **{name: f"attention.{path}" for name, path in _ATTENTION.items()},
        "out": "attention.o_proj",
        **_MLP,
    },
    activation="mlp.activation_fn",
    norms=("layernorm_before", "layernorm_after"),
)
DINOV2 = replace(
    VIT,
    name="dinov2",
    norms=("norm1", "norm2"),
    scales=("layer_scale1", "layer_scale2"),
)
DINOV2_GATED = replace(
    DINOV2,
    linears=DINOV2.linears | {"up": "mlp.up_proj", "down": "mlp.down_proj"},
    activation="mlp.act_fn",
    gate="mlp.gate_proj",
)


class ImageStream(Stream):
    """An encoder of image patches in raster order, after one or no special tokens.

    Positions are interpolated where an image has another number of patches than the
    checkpoint was trained with.
    """

    modality = "image"
    segments = ("image",)

    def special_tokens(self) -> Tensor:
        """Return the tokens before the patches, (s, d)."""
        special = [self.embeddings.cls_token]
        if hasattr(self.embeddings, "distillation_token"):
            special.append(self.embeddings.distillation_token)  # DeiT
        return torch.cat(special, dim=1)[0]

    def patches(self, pixel_values: Tensor) -> Tensor:
        """Return the embedded patches of images (B, 3, H, W), (B, d, h, w)."""
        return self.embeddings.patch_embeddings.projection(pixel_values)

    def positions(self) -> Tensor:
        """Return the table of positions: special tokens, then a grid, (s + n, d)."""
        return self.embeddings.position_embeddings[0]

    def embed(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, **_: Tensor
    ) -> Tokens:
        """Embed images (B, 3, H, W), all of one size."""
        if pixel_mask is not None:
            raise ValueError(
                "This image encoder needs images of one size, got a pixel_mask: set "
                "a fixed size or a crop in preprocessor_config.json."
            )
        special, patches = self.special_tokens(), self.patches(pixel_values)
        table = self.positions()
        first, grid = table[: len(special)], as_grid(table[len(special) :])
        # Bicubic as in Hugging Face's ViT, DINOv2 and CLIP, whose outputs the tests
        # compare.
        grid = resize_grid(grid, patches.shape[2:], "bicubic", align_corners=False)
        start = (special + first).expand(len(patches), -1, -1)  # (B, s, d)
        patches = (patches + grid).flatten(2).transpose(1, 2)  # (B, h * w, d)
        values = torch.cat([start, patches], dim=1)  # (B, s + h * w, d)
        spans = {self.segments[0]: (0, values.shape[1])}
        return Tokens(values, None, spans, self.anchor(pixel_values))

    def grid(self, pixel_values: Tensor) -> tuple[int, int]:
        """Return how many patches images have from top to bottom and across."""
        height, width = self.patches(pixel_values[:1]).shape[2:]
        return height, width

    def anchor(self, pixel_values: Tensor) -> Tensor | None:
        """Return the row to be pooled; None where pooling needs all of them."""
        return first_row(pixel_values)


class VitStream(ImageStream):
    """ViT, DeiT or DINOv2; pools the class token."""

    def __init__(self, model: nn.Module, layers: nn.ModuleList, layout: Layout):
        super().__init__(
            model.config,
            model.embeddings,
            layers,
            layout,
            final_norm=model.layernorm,
            pooler=dense_pooler(model),
        )

    @classmethod
    def of_vit(cls, model: nn.Module) -> VitStream:
        """Take the encoder out of a ViTModel or DeiTModel."""
        return cls(model, model.layers, VIT)

    @classmethod
    def of_dinov2(cls, model: nn.Module) -> VitStream:
        """Take the encoder out of a Dinov2Model."""
        gated = model.config.use_swiglu_ffn
        return cls(model, model.encoder.layer, DINOV2_GATED if gated else DINOV2)


class SiglipImageStream(ImageStream):
    """SigLIP's image encoder: no class token, its head attends to all rows."""

    def __init__(self, model: nn.Module):
        if not getattr(model, "use_head", False):
            raise ValueError(
                "A SigLIP image encoder must have its pooling head, "
                "got vision_use_head=False."
            )
        super().__init__(
            model.config,
            model.embeddings,
            model.encoder.layers,
            CLIP,
            final_norm=model.post_layernorm,
        )
        self.head = model.head
        # Again, as the head came after the first time.
        self.freeze()

    @classmethod
    def of_siglip(cls, model: nn.Module) -> SiglipImageStream:
        """Take the image encoder out of a SiglipModel."""
        return cls(model.vision_model)

    def special_tokens(self) -> Tensor:
        """Return the tokens before the patches: none, (0, d)."""
        return self.embeddings.position_embedding.weight[:0]

    def patches(self, pixel_values: Tensor) -> Tensor:
        """Return the embedded patches of images (B, 3, H, W), (B, d, h, w)."""
        return self.embeddings.patch_embedding(pixel_values)

    def positions(self) -> Tensor:
        """Return the table of positions, (n, d)."""
        return self.embeddings.position_embedding.weight

    def anchor(self, pixel_values: Tensor) -> None:
        """Return None: pooling needs all rows."""
        return None

    def pool(self, tokens: Tokens) -> Tensor:
        """Return what the head reads from all image rows, (B, d)."""
        return self.head(self.norm(tokens[self.segments[0]]))


def as_grid(table: Tensor) -> Tensor:
    """Shape a table of patch positions as an image, (n, d) -> (1, d, h, w).

    Checkpoints of all supported architectures are trained on square images.
    """
    side = round(len(table) ** 0.5)
    if side * side != len(table):
        raise ValueError(
            f"The checkpoint's patches must form a square, got {len(table)} positions."
        )
    return table.T.reshape(1, -1, side, side)


def resize_grid(
    grid: Tensor, size: tuple[int, int], mode: str, align_corners: bool
) -> Tensor:
    """Interpolate positions (1, d, h, w) to another number of patches."""
    if tuple(grid.shape[2:]) == tuple(size):
        return grid
    return F.interpolate(grid, size=size, mode=mode, align_corners=align_corners)
