"""DCP: deep correlated prompts in CLIP's two encoders [1]_.

Three kinds of prompts stand in front of each encoder's own tokens: *correlated* ones,
generated layer by layer from those of both encoders, *common* ones of the pattern of
missing modalities, and *dynamic* ones, read from the row itself. Unlike MAP, whose
layers have prompts of their own, a layer's prompts follow from those of the layer
before; unlike CMPT, nothing stands in for what is missing: its feature is zero.

References
----------
.. [1] Hu et al., "Deep Correlated Prompting for Visual Recognition with Missing
   Modalities", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import field
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import LinearHead, normal_prompts, pattern_index
from ..backbones import (
    Backbone,
    Stream,
    Tokens,
    encode_streams,
    projected,
    projected_width,
)
from ..checks import check_choice, check_number
from ..trained import MultimodalClassifier

MODALITIES = ("image", "text")
# In which patterns it is missing, in the order of ``pattern_index``.
MISSING = {"image": (0, 0, 1), "text": (0, 1, 0)}
NORMS = ("before", "after")


def bottleneck(
    d_in: int, d_out: int, reduction: int, norm: str | None = None
) -> nn.Sequential:
    """Linear to ``d_in / reduction``, GELU, linear: (..., d_in) to (..., d_out)."""
    hidden = max(1, d_in // reduction)
    parts = [nn.Linear(d_in, hidden), nn.GELU(), nn.Linear(hidden, d_out)]
    if norm == "before":
        parts.insert(0, nn.LayerNorm(d_in))
    elif norm == "after":
        parts.append(nn.LayerNorm(d_out))
    return nn.Sequential(*parts)


class CorrelatedPrompts(nn.Module):
    r"""Prompts of each layer, generated from both modalities' prompts before it.

    From :math:`x_0 = [a_v, a_t]`, side by side, for the layers :math:`i = 0, 1, \ldots`

    .. math::

        v_i = G_{v,i}(x_i), \quad t_i = G_{t,i}(x_i), \quad x_{i+1} = [v_i, t_i]

    with bottlenecks :math:`G`. There is one :math:`a` of each modality for rows that
    have it, and one for rows that do not.

    Parameters
    ----------
    widths : dict of str to int
        Of the streams.
    length, depth, reduction : int
    norm : {"before", "after"}
        Where the bottlenecks have their layer norm.
    cross_modal : bool
        Without, :math:`v_i` follows from :math:`v_{i-1}` alone, and :math:`t_i` from
        :math:`t_{i-1}`. A modality that is missing has no prompts then.

    Notes
    -----
    Shapes: for each layer, image prompts (3, l, d_v) and text prompts (3, l, d_t), in
    the order of :func:`~robustmm.adapters.pattern_index`.
    """

    def __init__(
        self,
        widths: dict[str, int],
        length: int,
        depth: int,
        reduction: int,
        norm: str,
        cross_modal: bool,
    ):
        super().__init__()
        self.cross_modal = cross_modal
        versions = 2 if cross_modal else 1
        self.sources = nn.ParameterDict(
            {m: normal_prompts(versions, length, d) for m, d in widths.items()}
        )
        both = sum(widths.values())
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    m: bottleneck(both if cross_modal else d, d, reduction, norm)
                    for m, d in widths.items()
                }
            )
            for _ in range(depth)
        )

    def forward(self) -> list[dict[str, Tensor]]:
        """Return the prompts of all patterns, layer by layer."""
        prompts = {m: self._source(m) for m in MODALITIES}
        layers = []
        for generators in self.layers:
            x = prompts
            if self.cross_modal:
                both = torch.cat([prompts[m] for m in MODALITIES], dim=-1)
                x = dict.fromkeys(MODALITIES, both)
            # Layer 0 too gets what is generated, as in the program; in the paper it
            # gets the sources themselves.
            prompts = {m: generators[m](x[m]) for m in MODALITIES}
            layers.append(prompts)
        return layers

    def _source(self, modality: str) -> Tensor:
        source = self.sources[modality]
        if not self.cross_modal:
            return source.expand(3, -1, -1)
        # By numbers, which are views: a list would be copied to the device each time.
        return torch.stack([source[version] for version in MISSING[modality]])


class CommonPrompts(nn.Module):
    """Prompts of a pattern of missing modalities, mapped into each encoder.

    Shapes: image prompts (3, l, d_v) and text prompts (3, l, d_t).
    """

    def __init__(self, widths: dict[str, int], length: int, reduction: int):
        super().__init__()
        self.source = normal_prompts(3, length, widths["text"])
        self.maps = nn.ModuleDict(
            {m: bottleneck(widths["text"], d, reduction) for m, d in widths.items()}
        )

    def forward(self) -> dict[str, Tensor]:
        """Return the prompts of all patterns."""
        return {m: self.maps[m](self.source) for m in MODALITIES}


class DynamicPrompts(nn.Module):
    r"""Prompts read from what enters an encoder's first layer, by attention.

    :math:`\mathrm{softmax}((g W_q + b_q) (x W_k)^\top / \sqrt{d}) \, (x W_v + b_v)
    W_o + b_o`, where :math:`g` depends on whether the row has the other modality.

    Parameters
    ----------
    width, length : int
    query_std : float
        Standard deviation of :math:`g` at the start.
    train_queries : bool
        Otherwise they stay as they were drawn.

    Notes
    -----
    Shapes: tokens (B, T, d), their mask (B, T), whether a row is complete (B,);
    prompts (B, l, d).
    """

    def __init__(self, width: int, length: int, query_std: float, train_queries: bool):
        super().__init__()
        # For rows with and without the other modality: of the third pattern, this
        # encoder is not run.
        queries = query_std * torch.randn(2, length, width)
        # As a buffer they are saved: drawn anew, an opened model would not be the same.
        if train_queries:
            self.queries = nn.Parameter(queries)
        else:
            self.register_buffer("queries", queries)
        # Holds the weights under torch's names, with their initialisation; it is never
        # called.
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor, complete: Tensor) -> Tensor:
        """Return the prompts of each row."""
        parts = self.attention
        w_query, w_key, w_value = parts.in_proj_weight.chunk(3)
        b_query, _, b_value = parts.in_proj_bias.chunk(3)
        # No token is projected: the keys' weight goes to the few queries, the values'
        # to the few sums. The keys' bias is the same for all tokens and cancels.
        queries = F.linear(self.queries, w_query, b_query) @ w_key  # (2, l, d)
        # The program's attention has no mask: there a row's prompts depend on how far
        # its text is padded.
        # With a dimension for its one head, without which it cannot be exported.
        queries, x = queries[complete.long()][:, None], x[:, None]
        means = F.scaled_dot_product_attention(
            queries, x, x, attn_mask=mask[:, None, None]
        )  # (B, 1, l, d)
        return parts.out_proj(F.linear(means[:, 0], w_value, b_value))


class DCPModule(nn.Module):
    """CLIP with prompts in its first layers, and a linear head on both embeddings.

    Parameters
    ----------
    backbone : Backbone
    n_outputs : int
    correlated : CorrelatedPrompts or None
    common : CommonPrompts or None
    dynamic : ModuleDict of DynamicPrompts by modality, or None

    Notes
    -----
    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d), the projected image before the text,
    zero where missing; logits (B, n_outputs).
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        correlated: CorrelatedPrompts | None,
        common: CommonPrompts | None,
        dynamic: nn.ModuleDict | None,
    ):
        super().__init__()
        self.backbone = backbone
        self.correlated = correlated
        self.common = common
        self.dynamic = dynamic
        width = sum(projected_width(stream) for stream in backbone.streams.values())
        self.head = LinearHead(width, n_outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return logits, (B, n_outputs)."""
        return self.head(self.features(present, **batch))

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the embeddings of image and text side by side, (B, d)."""
        # These depend on a row's pattern alone: three of each for the whole batch.
        layers = self.correlated() if self.correlated else []
        common = self.common() if self.common else None

        def encode(stream: Stream, present: Tensor, batch: dict) -> Tensor:
            # Of the rows that this encoder is run on; a closure over all would not fit.
            own, pattern = stream.modality, pattern_index(present)

            def before_layer(i: int, tokens: Tokens) -> Tokens:
                if i == 0:
                    # Read before the common prompts are put in front of them.
                    rows, mask = tokens[own], tokens.mask_of(own)
                    if common:
                        tokens = tokens.insert(
                            "common", common[own][pattern], before=own
                        )
                    if self.dynamic:
                        prompts = self.dynamic[own](rows, mask, present.all(dim=1))
                        tokens = tokens.insert("dynamic", prompts, before=own)
                if i < len(layers):
                    # In a causal encoder they see none of the others, being in front.
                    prompts, first = layers[i][own][pattern], tokens.names[0]
                    tokens = tokens.put("correlated", prompts, before=first)
                return tokens

            tokens = stream.run(stream.embed(**batch), before_layer)
            return projected(stream, stream.pool(tokens))

        # An encoder is not run on rows without its modality: values and gradients are
        # those of a dummy whose feature is set to zero.
        return torch.cat(encode_streams(self.backbone, present, batch, encode), dim=1)


class DCPClassifier(MultimodalClassifier):
    """Deep correlated prompts in CLIP's two encoders [1]_.

    Defaults are the authors' prompts, as in their program where the paper has others,
    in batches for small tables, with a head that starts from a probe.
    ``DCPClassifier(**DCPClassifier.PAPER)`` is their whole recipe.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a CLIP model.
    prompt_length : int
        Prompts in each encoder, a multiple of 3: a third of them correlated, a third
        common, a third dynamic.
    prompt_depth : int
        Layers, from the first, that get correlated prompts of their own, at most as
        many as both encoders have. Those of the last one go on through the others.
    reduction : int
        How many times narrower bottlenecks are than what they read.
    use_correlated : bool
        Whether there are correlated prompts.
    use_common : bool
        Whether there are prompts of each pattern of missing modalities.
    use_dynamic : bool
        Whether there are prompts read from the row.
    cross_modal : bool
        Whether the correlated prompts of one encoder depend on those of the other.
    prompt_norm : {"before", "after"}
        Whether generators of correlated prompts have their layer norm in front, as in
        the authors' program, or behind, as in the paper.
    train_queries : bool
        Whether the queries of the dynamic prompts are trained. In the authors' program
        they stay as they are drawn.
    query_std : float
        Standard deviation of these queries at the start. With 0.02 a row's dynamic
        prompts are nearly the same: the mean of its tokens, mapped.
    train_output : bool
        Whether the final norm of both encoders and the projection of images are
        trained, as in the authors' program. The paper trains prompts and head.
    max_text_length : int, optional
        Longest text in tokens; None means CLIP's 77, as in the paper.

    References
    ----------
    .. [1] Hu et al., "Deep Correlated Prompting for Visual Recognition with Missing
       Modalities", NeurIPS 2024.

    Examples
    --------
    >>> from robustmm import DCPClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> small = {"prompt_depth": 2, "max_epochs": 2, "random_state": 0}
    >>> clf = DCPClassifier("robustmm/tiny-clip", **small)
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    STREAMS = MODALITIES
    PAPER: ClassVar[dict] = {
        "backbone": "openai/clip-vit-base-patch16",
        "prompt_length": 36,
        "prompt_depth": 6,
        "reduction": 16,
        "prompt_norm": "before",
        "train_queries": False,
        "query_std": 0.02,
        "train_output": True,
        "max_epochs": 20,
        "lr": 1e-2,
        "weight_decay": 2e-2,
        "lr_schedule": "linear",
        "warmup": 0.1,
        # The program's, as 64 times 4; the paper says 4.
        "batch_size": 256,
        "head_init": "random",
        "head_lr": None,
        "modality_dropout": 0.0,
        "early_stopping": True,
        "n_iter_no_change": 20,
    }

    backbone: str | Path = field(default="openai/clip-vit-base-patch16", kw_only=False)
    prompt_length: int = 36
    prompt_depth: int = 6
    reduction: int = 16
    use_correlated: bool = True
    use_common: bool = True
    use_dynamic: bool = True
    cross_modal: bool = True
    prompt_norm: str = "before"
    train_queries: bool = True
    query_std: float = 0.02
    train_output: bool = True
    max_epochs: int = 12
    lr: float = 1e-2
    weight_decay: float = 2e-2
    batch_size: int = 32
    head_init: str = "probe"
    head_lr: float | None = 1e-3
    # As many as epochs: the best epoch is kept, and none is left out.
    n_iter_no_change: int = 20

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("prompt_length", "prompt_depth", "reduction"):
            check_number(name, getattr(self, name), Integral, 1)
        if self.prompt_length % 3:
            raise ValueError(
                f"prompt_length must be a multiple of 3, got {self.prompt_length!r}."
            )
        check_choice("prompt_norm", self.prompt_norm, NORMS)
        check_number("query_std", self.query_std, Real, 0)

    @classmethod
    def _small(cls, **params):
        small = {"prompt_length": 6, "prompt_depth": 2, "reduction": 4}
        return super()._small(**small | params)

    def _optimizer_options(self) -> dict:
        return {
            "optimizer__betas": (0.9, 0.98),
            "optimizer__param_groups": [("*bias", {"weight_decay": 0.0})],
        }

    def _build_module(self, backbone: Backbone, n_outputs: int) -> DCPModule:
        widths = {m: backbone[m].width for m in MODALITIES}
        length, reduction = self.prompt_length // 3, self.reduction
        correlated = common = dynamic = None
        if self.use_correlated:
            depth = min(self.prompt_depth, *(backbone[m].n_layers for m in MODALITIES))
            options = depth, reduction, self.prompt_norm, self.cross_modal
            correlated = CorrelatedPrompts(widths, length, *options)
        if self.use_common:
            common = CommonPrompts(widths, length, reduction)
        if self.use_dynamic:
            options = length, self.query_std, self.train_queries
            dynamic = nn.ModuleDict(
                {m: DynamicPrompts(d, *options) for m, d in widths.items()}
            )
        if self.train_output:  # the projection of texts stays frozen
            image = ("final_norm", "projection")
            # Of this view of the backbone; the weights that all share stay frozen.
            backbone["image"].thaw(lambda name: name.startswith(image))
            backbone["text"].thaw(lambda name: name.startswith("final_norm"))
        return DCPModule(backbone, n_outputs, correlated, common, dynamic)
