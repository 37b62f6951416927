"""MoRA: low-rank adapters whose shared part couples CLIP's two encoders.

Zhao, Ahuja, Yu, Shen and Narayanan, "MoRA: Missing Modality Low-Rank Adaptation for
Visual Recognition", arXiv:2511.06225, 2025.

The last layers of both encoders get a low-rank update of their own and one that depends
on the Gram matrix of the other encoder's factor, so both move together. Unlike CMPT the
encoder of a missing modality reads a constant, a white image or an empty text; unlike
the prompt methods nothing is left to compute at prediction, as the updates are merged
into the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import field
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..adapters import GRAMS, PARAMETRIZATIONS, GramLinear, GramPair, LinearHead
from ..backbones import (
    Backbone,
    FrozenPrefix,
    HostBatch,
    take_rows,
    text_keys,
    upload,
)
from ..backbones.export import plain_clip, save_clip
from ..backbones.geometry import modality_geometry
from ..backbones.prefix import KnownImages, Store, image_keys
from ..checks import check_choice, check_names, check_number
from ..trained import MultimodalClassifier

MODALITIES = ("image", "text")
INPUTS = {"image": ("pixel_values",), "text": ("input_ids", "attention_mask")}
STATE_PRECISIONS = ("float32", "float16")
POSITIONS = ("front", "middle", "rear")
PROJECTIONS = ("query", "key", "value", "out")
INITS = ("official", "identity")
GAPS = ("means", "pairs")
JOINS = ("concat", "align", "fusion")
# With init="identity": norm of the shared update over that of the frozen weight.
IDENTITY_TOLERANCE = 1e-2


class MoRAModule(nn.Module):
    r"""CLIP with Gram adapters in a block of layers, and a linear head.

    The feature of a row is :math:`[z_v; z_t]`, the projected embeddings of image and
    text, not normalised. A missing image is white and a missing text empty, as the
    batch has them; as that is the same in all rows, each is run once.

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, 2p) for embeddings of width p; logits
    (B, C).

    Parameters
    ----------
    backbone : Backbone
    n_outputs : int
    layers : mapping of str to range
        The adapted layers of each encoder, as many in one as in the other. The first is
        where the frozen prefix ends.
    projections : tuple of str
        The adapted linears; none leaves the encoders frozen.
    rank, gram, init, use_shared, use_specific, join
        See :class:`MoRAClassifier`.
    store : Store or None
        Where the states that enter the first adapted layer are kept.
    state_precision : str
        What they are kept in.
    **options
        Further parameters of :class:`~robustmm.adapters.gram.GramLinear`.
    """

    reads_host = True
    # States are looked up first: what is known, no picture is decoded for.
    recalls = True

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        layers: Mapping[str, range],
        projections: tuple[str, ...] = (),
        *,
        rank: int = 4,
        gram: str = "cross",
        init: str = "official",
        use_shared: bool = True,
        use_specific: bool = True,
        join: str = "concat",
        store: Store | None = None,
        state_precision: str = "float32",
        **options,
    ):
        super().__init__()
        self.backbone = backbone
        self.start = {m: layers[m].start for m in MODALITIES}
        self.adapters: dict[tuple[str, int, str], GramLinear] = {}
        widths = [backbone[m].width for m in MODALITIES]
        options |= {"rank": rank if use_specific else 0, "halved": init == "identity"}
        self.pairs = nn.ModuleList()
        for places in zip(*(layers[m] for m in MODALITIES), strict=True):
            pair = GramPair(*widths, rank, gram) if use_shared else None
            adapters = self._adapt(places, projections, pair, options)
            if use_shared and adapters:
                self.pairs.append(pair)
                if init == "identity":
                    pair.shrink(adapters, IDENTITY_TOLERANCE)
        widths = [backbone[m].projection.out_features for m in MODALITIES]
        self.join = _joining(join, widths)
        width = sum(widths) if join != "fusion" else max(widths)
        self.head = LinearHead(width, n_outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        self.prefixes = frozen_prefixes(backbone, self.start, store, state_precision)
        # Embeddings (p,) of the white image and the empty text, while they are merged.
        self.constants: dict[str, Tensor] = {}

    def _adapt(
        self, places: tuple[int, int], projections, pair: GramPair | None, options: dict
    ) -> list[GramLinear]:
        """Wrap the linears of one layer of each encoder."""
        made = []
        for modality, layer in zip(MODALITIES, places, strict=True):
            stream = self.backbone[modality]
            for name in projections:
                frozen = stream.linear(layer, name)
                made.append(GramLinear(frozen, pair, modality, **options))
                stream.wrap(layer, name, made[-1])
                self.adapters[modality, layer, name] = made[-1]
        return made

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits, (B, C)."""
        return self.head(self.features(**batch))

    def features(self, **batch: Tensor) -> Tensor:
        """Return what the head reads: the embeddings side by side, or joined."""
        return self.join(self.embeddings(**batch))

    def embeddings(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the two embeddings side by side, (B, 2p)."""
        host = HostBatch.of(present, batch)
        parts = [self._embed(modality, host, batch) for modality in MODALITIES]
        return torch.cat(parts, dim=1)

    def merge(self, **blank: Tensor) -> None:
        """Compute the adapted weights, and what they make of missing cells, once.

        Training forgets both.

        Parameters
        ----------
        **blank : Tensor
            The batch of one row without any modality.
        """
        for adapter in self.adapters.values():
            adapter.merge()
        host, row = HostBatch.of(blank["present"], blank), torch.zeros(1).long()
        with torch.inference_mode(False), torch.no_grad():
            self.constants = {m: self._run(m, row, host, blank)[0] for m in MODALITIES}

    def train(self, mode: bool = True) -> MoRAModule:
        """Set the mode of adapters and head."""
        if mode:
            self.constants = {}
        return super().train(mode)

    def _embed(self, modality: str, host: HostBatch, batch: dict) -> Tensor:
        """Projected embeddings (B, p) of one encoder, its constant run once."""
        rows, missing = host.rows(modality), host.missing(modality)
        constant = self.constants.get(modality)
        picked = rows if constant is not None else torch.cat([rows, missing[:1]])
        embedded = [self._run(modality, picked, host, batch)] if len(picked) else []
        if constant is not None:
            embedded.append(constant[None])
        embedded = torch.cat(embedded)
        place = torch.full((len(host.present),), len(rows))  # of the constant
        place[rows] = torch.arange(len(rows))
        return embedded[upload(place, embedded.device)]

    def _run(self, modality: str, rows: Tensor, host: HostBatch, batch: dict) -> Tensor:
        stream, prefix = self.backbone[modality], self.prefixes[modality]
        inputs = {name: batch[name] for name in INPUTS[modality] if name in batch}
        inputs = take_rows({**inputs, "host": host}, rows)
        keys = _keys(modality, inputs["host"]) if prefix.store is not None else None
        tokens = prefix(inputs, keys)
        pooled = stream.pool(stream.run(tokens, start=self.start[modality]))
        return stream.projection(pooled)


class AlignedEmbeddings(nn.Module):
    """A linear layer for each of two embeddings, which start as they are.

    Shapes: (B, 2p) to (B, 2p).
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.widths = list(widths)
        self.linears = nn.ModuleList(nn.Linear(width, width) for width in widths)
        for linear in self.linears:
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, both: Tensor) -> Tensor:
        """Map both embeddings."""
        parts = both.split(self.widths, dim=1)
        mapped = [f(part) for f, part in zip(self.linears, parts, strict=True)]
        return torch.cat(mapped, dim=1)


