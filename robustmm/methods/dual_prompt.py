"""DualPrompt: prompts that all stages share, and prompts of each stage.

Wang et al., "DualPrompt: Complementary Prompting for Rehearsal-free Continual
Learning", ECCV 2022.

Prompts are extra keys and values in the layers of a frozen ViLT. Those in the first
layers are trained in every stage; those in the next ones belong to a stage, which a row
without a known stage finds by its frozen class token. L2P, its predecessor, has one
pool of input prompts for all stages instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from ..adapters import GroupMoments, SharedGaussian, layer_indices
from ..annotations import TableLike
from ..backbones import Backbone, Tokens
from ..checks import check_choice, check_number
from ..stagewise import (
    COMPARED,
    QUERIES,
    Stage,
    StagewiseClassifier,
    StagewiseModule,
)

INFERENCES = ("key", "gaussian")


class DualPromptStage(Stage):
    """A head, the prompts of one stage, (layers, 2, l, d), and its key, (d,).

    With ``n_groups``, also the moments of the queries of so many groups of rows.
    """

    def __init__(
        self, width: int, n_outputs: int, n_layers: int, length: int, n_groups: int
    ):
        super().__init__(width, n_outputs)
        self.prompts = uniform(n_layers, 2, length, width)
        # A sum: the key's length does not matter, and a stage may go on.
        self.register_buffer("key", torch.zeros(width))
        self.moments = GroupMoments(n_groups, width) if n_groups else None


class DualPromptModule(StagewiseModule):
    r"""Frozen ViLT with shared prompts, prompts per stage, and a head per stage.

    In a layer with the prompt :math:`p = (p_k, p_v)` attention is over the keys
    :math:`[p_k, h W_k]` and values :math:`[p_v, h W_v]`. Called with the stage that is
    ``learning``, its prompts are used and its head alone counts. Otherwise a row gets
    the prompts of the stage with the largest :math:`\cos(q, k_t)` and the heads of all
    stages. Of several labels, each head reads the features under its own prompts: what
    the layers before them compute is shared.

    In the place of the cosine, the Gaussians of a stage's classes may decide, with one
    covariance for all: :math:`\log \sum_{c \in t} \pi_c\, p(q | c)`.

    The key's only loss, :math:`-\cos(q, k_t)` over the rows of the stage, is least at
    :math:`\sum q / \lVert q \rVert`, which is computed.

    Shapes: ``shared`` (layers, 2, l, d) and in each stage ``prompts`` (layers, 2, l,
    d), ``key`` (d,); ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W),
    ``input_ids`` and ``attention_mask`` (B, T); features (B, d); logits (B, C), or
    those of the stage that is learned.
    """

    def __init__(
        self,
        backbone: Backbone,
        columns: Sequence[Sequence[int]],
        *,
        multilabel: bool,
        shared_layers: Sequence[int],
        shared_length: int,
        stage_layers: Sequence[int],
        stage_length: int,
        query: str,
        task_inference: str,
        shrinkage: float,
        store=None,
    ):
        self.task_inference, self.shrinkage = task_inference, shrinkage
        self.multilabel, self.gaussian = multilabel, None
        self.shared_layers, self.stage_layers = list(shared_layers), list(stage_layers)
        self.stage_length = stage_length
        super().__init__(backbone, columns, query, store)
        width = self.stream.width
        self.shared = uniform(len(self.shared_layers), 2, shared_length, width)
        # The layer from which on the stage matters.
        self.fork = min(self.stage_layers, default=self.stream.n_layers)

    def make_stage(self, position: int, n_outputs: int) -> DualPromptStage:
        """Return a stage's head, prompts and key."""
        n_groups = 0
        if self.task_inference == "gaussian":
            # Of several labels no row has one class: the stage is one group.
            n_groups = 1 if self.multilabel else n_outputs
        n_layers = len(self.stage_layers)
        sizes = n_outputs, n_layers, self.stage_length, n_groups
        return DualPromptStage(self.stream.width, *sizes)

    def begin(self, stage: int) -> None:
        """Let the prompts of a stage start from those of the stage before."""
        if stage > 0:
            with torch.no_grad():
                self.stages[stage].prompts.copy_(self.stages[stage - 1].prompts)

    def forward(
        self, present: Tensor, learning: int | None = None, **batch: Tensor
    ) -> Tensor:
        """Return logits; of the stage ``learning`` alone, if one is."""
        if learning is not None:
            features = self.features(present, learning, **batch)
            return self.stages[learning].head(features)
        if not self.multilabel:
            return self.classify(self.features(present, **batch))
        trunk, parts = self._trunk(batch), []
        for stage in self.stages:
            prompts = stage.prompts[None]  # (1, layers, 2, l, d)
            parts.append(stage.head(self._branch(trunk, prompts)))
        return torch.cat(parts, dim=1)[:, self.order]

    def features(
        self, present: Tensor, learning: int | None = None, **batch: Tensor
    ) -> Tensor:
        """Return the pooled token, (B, d), under the prompts of each row's stage."""
        if learning is not None:
            prompts = self.stages[learning].prompts[None]
        else:
            every = torch.stack([stage.prompts for stage in self.stages])
            prompts = every[self.stage_scores(present, **batch).argmax(dim=1)]
        return self._branch(self._trunk(batch), prompts)

    def stage_scores(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return each row's similarity to each key, or log-likelihood, (B, T)."""
        query = self.query(present, **batch)
        if self.task_inference == "gaussian":
            gaussian = self.gaussian or self.settle().to(query.device)
            scores = gaussian(query) + gaussian.shares  # (B, groups)
            sizes = [len(stage.moments.counts) for stage in self.stages]
            parts = [part.logsumexp(dim=1) for part in scores.split(sizes, dim=1)]
            return torch.stack(parts, dim=1)
        keys = torch.stack([stage.key for stage in self.stages])  # (T, d)
        with torch.autocast(query.device.type, enabled=False):
            return F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T

    def settle(self) -> SharedGaussian | None:
        """Return the Gaussians of what was seen so far, by which stages are found."""
        if self.task_inference != "gaussian":
            return None
        moments = [stage.moments for stage in self.stages]
        return SharedGaussian.of(moments, self.shrinkage)

    def _trunk(self, batch: dict[str, Tensor]) -> Tokens:
        """Run the layers in which no stage has prompts of its own."""
        return self.stream.run(self.stream.embed(**batch), self._add, stop=self.fork)

    def _branch(self, trunk: Tokens, prompts: Tensor) -> Tensor:
        """Run the others with prompts (B or 1, layers, 2, l, d), and pool."""

        def add(i: int, tokens: Tokens) -> Tokens:
            return self._add(i, tokens, prompts)

        stream = self.stream
        return stream.pool(stream.run(trunk, add, start=self.fork))

    def _add(self, i: int, tokens: Tokens, prompts: Tensor | None = None) -> Tokens:
        keys_values = []
        if i in self.shared_layers:
            keys_values.append(self.shared[self.shared_layers.index(i)][None])
        if i in self.stage_layers:
            keys_values.append(prompts[:, self.stage_layers.index(i)])
        if not keys_values:
            return tokens
        n = max(len(part) for part in keys_values)
        rows = [part.expand(n, -1, -1, -1) for part in keys_values]
        # Keys and values are parted along their own axis: reshaped instead, as in a
        # well-known port, rows exchange their prompts.
        return tokens.with_prefix(*torch.cat(rows, dim=2).unbind(dim=1))


def uniform(*shape: int) -> nn.Parameter:
    """Return a trained tensor drawn from [-1, 1).

    Examples
    --------
    >>> uniform(3, 2, 5, 8).abs().max() <= 1
    tensor(True)
    """
    return nn.Parameter(nn.init.uniform_(torch.empty(*shape), -1, 1))


class DualPromptClassifier(StagewiseClassifier):
    """Prompts that all stages share, and prompts of the stage that a row finds [1]_.

    The stage of a row is found for each row alone, from the frozen model: nothing tells
    it. All rows are treated alike: a missing cell is a dummy. Defaults are the authors'
    prompts and the training with which DeLo's paper compares.

    Parameters
    ----------
    shared_layers : int or sequence of int
        The first so many layers, or those listed, have prompts of all stages.
    shared_length : int
        Keys, and values, of such a prompt.
    stage_layers : int or sequence of int
        So many layers behind the shared ones, or fewer if the encoder ends, or those
        listed, have prompts of each stage.
    stage_length : int
        Keys, and values, of such a prompt.
    query : {"text", "mean"}
        What is compared with the keys, of the frozen model: the class token of the
        text, or the mean of the class tokens of what a row has.
    task_inference : {"key", "gaussian"}
        Whether the stage of a row is that of the closest key, as in the paper, or of
        the likeliest classes, of which each is a Gaussian of the queries, all with one
        covariance. Nothing of earlier stages is replayed for either.
    shrinkage : float
        How far that covariance is shrunk towards a multiple of the identity, in [0, 1].

    References
    ----------
    .. [1] Wang et al., "DualPrompt: Complementary Prompting for Rehearsal-free
       Continual Learning", ECCV 2022.

    Examples
    --------
    >>> from robustmm import DualPromptClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> early = (y == "beach") | (y == "city")
    >>> clf = DualPromptClassifier("robustmm/tiny-vilt", max_epochs=1, random_state=0)
    >>> clf = clf.partial_fit(X[early], y[early]).partial_fit(X[~early], y[~early])
    >>> clf.predict_proba(X).shape, clf.predict_task(X).shape
    ((60, 4), (60,))
    """

    # As "DualPrompt" is trained where DeLo's paper compares with it; the authors'
    # prompts.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "shared_layers": (0, 1),
        "shared_length": 5,
        "stage_layers": (2, 3, 4),
        "stage_length": 5,
        "query": "text",
        "task_inference": "key",
        "shrinkage": 0.1,
        **COMPARED,
    }

    shared_layers: int | Sequence[int] = 2
    shared_length: int = 5
    stage_layers: int | Sequence[int] = 3
    stage_length: int = 5
    query: str = "text"
    task_inference: str = "key"
    shrinkage: float = 0.1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("shared_length", self.shared_length, Integral, 0)
        check_number("stage_length", self.stage_length, Integral, 0)
        check_choice("query", self.query, QUERIES)
        check_choice("task_inference", self.task_inference, INFERENCES)
        check_number("shrinkage", self.shrinkage, Real, 0, 1)

    def _check_backbone(self, backbone: Backbone) -> None:
        self._layers(backbone["joint"].n_layers)

    @classmethod
    def _small(cls, **params):
        sizes = {"shared_layers": 1, "stage_layers": 2}
        sizes |= {"shared_length": 2, "stage_length": 2}
        return super()._small(**sizes | params)

    def _layers(self, n_layers: int) -> tuple[list[int], list[int]]:
        """Return the layers with shared prompts, and those with prompts of stages."""
        shared = layer_indices("shared_layers", self.shared_layers, n_layers)
        own = layer_indices("stage_layers", self.stage_layers, n_layers)
        if isinstance(self.stage_layers, Integral):
            start = max(shared, default=-1) + 1
            own = [*range(start, min(start + self.stage_layers, n_layers))]
        return shared, own

    def _build_stages(
        self, backbone: Backbone, columns: list[list[int]]
    ) -> DualPromptModule:
        shared, own = self._layers(backbone["joint"].n_layers)
        return DualPromptModule(
            backbone,
            columns,
            multilabel=self._multilabel,
            shared_layers=shared,
            shared_length=self.shared_length,
            stage_layers=own,
            stage_length=self.stage_length,
            query=self.query,
            task_inference=self.task_inference,
            shrinkage=self.shrinkage,
            store=self._state_cache(),
        )

    def _look_at(self, net, train: Subset) -> None:
        queries = self._read_rows(net, train, DualPromptModule.query)
        stage = net.module_.stages[self._task]
        stage.key += F.normalize(queries, dim=1).sum(dim=0).to(stage.key.device)
        if stage.moments is not None:
            groups = torch.ones(len(queries), 1)
            if not self._multilabel:
                groups = torch.from_numpy(train.dataset.targets[train.indices])
            stage.moments.update(queries, groups)

    def _keep(self, net) -> None:
        super()._keep(net)
        self._settle()

    def _restore(self, trained: dict) -> None:
        super()._restore(trained)
        self._settle()

    def _settle(self) -> None:
        """Compute once what every prediction needs."""
        module = self.net_.module_
        gaussian = module.settle()
        if gaussian is not None:
            module.gaussian = gaussian.to(module.shared.device)

    def predict_task(self, X: TableLike) -> np.ndarray:
        """Return the stage that each row is taken for, (n,) int, in order of learning.

        -1 for a row without any modality.
        """
        scores, empty = self._evaluate(X, DualPromptModule.stage_scores)
        return np.where(empty, -1, scores.argmax(axis=1))
