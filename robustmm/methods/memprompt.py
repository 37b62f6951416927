"""MemPrompt: prompts read from a memory, and prompts that the modalities share.

Zhao, Xi, Fu and Zhao, "Enhancing Multimodal Model Robustness Under Missing Modalities
via Memory-Driven Prompt Learning", IJCAI 2025.

In its first layers, a frozen ViLT gets two kinds of prompts for each modality:
generative ones, read from a learned memory by what the modality looks like at that
depth, and shared ones, mapped from a common source. MAP and MSP, its neighbours, have
fixed prompts that depend only on what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..adapters import (
    PromptMemory,
    SharedPrompts,
    TwoLayerHead,
    layer_indices,
    pattern_index,
    trained_pooler,
)
from ..backbones import Backbone, Tokens
from ..checks import check_choice, check_number
from ..data.frame import PATTERNS
from ..trained import MultimodalClassifier

MODALITIES = ("text", "image")


class MemPromptModule(nn.Module):
    r"""A frozen ViLT with generative and shared prompts, pooler and head.

    What enters a prompted layer is :math:`[s_1, g_1, f_1, s_2, g_2, f_2]` (equation 2):
    before the tokens :math:`f_m` of each modality its shared prompt :math:`s_m`
    (equation 7) and its generative prompt :math:`g_m` (equations 4 to 6), which is read
    with the maximum over the tokens of :math:`f_m` that are no padding. Prompts of
    earlier layers stay (``accumulate``), as in the authors' code.

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C).
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        *,
        prompt_length: int,
        memory_size: int,
        top_k: int,
        generative_layers: int | Sequence[int],
        shared_layers: int | Sequence[int],
        location: str,
        accumulate: bool,
        shared: str,
        query_pool: str,
        renormalize: bool,
        temperature: float,
        center_queries: bool = False,
        shared_init: str = "normal",
    ):
        super().__init__()
        stream = backbone["joint"]
        depth, width = stream.n_layers, stream.width
        self.backbone = backbone
        self.location = location
        self.accumulate = accumulate
        self.query_pool = query_pool
        layers = layer_indices("generative_layers", generative_layers, depth)
        # No layer behind it need be run to see what memories read.
        self.reading_ends = 1 + max(layers, default=-1)
        self.memories = nn.ModuleDict()
        for i in layers:
            for modality in MODALITIES:
                self.memories[f"{modality}_{i}"] = PromptMemory(
                    memory_size,
                    prompt_length,
                    width,
                    top_k,
                    renormalize,
                    temperature,
                    center_queries,
                )
        self.shared = nn.ModuleDict()
        for i in layer_indices("shared_layers", shared_layers, depth):
            self.shared[str(i)] = SharedPrompts(
                prompt_length, width, shared == "by_pattern", shared_init
            )
        self.pooler = trained_pooler(stream.pooler, width)
        self.head = TwoLayerHead(width, n_outputs)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.features(**batch))

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the pooled token behind the trained pooler, (B, d)."""
        stream = self.backbone["joint"]
        add = partial(self._add_prompts, pattern_index(present))
        return self.pooler(stream.pool(stream.run(stream.embed(**batch), add)))

    def memory_weights(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return ``present`` and the weights of all memories, (B, 2 + memories * K)."""
        stream, pattern = self.backbone["joint"], pattern_index(present)
        weights = [present.float()]

        def look(i: int, tokens: Tokens) -> Tokens:
            for name, memory in self._memories_of(i):
                # Before the prompts of this layer are there, as the layer itself reads.
                weights.append(memory.weights(self._query(tokens, name)))
            return self._add_prompts(pattern, i, tokens)

        stream.run(stream.embed(**batch), look, stop=self.reading_ends)
        return torch.cat(weights, dim=1)

    def _memories_of(self, i: int) -> Iterator[tuple[str, PromptMemory]]:
        for modality in MODALITIES:
            if f"{modality}_{i}" in self.memories:
                yield modality, self.memories[f"{modality}_{i}"]

    def _query(self, tokens: Tokens, modality: str) -> Tensor:
        """Pool the tokens of a modality, without prompts and padding, to (B, d)."""
        if self.query_pool == "cls":
            return tokens[modality][:, 0]  # (B, d)
        return (
            tokens.max(modality) if self.query_pool == "max" else tokens.mean(modality)
        )

    def _add_prompts(self, pattern: Tensor, i: int, tokens: Tokens) -> Tokens:
        prompts = {}
        if str(i) in self.shared:
            for modality, prompt in self.shared[str(i)](pattern).items():
                prompts["shared", modality] = prompt
        for modality, memory in self._memories_of(i):
            prompts["generative", modality] = memory(self._query(tokens, modality))
        for (kind, modality), prompt in prompts.items():
            tokens = self._insert(tokens, f"{kind}_{modality}", prompt, modality, i)
        return tokens

    def _insert(
        self, tokens: Tokens, name: str, prompt: Tensor, modality: str, i: int
    ) -> Tokens:
        # Under one name, `put` exchanges the last layer's prompt for this one.
        name = f"{name}_{i}" if self.accumulate else name
        before = modality if self.location == "distributed" else tokens.names[0]
        return tokens.put(name, prompt, before=before)


