"""CMPT: cross-modal proxy tokens on two unimodal encoders.

Reza, Patil, Solh and Asif, "Robust Multimodal Learning via Cross-Modal Proxy Tokens",
Transactions on Machine Learning Research, 2025.

Each frozen encoder gets one more token, which learns to be what the other modality's
class token would have been; where that modality is missing, the proxy stands in for it.
Unlike the prompt methods on ViLT, the encoders never exchange tokens, so the encoder of
a missing modality is not run at all and no dummy input exists.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import field
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import (
    DoRALinear,
    LinearHead,
    LoRALinear,
    VeRABasis,
    VeRALinear,
    weight_of_mean,
)
from ..annotations import TableLike
from ..backbones import (
    Backbone,
    HostBatch,
    Tokens,
    attention_frame,
    attention_maps,
    take_rows,
    upload,
)
from ..checks import check_choice, check_number
from ..clips import ClipEncoders
from ..data.frame import MODALITIES
from ..trained import MultimodalClassifier

ADAPTERS = {"lora": LoRALinear, "dora": DoRALinear, "vera": VeRALinear}
# "After the query, key, value and output layers in every attention block" (sec. 3.5).
ADAPTED = ("query", "key", "value", "out")
MISSING = ("skip", "placeholder")
# Section 4.2. Of the dropout it says "in each iteration", and no probability.
_RECIPE = {
    "rank": 1,
    "alpha": 1,
    "dropout": 0.1,
    "adapter": "lora",
    "lambda_align": 0.2,
    "align_reduction": "sum",
    "use_proxy": True,
    "detach_target": False,
    "modality_dropout": "auto",
    "modality_dropout_per": "batch",
    "weight_decay": 0.02,
    "lr_schedule": "held_polynomial",
    "head_init": "random",
    "head_lr": None,
    "early_stopping": False,
}


class CMPTModule(nn.Module):
    r"""Two adapted encoders, a proxy token in each, gate, sum and linear head.

    With :math:`\hat c_m` the class token and :math:`\hat p_m` the proxy token that
    encoder :math:`m` returns (equations 1 to 3), the fused feature (equation 5) is
    :math:`\hat c_1 + \hat c_2` for a complete row, and :math:`\hat c_m + \hat p_m`
    where only modality :math:`m` is there. While training, the penalty is
    ``lambda_align`` times the mean over complete rows of
    :math:`\mathrm{MSE}(\hat p_1, \hat c_2) + \mathrm{MSE}(\hat p_2, \hat c_1)`
    (equation 4, whose printed denominator we take for a misprint).

    Of more than two modalities, which the paper leaves open, encoder :math:`m` has a
    proxy for each other one, :math:`\hat p_{m \to n}`. A missing modality :math:`n`
    adds the mean of :math:`\hat p_{m \to n}` over those that are there, and each pair
    is aligned over the rows that have both.

    With a ``width``, which the paper has not either, both kinds of token are what a
    linear map of their encoder makes of them: :math:`\hat c_m = W_m c_m + b_m` and
    :math:`\hat p_m = W_m p_m + b_m`. A proxy imitates the mapped token.

    Shapes: ``present`` (B, M) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T), ``input_values`` (B, frames, mels), ``frame_values``
    (B, T, 3, H, W); features (B, d); logits (B, C). While training, cells that are
    ``hidden`` (B, M) bool are left out of the sum but not of the alignment.
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        adapter: str,
        lambda_align: float,
        proxies: dict[str, Tensor] | None,
        detach_target: bool,
        align_reduction: str,
        adapt_text_ffn: bool,
        missing: str = "skip",
        width: int | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.placeholder = missing == "placeholder"
        # What an encoder reads has to be a placeholder then.
        self.reads_hidden = not self.placeholder
        self.proxies_count = True
        self.lambda_align = lambda_align
        self.detach_target = detach_target
        self.modalities = backbone.modalities
        self.width = width or backbone[self.modalities[0]].width
        self.pairs = ordered_pairs(len(self.modalities))
        self.align_scale = 1 / len(self.pairs) if align_reduction == "mean" else 1.0
        self.proxies = None
        if proxies is not None:
            self.proxies = nn.ParameterDict(
                {m: nn.Parameter(value) for m, value in proxies.items()}
            )
        adapt = _adapter_factory(adapter, rank, alpha, dropout)
        for modality in self.modalities:
            stream = backbone[modality]
            more = ("down",) if adapt_text_ffn and modality == "text" else ()
            for layer in range(stream.n_layers):
                for name in ADAPTED + more:
                    stream.wrap(layer, name, adapt(stream.linear(layer, name)))
        self.projections = None if width is None else _projections(backbone, width)
        self.head = LinearHead(self.width, n_outputs)

    def forward(
        self, present: Tensor, hidden: Tensor | None = None, **batch: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits, with the alignment penalty while training."""
        batch["host"] = host = self._host(present, batch)
        classes, proxies = self._encode(present, batch)
        if not self.training:
            return self.head(self._fuse(classes, proxies, present))
        left = present if hidden is None else present & ~hidden
        logits = self.head(self._fuse(classes, proxies, left))
        misaligned = self._misalignment(classes, proxies, host.present)
        return logits, self.lambda_align * misaligned

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the fused tokens of equation 5, (B, d)."""
        return self._fuse(*self._encode(present, batch), present)

    def merge(self) -> None:
        """Compute the adapted weights once, until the next training."""
        for stream in self.backbone.streams.values():
            for adapter in stream.adapters():
                adapter.merge()

    def attention(
        self, found: list[dict], layer: int, present: Tensor, **batch: Tensor
    ) -> Tensor:
        """Add each row's attention maps, by modality and token, to ``found``.

        Returns their places there and their sums, (B, 2).
        """
        host, start = self._host(present, batch), len(found)
        maps: list[dict] = [{} for _ in host.present]
        for modality in MODALITIES:
            rows = host.rows(modality)
            if len(rows) == 0:
                continue
            own = take_rows({**batch, "host": host}, rows)
            tokens, pixels = self._embed(modality, own), own.get("pixel_values")
            seen = attention_maps(self.backbone[modality], tokens, layer, pixels)
            for name, values in seen.items():
                for row, value in zip(rows.tolist(), values, strict=True):
                    maps[row][modality, name] = value
        found += maps
        sums = [float(sum(value.sum() for value in row.values())) for row in maps]
        return torch.tensor([[start + i, total] for i, total in enumerate(sums)])

    def _encode(self, present: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
        """Class (B, M, d) and proxy tokens (B, pairs, d), zeros of what is missing."""
        host = self._host(present, batch)
        encoded = [self._encode_one(name, host, batch) for name in self.modalities]
        classes, proxies = zip(*encoded, strict=True)
        return torch.stack(classes, dim=1), torch.cat(proxies, dim=1)

    def _host(self, present: Tensor, batch: dict) -> HostBatch:
        return HostBatch.of(present, batch, self.modalities)

    def _encode_one(self, modality: str, host: HostBatch, batch: dict):
        """Class (B, d) and proxy tokens (B, M - 1, d) of one encoder."""
        stream, rows = self.backbone[modality], host.rows(modality)
        if self.placeholder:
            rows = torch.arange(len(host.present))
        n = len(host.present), len(self.modalities) - 1
        empty = self.head.weight.new_zeros(n[0], self.width)
        no_proxy = self.head.weight.new_zeros(*n, self.width)
        if len(rows) == 0:
            return empty, no_proxy
        tokens = self._embed(modality, take_rows({**batch, "host": host}, rows))
        rows = upload(rows, empty.device)
        if self.proxies is None:
            pooled = self._project(modality, stream.pool(stream.run(tokens)))
            return empty.index_copy(0, rows, pooled), no_proxy
        tokens = stream.run(tokens, keep=("proxy",))
        proxy = stream.per_row(tokens, stream.norm(tokens["proxy"]))
        # Mapped before they are put in: rows that are not there stay zero.
        found = (empty, stream.pool(tokens)), (no_proxy, proxy)
        return tuple(
            zeros.index_copy(0, rows, self._project(modality, t)) for zeros, t in found
        )

    def _project(self, modality: str, tokens: Tensor) -> Tensor:
        """Map what an encoder returns, (..., d_m), to the common width, (..., d)."""
        kind = self.head.weight.dtype
        if self.projections is None:
            return tokens.to(kind)
        return self.projections[modality](tokens.to(kind)).to(kind)

    def _embed(self, modality: str, batch: dict) -> Tokens:
        """What enters an encoder, with the proxy where there is one."""
        tokens = self.backbone[modality].embed(**batch)
        if self.proxies is None:
            return tokens
        # Attention has no order, so the proxy may stand last; in a causal text encoder
        # it has to, or it would see nothing.
        return tokens.insert("proxy", self.proxies[modality])

    def _fuse(self, classes: Tensor, proxies: Tensor, present: Tensor) -> Tensor:
        """Equation 5: the gate and the sum."""
        if self.placeholder:
            return classes.sum(dim=1)
        if not self.proxies_count:
            proxies = torch.zeros_like(proxies)
        here = present.unsqueeze(-1).to(classes.dtype)  # (B, M, 1)
        missing = 1.0 - self._of_targets(here)  # (B, pairs, 1)
        # Each encoder that runs has a guess; of two there is one, which counts whole.
        share = missing / here.sum(dim=1, keepdim=True).clamp(min=1.0)
        guesses = (share * proxies).unflatten(1, (len(self.modalities), -1))
        return (here * (classes + guesses.sum(dim=2))).sum(dim=1)

    def _of_targets(self, values: Tensor) -> Tensor:
        """Pick what each proxy stands for, (B, M, ...) -> (B, pairs, ...)."""
        return torch.stack([values[:, n] for _, n in self.pairs], dim=1)

    def _misalignment(
        self, classes: Tensor, proxies: Tensor, present: Tensor
    ) -> Tensor:
        """Equation 4 over the rows that have both in the data, known on the CPU."""
        both = torch.stack([present[:, m] & present[:, n] for m, n in self.pairs], 1)
        kept = both.any(dim=1).nonzero()[:, 0]
        # Of each pair over its own rows, as if the others were not there.
        counts = both.sum(dim=0).tolist()
        weights = [weight_of_mean(count, classes) for count in counts]
        if self.proxies is None or len(kept) == 0:
            return classes.new_zeros(())
        rows, both = upload(kept, classes.device), both[kept]
        target = self._of_targets(classes[rows])
        target = target.detach() if self.detach_target else target
        error = F.mse_loss(proxies[rows], target, reduction="none")
        if both.all():
            terms = error.mean(dim=(0, 2))
        else:
            # Of each pair over its own rows, as if the others were not there.
            share = upload(both / both.sum(dim=0).clamp(min=1), classes.device)
            terms = (share * error.mean(dim=2)).sum(dim=0)
        weighted = zip(weights, terms, strict=True)
        return self.align_scale * sum(weight * term for weight, term in weighted)


def ordered_pairs(n: int) -> list[tuple[int, int]]:
    """Return which encoder each proxy is in and what it stands for, in their order.

    Examples
    --------
    >>> ordered_pairs(3)
    [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    """
    return [(m, other) for m in range(n) for other in range(n) if other != m]


def _adapter_factory(
    kind: str, rank: int, alpha: float, dropout: float
) -> Callable[[nn.Linear], nn.Module]:
    """Return the function that puts an adapter around a frozen linear."""
    if kind != "vera":
        return partial(ADAPTERS[kind], rank=rank, alpha=alpha, dropout=dropout)
    bases: dict[tuple[int, int], VeRABasis] = {}

    def adapt(linear: nn.Linear) -> VeRALinear:
        shape = (linear.in_features, linear.out_features)
        if shape not in bases:
            bases[shape] = VeRABasis(*shape, rank)
        return VeRALinear(linear, bases[shape], dropout)

    return adapt


def _projections(backbone: Backbone, width: int) -> nn.ModuleDict:
    """A linear map from each encoder's width to a common one."""
    maps = {m: nn.Linear(backbone[m].width, width) for m in backbone.modalities}
    for linear in maps.values():
        # Tokens keep their lengths and, where there is room, their angles.
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
    return nn.ModuleDict(maps)


def initial_proxies(
    backbone: Backbone, batch: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return the proxy tokens (M - 1, d) of each modality to start from.

    Parameters
    ----------
    backbone : Backbone
    batch : dict or None
        One row, from which the class token of each stream is taken as it enters the
        encoder; None draws from a normal distribution of standard deviation 0.02.
    """
    proxies = {}
    for modality in backbone.modalities:
        stream, n = backbone[modality], len(backbone.modalities) - 1
        if batch is None:
            proxies[modality] = 0.02 * torch.randn(n, stream.width)
            continue
        device = next(stream.parameters()).device
        with torch.no_grad():
            tokens = stream.embed(**{k: v.to(device) for k, v in batch.items()})
        rows = tokens.values[0]  # (T, d)
        place = tokens.anchor
        # Of a video's frames the first: the class token is the same in all.
        token = rows.mean(0, keepdim=True) if place is None else rows[place[:1]]
        proxies[modality] = token.repeat(n, 1)
    return proxies


class CMPTClassifier(ClipEncoders, MultimodalClassifier):
    """Cross-modal proxy tokens: each encoder learns to stand in for the other [1]_.

    Defaults are the paper's image-text model and schedule (section 4.2: half of the
    training at a tenth of the learning rate, then polynomial decay of power 0.9), with
    the learning rate, the batches and the head's start that did best on small tables.
    Its audio-video model is ``CMPTClassifier(**CMPTClassifier.PAPER["audio-video"])``.

    Parameters
    ----------
    image_backbone : str or path-like
        Hub id, local folder or embedded name of any image encoder: CLIP, ViT, DeiT,
        DINOv2 or SigLIP.
    text_backbone : str or path-like
        The same of any text encoder, of equal width unless ``width`` is given: BERT,
        RoBERTa, DistilBERT or CLIP.
    rank : int
        Rank of the low-rank adapters.
    alpha : float
        Their update is scaled by ``alpha / rank``; VeRA has no such scale.
    dropout : float
        Dropout before each adapter.
    adapter : {"lora", "dora", "vera"}
        Kind of adapter on query, key, value and output of every attention block.
    lambda_align : float
        Weight of the alignment loss.
    align_reduction : {"sum", "mean"}
        Whether the two directions of the alignment are added or averaged, or all
        ordered pairs of more than two modalities, which the paper leaves open: each
        encoder then has a proxy for each other modality, and for a missing one counts
        the mean over those that are there.
    modality_dropout : float or "auto"
        Probability that a complete row loses one of its modalities in a training step,
        each equally often; the alignment still sees both. ``"auto"`` leaves about a
        third of the rows complete: 2/3 if all are, the paper's case for it, less if the
        table has gaps, 0 if no more than a third are complete.
    use_proxy : bool
        False leaves the proxies out: a missing modality then adds nothing.
    missing : {"skip", "placeholder"}
        Whether the encoder of a missing modality is left out, or reads a white image or
        an empty text, whose class token is added: the baseline of the paper's figures,
        which has no proxies (``use_proxy=False``).
    proxy_init : {"class_token", "normal"}
        What the proxies start from, of which the paper says nothing: the class token,
        so that a missing modality first counts the other one twice, or small noise.
        On few rows the former is far ahead, because noise has to be unlearned first.
    detach_target : bool
        Whether the class tokens are constants in the alignment loss.
    adapt_text_ffn : bool
        Whether the output layer of the text encoder's feed-forward blocks is adapted
        too. The paper's text does not say so, but its parameter counts at rank 1
        (table 3) are reached only with it.
    width : int, optional
        Common width to which a trained linear map brings what each encoder returns, its
        class token and its proxies, so that encoders of different width go together.
        Maps learn as the head does, at ``head_lr``. None, as in the paper, adds the
        tokens as they are.
    max_text_length : int, optional
        Longest text in tokens; the paper uses 40 (Food-101) and 256 (MM-IMDb).

    Notes
    -----
    For prediction, a fitted classifier merges its adapters into the weights, which then
    are its own: 226 MB for encoders of twelve layers and 768 features, of which nothing
    is saved.

    Raises
    ------
    ValueError
        In ``fit``, if encoders differ in width and ``width`` is None: the tokens are
        added, and the paper's method has no projection.

    References
    ----------
    .. [1] Reza, Patil, Solh and Asif, "Robust Multimodal Learning via Cross-Modal
       Proxy Tokens", Transactions on Machine Learning Research, 2025, equations 1-7.

    Examples
    --------
    >>> from robustmm import CMPTClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> clf = CMPTClassifier(
    ...     "robustmm/tiny-clip", "robustmm/tiny-bert", max_epochs=1, random_state=0
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    STREAMS = MODALITIES
    # Hundreds of features add up in each output, as in the head, so a map takes its
    # lower rate rather than that of the adapters.
    _WITH_HEAD = ("projections",)
    PAPER: ClassVar[dict] = {
        **{
            name: _RECIPE
            | {
                "image_backbone": "openai/clip-vit-base-patch16",
                "text_backbone": "bert-base-uncased",
                "max_text_length": length,
                "max_epochs": 10,
                "batch_size": 8,
                "lr": 1e-3,
                "warmup": 0.5,
            }
            for name, length in (("food101", 40), ("mmimdb", 256))
        },
        # Table 6. How frames become one token is said nowhere; their mean fits the
        # counts of table 7.
        "audio-video": _RECIPE
        | {
            "modalities": ("audio", "video"),
            "audio_backbone": "MIT/ast-finetuned-audioset-10-10-0.4593",
            "video_backbone": "openai/clip-vit-base-patch16",
            "max_epochs": 100,
            "batch_size": 4,
            "lr": 5e-5,
            "warmup": 0.05,
        },
    }

    image_backbone: str | Path = field(
        default="openai/clip-vit-base-patch16", kw_only=False
    )
    text_backbone: str | Path = field(default="bert-base-uncased", kw_only=False)
    rank: int = 1
    alpha: float = 1
    dropout: float = 0.1
    adapter: str = "lora"
    lambda_align: float = 0.2
    align_reduction: str = "sum"
    modality_dropout: float | str = "auto"
    use_proxy: bool = True
    missing: str = "skip"
    proxy_init: str = "class_token"
    detach_target: bool = False
    adapt_text_ffn: bool = False
    width: int | None = None

    batch_size: int = 32
    lr: float = 1e-2
    weight_decay: float = 0.02
    lr_schedule: str = "held_polynomial"
    warmup: float = 0.5
    head_init: str = "probe"
    head_lr: float | None = 1e-3

    def attention_maps(self, X: TableLike, layer: int = -1) -> pd.DataFrame:
        """Return what the class token and the proxy attend to, patch by patch.

        These are the maps of figures 6 and 11 of the paper, and the same over words.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``; no labels are needed.
        layer : int
            Of each encoder; negative numbers count from the last, -1.

        Returns
        -------
        DataFrame
            For each ``row`` of X, by its label, each ``modality`` that it has and each
            ``token``, ``"class"`` or ``"proxy"``, a line per patch of the image, with
            its place ``y`` and ``x`` in the grid counted from the top left, or per
            ``word`` of the text, as far as the encoder reads it; ``position`` counts
            either. ``attention`` is the probability that the layer gives to the patch
            or, summed, to the tokens of the word: the mean over the heads. Special
            tokens and the proxy are left out, so it adds up to less than 1 over a
            picture or a text; the rest goes to them. Rows without any modality have no
            lines, nor has the class token of SigLIP, which has none, nor the proxy with
            ``use_proxy=False``.

        Raises
        ------
        TypeError, ValueError
            If an encoder has no such layer, or no row has an image or a text.

        See Also
        --------
        AttentionMapDisplay : Draws the maps of one row.

        Examples
        --------
        >>> from robustmm import CMPTClassifier
        >>> from robustmm.datasets import make_scenes
        >>> X, y = make_scenes(20, n_classes=2, random_state=0)
        >>> clf = CMPTClassifier(
        ...     "robustmm/tiny-clip", "robustmm/tiny-bert", max_epochs=1, random_state=0
        ... )
        >>> maps = clf.fit(X, y).attention_maps(X[:1])
        >>> maps.groupby(["modality", "token"]).size().tolist()  # 6 x 6 and 18 words
        [36, 36, 18, 18]
        """
        check_is_fitted(self)
        backbone = self.net_.module_.backbone
        if self._modalities != MODALITIES:
            raise ValueError(
                "attention_maps are of images and texts, got a classifier with "
                f"modalities={self._modalities}."
            )
        n_layers = min(backbone[modality].n_layers for modality in MODALITIES)
        check_number("layer", layer, Integral, -n_layers, n_layers - 1)
        found: list[dict] = []

        def read(module: CMPTModule, **batch: Tensor) -> Tensor:
            return module.attention(found, layer, **batch)

        values, empty = self._evaluate(X, read)
        if empty.all():
            raise ValueError(
                "At least one row must have an image or a text, got "
                f"{len(empty)} rows in which both cells are missing."
            )
        rows, split = self._check_X(X, reset=False), self._collate(backbone).tokenizer
        kept = [i for i in range(len(rows)) if not empty[i]]
        return attention_frame(
            [rows.index[i] for i in kept],
            [found[int(values[i, 0])] for i in kept],
            [split.words(rows.texts[i] or "") for i in kept],
        )

    def without_proxies(self) -> CMPTClassifier:
        """Return a fitted twin in whose sum the proxies do not count.

        Everything else is shared, and trained as it was: with the twin's ``transform``
        and this one's, the paper's figures 5 and 10 show what the proxies do for
        incomplete rows. It is for looking at, and cannot be saved.

        Returns
        -------
        CMPTClassifier

        Raises
        ------
        ValueError
            If there are no proxies.

        Examples
        --------
        >>> from robustmm import CMPTClassifier, drop_modalities
        >>> from robustmm.datasets import make_scenes
        >>> X, y = make_scenes(20, n_classes=2, random_state=0)
        >>> clf = CMPTClassifier(
        ...     "robustmm/tiny-clip", "robustmm/tiny-bert", max_epochs=1, random_state=0
        ... ).fit(X, y)
        >>> blanked = drop_modalities(X, 1.0, "text")
        >>> with_proxies = clf.transform(blanked)
        >>> bool((clf.without_proxies().transform(blanked) != with_proxies).any())
        True
        """
        check_is_fitted(self)
        if not self.use_proxy:
            raise ValueError("use_proxy must be True for proxies to leave out.")
        twin, module = copy(self), copy(self.net_.module_)
        module.proxies_count = False
        twin.net_ = self._make_net(module, torch.device(self.net_.device))
        return twin

    def _state(self) -> dict:
        if not self.net_.module_.proxies_count:
            raise ValueError(
                "What without_proxies returned cannot be saved: save the classifier "
                "that it was called on."
            )
        return super()._state()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if len(self._modalities) < 2:
            raise ValueError(
                f"modalities must be two or more for CMPT, got {self.modalities!r}."
            )
        check_number("rank", self.rank, Integral, 1)
        check_number("alpha", self.alpha, Real, 0, open="low")
        check_number("dropout", self.dropout, Real, 0, 1)
        check_number("lambda_align", self.lambda_align, Real, 0)
        check_choice("adapter", self.adapter, ADAPTERS)
        check_choice("missing", self.missing, MISSING)
        if self.missing == "placeholder" and self.use_proxy:
            raise ValueError(
                'use_proxy must be False with missing="placeholder", where nothing is '
                f"missing that a proxy stands in for, got {self.use_proxy!r}."
            )
        check_choice("proxy_init", self.proxy_init, ("class_token", "normal"))
        check_choice("align_reduction", self.align_reduction, ("sum", "mean"))
        if self.width is not None:
            check_number("width", self.width, Integral, 1)

    def _load_backbone(self, device: torch.device) -> Backbone:
        return self._join_encoders(device)

    def _check_backbone(self, backbone: Backbone) -> None:
        widths = {m: backbone[m].width for m in self._modalities}
        if self.width is None and len(set(widths.values())) > 1:
            named = [
                f"{width} for {getattr(self, self._encoder_of(modality))!r}"
                for modality, width in widths.items()
            ]
            raise ValueError(
                "CMPT adds the tokens of its encoders, so they must be equally wide, "
                f"got {' and '.join(named)}: width={min(widths.values())} would map "
                "each to that width."
            )

    @classmethod
    def _small(cls, **params):
        encoders = {
            "image_backbone": "robustmm/tiny-clip",
            "text_backbone": "robustmm/tiny-bert",
        }
        return super()._small(**encoders | params)

    def _build_module(self, backbone: Backbone, n_outputs: int) -> CMPTModule:
        return CMPTModule(
            backbone,
            n_outputs,
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            adapter=self.adapter,
            lambda_align=self.lambda_align,
            proxies=self._initial_proxies(backbone),
            detach_target=self.detach_target,
            align_reduction=self.align_reduction,
            adapt_text_ffn=self.adapt_text_ffn,
            missing=self.missing,
            width=self.width,
        )

    def _keep(self, net) -> None:
        super()._keep(net)
        net.module_.merge()

    def _restore(self, trained: dict) -> None:
        super()._restore(trained)
        self.net_.module_.merge()

    def _initial_proxies(self, backbone: Backbone) -> dict[str, Tensor] | None:
        if not self.use_proxy:
            return None
        from_token = self.proxy_init == "class_token"
        return initial_proxies(
            backbone, self._blank_batch(backbone) if from_token else None
        )
