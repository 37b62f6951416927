"""CLIP: an image encoder and a causal text encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .host import HostBatch
from .image import CLIP, ImageStream
from .stream import Stream
from .text import TextPositions, unless_full
from .tokens import Tokens


class ClipImageStream(ImageStream):
    """CLIP's image encoder; pools the class token."""

    def __init__(self, model: nn.Module, projection: nn.Linear | None = None):
        super().__init__(
            model.config,
            model.embeddings,
            model.encoder.layers,
            CLIP,
            final_norm=model.post_layernorm,
            projection=projection,
        )
        # A misspelling of transformers', kept there for old checkpoints.
        self.entry_norm = model.pre_layrnorm
        # Again, as this norm came after the first time.
        self.freeze()

    @classmethod
    def of_clip(cls, model: nn.Module) -> ClipImageStream:
        """Take the image encoder out of a CLIPModel."""
        return cls(model.vision_model, model.visual_projection)

    def special_tokens(self) -> Tensor:
        """Return the class token, (1, d)."""
        return self.embeddings.class_embedding[None]

    def patches(self, pixel_values: Tensor) -> Tensor:
        """Return the embedded patches of images (B, 3, H, W), (B, d, h, w)."""
        return self.embeddings.patch_embedding(pixel_values)

    def positions(self) -> Tensor:
        """Return the table of positions: class token, then a grid, (1 + n, d)."""
        return self.embeddings.position_embedding.weight

    def enter(self, tokens: Tokens) -> Tokens:
        """Apply the norm that stands before the first layer."""
        return tokens.replace(self.entry_norm(tokens.values))


class ClipTextStream(TextPositions, Stream):
    """CLIP's text encoder; pools the end-of-text token.

    It is causal: a segment that should see the text has to be inserted after it.
    """

    modality = "text"
    segments = ("text",)
    causal = True
    position_table = "position_embedding"

    def __init__(self, model: nn.Module, projection: nn.Linear | None = None):
        super().__init__(
            model.config,
            model.embeddings,
            model.encoder.layers,
            CLIP,
            final_norm=model.final_layer_norm,
            projection=projection,
        )
        self.end_token = model.config.eos_token_id

    @classmethod
    def of_clip(cls, model: nn.Module) -> ClipTextStream:
        """Take the text encoder out of a CLIPModel."""
        return cls(model.text_model, model.text_projection)

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        host: HostBatch | None = None,
        **_: Tensor,
    ) -> Tokens:
        """Embed texts (B, T); ``attention_mask`` is 1 where a token counts.

        With ``host``, nothing is asked of the device.
        """
        self._check_length(input_ids)
        size = input_ids.shape[1]
        values = self.embeddings.token_embedding(input_ids)  # (B, T, d)
        values = values + self.embeddings.position_embedding.weight[:size]
        mask = unless_full(attention_mask, host and host.attention_mask)
        return Tokens(values, mask, {"text": (0, size)}, self._end_of_text(input_ids))

    def facts(self) -> dict:
        """Add the token at which texts are pooled."""
        return super().facts() | {"end_token": self.end_token}

    def _end_of_text(self, input_ids: Tensor) -> Tensor:
        # Old configurations say 2 although the vocabulary's last entry ends a text.
        if self.end_token == 2:
            return input_ids.argmax(dim=1)
        # The first one: CLIP pads with the token that ends a text.
        return (input_ids == self.end_token).to(torch.int).argmax(dim=1)
