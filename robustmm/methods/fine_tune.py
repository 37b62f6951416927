"""Fine-tuning: the head, the biases, low-rank updates, or everything.

The plain alternatives that the papers compare with. Unlike :class:`CMPTClassifier` and
the prompt methods, nothing in the model knows about missing modalities, but for
``modality_dropout``: a missing cell is a dummy (ViLT) or a zero vector (two encoders).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..adapters import (
    DoRALinear,
    LoRALinear,
    TwoLayerHead,
    trained_pooler,
)
from ..backbones import (
    Backbone,
    FrozenFeatures,
    Stream,
    encode_streams,
    projected,
    projected_width,
)
from ..backbones.features import KnownRows
from ..checks import check_choice, check_names, check_number
from ..clips import ClipEncoders
from ..data.frame import MODALITIES
from ..trained import MultimodalClassifier

TUNES = ("head", "bitfit", "lora", "dora", "full")
PROJECTIONS = ("query", "key", "value", "out", "up", "down")
# Parts of a checkpoint that no output depends on: the frozen pooler, of which a copy
# is trained, and what marks patches that are masked in pretraining.
UNUSED = ("pooler.", "mask_token")


class FineTuneModule(nn.Module):
    """Encoders of which some parameters are trained, and a head of two layers.

    The features of a joint encoder are its pooled token behind a trained copy of the
    checkpoint's pooler; those of an encoder for each modality, which are not run for a
    missing cell, stand side by side, with what is present in as many more entries.

    Parameters
    ----------
    backbone : Backbone
    n_outputs : int
    tune : {"head", "bitfit", "lora", "dora", "full"}
    adapt : callable (frozen) -> adapter
        Makes the low-rank adapter of a linear.
    projections : sequence of str
        Which linears of every layer get one.
    store : Store or None
        Where features of frozen encoders are kept.

    Notes
    -----
    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C).
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        *,
        tune: str,
        adapt: Callable[[nn.Linear], nn.Module],
        projections: tuple[str, ...],
        store=None,
    ):
        super().__init__()
        self.backbone = backbone
        self.frozen = FrozenFeatures(backbone, store=store) if tune == "head" else None
        # A vector is looked up before a picture is decoded for it.
        self.recalls = self.frozen is not None
        for stream in backbone.streams.values():
            _release(stream, tune, adapt, projections)
        if "joint" in backbone:
            width = backbone["joint"].width
            self.pooler = trained_pooler(backbone["joint"].pooler, width)
        else:
            width = len(backbone.modalities)
            width += sum(map(projected_width, backbone.streams.values()))
            self.pooler = nn.Identity()
        self.head = TwoLayerHead(width, n_outputs)

    def forward(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.features(present, **batch))

    def features(
        self, present: Tensor, image_key: Tensor | None = None, **batch: Tensor
    ) -> Tensor:
        """Return the pooled or joined features, (B, d)."""
        joint = "joint" in self.backbone
        if self.frozen is not None:
            encoded = self.frozen(present, batch, image_key)
            seen = encoded[:, : -len(self.backbone.modalities)] if joint else encoded
            return self.pooler(seen)
        parts = encode_streams(self.backbone, present, batch, _pooled)
        if not joint:
            parts.append(present.to(parts[0].dtype))
        return self.pooler(torch.cat(parts, dim=1))