def _joining(join: str, widths: Sequence[int]) -> nn.Module:
    """Return what stands between the embeddings and the head."""
    if join == "align":
        return AlignedEmbeddings(widths)
    return nn.Linear(sum(widths), max(widths)) if join == "fusion" else nn.Identity()


def _keys(modality: str, host: HostBatch) -> list[bytes] | None:
    """Name the cells of a batch; None if its images have no names."""
    if modality == "text":
        return text_keys(host.input_ids, host.attention_mask)
    return None if host.image_key is None else image_keys(host.image_key)


def frozen_prefixes(
    backbone: Backbone,
    starts: Mapping[str, int],
    store: Store | None,
    dtype: str = "float32",
) -> dict[str, FrozenPrefix]:
    """Return, by modality, the frozen layers before the first adapted one."""
    identity = ""
    if store is not None:
        settings = json.dumps(backbone.image_config, sort_keys=True)
        identity = backbone.fingerprint + settings
    # Before layer 0 there is nothing worth keeping.
    return {
        m: FrozenPrefix(backbone[m], start, store if start else None, identity, dtype)
        for m, start in starts.items()
    }


def adapted_layers(n_total: int, n_layers: int, position: str) -> range:
    """Return the block of layers, counted from 0.

    Examples
    --------
    >>> [list(adapted_layers(12, 2, p)) for p in ("front", "middle", "rear")]
    [[0, 1], [5, 6], [10, 11]]
    >>> list(adapted_layers(24, 2, "rear"))
    [22, 23]
    """
    free = n_total - n_layers
    start = {"front": 0, "middle": free // 2, "rear": free}[position]
    return range(start, start + n_layers)


class MoRAClassifier(MultimodalClassifier):
    """Low-rank adapters that couple CLIP's encoders, merged for prediction [1]_.

    Defaults are the authors' adapters for Food-101 (section A.3 and their program),
    with the learning rate, the batches and the head's start that did best on small
    tables. ``PAPER`` has the recipes of the three data sets: MM-IMDb's with
    ``projections=("query", "key")`` and ``strength=0.001``, Hateful Memes' with
    ``projections=("key", "value")``, ``rank=8`` and ``strength=0.1``, all keeping the
    epoch that is best on validation rows.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a CLIP model: an image and a text
        encoder with projections into one space.
    rank : int
        Rank of the shared factors and of the specific updates.
    strength : float
        Fixed factor of both updates.
    n_layers : int
        Adapted layers of each encoder.
    position : {"front", "middle", "rear"}
        Which layers. Those of the two encoders are paired in order, in the rear from
        the last, however many layers each has (appendix B).
    projections : sequence of {"query", "key", "value", "out"}
        The adapted linears of attention; those of one layer share a pair of factors.
    parametrization : {"column_norm", "additive"}
        How an update meets the frozen weight: as the authors' program has it, with a
        trained magnitude per column, or as equation 4 is printed, with a scalar.
    init : {"official", "identity"}
        The authors' start, where the shared update is many times larger than the frozen
        weight; or one that changes it by at most a hundredth.
    gram : {"cross", "own", "identity", "learnable"}
        The matrix between the shared factors: the other encoder's Gram matrix, the
        encoder's own, none, or a free one for each encoder and layer.
    use_shared : bool
        Whether there is a shared branch. Without it this is DoRA with its gradient
        through the norm, or, if additive, LoRA with a trained scale of the frozen
        weight.
    use_specific : bool
        Whether there is a specific branch.
    w0_residual : bool
        Subtract the frozen weight, a term that equation 2 has and equation 4 drops.
    dropout : float
        Dropout of the input of each adapted linear, frozen part included.
    join : {"concat", "align", "fusion"}
        What the head reads: both embeddings; both, each behind a trained linear layer;
        or one trained linear layer of both, of the width of one. With
        ``use_shared=False`` the last two are our reading of table 5's "Align" and
        "Fusion", which the paper describes in a sentence.
    max_text_length : int, optional
        Longest text in tokens; the paper uses CLIP's 77.
    weight_decay : float
        AdamW's decoupled weight decay, of the magnitudes too.
    cache : {"memory", None} or path-like
        Whether decoded images, and what enters the first adapted layers, are kept: in
        memory, up to 1 and 2 GiB, or in an existing folder. Epochs, folds, candidates
        of a grid and predictions share them. A row of CLIP B/16 takes 0.6 MB, and 2 kB
        per token of text; where 2 GiB are too little, take a folder.
    state_precision : {"float32", "float16"}
        What the kept states are rounded to. 16 bits hold twice as many, and are an
        approximation.

    Raises
    ------
    ValueError
        In ``fit``, if the backbone is not such a pair of encoders, or has fewer layers.

    References
    ----------
    .. [1] Zhao, Ahuja, Yu, Shen and Narayanan, "MoRA: Missing Modality Low-Rank
       Adaptation for Visual Recognition", arXiv:2511.06225, 2025, equations 2-4.

    Examples
    --------
    >>> from robustmm import MoRAClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = MoRAClassifier("robustmm/tiny-clip", max_epochs=2, random_state=0)
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    STREAMS = MODALITIES
    # Section A.3 and the authors' program, which keeps the best epoch.
    PAPER: ClassVar[dict] = {
        name: {
            "backbone": "openai/clip-vit-base-patch16",
            "projections": projections,
            "rank": rank,
            "strength": strength,
            "n_layers": 2,
            "position": "rear",
            "parametrization": "column_norm",
            "init": "official",
            "gram": "cross",
            "dropout": 0.1,
            "max_text_length": None,  # CLIP's 77
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "lr": 1e-2,
            "weight_decay": weight_decay,
            "lr_schedule": "cosine",
            "warmup": 0.1,
            "head_init": "random",
            "head_lr": None,
            "modality_dropout": 0.0,
            "early_stopping": True,
            "n_iter_no_change": 20,
            "scoring": scoring,
        }
        for (
            name,
            projections,
            rank,
            strength,
            max_epochs,
            weight_decay,
            batch_size,
            scoring,
        ) in (
            ("food101", ("query", "value"), 4, 0.01, 20, 0.02, 256, "accuracy"),
            ("mmimdb", ("query", "key"), 4, 0.001, 20, 0.02, 256, "f1_macro"),
            ("hateful_memes", ("key", "value"), 8, 0.1, 5, 0.1, 16, "roc_auc"),
        )
    }

    backbone: str | Path = field(default="openai/clip-vit-base-patch16", kw_only=False)
    rank: int = 4
    strength: float = 0.01
    n_layers: int = 2
    position: str = "rear"
    projections: Sequence[str] = ("query", "value")
    parametrization: str = "column_norm"
    init: str = "official"
    gram: str = "cross"
    use_shared: bool = True
    use_specific: bool = True
    w0_residual: bool = False
    dropout: float = 0.1
    join: str = "concat"
    state_precision: str = "float32"

    max_epochs: int = 12
    batch_size: int = 32
    lr: float = 3e-2
    head_init: str = "probe"
    head_lr: float | None = 1e-3
    weight_decay: float = 0.02
    lr_schedule: str = "cosine"
    n_iter_no_change: int = 20

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("rank", self.rank, Integral, 1)
        check_number("strength", self.strength, Real, 0, open="low")
        check_number("n_layers", self.n_layers, Integral, 1)
        check_number("dropout", self.dropout, Real, 0, 1)
        check_choice("position", self.position, POSITIONS)
        check_choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        check_choice("init", self.init, INITS)
        check_choice("gram", self.gram, GRAMS)
        check_choice("join", self.join, JOINS)
        check_choice("state_precision", self.state_precision, STATE_PRECISIONS)
        check_names("projections", self.projections, PROJECTIONS)
        if not (self.use_shared or self.use_specific):
            raise ValueError(
                "One of use_shared and use_specific must be true, "
                f"got {self.use_shared!r} and {self.use_specific!r}."
            )

    def _check_backbone(self, backbone: Backbone) -> None:
        depth = min(backbone[modality].n_layers for modality in MODALITIES)
        if self.n_layers > depth:
            raise ValueError(
                f"n_layers must be at most {depth}, the layers of the shallower "
                f"encoder of {self.backbone!r}, got {self.n_layers}."
            )

    def _build_module(
        self, backbone: Backbone, n_outputs: int, *, adapted: bool = True
    ) -> MoRAModule:
        return MoRAModule(
            backbone,
            n_outputs,
            self._layers(backbone),
            tuple(self.projections) if adapted else (),
            rank=self.rank,
            gram=self.gram,
            init=self.init,
            use_shared=self.use_shared,
            use_specific=self.use_specific,
            join=self.join if adapted else "concat",
            store=self._state_cache(),
            state_precision=self.state_precision,
            strength=self.strength,
            dropout=self.dropout,
            parametrization=self.parametrization,
            residual=self.w0_residual,
        )

    def _layers(self, backbone: Backbone) -> dict[str, range]:
        depths = {modality: backbone[modality].n_layers for modality in MODALITIES}
        place = self.n_layers, self.position
        return {m: adapted_layers(depth, *place) for m, depth in depths.items()}

    def _recall(self, backbone: Backbone) -> KnownImages | None:
        start = self._layers(backbone)["image"].start
        options = self._state_cache(), self.state_precision
        prefix = frozen_prefixes(backbone, {"image": start}, *options)["image"]
        device = next(backbone.parameters()).device
        return prefix.known(device.type, self._number(device))

    def _optimizer_options(self) -> dict:
        return {"optimizer__betas": (0.9, 0.98)}

    def _keep(self, net) -> None:
        super()._keep(net)
        self._merge()

    def _restore(self, trained: dict) -> None:
        super()._restore(trained)
        self._merge()

    def _merge(self) -> None:
        blank = self._blank_batch(self.net_.module_.backbone)
        self.net_.call(MoRAModule.merge, blank)

    def merged_state_dict(self) -> dict[str, Tensor]:
        """Return the adapted CLIP and the head as plain weights.

        Returns
        -------
        dict of str to Tensor
            Those of ``transformers.CLIPModel`` under its own names, and ``head.weight``
            (n_classes, 2p) and ``head.bias`` (n_classes,).

        Raises
        ------
        ValueError
            If the files of the backbone have changed since the training.
        """
        return self._merged_model().state_dict() | self._head()

    def to_huggingface(self, path: str | Path) -> None:
        """Write a CLIP checkpoint that needs only transformers, and the head.

        The folder holds what ``CLIPModel.from_pretrained`` and ``AutoTokenizer`` read,
        ``head.safetensors`` with ``head.weight`` (n_classes, 2p) and ``head.bias``, and
        ``labels.json``. Logits are the head applied to the projected embeddings of
        image and text, side by side and not normalised, where a missing image is white
        and a missing text empty.

        Parameters
        ----------
        path : path-like
            A folder; made if there is none.

        Raises
        ------
        ValueError
            If the files of the backbone have changed since the training.
        """
        from safetensors.torch import save_file

        model, folder = self._merged_model(), Path(path)
        save_clip(model, self.net_.module_.backbone, folder)
        save_file(self._head(), folder / "head.safetensors")
        labels = {"classes": self.classes_.tolist(), "multilabel": self._multilabel}
        text = json.dumps(labels, indent=2, ensure_ascii=False, default=str)
        (folder / "labels.json").write_text(text + "\n", encoding="utf-8")

    def _merged_model(self) -> nn.Module:
        check_is_fitted(self)
        module = self.net_.module_
        files = self._load_backbone(torch.device("cpu"))
        if files.fingerprint != module.backbone.fingerprint:
            raise ValueError(
                f"The files of {self.backbone!r} must be those of the training, but "
                "they have changed."
            )
        with torch.no_grad():
            weights = {place: a.weight() for place, a in module.adapters.items()}
        return plain_clip(module.backbone, weights)

    def _head(self) -> dict[str, Tensor]:
        module = self.net_.module_
        weight, bias = module.head.weight.detach(), module.head.bias.detach()
        if self.join != "concat":  # linear layers, which the head takes in
            width = module.backbone["image"].projection.out_features
            with torch.no_grad():
                start = weight.new_zeros(1, 2 * width)
                unit = torch.eye(2 * width, device=weight.device)
                offset = module.join(start)
                weight, bias = (
                    weight @ (module.join(unit) - offset).T,
                    bias + (offset @ weight.T)[0],
                )
        return {"head.weight": weight.cpu().clone(), "head.bias": bias.cpu().clone()}

    def spectra(self) -> pd.DataFrame:
        """Return the spectra of the Gram matrices and of the frozen weights.

        The paper's figure 4: how much of each is in its first directions.

        Returns
        -------
        DataFrame
            A row per value: ``layer``, counted from 0, and ``modality`` say where;
            ``matrix`` is ``"gram"``, the Gram matrix of the modality's shared factor,
            or the name of an adapted projection, its frozen weight; ``index``, from 1,
            is the place of the eigenvalue or singular value, and ``share`` the value
            over the sum of all. Of the weights, as many are given as the Gram matrices
            have.

        Raises
        ------
        ValueError
            If there is no shared branch.
        """
        check_is_fitted(self)
        module, records = self.net_.module_, []
        if not module.pairs:
            raise ValueError("use_shared must be True for Gram matrices, got False.")
        for (modality, layer, name), adapter in module.adapters.items():
            factor = adapter.pair.factors[modality].detach().float().cpu()
            matrices = {"gram": factor, name: adapter.frozen.weight.float().cpu()}
            for matrix, value in matrices.items():
                found = torch.linalg.svdvals(value)
                # Eigenvalues of S S^T are squares of the factor's singular values.
                found = found**2 if matrix == "gram" else found
                shares = (found / found.sum())[: self.rank].tolist()
                places = enumerate(shares, start=1)
                records += [(layer, modality, matrix, i, share) for i, share in places]
        columns = ["layer", "modality", "matrix", "index", "share"]
        # The projections of a layer share their Gram matrix.
        return pd.DataFrame(records, columns=columns).drop_duplicates(columns[:4])

    def modality_gap(
        self,
        X: pd.DataFrame,
        y: ArrayLike | None = None,
        *,
        normalize: bool = False,
        of: str = "means",
    ) -> pd.DataFrame:
        """Measure where the training has moved the embeddings, class by class.

        The analysis of the paper's tables 2 and 3, on the projected embeddings. An
        image or a text that is missing does not count. The paper does not say whether
        it normalises: its distances of CLIP are those of unit vectors, its distances of
        MoRA are not.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``; the paper takes complete ones.
        y : array-like of shape (n,), or indicator matrix of shape (n, L), optional
            Their classes; None takes the predicted ones.
        normalize : bool
            Give each embedding length 1 first.
        of : {"means", "pairs"}
            Compare the mean image with the mean text of a class; or the image of each
            complete row with its text, and average.

        Returns
        -------
        DataFrame
            Indexed by class, with ``n_images`` and ``n_texts``; ``distance`` and
            ``angle`` (in degrees) between image and text embeddings,
            and the same of the frozen backbone as ``frozen_distance`` and
            ``frozen_angle`` (table 2); the mean distance and angle between the adapted
            and the frozen embedding of a cell as ``image_drift``,
            ``image_drift_angle``, ``text_drift`` and ``text_drift_angle`` (table 3).
            NaN where there is nothing to average.

        Raises
        ------
        ValueError
            If an image cannot be read, or ``of`` is neither.
        """
        check_choice("of", of, GAPS)
        labels = self.predict(X) if y is None else np.asarray(y)
        members = labels.T > 0 if self._multilabel else labels == self.classes_[:, None]
        present = self._check_X(X, reset=False).present
        there = dict(zip(MODALITIES, present.T, strict=True))
        device = torch.device(self.net_.device)
        frozen = self._untrained(self._load_backbone(device), device, adapted=False)
        nets = self.net_, self._make_net(frozen, device)
        embeddings = [self._embeddings(net, X) for net in nets]
        rows = [
            modality_geometry(
                *embeddings,
                {m: here & inside for m, here in there.items()},
                normalize=normalize,
                of=of,
            )
            for inside in members
        ]
        return pd.DataFrame(rows, index=pd.Index(self.classes_, name="class"))

    def _embeddings(self, net, X: pd.DataFrame) -> dict[str, np.ndarray]:
        """Embeddings (n, p) by modality that a net makes of all rows."""
        twin = copy(self)
        twin.net_, twin.on_bad_image = net, "raise"
        features, _ = twin._evaluate(X, MoRAModule.embeddings)
        width = net.module_.backbone["image"].projection.out_features
        return {"image": features[:, :width], "text": features[:, width:]}
