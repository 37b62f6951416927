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

import operator
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import field
from functools import partial
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import (
    ROUTER_GRADIENTS,
    FactorLinears,
    FactorPools,
    LinearHead,
    Selection,
    StaticFactors,
    TaskKey,
    count_factors,
    divergence,
    factor_frame,
    key_similarity,
)
from ..backbones import Backbone, HostBatch, Tokens, upload
from ..checks import check_choice, check_number
from ..data.targets import Targets
from ..incremental import IncrementalClassifier

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
    """What one task learns: pools for every layer, a head, and its key."""

    def __init__(
        self, width: int, pools: Sequence[nn.Module], n_outputs: int, momentum: float
    ):
        super().__init__()
        self.pools = nn.ModuleList(pools)
        self.head = LinearHead(width, n_outputs)
        self.key = TaskKey(width, len(MODALITIES), momentum)


class DeLoModule(nn.Module):
    r"""Frozen ViLT with the factor pools, heads and keys of several tasks.

    Before every layer the mean of the image tokens and that of the text tokens are the
    queries :math:`q_v, q_t` (padding never counts). Each routes its pool; where a
    modality is missing, its pool is routed by the other's query (equation 5). Query,
    key and value map :math:`h` to :math:`Wh + \alpha(\Delta W^v + \Delta W^t)h`.

    Called with the task that is ``learning``, its head alone counts, and while training
    the penalty over complete rows is ``lambda_align`` times :math:`1 - \cos(q_v, q_t)`
    at the last layer (equation 9) plus ``lambda_consistency`` times the divergence of
    the output under a proxy query from the output under the true one, each modality
    being replaced once. Otherwise the task of a row is the one that is ``told``, or
    that of the closest key (equation 8).

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
    ):
        super().__init__()
        self.backbone = backbone
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
            self.tasks.append(DeLoTask(width, pools, len(positions), key_momentum))

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
        **batch: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; of the task ``learning`` while training, with the penalty."""
        tokens = self.stream.embed(**batch)
        if learning is None:
            tasks = self._tasks_of(tokens, present, told)
            return self._classify(self._features(tokens, present, tasks), tasks)
        if self.training:
            return self._learn(tokens, present, HostBatch.of(present, batch), learning)
        encoded = self._encode(tokens, self._source(present), learning)
        return self.tasks[learning].head(encoded.features)

    def features(self, present: Tensor, told=None, **batch: Tensor) -> Tensor:
        """Return the pooled rows that the heads classify, (B, d)."""
        tokens = self.stream.embed(**batch)
        return self._features(tokens, present, self._tasks_of(tokens, present, told))

    def task_scores(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the similarity of each row to the key of each task, (B, n_tasks)."""
        return self._similarity(self.stream.embed(**batch), present)

    def usage(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return each row's task and how often it selects each factor.

        (B, 1 + 2 * 2 * E): the frequencies, a mean over layers and linears, are those
        of the image's a and b, then of the text's.
        """
        tokens = self.stream.embed(**batch)
        size, tasks = self.tasks[0].pools[0].pool_size, self._tasks_of(tokens, present)
        counts = self._by_task(
            tokens, present, tasks, lambda e: count_factors(e.selections, size)
        )
        tasks = upload(tasks, counts.device)[:, None]  # (B, 1)
        return torch.cat([tasks.to(counts.dtype), counts], dim=1)

    # Which task ----------------------------------------------------------------------

    def _tasks_of(self, tokens: Tokens, present: Tensor, told=None) -> Tensor:
        """Return the task of each row, (B,), on the CPU, where runs are planned."""
        if told is None and len(self.tasks) == 1:
            told = 0
        if told is not None:
            return torch.full((len(present),), told)
        # Only the device knows which key is the closest: one wait for each batch.
        return self._similarity(tokens, present).argmax(dim=1).cpu()

    def _similarity(self, tokens: Tokens, present: Tensor) -> Tensor:
        keys = torch.stack([task.key.mean for task in self.tasks])  # (T, 2, d)
        return key_similarity(_queries(tokens), present, keys, self.center_keys)

    def _by_task(
        self, tokens: Tokens, present: Tensor, tasks: Tensor, read: Callable
    ) -> Tensor:
        """Encode each row by its task, in one run per task, and ``read`` the result."""
        parts, places = [], []
        for task in tasks.unique().tolist():
            places.append((tasks == task).nonzero()[:, 0])
            rows = upload(places[-1], present.device)
            source = self._source(present[rows])
            parts.append(read(self._encode(tokens.select(rows), source, task)))
        order = torch.cat(places).argsort()
        return torch.cat(parts)[upload(order, present.device)]

    def _features(self, tokens: Tokens, present: Tensor, tasks: Tensor) -> Tensor:
        return self._by_task(tokens, present, tasks, lambda encoded: encoded.features)

    def _classify(self, features: Tensor, tasks: Tensor) -> Tensor:
        """Logits (B, C): of the row's task, or of all tasks for several labels."""
        tasks, parts = upload(tasks, features.device), []
        for position, task in enumerate(self.tasks):
            here = task.head(features)  # (B, C_task)
            if not self.multilabel:
                here = here.where((tasks == position)[:, None], EXCLUDED)
            parts.append(here)
        return torch.cat(parts, dim=1)[:, self.order]

    # One task ------------------------------------------------------------------------

    def _source(self, present: Tensor) -> Tensor:
        """Whose query routes the image pool and the text pool, (B, 2)."""
        own = torch.arange(len(MODALITIES), device=present.device).expand_as(present)
        return own.where(present, own.flip(1)) if self.cross_modal_guide else own

    def _encode(self, tokens: Tokens, source: Tensor, task: int) -> Encoded:
        """Run the backbone with the pools of one task."""
        stream, pools = self.stream, self.tasks[task].pools
        tokens = tokens.with_context(source=source)
        tokens = stream.run(tokens, partial(self._route, pools))
        pooled, context = stream.pool(tokens), tokens.context
        features = pooled if stream.pooler is None else stream.pooler(pooled)
        selections = [context[_factors_of(i)][1] for i in range(stream.n_layers)]
        return Encoded(features, context["queries"], selections)

    def _route(self, pools: nn.ModuleList, i: int, tokens: Tokens) -> Tokens:
        """Add to the context the queries of a layer, and what they select there."""
        queries = _queries(tokens)  # (B, 2, d)
        index = tokens.context["source"].unsqueeze(-1).expand_as(queries)  # (B, 2, d)
        guided = queries.gather(1, index)  # (B, 2, d)
        selection = None if self.static else pools[i].route(guided)
        factors = {_factors_of(i): (pools[i], selection)}
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
        penalty = logits.new_zeros(())
        if len(complete) and self.lambda_align:
            image, text = encoded.queries[complete].unbind(dim=1)
            cosine = F.cosine_similarity(image, text, dim=-1)  # (complete rows,)
            penalty = penalty + self.lambda_align * (1 - cosine).mean()
        if len(complete) and self.lambda_consistency:
            # The true output leads, without gradient; in the released code it follows.
            true = logits[complete].repeat(2, 1).detach()
            gap = divergence(true, logits[n_rows:], self.multilabel)
            penalty = penalty + self.lambda_consistency * gap
        return logits[:n_rows], penalty


def _factors_of(layer: int) -> str:
    """Name the item of the context that a layer's adapter reads."""
    return f"factors_{layer}"


def _queries(tokens: Tokens) -> Tensor:
    """Mean of the image tokens and of the text tokens, (B, 2, d)."""
    return torch.stack([tokens.mean(name) for name in MODALITIES], dim=1)


class DeLoClassifier(IncrementalClassifier):
    """Low-rank factor pools per task, for classes that arrive in stages [1]_.

    :meth:`partial_fit` learns one task per call and never changes what earlier calls
    learned; prediction needs no task. A row's classes in other tasks than its own have
    probability zero, a logit of -1000; several labels are scored by the heads of all
    tasks, from the features of one. Defaults are the paper's recipe: AdamW with
    batches of 4 and a cosine schedule after 10% warm-up; the epochs (per task) and
    ``alpha`` are those of the authors' code. That code as released bypasses its
    adapters, so results printed in the paper cannot be checked against it.

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
    task_inference : {"predicted", "oracle"}
        Whether the task of a row is that of the closest key, or must be told by
        :meth:`with_tasks`, without which nothing is predicted then.

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
    >>> told.predict_task(X).shape, bool(told.score(X, y) >= clf.score(X, y))
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
        "task_inference": "predicted",
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
    _KEPT = (*IncrementalClassifier._KEPT, "_told")

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
    task_inference: str = "predicted"

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
        check_choice("task_inference", self.task_inference, ("predicted", "oracle"))
        if not self.static and self.rank > self.pool_size:
            raise ValueError(
                f"rank must be in [1, pool_size={self.pool_size}], got {self.rank}."
            )
        if self.key_momentum == 1:
            raise ValueError("key_momentum must be below 1, or no key is ever learned.")

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"pool_size": 6} | params)

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

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        super()._take_labels(targets, weights)
        vars(self).pop("_told", None)

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

    # Prediction ----------------------------------------------------------------------

    def with_tasks(self, tasks: ArrayLike) -> Self:
        """Return a twin whose predictions take the task of each row from the caller.

        For analysis: how good is the model where the right task is found? The twin
        shares the fitted net, and predicts, scores and transforms tables of as many
        rows as there are tasks. What it learns further is its own and ends the telling.

        Parameters
        ----------
        tasks : array-like of shape (n,), int
            The task of each row, in the order of learning from 0.

        Raises
        ------
        NotFittedError
            If no task was learned yet.
        ValueError
            For a task that was not learned.
        """
        check_is_fitted(self)
        tasks, n_tasks = column_or_1d(tasks), len(self.task_classes_)
        if not np.isin(tasks, range(n_tasks)).all():
            raise ValueError(
                f"tasks must be in [0, {n_tasks - 1}], got {np.unique(tasks).tolist()}."
            )
        twin = copy(self)
        twin._told = tasks.astype(np.int64)
        return twin

    def predict_task(self, X: pd.DataFrame) -> np.ndarray:
        """Return the task with the closest key, (n,) int, in the order of learning.

        -1 for a row without any modality, whatever ``task_inference`` is.
        """
        # The base's: tasks that are told are no prediction.
        scores, empty = super()._evaluate(X, DeLoModule.task_scores)
        return np.where(empty, -1, scores.argmax(axis=1))

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
        if self.static:
            raise ValueError("Static adapters have no factors to select from.")
        values, empty = super()._evaluate(X, DeLoModule.usage)
        tasks, counts = values[~empty, 0], values[~empty, 1:]
        return factor_frame(counts, tasks, len(self.task_classes_), MODALITIES)

    def _evaluate(
        self, X, read: Callable = operator.call
    ) -> tuple[np.ndarray, np.ndarray]:
        """Extend the base's by the tasks that are told."""
        told = getattr(self, "_told", None)
        if told is None:
            if self.task_inference == "oracle" and self.__sklearn_is_fitted__():
                raise ValueError(
                    'With task_inference="oracle" the task of each row must be told: '
                    "call with_tasks(tasks).predict(X), and likewise for others."
                )
            return super()._evaluate(X, read)
        check_consistent_length(X, told)
        parts = []
        for task in np.unique(told):
            rows = np.flatnonzero(told == task)
            some = _safe_indexing(X, rows)
            of_task = partial(read, told=int(task))
            parts.append((rows, *super()._evaluate(some, of_task)))
        order = np.concatenate([rows for rows, _, _ in parts]).argsort()
        values = np.concatenate([values for _, values, _ in parts])[order]
        return values, np.concatenate([empty for _, _, empty in parts])[order]
