"""RAGPT: prompts and stand-ins from similar training rows that are complete [1]_.

A second frozen encoder finds, for each row, complete training rows that resemble it in
what it has. From their tokens a missing cell is generated, prompts are read, and their
labels become one more prompt. Unlike all others here, the fitted model holds training
data. The paper's formulas are taken from the authors' program.

References
----------
.. [1] Lang et al., "Retrieval-Augmented Dynamic Prompt Tuning for Incomplete Multimodal
   Learning", AAAI 2025.
"""

from __future__ import annotations

import logging
from dataclasses import field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from ..adapters import RetrievedPrompts, TiedHead, TokenFilter, trained_pooler
from ..backbones import (
    Backbone,
    FrozenFeatures,
    HostBatch,
    MissingStream,
    Stream,
    Tokens,
    load_backbone,
    projected_width,
    upload,
)
from ..checks import check_choice, check_number
from ..data.targets import Targets
from ..trained import MultimodalClassifier

logger = logging.getLogger("robustmm")

MODALITIES = ("image", "text")
POOLS = ("label", "cls")
LABEL_CHANNELS = ("image", "text", "mean")


class Found(NamedTuple):
    """Which rows of the memory each part of a context is from, (B, K) each."""

    image: Tensor
    text: Tensor
    labels: Tensor
    more_labels: Tensor | None = None  # to be averaged with


class RetrievalMemory(nn.Module):
    """Complete training rows: two vectors to find each by, its cells and its labels.

    Parameters
    ----------
    n_rows : int
    widths : (int, int)
        Of the vectors of images and of texts, which have unit length.
    image : (int, int)
        Tokens of an image and their width; they are kept in 16 bits.
    n_tokens : int
        Of a text, padded.
    n_labels : int or None
        Columns of an indicator matrix; None for one label a row.
    """

    def __init__(
        self,
        n_rows: int,
        widths: tuple[int, int],
        image: tuple[int, int],
        n_tokens: int,
        n_labels: int | None,
    ):
        super().__init__()
        labels = torch.zeros(n_rows, dtype=torch.long)
        if n_labels is not None:
            labels = torch.zeros(n_rows, n_labels)
        # Buffers: they are saved with what is trained, and go to its device.
        self.register_buffer("image_vectors", torch.zeros(n_rows, widths[0]))
        self.register_buffer("text_vectors", torch.zeros(n_rows, widths[1]))
        self.register_buffer("images", torch.zeros(n_rows, *image, dtype=torch.half))
        self.register_buffer("texts", torch.zeros(n_rows, n_tokens, dtype=torch.long))
        self.register_buffer("lengths", torch.ones(n_rows, dtype=torch.long))
        self.register_buffer("labels", labels)
        # Of the fit alone: which rows must not be found by which.
        self.register_buffer("groups", None, persistent=False)

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(
        self, modality: str, vectors: Tensor, k: int, group: Tensor | None
    ) -> Tensor:
        """Return the rows most similar in one modality, (B, w) to (B, k).

        In a fit, those of a row's own ``group`` (B,) are left out.
        """
        similarity = vectors @ getattr(self, f"{modality}_vectors").T  # (B, M)
        if group is not None and self.groups is not None:
            own = group[:, None] == self.groups
            similarity = similarity.masked_fill(own, -torch.inf)
        return similarity.topk(k, dim=1).indices

    def check(self, n_words: int, n_classes: int) -> None:
        """Raise ValueError for numbers that no fit leaves."""
        limits = {"texts": n_words, "lengths": self.texts.shape[1] + 1}
        if self.labels.ndim == 1:
            limits["labels"] = n_classes
        for name, limit in limits.items():
            values = getattr(self, name)
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise ValueError(
                    f"The memory's {name} must be in [0, {limit}), got "
                    f"{int(values.min())} to {int(values.max())}."
                )


