"""MAIL: mixture of low-rank experts on ViLT.

"MAIL: Mixture of LoRA Experts for Adaptive Incomplete Multimodal Learning", anonymous
authors, under double-blind review.

Low-rank experts stand beside frozen linears in every layer of ViLT, and a router picks
a few for each token, so that what is missing can be answered by other experts. Unlike
prompt methods, no token is added, and the number of parameters does not depend on the
number of modalities; unlike DeLo, experts are whole low-rank pairs, not factors that
are recombined, and there are no tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..adapters import (
    ExpertLinear,
    JointExpertLinear,
    LinearHead,
    Router,
    Routing,
    balance_loss,
    trained_pooler,
    usage_frame,
)
from ..backbones import Backbone, Tokens
from ..checks import check_choice, check_number
from ..trained import MultimodalClassifier

ATTENTION = ("query", "key", "value")
TARGETS = ("linear", "attention", "both")
LINEAR_TARGETS = ("out", "up", "down")
ROUTINGS = ("top_k", "soft_merge")
LEVELS = ("token", "instance")
# Experts in four equal groups of layers, from the input on, as parts of ``n_experts``:
# 8-6-4-2 for 5, the allocation of the paper that MAIL takes its shapes from.
SHAPES = {
    "square": (1.0, 1.0, 1.0, 1.0),
    "triangle": (1.6, 1.2, 0.8, 0.4),
    "inverted_triangle": (0.4, 0.8, 1.2, 1.6),
}


class MAILModule(nn.Module):
    r"""ViLT with experts, its pooler, and one linear head.

    Every adapted linear becomes :math:`Wx + b + \frac{\alpha}{r} \sum_n R(x)_n B_n A_n
    x` (equations 8 to 11); with :math:`h` the text's class token after the last layer,
    logits are :math:`\mathrm{FC}(\tanh(W_{pool} h))` (equation 3).

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C).
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        *,
        n_experts: Sequence[int],
        linears: Sequence[str | tuple[str, ...]],
        router_level: str,
        balance_weight: float,
        top_k: int | None,
        **options,
    ):
        super().__init__()
        self.backbone = backbone
        self.router_level = router_level
        self.balance_weight = balance_weight
        stream = backbone["joint"]
        # A plain list: the routers are registered where their experts are, once.
        self.routers: list[tuple[int, tuple[str, ...], Router]] = []
        options["level"] = router_level
        for layer, count in enumerate(n_experts):
            # Shapes with few experts leave some layers fewer than are asked for.
            options |= {"n_experts": count, "top_k": top_k and min(top_k, count)}
            for name in linears:
                self._adapt(layer, name, **options)
        self.pooler = trained_pooler(stream.pooler, stream.width)
        # One layer, as in equation 3; the prompt methods on ViLT have two.
        self.head = LinearHead(stream.width, n_outputs)

    def _adapt(self, layer: int, name: str | tuple[str, ...], **options) -> None:
        stream = self.backbone["joint"]
        if isinstance(name, tuple):
            frozen = [stream.linear(layer, part) for part in name]
            adapter: nn.Module = JointExpertLinear(frozen, **options)
        else:
            adapter = ExpertLinear(stream.linear(layer, name), **options)
        stream.wrap(layer, name, adapter)
        linears = name if isinstance(name, tuple) else (name,)
        self.routers.append((layer, linears, adapter.experts.router))

    def forward(
        self, present: Tensor, **batch: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits, with the balance penalty while training if it has weight."""
        # Watching keeps all rows of the last layer, so only who needs it pays for it.
        if not (self.training and self.balance_weight):
            return self.head(self.features(present, **batch))
        pooled, routings = self._run_and_watch(batch)
        losses = [balance_loss(r.probabilities, r.gates, r.counted) for r in routings]
        penalty = self.balance_weight * torch.stack(losses).mean()
        return self.head(self.pooler(pooled)), penalty

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the pooler's output for the class token of the text, (B, d)."""
        return self.pooler(self.backbone["joint"].pool(self._run(batch)))

    def usage(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return, per row, :meth:`Routing.sums` of all routers, after ``present``."""
        _, routings = self._run_and_watch(batch)
        sums = [routing.sums().flatten(1) for routing in routings]
        return torch.cat([present.to(sums[0].dtype), *sums], dim=1)

    def places(self) -> list[tuple[int, str, int]]:
        """Layer, linear and expert, in the order of :meth:`usage`."""
        return [
            (layer, name, expert)
            for layer, names, router in self.routers
            for name in names
            for expert in range(router.weight.shape[1])
        ]

    def _run(self, batch: dict, keep: str | tuple = (), **context) -> Tokens:
        stream = self.backbone["joint"]
        # The mean is over all tokens, so the last layer must not drop any.
        keep = keep if self.router_level == "token" else "all"
        return stream.run(stream.embed(**batch).with_context(**context), keep=keep)

    def _run_and_watch(self, batch: dict) -> tuple[Tensor, list[Routing]]:
        """Pooled rows (B, d), and what every router decided."""
        decisions: dict[Router, tuple[Tensor, Tensor]] = {}
        # All rows, or decisions of the last layer would not line up with the mask.
        tokens = self._run(batch, keep="all", decisions=decisions)
        routings = [
            Routing(
                layer, names, *decisions[router], self._counted(layer, names, tokens)
            )
            for layer, names, router in self.routers
        ]
        return self.backbone["joint"].pool(tokens), routings

    def _counted(self, layer: int, names: tuple[str, ...], tokens: Tokens) -> Tensor:
        """Weights (B, L, P) of tokens: 1 where a decision can reach the prediction.

        Padding cannot, and in the last layer only the pooled token asks, and goes on
        to the feed-forward block; its keys and values are those of all tokens.
        """
        # Not of the tokens' type, in which autocast could not count far enough.
        ones = torch.ones(len(tokens), tokens.length, device=tokens.values.device)
        # One decision per row, whatever was padded.
        if self.router_level == "instance":
            return ones[:, :1, None].expand(-1, -1, len(names))
        attended = ones if tokens.mask is None else ones * tokens.mask  # (B, L)
        place = tokens.span("text")[0] + tokens.anchor  # (B,)
        pooled = torch.zeros_like(ones).scatter(1, place[:, None], 1.0)
        last = layer == self.backbone["joint"].n_layers - 1
        parts = [
            attended if name in ("key", "value") or not last else pooled
            for name in names
        ]
        return torch.stack(parts, dim=-1)  # (B, L, P)


class MAILClassifier(MultimodalClassifier):
    """MAIL: low-rank experts in ViLT, chosen by what a row holds and lacks [1]_.

    Defaults are the paper's experts (section 4.2: variant MAIL-b, five per layer, top
    2), with the learning rate and the batches that did best on small tables. In
    ``PAPER``, the number of epochs, the batch size, the weight decay and the schedule
    are those of the work whose protocol the paper follows: it does not print its own.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT.
    rank : int
        Rank of each expert.
    alpha : float
        The update of an expert is scaled by ``alpha / rank``.
    dropout : float
        Dropout on the input of the experts; the routers see all of it.
    n_experts : int, or sequence of int
        Experts of each adapted linear; a sequence has one count per layer.
    expert_shape : {"square", "triangle", "inverted_triangle"}
        How ``n_experts`` is spread over four equal groups of layers: evenly; more near
        the input (8-6-4-2 for 5); more near the output (2-4-6-8).
    top_k : int
        Experts that serve a token, at most the largest count of a layer; a layer that
        has fewer asks all of them.
    routing : {"top_k", "soft_merge"}
        Take the ``top_k`` most probable experts, or all, weighted.
    router_level : {"token", "instance"}
        Route each token, or the mean over the tokens of a row that are no padding.
    targets : {"linear", "attention", "both"}
        What is adapted in each layer: ``linear_targets`` (the paper's MAIL-l), query,
        key and value (MAIL-a), or both (MAIL-b).
    linear_targets : sequence of {"out", "up", "down"}
        The linears of ``"linear"``: output of the attention, first and second of the
        feed-forward block. The paper means one linear, see the user guide.
    balance_weight : float
        Weight of a load-balancing loss, for ``"top_k"`` only; the paper has none.
    max_text_length : int, optional
        Longest text in tokens; None is the 40 that ViLT was trained with.
    precision : {"auto", "float32", "bfloat16"}
        ``"auto"`` is bfloat16 autocast on CUDA devices that have it, else float32.
        Routers always compute in float32.

    Raises
    ------
    ValueError
        In ``fit``, if the backbone has no joint stream of text and image, if the counts
        do not fit its layers, or if ``top_k`` exceeds the largest count.

    References
    ----------
    .. [1] "MAIL: Mixture of LoRA Experts for Adaptive Incomplete Multimodal Learning",
       anonymous authors, under double-blind review, equations 3-12.

    Examples
    --------
    >>> from robustmm import MAILClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> clf = MAILClassifier(
    ...     "robustmm/tiny-vilt", n_experts=3, max_epochs=1, random_state=0
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)

    Which experts serve the rows that lack an image:

    >>> usage = clf.expert_usage(X)
    >>> usage[usage["pattern"] == "image_missing"].columns.tolist()
    ['pattern', 'layer', 'linear', 'expert', 'frequency', 'weight']
    """

    STREAMS = ("joint",)
    # Section 4.2; epochs, batch, decay, schedule and length of texts, which are not
    # printed, are those of RAGPT, whose protocol it follows.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.05,
        "n_experts": 5,
        "expert_shape": "square",
        "top_k": 2,
        "routing": "top_k",
        "targets": "both",
        "linear_targets": ("up",),
        "balance_weight": 0.0,
        "max_text_length": 128,
        "max_epochs": 20,
        "batch_size": 64,
        "lr": 2e-4,
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
    rank: int = 4
    alpha: float = 8.0
    dropout: float = 0.05
    n_experts: int | Sequence[int] = 5
    expert_shape: str = "square"
    top_k: int = 2
    routing: str = "top_k"
    router_level: str = "token"
    targets: str = "both"
    # The paper says three times that MAIL-a has more parameters than MAIL-l: so one
    # linear of the feed-forward block is adapted, as both would be more than query, key
    # and value. The first one reads tokens of width d, as all routers do.
    linear_targets: Sequence[str] = ("up",)
    balance_weight: float = 0.0

    # RAGPT's, whose protocol the paper follows; only lr is printed.
    max_epochs: int = 12
    batch_size: int = 32
    lr: float = 3e-3
    weight_decay: float = 2e-2

    def expert_usage(self, X: pd.DataFrame) -> pd.DataFrame:
        """Count how often each expert is chosen, per missing pattern.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``; no labels are needed.

        Returns
        -------
        DataFrame
            A row per ``pattern`` that occurs in X, ``layer``, ``linear`` and
            ``expert``, both counted from 0. ``frequency`` is the share of tokens for
            which the expert was chosen, so that it adds up to ``top_k`` over the
            experts; ``weight`` is its mean gate. With ``router_level="instance"``, rows
            of X take the place of tokens. Left out are padding, tokens of the last
            layer that the prediction does not read, and rows without any modality.

        Raises
        ------
        ValueError
            If no row has an image or a text.

        See Also
        --------
        ExpertUsageDisplay : Draws this table.
        """
        check_is_fitted(self)
        values, empty = self._evaluate(X, MAILModule.usage)
        if empty.all():
            raise ValueError(
                "At least one row must have an image or a text, got "
                f"{len(empty)} rows in which both cells are missing."
            )
        present, sums = values[:, :2] > 0, values[:, 2:].reshape(len(values), -1, 3)
        return usage_frame(sums, present, self.net_.module_.places())

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("rank", self.rank, Integral, 1)
        check_number("alpha", self.alpha, Real, 0, open="low")
        check_number("dropout", self.dropout, Real, 0, 1)
        check_number("top_k", self.top_k, Integral, 1)
        check_number("balance_weight", self.balance_weight, Real, 0)
        check_choice("expert_shape", self.expert_shape, SHAPES)
        check_choice("routing", self.routing, ROUTINGS)
        check_choice("router_level", self.router_level, LEVELS)
        check_choice("targets", self.targets, TARGETS)
        _check_linear_targets(self.linear_targets)
        if self.routing == "soft_merge" and self.balance_weight:
            raise ValueError(
                "balance_weight must be 0 with routing='soft_merge', which uses all "
                f"experts for every token, got {self.balance_weight!r}."
            )

    def _check_backbone(self, backbone: Backbone) -> None:
        counts = self._expert_counts(backbone)
        if self.routing == "top_k" and self.top_k > max(counts):
            raise ValueError(
                "top_k must be at most the largest number of experts of a layer, "
                f"{max(counts)}, got {self.top_k!r}."
            )

    def _expert_counts(self, backbone: Backbone) -> list[int]:
        n_layers = backbone["joint"].n_layers
        return _expert_counts(self.n_experts, self.expert_shape, n_layers)

    def _build_module(self, backbone: Backbone, n_outputs: int) -> MAILModule:
        attention = () if self.targets == "linear" else (ATTENTION,)
        linear = () if self.targets == "attention" else tuple(self.linear_targets)
        return MAILModule(
            backbone,
            n_outputs,
            n_experts=self._expert_counts(backbone),
            linears=attention + linear,
            router_level=self.router_level,
            balance_weight=self.balance_weight,
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            top_k=self.top_k if self.routing == "top_k" else None,
        )


def _expert_counts(
    n_experts: int | Sequence[int], shape: str, n_layers: int
) -> list[int]:
    """Return the number of experts of each layer."""
    if isinstance(n_experts, Integral):
        check_number("n_experts", n_experts, Integral, 1)
        parts = SHAPES[shape]
        # Of three layers each in a ViLT of twelve.
        groups = [4 * layer // n_layers for layer in range(n_layers)]
        return [max(1, round(parts[group] * n_experts)) for group in groups]
    if shape != "square":
        raise ValueError(
            "expert_shape must be 'square' where n_experts has a count for each layer, "
            f"got {shape!r}."
        )
    if isinstance(n_experts, str) or not hasattr(n_experts, "__len__"):
        raise TypeError(
            f"n_experts must be an integer or one integer per layer, got {n_experts!r}."
        )
    if len(n_experts) != n_layers:
        raise ValueError(
            f"n_experts must have a count for each of the {n_layers} layers, got "
            f"{len(n_experts)}: {n_experts!r}."
        )
    for count in n_experts:
        check_number("each of n_experts", count, Integral, 1)
    return [int(count) for count in n_experts]


def _check_linear_targets(names: Sequence[str]) -> None:
    if isinstance(names, str) or not len(names) or len(set(names)) < len(names):
        raise ValueError(
            f"linear_targets must be a sequence of one or more of "
            f"{list(LINEAR_TARGETS)}, each once, got {names!r}."
        )
    for name in names:
        check_choice("each of linear_targets", name, LINEAR_TARGETS)
