"""Late fusion: a classifier on pooled features, with a learned stand-in for a gap.

The smallest method that the package can express: two frozen encoders, one linear
layer each, and one trained vector per modality that takes the place of what is
missing. Unlike CMPT, the stand-in is the same for all rows.
"""

from dataclasses import field
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor, nn

from robustmm import MultimodalClassifier
from robustmm.adapters import LinearHead
from robustmm.backbones import Backbone, Stream, encode_streams
from robustmm.checks import check_number

MODALITIES = ("image", "text")


class LateFusionModule(nn.Module):
    """Sum of two projected summaries, then a linear head.

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, width); logits (B, n_outputs).
    """

    def __init__(self, backbone: Backbone, n_outputs: int, width: int):
        super().__init__()
        self.backbone = backbone
        self.project = nn.ModuleDict(
            {m: nn.Linear(backbone[m].width, width) for m in MODALITIES}
        )
        self.stand_in = nn.ParameterDict(
            {m: nn.Parameter(0.02 * torch.randn(width)) for m in MODALITIES}
        )
        self.head = LinearHead(width, n_outputs)

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return what the head reads, the summed summaries behind ReLU, (B, width)."""
        # An encoder is run on the rows that have its modality, and not at all if no
        # row has; the others' vectors are zero.
        pooled = encode_streams(self.backbone, present, batch, _pooled)
        parts = []
        for column, (modality, vectors) in enumerate(
            zip(MODALITIES, pooled, strict=True)
        ):
            here = present[:, column, None]  # (B, 1)
            part = self.project[modality](vectors)  # (B, width)
            parts.append(torch.where(here, part, self.stand_in[modality]))
        return torch.stack(parts).sum(dim=0).relu()

    def forward(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return logits, (B, n_outputs)."""
        return self.head(self.features(present, **batch))


def _pooled(stream: Stream, present: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """What an encoder makes of its rows, (b, d)."""
    return stream.pool(stream.run(stream.embed(**batch)))


class LateFusionClassifier(MultimodalClassifier):
    """Linear classifier on the pooled features of two frozen encoders.

    Parameters
    ----------
    backbone : str or path-like
        A checkpoint with an image and a text stream, such as CLIP.
    width : int
        Length of the features that are summed.
    """

    STREAMS = MODALITIES

    backbone: str | Path = field(default="robustmm/tiny-clip", kw_only=False)
    width: int = 64

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("width", self.width, Integral, 1)

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"width": 8} | params)

    def _build_module(self, backbone: Backbone, n_outputs: int) -> LateFusionModule:
        return LateFusionModule(backbone, n_outputs, self.width)