class RAGPTModule(nn.Module):
    """ViLT with a context from a memory, and a head tied to the labels' embeddings.

    Parameters
    ----------
    backbone : Backbone
        ViLT; its ``second`` is the encoder that rows are found with.
    memory : RetrievalMemory
    head : TiedHead
    filters : ModuleDict of TokenFilter by modality, or None
        Generate what is missing; without, it is the mean of what was found.
    prompter : RetrievedPrompts or None
    prompt_layer, n_neighbors : int
    label_token : bool
    pool : {"label", "cls"}
    label_channel : {"image", "text", "mean"}
    mask_padding : bool
    store : Store or None
        Where the vectors of images are kept, over the epochs.

    Notes
    -----
    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T), the same for the second model, ``group`` (B,); features
    (B, d), or (B, 2d) with the label token: the pooled row and the mean embedding of
    the labels found; logits (B, C).
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        memory: RetrievalMemory,
        head: TiedHead,
        *,
        filters: nn.ModuleDict | None,
        prompter: RetrievedPrompts | None,
        prompt_layer: int,
        n_neighbors: int,
        label_token: bool,
        pool: str,
        label_channel: str,
        mask_padding: bool,
        store,
    ):
        super().__init__()
        stream = backbone["joint"]
        self.backbone = backbone
        self.memory = memory
        self.head = head
        self.filters = filters
        self.prompter = prompter
        self.prompt_layer = prompt_layer
        self.n_neighbors = n_neighbors
        self.label_token = label_token
        self.pool = pool
        self.label_channel = label_channel
        self.mask_padding = mask_padding
        self.pooler = trained_pooler(stream.pooler, stream.width)
        self.encode = FrozenFeatures(backbone.second, "token", store)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits, (B, n_outputs)."""
        return self.head(self.features(**batch))

    def features(
        self, present: Tensor, group: Tensor | None = None, **batch: Tensor
    ) -> Tensor:
        """Return what the head classifies."""
        stream, found = self.backbone["joint"], None
        batch["host"] = HostBatch.of(present, batch)
        if not self.mask_padding:
            batch = self._padded(batch)
        tokens = stream.embed(**batch)
        prompts, label = {}, None
        if len(self.memory):
            found = self.retrieve(present, group, **batch)
            tokens, prompts = self._with_context(tokens, found, batch["host"])
        if self.label_token:
            label = self._label(found, tokens)
            prompts = {"label": label[:, None], **prompts}

        def before_layer(i: int, tokens: Tokens) -> Tokens:
            for name, value in prompts.items() if i == self.prompt_layer else ():
                tokens = tokens.insert(name, value, before="text")
            return tokens

        pooled = self._pooled(stream, stream.run(tokens, before_layer, keep=self._kept))
        return pooled if label is None else torch.cat([pooled, label], dim=1)

    @property
    def _kept(self) -> tuple[str, ...]:
        return ("label",) if self.label_token and self.pool == "label" else ()

    def _pooled(self, stream: Stream, tokens: Tokens) -> Tensor:
        if not self._kept:
            return self.pooler(stream.pool(tokens))
        return self.pooler(stream.norm(tokens["label"][:, 0]))

    def _padded(self, batch: dict) -> dict:
        """Fill texts up to the length of those in the memory, with padding."""
        n, host = self.memory.texts.shape[1], batch["host"]
        more = (0, n - batch["input_ids"].shape[1])
        names = "input_ids", "attention_mask"
        host = replace(host, **{k: F.pad(getattr(host, k), more) for k in names})
        return {**batch, "host": host, **{k: F.pad(batch[k], more) for k in names}}

    # What is found -------------------------------------------------------------------

    def retrieve(self, present: Tensor, group: Tensor | None = None, **batch) -> Found:
        """Return which rows of the memory each row's context is from."""
        vectors = self.vectors(present, **batch)
        with torch.autocast(present.device.type, enabled=False):
            image, text = (
                self.memory.nearest(m, v, self.n_neighbors, group)
                for m, v in zip(MODALITIES, vectors, strict=True)
            )
        has_image, has_text = (column[:, None] for column in present.unbind(dim=1))
        # By what a row has: a missing cell has no vector to look for.
        of_image = torch.where(has_image, image, text)
        of_text = torch.where(has_text, text, image)
        if self.label_channel == "mean":
            return Found(of_image, of_text, of_image, of_text)
        labels = of_image if self.label_channel == "image" else of_text
        return Found(of_image, of_text, labels)

    def vectors(self, present: Tensor, **batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors of images and texts, (B, w) each; zeros where missing."""
        # Of a net, pictures are in the host's copies, and made where they are unknown.
        names = "pixel_values", "input_ids", "attention_mask", "host"
        inputs = {n: batch[f"second_{n}"] for n in names if f"second_{n}" in batch}
        encoded = self.encode(present, inputs)
        widths = vector_widths(self.backbone)
        image, text, _ = encoded.split([*widths, encoded.shape[1] - sum(widths)], 1)
        return F.normalize(image, dim=1), F.normalize(text, dim=1)

    def remembered(self, present: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """Return what a memory keeps of complete rows, but for their labels."""
        image, text = self.vectors(present, **batch)
        ids, size = batch["input_ids"], self.memory.texts.shape[1]
        tokens = self.backbone["joint"].embed(**batch)["image"]
        return {
            "image_vectors": image,
            "text_vectors": text,
            "images": tokens.half(),
            "texts": F.pad(ids, (0, size - ids.shape[1])),
            "lengths": batch["attention_mask"].sum(dim=1),
        }

    # The context ---------------------------------------------------------------------

    def _with_context(self, tokens: Tokens, found: Found, host) -> tuple[Tokens, dict]:
        """Put what is generated in the place of missing cells; return the prompts."""
        prompts = {}
        for modality in ("text", "image"):
            missing = upload(host.missing(modality), tokens.values.device)
            if self.prompter is None and not len(missing):
                continue
            rows, mask = self._neighbours(modality, getattr(found, modality))
            if len(missing):
                mean = rows[missing].mean(dim=1)  # (b, n, d)
                made = mean if self.filters is None else self.filters[modality](mean)
                tokens = _replaced(tokens, modality, missing, made)
            if self.prompter is not None:
                own, there = tokens[modality], tokens.mask_of(modality)
                mask = mask.flatten(1, 2)
                if not self.mask_padding:
                    there, mask = torch.ones_like(there), None
                lengths = there.sum(dim=1)
                read = self.prompter(own, lengths, rows.flatten(1, 2), mask)
                prompts[f"{modality}_prompt"] = read
        return tokens, prompts

    def _neighbours(self, modality: str, index: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, n, d) of the memory's rows, and which are no padding."""
        memory = self.memory
        if modality == "image":
            rows = memory.images[index].float()
            return rows, rows.new_ones(rows.shape[:3], dtype=torch.bool)
        ids = memory.texts[index]  # (B, K, n)
        values = self.backbone["joint"].embed_text(ids.flatten(0, 1))
        place = torch.arange(ids.shape[2], device=ids.device)
        mask = place < memory.lengths[index][..., None]
        return values.unflatten(0, ids.shape[:2]), mask

    def _label(self, found: Found | None, tokens: Tokens) -> Tensor:
        """Mean embedding of the labels found, (B, d)."""
        if found is None:
            return tokens.values.new_zeros(len(tokens), tokens.width)
        means = [
            self.head.embed(self.memory.labels[index]).mean(dim=1)
            for index in (found.labels, found.more_labels)
            if index is not None
        ]
        return sum(means) / len(means)


def vector_widths(backbone: Backbone) -> tuple[int, int]:
    """Return the widths of the vectors that images and texts are found by."""
    return tuple(projected_width(backbone.second[m]) for m in MODALITIES)


def _replaced(tokens: Tokens, name: str, rows: Tensor, made: Tensor) -> Tokens:
    """Put other tokens (b, n, d), all attended to, into some rows of a segment."""
    old, mask = tokens[name], tokens.mask_of(name)
    n = max(made.shape[1], old.shape[1])
    old, mask = (
        F.pad(old, (0, 0, 0, n - old.shape[1])),
        F.pad(mask, (0, n - mask.shape[1])),
    )
    more = n - made.shape[1]
    values = old.index_copy(0, rows, F.pad(made.to(old.dtype), (0, 0, 0, more)))
    attended = F.pad(made.new_ones(made.shape[:2], dtype=torch.bool), (0, more))
    return tokens.put(name, values, mask.index_copy(0, rows, attended))


class RAGPTClassifier(MultimodalClassifier):
    """Prompts and stand-ins retrieved from complete training rows, in ViLT [1]_.

    **The fitted model contains training data**: of each complete training row the
    tokens of its text, the embedded patches of its picture, two vectors and its labels,
    some 230 kB with ViLT-B/32. Whoever has the model can read them. ``memory_size``
    limits how many there are.

    Rows are found by what they contain, never by where they stood. In training, a row
    finds neither itself nor another one of the same picture; in prediction it would, so
    a score on training rows means nothing. With no complete training row there is
    nothing to find: the model is then a trained pooler and head.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT checkpoint. Pictures are
        squeezed into one square size.
    retriever_backbone : str or path-like
        A checkpoint with an image and a text encoder, such as CLIP, by which rows are
        found.
    n_neighbors : int
        Rows of the memory that make up a context; fewer if it has not so many.
    memory_size : int, optional
        At most so many complete training rows, drawn at random, are kept; None keeps
        all of them.
    use_generator : bool
        Whether what is missing is generated from the tokens of the rows found, by a
        trained filter; otherwise it is their mean.
    use_prompts : bool
        Whether prompts are read from the tokens found, for image and text each.
    use_label_token : bool
        Whether the mean embedding of the labels found is a token, and read by the head.
    prompt_length : int
        Prompts of each modality.
    prompt_layer : int
        The layer, from 0, that the prompts and the label token stand in front of.
    pool : {"label", "cls"}
        Whether the head reads the label token or the text's class token.
    label_channel : {"image", "text", "mean"}
        Whether a complete row takes the labels of rows with similar pictures, with
        similar texts, or the mean of both.
    mask_padding : bool
        Whether the padding of texts is left out where prompts are read; the authors
        read it.
    label_std : float
        Standard deviation of the labels' embeddings at the start. The authors' is 1,
        with which the first losses are high.
    dropout : float
        Of what is generated.
    max_text_length : int, optional
        Longest text in tokens, and the length of those that are generated. The authors
        take 128.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    net_ : Net
        The fitted skorch net; the others are listed at
        :class:`BaseMultimodalClassifier`.
    n_memory_ : int
        Training rows in the memory.
    n_neighbors_ : int
        How many of them make up a context.

    References
    ----------
    .. [1] Lang et al., "Retrieval-Augmented Dynamic Prompt Tuning for Incomplete
       Multimodal Learning", AAAI 2025.

    Examples
    --------
    >>> from robustmm import RAGPTClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> tiny = {"retriever_backbone": "robustmm/tiny-clip", "max_epochs": 1}
    >>> clf = RAGPTClassifier("robustmm/tiny-vilt", random_state=0, **tiny)
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    >>> clf.n_memory_
    18
    """

    STREAMS = ("joint",)
    _KEPT = ("n_memory_", "n_neighbors_")
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "retriever_backbone": "openai/clip-vit-large-patch14-336",
        # The program of February 2026; for MM-IMDb without images the paper has 3.
        "n_neighbors": 5,
        "prompt_length": 6,
        "prompt_layer": 1,
        "pool": "label",
        "label_channel": "image",
        "mask_padding": False,
        "label_std": 1.0,
        "dropout": 0.2,
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
        "precision": "float32",
    }

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    retriever_backbone: str | Path = "openai/clip-vit-large-patch14-336"
    n_neighbors: int = 5
    memory_size: int | None = None
    use_generator: bool = True
    use_prompts: bool = True
    use_label_token: bool = True
    prompt_length: int = 6
    prompt_layer: int = 1
    pool: str = "label"
    label_channel: str = "image"
    mask_padding: bool = True
    label_std: float = 1.0
    dropout: float = 0.2
    lr: float = 1e-3
    weight_decay: float = 2e-2

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("n_neighbors", self.n_neighbors, Integral, 1)
        check_number("prompt_length", self.prompt_length, Integral, 1)
        check_number("prompt_layer", self.prompt_layer, Integral, 0)
        check_number("label_std", self.label_std, Real, 0, open="low")
        check_number("dropout", self.dropout, Real, 0, 1)
        check_choice("pool", self.pool, POOLS)
        check_choice("label_channel", self.label_channel, LABEL_CHANNELS)
        if self.memory_size is not None:
            check_number("memory_size", self.memory_size, Integral, 1)

    def _check_backbone(self, backbone: Backbone) -> None:
        n_layers = backbone["joint"].n_layers
        if self.prompt_layer >= n_layers:
            raise ValueError(
                f"prompt_layer must be one of the encoder's {n_layers} layers, got "
                f"{self.prompt_layer}."
            )

    @classmethod
    def _small(cls, **params):
        small = {"retriever_backbone": "robustmm/tiny-clip", "n_neighbors": 2}
        return super()._small(**small | params)

    def _load_backbone(self, device: torch.device) -> Backbone:
        backbone = super()._load_backbone(device)
        if "joint" not in backbone:  # refused by the caller, who says what is needed
            return backbone
        name = self._pinned("retriever_backbone")
        try:
            second = load_backbone(name, streams=MODALITIES, device=device)
        except MissingStream as error:
            raise ValueError(
                "retriever_backbone must have an image and a text encoder, such as "
                f"CLIP's, got {error.name!r}, which offers {list(error.offers)}."
            ) from error
        return backbone.with_second(second)

    def _collate(self, backbone: Backbone):
        collate = super()._collate(backbone)
        if backbone.second is not None and collate.transform is not None:
            collate.transform = _squeezed(collate.transform)
        return collate

    def _fit_rows(self, rows, targets: Targets, sample_weight) -> None:
        # Of an earlier fit: the module would be built around that memory.
        for name in self._KEPT:
            vars(self).pop(name, None)
        super()._fit_rows(rows, targets, sample_weight)

    def _build_module(self, backbone: Backbone, n_outputs: int) -> RAGPTModule:
        stream = backbone["joint"]
        width, n_text = stream.width, backbone.max_text_length
        n_image = len(stream.embeddings.position_embeddings[0])
        filters = prompter = None
        if self.use_generator:
            lengths = {"text": n_text, "image": n_image}
            filters = nn.ModuleDict(
                {m: TokenFilter(n, width, self.dropout) for m, n in lengths.items()}
            )
        if self.use_prompts:
            prompter = RetrievedPrompts(width, self.prompt_length)
        d_in = (1 + self.use_label_token) * width
        multilabel = getattr(self, "_multilabel", False)
        return RAGPTModule(
            backbone,
            RetrievalMemory(
                getattr(self, "n_memory_", 0),
                vector_widths(backbone),
                (n_image, width),
                n_text,
                n_outputs if multilabel else None,
            ),
            TiedHead(d_in, width, n_outputs, self.label_std),
            filters=filters,
            prompter=prompter,
            prompt_layer=self.prompt_layer,
            n_neighbors=getattr(self, "n_neighbors_", 0),
            label_token=self.use_label_token,
            pool=self.pool,
            label_channel=self.label_channel,
            mask_padding=self.mask_padding,
            store=self._state_cache(),
        )

    # The memory ----------------------------------------------------------------------

    def _train(self, module: RAGPTModule, train: Subset, held_out, draws):
        self._remember(module, train, draws)
        net = super()._train(module, train, held_out, draws)
        module.memory.groups = None
        return net

    def _remember(self, module: RAGPTModule, train: Subset, draws) -> None:
        """Fill the memory of a module, and say how many rows a context has."""
        data, memory, device = train.dataset, module.memory, draws.device
        # Not among the rows that are held out: these must not help.
        rows = np.asarray(train.indices)[data.rows.present[train.indices].all(axis=1)]
        with draws.lent():
            order = torch.randperm(len(rows)).numpy()
        rows = np.sort(rows[order[: self.memory_size]])
        data.mark_groups()
        parts, kept = [], []
        net = self._make_net(module, device)
        for batch, targets in net.batches(Subset(data, rows)):
            # An image that is damaged since it was screened makes no complete row.
            good = batch["present"].all(dim=1)
            with torch.no_grad():
                part = net.call(RAGPTModule.remembered, batch)
            part = {n: v[good.to(device)] for n, v in part.items()}
            parts.append({**part, "labels": targets[good].to(device)})
            kept.append(batch["group"][good])
        groups = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.long)
        self.n_neighbors_ = module.n_neighbors = self._count_neighbors(groups)
        self.n_memory_ = len(groups) if self.n_neighbors_ else 0
        if self.n_memory_:
            for name in parts[0]:
                setattr(memory, name, torch.cat([part[name] for part in parts]))
            memory.groups = groups.to(device)

    def _count_neighbors(self, groups: torch.Tensor) -> int:
        """Return how many rows all can find, whatever group they are of."""
        largest = int(groups.unique(return_counts=True)[1].max()) if len(groups) else 0
        most = len(groups) - largest
        if most < self.n_neighbors:
            # No warning: a table without images, or a fold of few rows, is legal.
            logger.warning(
                "%s: n_neighbors=%d is lowered to %d, as there are %d complete "
                "training rows, up to %d of them of one picture.",
                *(type(self).__name__, self.n_neighbors, most, len(groups), largest),
            )
        return min(most, self.n_neighbors)

    def _restore(self, trained: dict) -> None:
        super()._restore(trained)
        module = self.net_.module_
        words = module.backbone["joint"].embeddings.text_embeddings.word_embeddings
        module.memory.check(words.num_embeddings, len(self.classes_))


def _squeezed(transform):
    """Return an image preparation that makes squares, whatever the picture's shape."""
    if transform.size is not None:
        return transform
    edge = transform.shortest_edge
    free = dict.fromkeys(("shortest_edge", "longest_edge", "size_divisor", "crop_size"))
    return replace(transform, size=(edge, edge), resample=2, **free)
