"""Late fusion: a classifier on pooled features, with a learned stand-in for a gap.

The smallest method that the package can express: two frozen encoders, one linear
layer each, and one trained vector per modality that takes the place of what is
missing. Unlike CMPT, the stand-in is the same for all rows.
"""

from numbers import Integral

import torch
from torch import Tensor, nn

from robustmm import MultimodalClassifier
from robustmm.backbones import Backbone
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
        self.head = nn.Linear(width, n_outputs)

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the summed summaries, (B, width)."""
        parts = []
        for column, modality in enumerate(MODALITIES):
            stream = self.backbone[modality]
            pooled = stream.pool(stream.run(stream.embed(**batch)))  # (B, d)
            here = present[:, column, None]  # (B, 1)
            part = self.project[modality](pooled)
            parts.append(torch.where(here, part, self.stand_in[modality]))
        return torch.stack(parts).sum(dim=0)

    def forward(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return logits, (B, n_outputs)."""
        return self.head(self.features(present, **batch).relu())


class LateFusionClassifier(MultimodalClassifier):
    """Linear classifier on the pooled features of two frozen encoders.

    Parameters
    ----------
    backbone : str or path-like
        A checkpoint with an image and a text stream, such as CLIP.
    width : int
        Length of the features that are summed.
    max_epochs : int
        Passes over the training rows.
    lr : float
        Learning rate.
    random_state : int, RandomState instance or None
        Seed.
    """

    def __init__(
        self,
        backbone="robustmm/tiny-clip",
        *,
        width=64,
        max_epochs=10,
        lr=1e-3,
        random_state=None,
    ):
        super().__init__(max_epochs=max_epochs, lr=lr, random_state=random_state)
        self.backbone = backbone
        self.width = width

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("width", self.width, Integral, 1)

    def _build_module(self, backbone: Backbone, n_outputs: int) -> LateFusionModule:
        return LateFusionModule(backbone, n_outputs, self.width)
