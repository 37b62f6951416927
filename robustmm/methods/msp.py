"""MSP: a prompt for each modality, added up for the modalities that are there.

Jang, Wang and Kim, "Towards Robust Multimodal Prompting with Missing Modalities",
ICASSP 2024.

A frozen ViLT gets prompts in its first layers: one set per modality, kept apart by a
penalty on their cosine. Unlike MAP's set per pattern, all of them are trained as soon
as some training rows are complete, so a pattern that training lacks is no stranger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import (
    TwoLayerHead,
    add_prompt,
    layer_indices,
    normal_prompts,
    pattern_index,
    sum_present,
    trained_pooler,
)
from ..backbones import Backbone, Tokens
from ..checks import check_choice, check_number
from ..trained import MultimodalClassifier

PROMPT_TYPES = ("input", "attention")


class MSPModule(nn.Module):
    r"""A frozen ViLT with the sum of the prompts of what is there, pooler and head.

    With :math:`P_m` the prompts of modality :math:`m`, a row gets
    :math:`\sum_{m\ \text{there}} P_m`, as tokens in front or as keys and values. While
    training, the penalty is ``ortho_weight`` times :math:`|\cos(P_1, P_2)|`, all rows
    of all layers taken as one vector.

    Shapes: ``prompts`` (2, layers, l, d), in the order image, text; ``present`` (B, 2)
    bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and ``attention_mask`` (B, T);
    features (B, d); logits (B, C).
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        *,
        prompt_type: str,
        prompt_length: int,
        prompt_layers: int | Sequence[int],
        ortho_weight: float,
        mask_missing_image: bool,
    ):
        super().__init__()
        stream = backbone["joint"]
        self.backbone = backbone
        self.prompt_type = prompt_type
        self.ortho_weight = ortho_weight
        self.mask_missing_image = mask_missing_image
        self.layers = layer_indices("prompt_layers", prompt_layers, stream.n_layers)
        shape = (2, len(self.layers), prompt_length, stream.width)
        self.prompts = normal_prompts(*shape)
        self.pooler = trained_pooler(stream.pooler, stream.width)
        self.head = TwoLayerHead(stream.width, n_outputs)

    def forward(self, **batch: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits, with the orthogonality penalty while training."""
        logits = self.head(self.features(**batch))
        if not self.training:
            return logits
        image, text = self.prompts.flatten(1)
        return logits, self.ortho_weight * F.cosine_similarity(image, text, dim=0).abs()

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the pooled token behind the trained pooler, (B, d)."""
        stream = self.backbone["joint"]
        tokens = stream.embed(**batch)
        if self.mask_missing_image:
            # RAGPT's code adds its mask along the queries, to which the softmax over
            # keys is blind: there it hides nothing.
            tokens = _hide_missing_image(tokens, present[:, 0])
        add = partial(self._add_prompt, pattern_index(present))
        return self.pooler(stream.pool(stream.run(tokens, add)))

    def _add_prompt(self, pattern: Tensor, i: int, tokens: Tokens) -> Tokens:
        if i not in self.layers:
            return tokens
        prompt = sum_present(self.prompts[:, self.layers.index(i)])[pattern]
        return add_prompt(tokens, f"prompt_{i}", prompt, self.prompt_type)


def _hide_missing_image(tokens: Tokens, has_image: Tensor) -> Tokens:
    """Let no token attend to the dummy of a missing image."""
    seen = {name: tokens.mask_of(name) for name in tokens.names}
    seen["image"] = seen["image"] & has_image[:, None]  # (B, V)
    return replace(tokens, mask=torch.cat(list(seen.values()), dim=1))


class MSPClassifier(MultimodalClassifier):
    """Modality-specific prompts: one set per modality, added up for what is there [1]_.

    Half the step from MAP to MemPrompt: no prompt belongs to a single pattern. Defaults
    are the prompts of the public re-implementation in RAGPT [2]_, with the learning
    rate, the batches and the head's start that did best on small tables.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT checkpoint.
    prompt_type : {"attention", "input"}
        Extra keys and values in a layer, or tokens in front of what enters it.
    prompt_length : int
        Rows of a prompt; half of them are keys for ``"attention"``.
    prompt_layers : int or sequence of int
        The first so many layers, or all if there are fewer, get prompts; or the layers
        listed, which must be there.
    ortho_weight : float
        Weight of the penalty that keeps the two sets of prompts orthogonal.
    mask_missing_image : bool
        Whether the dummy of a missing image is hidden from attention, as in RAGPT.
    max_text_length : int, optional
        Longest text in tokens, 40 for ViLT. For more, positions are interpolated; the
        papers use 1024 (MM-IMDb), 512 (Food-101) and 128 (Hateful Memes).
    weight_decay : float
        AdamW's decoupled weight decay; biases are not decayed.

    References
    ----------
    .. [1] Jang, Wang and Kim, "Towards Robust Multimodal Prompting with Missing
       Modalities", ICASSP 2024.
    .. [2] Lang et al., "Retrieval-Augmented Dynamic Prompt Tuning for Incomplete
       Multimodal Learning", AAAI 2025, in the authors' code.

    Examples
    --------
    >>> from robustmm import MSPClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = MSPClassifier(
    ...     "robustmm/tiny-vilt",
    ...     prompt_length=4,
    ...     prompt_layers=2,
    ...     max_epochs=1,
    ...     random_state=0,
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    STREAMS = ("joint",)
    # RAGPT's re-implementation; its rate, and MAP's schedule and prompts.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "prompt_type": "attention",
        "prompt_length": 16,
        "prompt_layers": 6,
        "ortho_weight": 1.0,
        "mask_missing_image": False,
        "max_text_length": 128,
        "max_epochs": 20,
        "batch_size": 64,
        "lr": 1e-3,
        "weight_decay": 2e-2,
        "lr_schedule": "linear",
        "warmup": 0.1,
        "head_init": "random",
        "head_lr": None,
        "modality_dropout": 0.0,
        "early_stopping": True,
        "n_iter_no_change": 10,
    }

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    prompt_type: str = "attention"
    prompt_length: int = 16
    prompt_layers: int | Sequence[int] = 6
    ortho_weight: float = 1.0
    mask_missing_image: bool = False

    max_epochs: int = 12
    batch_size: int = 32
    lr: float = 1e-2
    head_init: str = "probe"
    head_lr: float | None = 1e-3
    weight_decay: float = 0.02

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("prompt_type", self.prompt_type, PROMPT_TYPES)
        check_number("prompt_length", self.prompt_length, Integral, 1)
        check_number("ortho_weight", self.ortho_weight, Real, 0)
        if self.prompt_type == "attention" and self.prompt_length % 2:
            raise ValueError(
                "prompt_length must be even for attention prompts, half keys and half "
                f"values, got {self.prompt_length}."
            )

    def _check_backbone(self, backbone: Backbone) -> None:
        layer_indices("prompt_layers", self.prompt_layers, backbone["joint"].n_layers)

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"prompt_layers": 2, "prompt_length": 2} | params)

    def _optimizer_options(self) -> dict:
        return {
            "optimizer__betas": (0.9, 0.98),
            "optimizer__param_groups": [("*bias", {"weight_decay": 0.0})],
        }

    def _build_module(self, backbone: Backbone, n_outputs: int) -> MSPModule:
        return MSPModule(
            backbone,
            n_outputs,
            prompt_type=self.prompt_type,
            prompt_length=self.prompt_length,
            prompt_layers=self.prompt_layers,
            ortho_weight=self.ortho_weight,
            mask_missing_image=self.mask_missing_image,
        )
