"""MAP: a prompt for each pattern of missing modalities.

Lee, Tsai, Chiu and Lee, "Multimodal Prompting with Missing Modalities for Visual
Recognition", CVPR 2023.

A frozen ViLT gets prompts in its first layers: one set for complete rows, one for rows
without text, one for rows without image. MSP, its nearest neighbour, has a set for each
modality instead; here a pattern that no training row has leaves its set untrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ..adapters import (
    N_PATTERNS,
    TwoLayerHead,
    add_prompt,
    layer_indices,
    normal_prompts,
    pattern_index,
    trained_pooler,
)
from ..backbones import Backbone, Tokens
from ..checks import check_choice, check_number
from ..trained import MultimodalClassifier

PROMPT_TYPES = ("input", "attention")


class MAPModule(nn.Module):
    r"""A frozen ViLT with the prompts of each row's pattern, pooler and head.

    With :math:`h` what enters a prompted layer :math:`f` and :math:`p` the prompt of
    the row's pattern in that layer, input prompts give :math:`f([p, h])`, and all rows
    go on, so that prompts accumulate. Attention prompts leave the length as it is:
    :math:`p = [p_k, p_v]`, and attention is over the keys :math:`[p_k, h W_k]` and
    values :math:`[p_v, h W_v]`.

    Shapes: ``prompts`` (3, layers, l, d), in the order complete, text missing, image
    missing; ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C).
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
    ):
        super().__init__()
        stream = backbone["joint"]
        self.backbone = backbone
        self.prompt_type = prompt_type
        self.layers = layer_indices("prompt_layers", prompt_layers, stream.n_layers)
        shape = (N_PATTERNS, len(self.layers), prompt_length, stream.width)
        # Not the authors' constant rows, see robustmm.adapters.prompts.
        self.prompts = normal_prompts(*shape)
        # Trained on from the checkpoint's, as in the authors' code: not a part of what
        # is frozen.
        self.pooler = trained_pooler(stream.pooler, stream.width)
        self.head = TwoLayerHead(stream.width, n_outputs)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.features(**batch))

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the pooled token behind the trained pooler, (B, d)."""
        stream = self.backbone["joint"]
        add = partial(self._add_prompt, pattern_index(present))
        return self.pooler(stream.pool(stream.run(stream.embed(**batch), add)))

    def _add_prompt(self, pattern: Tensor, i: int, tokens: Tokens) -> Tokens:
        if i not in self.layers:
            return tokens
        prompt = self.prompts[:, self.layers.index(i)][pattern]  # (B, l, d)
        return add_prompt(tokens, f"prompt_{i}", prompt, self.prompt_type)


class MAPClassifier(MultimodalClassifier):
    """Missing-aware prompts: a set of prompts for each missing pattern [1]_.

    The baseline that the papers of the field compare with. Defaults are the authors'
    prompts and schedule, with the learning rate, the batches and the head's start that
    did best on small tables; ``PAPER`` takes steps of 256 rows.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT checkpoint.
    prompt_type : {"input", "attention"}
        Tokens in front of what enters a layer, or extra keys and values in it.
    prompt_length : int
        Rows of a prompt; half of them are keys for ``"attention"``.
    prompt_layers : int or sequence of int
        The first so many layers, or all if there are fewer, get prompts; or the layers
        listed, which must be there.
    backbone_dropout : float
        Dropout of the frozen layers' updates while training; 0.1 in the authors' code.
    max_text_length : int, optional
        Longest text in tokens, 40 for ViLT. For more, positions are interpolated; the
        papers use 1024 (MM-IMDb), 512 (Food-101) and 128 (Hateful Memes).
    weight_decay : float
        AdamW's decoupled weight decay; biases are not decayed.

    References
    ----------
    .. [1] Lee, Tsai, Chiu and Lee, "Multimodal Prompting with Missing Modalities for
       Visual Recognition", CVPR 2023.

    Examples
    --------
    >>> from robustmm import MAPClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = MAPClassifier(
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
    # The authors' code, which keeps the best epoch by the metric of the data set.
    PAPER: ClassVar[dict] = {
        name: {
            "backbone": "dandelin/vilt-b32-mlm",
            "prompt_type": "input",
            "prompt_length": 16,
            "prompt_layers": 6,
            "backbone_dropout": 0.1,
            "max_text_length": length,
            "max_epochs": 20,
            "batch_size": 256,
            "lr": 1e-2,
            "weight_decay": 2e-2,
            "lr_schedule": "linear",
            "warmup": 0.1,
            "head_init": "random",
            "head_lr": None,
            "modality_dropout": 0.0,
            "early_stopping": True,
            "n_iter_no_change": 20,
            "scoring": scoring,
        }
        for name, length, scoring in (
            ("mmimdb", 1024, "f1_macro"),
            ("food101", 512, "accuracy"),
            ("hateful_memes", 128, "roc_auc"),
        )
    }

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    prompt_type: str = "input"
    prompt_length: int = 16
    prompt_layers: int | Sequence[int] = 6
    backbone_dropout: float = 0.0

    max_epochs: int = 12
    batch_size: int = 32
    lr: float = 3e-3
    head_init: str = "probe"
    head_lr: float | None = 1e-3
    weight_decay: float = 0.02

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("prompt_type", self.prompt_type, PROMPT_TYPES)
        check_number("prompt_length", self.prompt_length, Integral, 1)
        check_number("backbone_dropout", self.backbone_dropout, Real, 0, 1)
        if self.prompt_type == "attention" and self.prompt_length % 2:
            raise ValueError(
                "prompt_length must be even for attention prompts, half keys and half "
                f"values, got {self.prompt_length}."
            )

    def _check_backbone(self, backbone: Backbone) -> None:
        # Raises for layers that the backbone lacks, before any image is decoded.
        layer_indices("prompt_layers", self.prompt_layers, backbone["joint"].n_layers)

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"prompt_layers": 2, "prompt_length": 2} | params)

    def _optimizer_options(self) -> dict:
        return {
            # Those of the authors' code, not AdamW's own.
            "optimizer__betas": (0.9, 0.98),
            # The norm inside the head is decayed: there, its name hides what it is.
            "optimizer__param_groups": [("*bias", {"weight_decay": 0.0})],
        }

    def _build_module(self, backbone: Backbone, n_outputs: int) -> MAPModule:
        backbone["joint"].dropout = self.backbone_dropout
        return MAPModule(
            backbone,
            n_outputs,
            prompt_type=self.prompt_type,
            prompt_length=self.prompt_length,
            prompt_layers=self.prompt_layers,
        )
