"""RebQ: reconstruct the missing modality's query, then ask the pools of both.

Zhao, Zou, Yu and Xu, "Reconstruct before Query: Continual Missing Modality
Learning with Decomposed Prompt Collaboration", arXiv:2403.11373, 2024.

Prompts are weighted sums of components, of which each stage adds some: a pool that is
asked by the image, one asked by the text, and a memory that helps a frozen ViLT to
guess the class token of what is missing, with which that pool is asked then. DeLo, its
successor, asks the missing modality's pool with the other's query instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapters import ComponentPool, PromptSlice, layer_indices, weight_of_mean
from ..backbones import (
    IMAGE_CLASS,
    Backbone,
    HostBatch,
    Tokens,
    class_tokens,
    hide_modality,
    take_rows,
    upload,
    with_image_class,
)
from ..checks import check_choice, check_number
from ..stagewise import Stage, StagewiseClassifier, StagewiseModule

MODALITIES = ("image", "text")
POOLS = (*MODALITIES, "memory")
TARGETS = ("memory", "frozen")
INPUTS = ("pixel_values", "pixel_mask", "input_ids", "attention_mask")


class RebQStage(Stage):
    """A head and, unless nothing fresh is learned, components of the three pools."""

    def __init__(self, width: int, n_outputs: int, sizes: Sequence[int] | None):
        super().__init__(width, n_outputs)
        self.components = None
        if sizes is not None:
            self.components = PromptSlice(len(POOLS), *sizes, width)


class RebQModule(StagewiseModule):
    r"""Frozen ViLT, run up to three times, with three pools of prompt components.

    The first pass, without prompts, gives the class tokens :math:`q_v, q_t`. Where one
    modality is missing, the second pass, with memory prompts asked by the other's
    token, gives a new class token of the missing one. In the last pass the prompts that
    both tokens ask for stand beside keys (their first half) and values (their second)
    in the first layers, and the text's class token is classified. While training, the
    penalty is ``lambda_reconstruction`` times the mean squared difference between the
    class token that is rebuilt for a complete row without its image, or without its
    text, and that of the complete row.

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C), or those of the stage
    that is learned.
    """

    def __init__(
        self,
        backbone: Backbone,
        columns: Sequence[Sequence[int]],
        *,
        n_components: int,
        prompt_length: int,
        prompt_layers: Sequence[int],
        lambda_reconstruction: float,
        reconstruction_target: str,
        fresh_components: bool,
        blank: Mapping[str, Tensor],
        store=None,
    ):
        self.layers, self.fresh_components = list(prompt_layers), fresh_components
        self.sizes = len(self.layers), n_components, prompt_length
        super().__init__(backbone, columns, store=store)
        self.lambda_reconstruction = lambda_reconstruction
        self.reconstruction_target = reconstruction_target
        # On the CPU, and no buffer: what a row without a modality holds of it.
        self.blank = {name: blank[name] for name in INPUTS if name in blank}

    def make_stage(self, position: int, n_outputs: int) -> RebQStage:
        """Return a stage's head and components."""
        fresh = position == 0 or self.fresh_components
        sizes = self.sizes if fresh else None
        return RebQStage(self.stream.width, n_outputs, sizes)

    def begin(self, stage: int) -> None:
        """Make the components of a stage orthogonal to all earlier ones."""
        if self.stages[stage].components is not None:
            self.stages[stage].components.begin(self._slices()[:stage])

    def forward(
        self, present: Tensor, learning: int | None = None, **batch: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; of the stage ``learning`` while training, with the penalty."""
        features = self.features(present, **batch)
        if learning is None:
            return self.classify(features)
        logits = self.stages[learning].head(features)
        if not self.training:
            return logits
        error = self._reconstruction_error(present, batch)
        return logits, self.lambda_reconstruction * error

    def features(self, present: Tensor, learning=None, **batch: Tensor) -> Tensor:
        """Return the class token of the text in the last pass, (B, d)."""
        tokens = self.stream.embed(**batch)
        queries = self._rebuilt(tokens, present, batch)  # (B, 2, d)
        prompts = []  # of each modality, (layers, B, l, d)
        for position, modality in enumerate(MODALITIES):
            pool = self._pool(modality)
            prompts.append(pool.mix(pool.weights(queries[:, position])))

        def add(i: int, tokens: Tokens) -> Tokens:
            if i not in self.layers:
                return tokens
            halves = [of[self.layers.index(i)].chunk(2, dim=1) for of in prompts]
            pairs = zip(*halves, strict=True)  # those of keys, those of values
            return tokens.with_prefix(*(torch.cat(pair, dim=1) for pair in pairs))

        return self.stream.pool(self.stream.run(tokens, add))

    def queries(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return what the image pool and the text pool are asked with, (B, 2 d)."""
        tokens = self.stream.embed(**batch)
        return self._rebuilt(tokens, present, batch).flatten(1)

    # Reconstruction ------------------------------------------------------------------

    def _rebuilt(self, tokens: Tokens, present: Tensor, batch: dict) -> Tensor:
        """The class tokens of each row, (B, 2, d), the missing one as it is rebuilt."""
        classes = self.frozen.tokens(present, batch)  # (B, 2, d)
        if torch.compiler.is_compiling():  # a graph cannot choose rows
            return self._completed(tokens, classes, present)
        rows = (~HostBatch.of(present, batch).present.all(dim=1)).nonzero()[:, 0]
        if len(rows) == 0:
            return classes
        rows = upload(rows, present.device)
        own = tokens.select(rows), classes[rows], present[rows]
        return classes.index_copy(0, rows, self._completed(*own))

    def _completed(self, tokens: Tokens, classes: Tensor, present: Tensor) -> Tensor:
        """Put what the memory recalls in the place of missing class tokens."""
        found = self._recall(tokens, classes, present)
        return classes.where(present[..., None], found.to(classes.dtype))

    def _recall(self, tokens: Tokens, classes: Tensor, present: Tensor) -> Tensor:
        """Class tokens, (B, 2, d), of a pass with the memory of what is there."""
        pool = self._pool("memory")
        weights = sum(
            pool.weights(classes[:, i]) * present[:, i, None] for i in range(2)
        )
        prompts = pool.mix(weights)  # (layers, B, l, d)

        def add(i: int, tokens: Tokens) -> Tokens:
            if i not in self.layers:
                return tokens
            prompt = prompts[self.layers.index(i)]
            return tokens.put("memory", prompt, before=IMAGE_CLASS)

        stream = self.stream
        tokens = stream.run(with_image_class(tokens), add, keep=IMAGE_CLASS)
        return class_tokens(stream, tokens)

    def _reconstruction_error(self, present: Tensor, batch: dict) -> Tensor:
        complete = HostBatch.of(present, batch).complete()
        nothing = torch.zeros((), device=present.device)
        weight = weight_of_mean(len(complete), nothing)
        if len(complete) == 0:
            return nothing
        rows = take_rows({"present": present, **batch}, complete)
        with torch.no_grad():
            target = self._target(rows)  # (b, 2, d)
        errors = []
        for position, modality in enumerate(MODALITIES):
            hidden = hide_modality(rows, self.blank, modality)
            here = hidden.pop("present")
            classes = self.frozen.tokens(here, hidden)
            found = self._recall(self.stream.embed(**hidden), classes, here)
            errors.append(F.mse_loss(found[:, position], target[:, position]))
        return weight * torch.stack(errors).mean()

    def _target(self, rows: dict) -> Tensor:
        """What is to be rebuilt of complete rows, (b, 2, d)."""
        rows = dict(rows)
        present = rows.pop("present")
        classes = self.frozen.tokens(present, rows)
        if self.reconstruction_target == "frozen":
            return classes
        # In the authors' code, although complete rows ask with the first pass.
        return self._recall(self.stream.embed(**rows), classes, present)

    def _slices(self) -> list[PromptSlice]:
        slices = [stage.components for stage in self.stages]
        return [piece for piece in slices if piece is not None]

    def _pool(self, name: str) -> ComponentPool:
        return ComponentPool(self._slices(), POOLS.index(name))


class RebQClassifier(StagewiseClassifier):
    """Components per stage, asked with the rebuilt query of what is missing [1]_.

    The authors' code trains no prompt after the first stage: the components of later
    ones start at zero, where every gradient vanishes. Here each stage learns fresh
    ones. That code also makes incomplete copies of complete rows to predict them, which
    changes nothing and is left out.

    Parameters
    ----------
    n_components : int
        Components that a stage adds to each pool. Those of all stages together are at
        most as many as the encoder is wide.
    prompt_length : int
        Rows of a prompt; of those that images and texts ask for, half are keys and half
        values.
    prompt_layers : int or sequence of int
        The first so many layers, or all if there are fewer, get prompts; or the layers
        listed, which must be there.
    lambda_reconstruction : float
        Weight of the reconstruction loss.
    reconstruction_target : {"memory", "frozen"}
        What is to be rebuilt: the class token of the complete row in the pass with
        memory prompts, as in the authors' code, or in that without, with which
        complete rows ask.
    fresh_components : bool
        Whether later stages learn components; False is the authors' code, where they
        learn heads alone.

    References
    ----------
    .. [1] Zhao, Zou, Yu and Xu, "Reconstruct before Query: Continual Missing
       Modality Learning with Decomposed Prompt Collaboration", arXiv:2403.11373, 2024.

    Examples
    --------
    >>> from robustmm import RebQClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> early = (y == "beach") | (y == "city")
    >>> clf = RebQClassifier(
    ...     "robustmm/tiny-vilt", n_components=3, max_epochs=1, random_state=0
    ... )
    >>> clf = clf.partial_fit(X[early], y[early]).partial_fit(X[~early], y[~early])
    >>> clf.predict_proba(X).shape
    (60, 4)
    """

    # The authors' code; 128 components were shared out among 10 or 5 stages.
    PAPER: ClassVar[dict] = {
        name: {
            "backbone": "dandelin/vilt-b32-mlm",
            "n_components": n_components,
            "prompt_length": 8,
            "prompt_layers": 8,
            "lambda_reconstruction": 0.01,
            "reconstruction_target": "memory",
            "fresh_components": True,
            "max_text_length": 512,
            "max_epochs": 10,
            "batch_size": 4,
            "lr": 1e-4,
            "weight_decay": 0.01,
            "lr_schedule": "cosine",
            "warmup": 0.1,
            "head_init": "random",
            "head_lr": None,
            "modality_dropout": 0.0,
            "early_stopping": False,
        }
        for name, n_components in (("food101", 12), ("mmimdb", 25))
    }

    n_components: int = 12
    prompt_length: int = 8
    prompt_layers: int | Sequence[int] = 8
    lambda_reconstruction: float = 0.01
    reconstruction_target: str = "memory"
    fresh_components: bool = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("n_components", self.n_components, Integral, 1)
        check_number("prompt_length", self.prompt_length, Integral, 2)
        check_number("lambda_reconstruction", self.lambda_reconstruction, Real, 0)
        check_choice("reconstruction_target", self.reconstruction_target, TARGETS)
        if self.prompt_length % 2:
            raise ValueError(
                "prompt_length must be even, half keys and half values, got "
                f"{self.prompt_length}."
            )

    def _check_backbone(self, backbone: Backbone) -> None:
        stream = backbone["joint"]
        layer_indices("prompt_layers", self.prompt_layers, stream.n_layers)
        n_stages = len(self.task_classes_) if self.fresh_components else 1
        if n_stages * self.n_components > stream.width:
            raise ValueError(
                "n_components of all stages together must be at most the encoder's "
                f"width, {stream.width}, got {self.n_components} in {n_stages} stages."
            )

    @classmethod
    def _small(cls, **params):
        sizes = {"n_components": 2, "prompt_length": 2, "prompt_layers": 2}
        return super()._small(**sizes | params)

    def _build_stages(self, backbone: Backbone, columns: list[list[int]]) -> RebQModule:
        n_layers = backbone["joint"].n_layers
        return RebQModule(
            backbone,
            columns,
            n_components=self.n_components,
            prompt_length=self.prompt_length,
            prompt_layers=layer_indices("prompt_layers", self.prompt_layers, n_layers),
            lambda_reconstruction=self.lambda_reconstruction,
            reconstruction_target=self.reconstruction_target,
            fresh_components=self.fresh_components,
            blank=self._blank_batch(backbone),
            store=self._state_cache(),
        )