class MemPromptClassifier(MultimodalClassifier):
    """Memory-driven prompts: read from a memory by what a row does have [1]_.

    Defaults are the authors' prompts and schedule for MM-IMDb and Food-101, with the
    learning rate, the batches and the head's start that did best on small tables;
    ``PAPER`` takes steps of 256 rows, and for Hateful Memes ``prompt_length=4``.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT checkpoint.
    prompt_length : int
        Tokens of a prompt, generative or shared.
    memory_size : int
        Entries of the memory that each prompted layer has for each modality (table 3).
    top_k : int
        Entries that are read for a row, at most ``memory_size``.
    generative_layers : int or sequence of int
        The first so many layers, or all if there are fewer, get generative prompts, or
        the layers listed, which must be there; 0 means none (table 2, figure 3c).
    shared_layers : int or sequence of int
        The same of shared prompts.
    location : {"distributed", "pre_append"}
        Prompts stand before the tokens of their modality, or all in front (table 4).
        Attention has no order and prompts no position, so both give the same outputs.
    accumulate : bool
        Whether prompts stay for the later layers, or are replaced by those of the next
        prompted layer.
    shared : {"by_pattern", "single"}
        Whether the source of the shared prompts depends on what a row has, as in the
        authors' code, or is the same for all rows, as printed (equation 7).
    query_pool : {"max", "mean", "cls"}
        How the tokens of a modality become the query of its memory. Padding is left
        out, so that no prediction depends on the other rows of its batch.
    renormalize : bool
        Whether the weights of the entries read sum to 1, as in the authors' code, or
        are those of a softmax over the whole memory, as printed (equation 5).
    temperature : float
        Cosines are divided by it before the softmax.
    center_queries : bool
        Whether a running mean of the queries is taken from them. Without it they are
        nearly the same for all rows, and so is what memories return.
    shared_init : {"normal", "scaled"}
        Start of the maps of shared prompts: the authors', or one that is scaled by
        their width and has no last bias. From the former, shared prompts of different
        patterns become nearly the same.
    backbone_dropout : float
        Dropout of the frozen layers' updates while training; 0.1 in the authors' code.
    max_text_length : int, optional
        Longest text in tokens, 40 for ViLT. For more, positions are interpolated; the
        papers use 1024 (MM-IMDb), 512 (Food-101) and 128 (Hateful Memes).
    weight_decay : float
        AdamW's decoupled weight decay; biases are not decayed.

    References
    ----------
    .. [1] Zhao, Xi, Fu and Zhao, "Enhancing Multimodal Model Robustness Under Missing
       Modalities via Memory-Driven Prompt Learning", IJCAI 2025, equations 2-7.

    Examples
    --------
    >>> from robustmm import MemPromptClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = MemPromptClassifier(
    ...     "robustmm/tiny-vilt",
    ...     prompt_length=4,
    ...     generative_layers=2,
    ...     shared_layers=2,
    ...     max_epochs=1,
    ...     random_state=0,
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    STREAMS = ("joint",)
    # The authors' code: MAP's recipe with other rates, and shorter prompts for memes.
    PAPER: ClassVar[dict] = {
        name: {
            "backbone": "dandelin/vilt-b32-mlm",
            "prompt_length": prompt_length,
            "memory_size": 16,
            "top_k": 5,
            "generative_layers": 6,
            "shared_layers": 6,
            "location": "distributed",
            "accumulate": True,
            "shared": "by_pattern",
            "query_pool": "max",
            "renormalize": True,
            "temperature": 1.0,
            "center_queries": False,
            "shared_init": "normal",
            "backbone_dropout": 0.1,
            "max_text_length": text_length,
            "max_epochs": 20,
            "batch_size": 256,
            "lr": lr,
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
        for name, prompt_length, text_length, lr, scoring in (
            ("mmimdb", 16, 1024, 5e-3, "f1_macro"),
            ("food101", 16, 512, 5e-3, "accuracy"),
            ("hateful_memes", 4, 128, 1e-3, "roc_auc"),
        )
    }

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    prompt_length: int = 16
    memory_size: int = 16
    top_k: int = 5
    generative_layers: int | Sequence[int] = 6
    shared_layers: int | Sequence[int] = 6
    location: str = "distributed"
    accumulate: bool = True
    shared: str = "by_pattern"
    query_pool: str = "max"
    renormalize: bool = True
    temperature: float = 1.0
    center_queries: bool = False
    shared_init: str = "normal"
    backbone_dropout: float = 0.0

    max_epochs: int = 12
    batch_size: int = 32
    lr: float = 3e-3
    head_init: str = "probe"
    head_lr: float | None = 1e-3
    weight_decay: float = 0.02

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("prompt_length", self.prompt_length, Integral, 1)
        # With one entry there is nothing to choose, and a weight that is always 1.
        check_number("memory_size", self.memory_size, Integral, 2)
        check_number("top_k", self.top_k, Integral, 1)
        check_number("temperature", self.temperature, Real, 0, open="low")
        check_choice("shared_init", self.shared_init, ("normal", "scaled"))
        check_number("backbone_dropout", self.backbone_dropout, Real, 0, 1)
        check_choice("location", self.location, ("distributed", "pre_append"))
        check_choice("shared", self.shared, ("by_pattern", "single"))
        check_choice("query_pool", self.query_pool, ("max", "mean", "cls"))
        if self.top_k > self.memory_size:
            raise ValueError(
                f"top_k must be at most memory_size, {self.memory_size}, got "
                f"{self.top_k}."
            )
        if self.top_k == 1 and self.renormalize:
            raise ValueError(
                "renormalize must be False with top_k=1: the only weight would always "
                "be 1, and the keys of the memory would not be trained."
            )

    def _check_backbone(self, backbone: Backbone) -> None:
        for name in ("generative_layers", "shared_layers"):
            layer_indices(name, getattr(self, name), backbone["joint"].n_layers)

    @classmethod
    def _small(cls, **params):
        layers = {"generative_layers": 2, "shared_layers": 2}
        sizes = {"prompt_length": 2, "memory_size": 4, "top_k": 2}
        return super()._small(**layers | sizes | params)

    def _optimizer_options(self) -> dict:
        return {
            "optimizer__betas": (0.9, 0.98),
            "optimizer__param_groups": [("*bias", {"weight_decay": 0.0})],
        }

    def _build_module(self, backbone: Backbone, n_outputs: int) -> MemPromptModule:
        backbone["joint"].dropout = self.backbone_dropout
        return MemPromptModule(
            backbone,
            n_outputs,
            prompt_length=self.prompt_length,
            memory_size=self.memory_size,
            top_k=self.top_k,
            generative_layers=self.generative_layers,
            shared_layers=self.shared_layers,
            location=self.location,
            accumulate=self.accumulate,
            shared=self.shared,
            query_pool=self.query_pool,
            renormalize=self.renormalize,
            temperature=self.temperature,
            center_queries=self.center_queries,
            shared_init=self.shared_init,
        )

    def memory_usage(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return which entries of the memories the rows of each pattern read.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``.

        Returns
        -------
        DataFrame of shape (n_patterns * n_memories, memory_size)
            Mean weight of each entry over the rows of a pattern. The index has the
            levels pattern (``"complete"``, ``"text_missing"``, ``"image_missing"``;
            those that ``X`` has), layer and modality. With ``renormalize``, each row of
            the table sums to 1. Rows of ``X`` without any modality do not count.

        Raises
        ------
        ValueError
            If there is no memory, or no row with a modality.
        """
        check_is_fitted(self)
        memories = [name.split("_") for name in self.net_.module_.memories]
        if not memories:
            raise ValueError(
                "memory_usage needs a memory, got generative_layers="
                f"{self.generative_layers!r}."
            )
        values, empty = self._evaluate(X, MemPromptModule.memory_weights)
        if empty.all():
            raise ValueError("X must have a row with an image or a text, got none.")
        values = values[~empty]
        pattern = pattern_index(torch.from_numpy(values[:, :2] > 0)).numpy()
        weights = values[:, 2:].reshape(len(values), len(memories), -1)  # (n, M, K)
        found = np.unique(pattern)
        keys = [(PATTERNS[p], int(i), m) for p in found for m, i in memories]
        names = ["pattern", "layer", "modality"]
        return pd.DataFrame(
            np.concatenate([weights[pattern == p].mean(axis=0) for p in found]),
            index=pd.MultiIndex.from_tuples(keys, names=names),
            columns=pd.RangeIndex(weights.shape[2], name="entry"),
        )
