"""DeLo: pools of low-rank factors for tasks that come one after another.

Liu, Li, Tang and Razzak, "DeLo: Dual Decomposed Low-Rank Experts Collaboration for
Continual Missing Modality Learning", arXiv:2603.01632, 2026.

Every task gets its own pools of rank-one factors, one for images and one for texts,
from which each row composes its own update of the frozen ViLT; a missing modality's
pool is asked with the query of the one that is there. MAIL also mixes low-rank experts,
but per token and for one task; here a row is routed as a whole, and what earlier tasks
learned is frozen and found again through task keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import partial
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import (
    ROUTER_GRADIENTS,
    ClassMoments,
    FactorLinears,
    FactorPools,
    Found,
    GroupedPools,
    LinearHead,
    Selection,
    StaticFactors,
    TaskFinder,
    TaskKey,
    count_factors,
    divergence,
    factor_frame,
    key_similarity,
    weight_of_mean,
)
from ..backbones import (
    Backbone,
    HostBatch,
    Tokens,
    read_queries,
    upload,
)
from ..checks import check_choice, check_number
from ..told import TaskFindingClassifier

ADAPTED = ("query", "key", "value")
MODALITIES = ("image", "text")
# The logit of a class outside the predicted task: a probability of exactly zero.
EXCLUDED = -1e3


class Encoded(NamedTuple):
    """Features (B, d), last queries (B, 2, d) and what every layer selected."""

    features: Tensor
    queries: Tensor
    selections: list[Selection | None]


class DeLoTask(nn.Module):
    """What one task learns: pools for every layer, a head, its key and its moments."""

    def __init__(
        self,
        width: int,
        pools: Sequence[nn.Module],
        n_outputs: int,
        momentum: float,
        n_groups: int,
    ):
        super().__init__()
        self.pools = nn.ModuleList(pools)
        self.head = LinearHead(width, n_outputs)
        self.key = TaskKey(width, len(MODALITIES), momentum)
        if n_groups:
            self.moments = ClassMoments(n_groups, [width] * len(MODALITIES))


class DeLoModule(nn.Module):
    r"""Frozen ViLT with the factor pools, heads and keys of several tasks.

    Before every layer the mean of the image tokens and that of the text tokens are the
    queries :math:`q_v, q_t` (padding never counts). Each routes its pool; where a
    modality is missing, its pool is routed by the other's query (equation 5). Query,
    key and value map :math:`h` to :math:`Wh + \alpha(\Delta W^v + \Delta W^t)h`.

    With ``key_layers`` every task also has the moments of such means after some frozen
    layers, of its rows together or of each of its classes, and a row's logits are those
    of a mixture: the logarithm of :math:`p(t) p(c | t)`. The Gaussians of all tasks,
    with one covariance, give :math:`p(t)` and :math:`p(c | t)`; for the likeliest task,
    the latter is multiplied by what its own head makes of its own factors' features,
    and made a distribution again.

    Called with the task that is ``learning``, its head alone counts, and while training
    the penalty over complete rows is ``lambda_align`` times :math:`1 - \cos(q_v, q_t)`
    at the last layer (equation 9) plus ``lambda_consistency`` times the divergence of
    the output under a proxy query from the output under the true one, each modality
    being replaced once. Otherwise the task of a row is the one that is ``told``, that
    of the closest key (equation 8) if ``nearest``, or the likeliest. Of several labels,
    each is read by its task's head from what its task's factors make of the row, unless
    a task is told, whose factors then count for all.

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C), or those of the task that
    is learned.
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        columns: Sequence[Sequence[int]],
        *,
        multilabel: bool,
        make_pools: Callable[[int, int], nn.Module],
        alpha: float,
        lambda_align: float,
        lambda_consistency: float,
        key_momentum: float,
        center_keys: bool,
        cross_modal_guide: bool,
        static: bool,
        key_layers: Sequence[int] | None = None,
        keys_per_class: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.key_layers, self.keys_per_class = key_layers, keys_per_class
        self.multilabel, self.static = multilabel, static
        # Without routing there is no query to align, without a guide no proxy.
        self.lambda_align = 0.0 if static else lambda_align
        guided = cross_modal_guide and not static
        self.lambda_consistency = lambda_consistency if guided else 0.0
        self.cross_modal_guide, self.center_keys = cross_modal_guide, center_keys
        self.columns = [list(positions) for positions in columns]
        # From the outputs of one head after another to those of the classes.
        order = torch.tensor([*chain(*self.columns)]).argsort()
        self.register_buffer("order", order, persistent=False)
        stream = self.stream
        for layer in range(stream.n_layers):
            linears = [stream.linear(layer, name) for name in ADAPTED]
            adapter = FactorLinears(linears, alpha, _factors_of(layer))
            stream.wrap(layer, ADAPTED, adapter)
        width, depth = stream.width, range(stream.n_layers)
        self.tasks = nn.ModuleList()
        for positions in columns:
            pools = [make_pools(width, width) for _ in depth]
            n_groups = len(positions) if keys_per_class else 1
            n_groups = 0 if key_layers is None else n_groups
            sizes = len(positions), key_momentum, n_groups
            self.tasks.append(DeLoTask(width, pools, *sizes))
        if key_layers is not None:
            self.finder = TaskFinder([t.moments for t in self.tasks])

    @property
    def stream(self):
        """The joint stream."""
        return self.backbone["joint"]

    def train_only(self, task: int) -> None:
        """Freeze every task but one."""
        for position, member in enumerate(self.tasks):
            member.requires_grad_(position == task)

    def forward(
        self,
        present: Tensor,
        learning: int | None = None,
        told: int | None = None,
        nearest: bool = False,
        **batch: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; of the task ``learning`` while training, with the penalty."""
        tokens, host = self.stream.embed(**batch), HostBatch.of(present, batch)
        if learning is None:
            return self._predict(tokens, present, host, told, nearest)
        if self.training:
            return self._learn(tokens, present, host, learning)
        encoded = self._encode(tokens, self._source(present), learning)
        return self.tasks[learning].head(encoded.features)

    def features(
        self, present: Tensor, told=None, nearest: bool = False, **batch: Tensor
    ) -> Tensor:
        """Return the pooled rows that the heads classify, (B, d)."""
        tokens, host = self.stream.embed(**batch), HostBatch.of(present, batch)
        tasks = self._tasks_of(tokens, present, host, told, nearest)[0]
        return self._encode(tokens, self._source(present), tasks).features

    def task_scores(
        self, present: Tensor, nearest: bool = False, **batch: Tensor
    ) -> Tensor:
        """Return what the task of a row is found by, (B, n_tasks).

        The similarity to the key of each, or the logarithm of its probability.
        """
        tokens, host = self.stream.embed(**batch), HostBatch.of(present, batch)
        if nearest or self.key_layers is None:
            return self._similarity(tokens, present)
        return self.finder(self._key_vectors(tokens, host), present).tasks

    def usage(self, present: Tensor, nearest: bool = False, **batch: Tensor) -> Tensor:
        """Return each row's task and how often it selects each factor.

        (B, 1 + 2 * 2 * E): the frequencies, a mean over layers and linears, are those
        of the image's a and b, then of the text's.
        """
        tokens, host = self.stream.embed(**batch), HostBatch.of(present, batch)
        tasks = self._tasks_of(tokens, present, host, nearest=nearest)[0]
        size = self.tasks[0].pools[0].pool_size
        encoded = self._encode(tokens, self._source(present), tasks)
        counts = count_factors(encoded.selections, size)
        tasks = upload(tasks, counts.device)[:, None]  # (B, 1)
        return torch.cat([tasks.to(counts.dtype), counts], dim=1)

    def queries(self, present: Tensor, nearest: bool = False, **batch: Tensor):
        """Return what selects factors in the last layer, present first, (B, 2 + 2 d).

        The queries of image and text lie side by side.
        """
        tokens, host = self.stream.embed(**batch), HostBatch.of(present, batch)
        tasks = self._tasks_of(tokens, present, host, nearest=nearest)[0]
        queries = self._encode(tokens, self._source(present), tasks).queries
        return torch.cat([present.to(queries.dtype), queries.flatten(1)], dim=1)

    def key_vectors(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return what the moments are of, image and text side by side, (B, 2 d)."""
        tokens, host = self.stream.embed(**batch), HostBatch.of(present, batch)
        return torch.cat(self._key_vectors(tokens, host), dim=1).float()

    # Which task ----------------------------------------------------------------------

    def _tasks_of(
        self, tokens: Tokens, present: Tensor, host: HostBatch, told=None, nearest=False
    ) -> tuple[Tensor, Found | None]:
        """Return the task of each row, (B,), on the CPU, and what it was found by."""
        if told is None and len(self.tasks) == 1:
            told = 0
        if told is not None:
            return self._all_of(told, host), None
        # Only the device knows which task is the likeliest: one wait for each batch.
        if nearest or self.key_layers is None:
            return self._similarity(tokens, present).argmax(dim=1).cpu(), None
        found = self.finder(self._key_vectors(tokens, host), present)
        return found.tasks.argmax(dim=1).cpu(), found

    def _all_of(self, task: int, host: HostBatch) -> Tensor:
        return torch.full((len(host.present),), task)

    def _similarity(self, tokens: Tokens, present: Tensor) -> Tensor:
        keys = torch.stack([task.key.mean for task in self.tasks])  # (T, 2, d)
        return key_similarity(_queries(tokens), present, keys, self.center_keys)

    def _key_vectors(self, tokens: Tokens, host: HostBatch) -> list[Tensor]:
        """Read the frozen layers, which no factor is added to, [(B, d)] * 2."""
        frozen = {_factors_of(i): (None, None) for i in range(self.stream.n_layers)}
        with torch.no_grad():
            tokens = tokens.with_context(**frozen)
            return read_queries(self.stream, tokens, host, self.key_layers)

    # Logits --------------------------------------------------------------------------

    def _predict(
        self, tokens: Tokens, present: Tensor, host: HostBatch, told, nearest: bool
    ) -> Tensor:
        """Logits (B, C) in the order of the classes."""
        source = self._source(present)
        if self.multilabel and told is None:
            parts = [
                task.head(self._encode(tokens, source, i).features)
                for i, task in enumerate(self.tasks)
            ]
            return torch.cat(parts, dim=1)[:, self.order]
        tasks, found = self._tasks_of(tokens, present, host, told, nearest)
        features = self._features_of(tokens, source, tasks)
        parts = [task.head(features) for task in self.tasks]  # [(B, C_task)]
        if not self.multilabel:
            own = upload(tasks, features.device)[:, None]
            parts = self._mixed(parts, own, found)
        return torch.cat(parts, dim=1)[:, self.order]

    def _mixed(
        self, parts: list[Tensor], own: Tensor, found: Found | None
    ) -> list[Tensor]:
        """Weigh the heads' logits: one task's alone, or by what was found."""
        if found is None:
            return [p.where(own == i, EXCLUDED) for i, p in enumerate(parts)]
        mixed = []
        for i, part in enumerate(parts):
            within = found.classes[i]  # (B, C_task), or (B, 1) without classes
            if not self.keys_per_class:
                within = torch.full_like(part, -math.log(part.shape[1]))
            # Two opinions on its classes: what is tuned to them, and what is not.
            both = (within + part.log_softmax(dim=1)).log_softmax(dim=1)
            within = both.where(own == i, within)
            mixed.append(found.tasks[:, i, None] + within)
        return mixed

    # One task ------------------------------------------------------------------------

    def _source(self, present: Tensor) -> Tensor:
        """Whose query routes the image pool and the text pool, (B, 2)."""
        own = torch.arange(len(MODALITIES), device=present.device).expand_as(present)
        return own.where(present, own.flip(1)) if self.cross_modal_guide else own

    def _encode(self, tokens: Tokens, source: Tensor, tasks: int | Tensor) -> Encoded:
        """Run the backbone once, with the pools of a task or of each row's, (B,)."""
        stream, rows = self.stream, {tasks: None}
        tokens = tokens.with_context(source=source)
        if isinstance(tasks, Tensor):
            rows = {t: (tasks == t).nonzero()[:, 0] for t in tasks.unique().tolist()}
            rows = {t: upload(at, source.device) for t, at in rows.items()}
        tokens = stream.run(tokens, partial(self._route, rows))
        pooled, context = stream.pool(tokens), tokens.context
        features = pooled if stream.pooler is None else stream.pooler(pooled)
        selections = [context[_factors_of(i)][1] for i in range(stream.n_layers)]
        return Encoded(features, context["queries"], selections)

    def _features_of(self, tokens: Tokens, source: Tensor, tasks: Tensor) -> Tensor:
        """Return what the heads read, each row by its own task, (B, d)."""
        if not torch.compiler.is_compiling():
            return self._encode(tokens, source, tasks).features
        # A graph cannot know which rows a task has: it runs all of them for each.
        every = [
            self._encode(tokens, source, i).features for i in range(len(self.tasks))
        ]
        own = tasks[None, :, None].expand(1, -1, every[0].shape[1])
        return torch.stack(every).gather(0, own)[0]

    def _route(self, rows: dict[int, Tensor], i: int, tokens: Tokens) -> Tokens:
        """Add to the context the queries of a layer, and what they select there."""
        (pools, *others) = (self.tasks[task].pools[i] for task in rows)
        if others:
            pools = zip(rows.values(), [pools, *others], strict=True)
            pools = GroupedPools([*pools])
        queries = _queries(tokens)  # (B, 2, d)
        index = tokens.context["source"].unsqueeze(-1).expand_as(queries)  # (B, 2, d)
        guided = queries.gather(1, index)  # (B, 2, d)
        selection = None if self.static else pools.route(guided)
        factors = {_factors_of(i): (pools, selection)}
        return tokens.with_context(queries=queries, **factors)

    def _learn(
        self, tokens: Tokens, present: Tensor, host: HostBatch, learning: int
    ) -> tuple[Tensor, Tensor]:
        """Logits of the task that is learned and its penalty; moves its key."""
        task, n_rows = self.tasks[learning], len(present)
        # Queries of the frozen embedding, before any layer: a key cannot drift.
        task.key.update(_queries(tokens), present)
        rows, complete = torch.arange(n_rows), host.complete()
        source = self._source(host.present)  # (B, 2)
        if self.lambda_consistency:
            # Proxies ride along as more rows: complete ones routed by one modality.
            proxies = torch.arange(2).repeat_interleave(len(complete))
            rows = torch.cat([rows, complete, complete])
            source = torch.cat([source, proxies[:, None].expand(-1, 2)])
        to = partial(upload, device=present.device)
        rows, complete, source = map(to, (rows, complete, source))
        encoded = self._encode(tokens.select(rows), source, learning)
        logits = task.head(encoded.features)
        penalty, weight = logits.new_zeros(()), weight_of_mean(len(complete), logits)
        if len(complete) and self.lambda_align:
            image, text = encoded.queries[complete].unbind(dim=1)
            cosine = F.cosine_similarity(image, text, dim=-1)  # (complete rows,)
            penalty = penalty + weight * self.lambda_align * (1 - cosine).mean()
        if len(complete) and self.lambda_consistency:
            # The true output leads, without gradient; in the released code it follows.
            true = logits[complete].repeat(2, 1).detach()
            gap = divergence(true, logits[n_rows:], self.multilabel)
            penalty = penalty + weight * self.lambda_consistency * gap
        return logits[:n_rows], penalty


def _factors_of(layer: int) -> str:
    """Name the item of the context that a layer's adapter reads."""
    return f"factors_{layer}"


def _queries(tokens: Tokens) -> Tensor:
    """Mean of the image tokens and of the text tokens, (B, 2, d)."""
    return torch.stack([tokens.mean(name) for name in MODALITIES], dim=1)


class DeLoClassifier(TaskFindingClassifier):
    """Low-rank factor pools per task, for classes that arrive in stages [1]_.

    :meth:`partial_fit` learns one task per call and never changes what earlier calls
    learned; prediction needs no task. Probabilities are those of the task times those
    of the class in it, which the task's own head tells where the task is the likeliest;
    several labels are scored by the heads of all tasks, each from the features of its
    own. Training is the paper's: AdamW with batches of 4 and a cosine schedule after
    10% warm-up; the epochs (per task) and ``alpha`` are those of the authors' code.
    That code as released bypasses its adapters, so results printed in the paper cannot
    be checked against it.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT.
    rank : int
        Factors that a row selects from each pool.
    pool_size : int
        Factors in a pool.
    factor_rank : int
        Rank of one factor: 1 as in the paper's equations; its parameter counts
        (table 5) are reached with ``factor_rank=rank``.
    alpha : float
        The update is multiplied by it, whatever the rank.
    lambda_align : float
        Weight of the alignment loss.
    lambda_consistency : float
        Weight of the consistency loss.
    key_momentum : float
        Momentum of the task keys, in [0, 1).
    center_keys : bool
        Whether keys and queries are compared after subtracting the mean of the keys,
        which the paper does not do.
    router_gradient : {"straight_through", "none", "score"}
        How routers learn from a selection that is binary: by a straight-through
        estimate; not at all, as the paper's equation 3 has it; or by weighting the
        selected factors with their scores.
    single_pool : bool
        Whether both modalities select from one pool.
    cross_modal_guide : bool
        Whether a missing modality's pool is routed by the other's query, instead of by
        that of the dummy input.
    static : bool
        Whether each task has plain low-rank adapters of rank ``rank`` instead of pools.

    References
    ----------
    .. [1] Liu, Li, Tang and Razzak, "DeLo: Dual Decomposed Low-Rank Experts
       Collaboration for Continual Missing Modality Learning", arXiv:2603.01632, 2026,
       equations 1-10.

    Examples
    --------
    >>> import numpy as np
    >>> from robustmm import DeLoClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> early = (y == "beach") | (y == "city")
    >>> clf = DeLoClassifier(
    ...     "robustmm/tiny-vilt", pool_size=6, max_epochs=1, random_state=0
    ... )
    >>> clf.partial_fit(X[early], y[early]).predict_proba(X).shape
    (60, 2)
    >>> clf.partial_fit(X[~early], y[~early]).predict_proba(X).shape
    (60, 4)
    >>> told = clf.with_tasks(np.where(early, 0, 1))
    >>> told.predict_task(X).shape, 0 <= told.score(X, y) <= 1
    ((60,), True)
    """

    STREAMS = ("joint",)
    # The paper's, and of the authors' code what it leaves open: epochs, alpha, decay.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "rank": 4,
        "pool_size": 16,
        "factor_rank": 1,
        "alpha": 2.0,
        "lambda_align": 0.1,
        "lambda_consistency": 0.1,
        "key_momentum": 0.99,
        "center_keys": False,
        "single_pool": False,
        "cross_modal_guide": True,
        "static": False,
        "task_inference": "nearest",
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

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    rank: int = 4
    pool_size: int = 16
    factor_rank: int = 1
    alpha: float = 2.0
    lambda_align: float = 0.1
    lambda_consistency: float = 0.1
    key_momentum: float = 0.99
    center_keys: bool = False
    router_gradient: str = "straight_through"
    single_pool: bool = False
    cross_modal_guide: bool = True
    static: bool = False

    batch_size: int = 4
    lr: float = 1e-4
    lr_schedule: str = "cosine"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("rank", "pool_size", "factor_rank"):
            check_number(name, getattr(self, name), Integral, 1)
        check_number("alpha", self.alpha, Real, 0, open="low")
        check_number("lambda_align", self.lambda_align, Real, 0)
        check_number("lambda_consistency", self.lambda_consistency, Real, 0)
        check_number("key_momentum", self.key_momentum, Real, 0, 1)
        check_choice("router_gradient", self.router_gradient, ROUTER_GRADIENTS)
        if not self.static and self.rank > self.pool_size:
            raise ValueError(
                f"rank must be in [1, pool_size={self.pool_size}], got {self.rank}."
            )
        if self.key_momentum == 1:
            raise ValueError("key_momentum must be below 1, or no key is ever learned.")

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"pool_size": 6, "shrinkage": 0.5} | params)

    def _optimizer_options(self) -> dict:
        return {"optimizer__betas": (0.9, 0.98)}

    def _head_of(self, module: DeLoModule) -> tuple[nn.Module, Callable]:
        read = partial(DeLoModule.features, told=self._task)
        return module.tasks[self._task].head, read

    def _start_head(self, net, train) -> None:
        earlier = self.net_.module_.tasks if self.__sklearn_is_fitted__() else ()
        # A task that goes on has learned a head from more than the rows of this call.
        if self._task >= len(earlier):
            super()._start_head(net, train)

    # Learning ------------------------------------------------------------------------

    def _build_module(self, backbone: Backbone, n_outputs: int) -> DeLoModule:
        """Return all tasks, the earlier ones as they were learned."""
        module = DeLoModule(
            backbone,
            self._labels.columns,
            multilabel=self._multilabel,
            make_pools=self._make_pools,
            alpha=self.alpha,
            lambda_align=self.lambda_align,
            lambda_consistency=self.lambda_consistency,
            key_momentum=self.key_momentum,
            center_keys=self.center_keys,
            cross_modal_guide=self.cross_modal_guide,
            static=self.static,
            **self._key_options(),
        )
        if self.__sklearn_is_fitted__():
            for position, learned in enumerate(self.net_.module_.tasks):
                # Copied: the net before stays as it was, should this training fail.
                module.tasks[position].load_state_dict(learned.state_dict())
        module.train_only(self._task)
        return module

    def _make_pools(self, d_in: int, d_out: int) -> nn.Module:
        """Return the untrained pools of one task for one layer."""
        sizes = {"n_linears": len(ADAPTED), "rank": self.rank}
        if self.static:
            return StaticFactors(d_in, d_out, **sizes)
        return FactorPools(
            d_in,
            d_out,
            **sizes,
            n_queries=len(MODALITIES),
            pool_size=self.pool_size,
            factor_rank=self.factor_rank,
            shared=self.single_pool,
            gradient=self.router_gradient,
        )

    def _forward_params(self) -> dict:
        return {"learning": self._task}

    def factor_usage(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return how often each factor is selected, as in the paper's figure 5.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``.

        Returns
        -------
        DataFrame of shape (n_tasks * pool_size, 4)
            Means over rows, layers and linears, in [0, 1]. The index is (task,
            factor), the columns (modality that selects, side of the factor). Rows
            count for their predicted task; NaN for a task without rows.

        Raises
        ------
        ValueError
            If ``static``: nothing is selected then.
        """
        self._refuse_static()
        # The base's: tasks that are told are no prediction.
        values, empty = self._find(X, DeLoModule.usage)
        tasks, counts = values[~empty, 0], values[~empty, 1:]
        return factor_frame(counts, tasks, len(self.task_classes_), MODALITIES)

    def query_vectors(self, X: pd.DataFrame) -> np.ndarray:
        """Return what selects the factors of each row in the last layer (figure 4b).

        The means of its image tokens and of its text tokens as they enter that layer,
        which the alignment loss (equation 9) draws together.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``.

        Returns
        -------
        ndarray of float, shape (n, 2, d)
            The image's and the text's, NaN where a row has none.

        Raises
        ------
        ValueError
            If ``static``: nothing is selected then.

        See Also
        --------
        QueryAlignmentDisplay : Draws how alike the two are.
        """
        self._refuse_static()
        values, empty = self._find(X, DeLoModule.queries)
        values[empty] = 0.0  # absent, by the first two columns
        vectors = values[:, 2:].reshape(len(values), 2, -1)
        vectors[values[:, :2] == 0] = np.nan
        return vectors

    def _refuse_static(self) -> None:
        if self.static:
            raise ValueError("Static adapters have no factors to select from.")