class FineTuneClassifier(ClipEncoders, MultimodalClassifier):
    """Train the head, the biases, low-rank updates or all weights of the encoders.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of any supported checkpoint: ViLT, CLIP,
        or a single image or text encoder, whose classifier ignores the other column.
        Not read with ``modalities`` of sound and video alone.
    text_backbone : str or path-like, optional
        Takes the place of the text encoder of ``backbone``.
    tune : {"head", "bitfit", "lora", "dora", "full"}
        What is trained beside the head (and ViLT's pooler): nothing; all biases of the
        encoders [1]_; low-rank updates of some linears [2]_, or with a trained
        magnitude per column [3]_; or every weight.
    rank : int
        Rank of the low-rank updates.
    alpha : float
        Their scale is ``alpha / rank``.
    dropout : float
        Dropout of their inputs.
    projections : sequence of {"query", "key", "value", "out", "up", "down"}
        Linears of every layer that get one.
    backbone_lr : float
        Learning rate of the encoders' own weights for ``tune="full"``, which ``lr``
        would ruin.
    lr : float
        AdamW's learning rate of what is not the encoders' own weights.
    weight_decay : float
        AdamW's decoupled weight decay, which biases are spared.
    cache : {"memory", None} or path-like
        Whether decoded images, and for ``tune="head"`` the features, are kept, in
        memory or in an existing folder.

    Notes
    -----
    A model with ``tune="full"`` owns all its weights: its pickle is as large as the
    checkpoint. The encoders run without dropout, as frozen ones do.

    References
    ----------
    .. [1] Ben Zaken, Ravfogel and Goldberg, "BitFit: Simple Parameter-efficient
       Fine-tuning for Transformer-based Masked Language-models", ACL 2022.
    .. [2] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    .. [3] Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024.

    Examples
    --------
    >>> from robustmm import FineTuneClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = FineTuneClassifier(
    ...     "robustmm/tiny-clip", tune="lora", max_epochs=1, random_state=0
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    # How ViLT's authors train all of it.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "tune": "full",
        "lr": 1e-4,
        "backbone_lr": 1e-4,
        "weight_decay": 0.01,
        "lr_schedule": "linear",
        "warmup": 0.1,
        "head_init": "random",
        "head_lr": None,
        "modality_dropout": 0.0,
        "early_stopping": False,
    }

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    text_backbone: str | Path | None = None
    tune: str = "head"
    rank: int = 4
    alpha: float = 4.0
    dropout: float = 0.0
    projections: Sequence[str] = ("query", "value")
    backbone_lr: float = 1e-4
    lr: float = 3e-3
    head_init: str = "probe"
    head_lr: float | None = 1e-3

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("tune", self.tune, TUNES)
        check_number("rank", self.rank, Integral, 1)
        check_number("alpha", self.alpha, Real, 0, open="low")
        check_number("dropout", self.dropout, Real, 0, 1)
        check_number("backbone_lr", self.backbone_lr, Real, 0, open="low")
        check_names("projections", self.projections, PROJECTIONS)

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"backbone": "robustmm/tiny-vilt"} | params)

    def _optimizer_options(self) -> dict:
        groups = [("*bias", {"weight_decay": 0.0})]
        if self.tune == "full":
            rate = {"lr": self.backbone_lr}
            groups.insert(0, ("backbone.*bias", rate | {"weight_decay": 0.0}))
            groups.append(("backbone.*", rate))
        return {"optimizer__param_groups": groups}

    def _build_module(self, backbone: Backbone, n_outputs: int) -> FineTuneModule:
        adapter = DoRALinear if self.tune == "dora" else LoRALinear

        def adapt(frozen: nn.Linear) -> nn.Module:
            return adapter(frozen, self.rank, self.alpha, self.dropout)

        return FineTuneModule(
            backbone,
            n_outputs,
            tune=self.tune,
            adapt=adapt,
            projections=tuple(self.projections),
            store=self._state_cache(),
        )

    def _recall(self, backbone: Backbone) -> KnownRows | None:
        if self.tune != "head" or self._modalities != MODALITIES:
            return None
        device = next(backbone.parameters()).device
        features = FrozenFeatures(backbone, store=self._state_cache())
        return features.known(device.type, self._number(device))


def _release(stream: Stream, tune: str, adapt, projections: tuple[str, ...]) -> None:
    """Make the chosen part of a frozen encoder trainable."""
    if tune in ("lora", "dora"):
        for i in range(stream.n_layers):
            for name in projections:
                stream.wrap(i, name, adapt(stream.linear(i, name)))
    elif tune == "bitfit":
        stream.thaw(lambda name: name.endswith("bias") and _is_used(name))
    elif tune == "full":
        stream.thaw(_is_used)


def _is_used(name: str) -> bool:
    return not name.startswith(UNUSED) and not name.endswith(UNUSED)


def _pooled(stream: Stream, present: Tensor, batch: dict) -> Tensor:
    """What an encoder makes of its rows, (B, d)."""
    return projected(stream, stream.pool(stream.run(stream.embed(**batch))))
