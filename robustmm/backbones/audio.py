"""Sound encoders: AST, the audio spectrogram transformer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .image import VIT, ImageStream
from .tokens import Tokens

AST = replace(VIT, name="ast")
# Before transformers 5.9; the parts are the same.
AST_BEFORE = replace(
    AST,
    linears={
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "out": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    activation="intermediate.intermediate_act_fn",
)


class ASTStream(ImageStream):
    """AST: an encoder of overlapping patches of a spectrogram; pools the class token.

    The distillation token behind it is an ordinary one. Positions are a sum with one
    table, so a clip has the number of frames that the checkpoint was trained with.

    Examples
    --------
    >>> import torch
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-ast")["audio"]
    >>> tokens = stream.embed(torch.zeros(2, *stream.shape))
    >>> stream.pool(stream.run(tokens)).shape
    torch.Size([2, 128])
    """

    modality = "audio"
    segments = ("audio",)

    def __init__(self, model: nn.Module):
        config, now = model.config, hasattr(model, "layers")
        super().__init__(
            config,
            model.embeddings,
            model.layers if now else model.encoder.layer,
            AST if now else AST_BEFORE,
            final_norm=model.layernorm,
        )
        # Frames and filters of a clip.
        self.shape = (config.max_length, config.num_mel_bins)
        self.strides = (config.frequency_stride, config.time_stride)

    def patches(self, input_values: Tensor) -> Tensor:
        """Return the embedded patches of clips, (B, d, frequencies, times)."""
        pictures = input_values.transpose(1, 2).unsqueeze(1)  # (B, 1, mels, frames)
        return self.embeddings.patch_embeddings.projection(pictures)

    def embed(self, input_values: Tensor, **_: Tensor) -> Tokens:
        """Embed filter banks (B, frames, mels), as ``AudioTransform`` makes them."""
        if tuple(input_values.shape[1:]) != self.shape:
            raise ValueError(
                f"This audio encoder reads clips of {self.shape[0]} frames and "
                f"{self.shape[1]} filters, got {tuple(input_values.shape[1:])}."
            )
        special = self.special_tokens().expand(len(input_values), -1, -1)
        patches = self.patches(input_values).flatten(2).transpose(1, 2)
        values = torch.cat([special, patches], dim=1) + self.positions()
        spans = {"audio": (0, values.shape[1])}
        return Tokens(values, None, spans, self.anchor(input_values))

    def facts(self) -> dict:
        """Add the sizes of clips, and how far apart the patches are."""
        return super().facts() | {"shape": self.shape, "strides": self.strides}
