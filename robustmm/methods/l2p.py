"""L2P: one pool of prompts for all stages, of which each row takes the nearest.

Wang et al., "Learning to Prompt for Continual Learning", CVPR 2022.

A row's frozen class token is compared with the keys of a pool; the prompts of the
nearest ones stand in front of what enters a frozen ViLT, and a head reads the mean of
what becomes of them. Nothing but the heads belongs to a stage: unlike DualPrompt's, the
prompts go on changing, and earlier stages are forgotten as far as they share them.
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

from ..annotations import TableLike
from ..backbones import Backbone, Tokens
from ..checks import check_choice, check_number
from ..stagewise import COMPARED, QUERIES, StagewiseClassifier, StagewiseModule

SELECTIONS = ("top_k", "per_stage")


class L2PModule(StagewiseModule):
    r"""Frozen ViLT with the prompts that a row's query selects, and a head per stage.

    With :math:`q` the query of a row and :math:`k_j` the keys, the row takes the
    prompts of the :math:`N` largest :math:`\cos(q, k_j)`. They enter the first layer
    in front of the row's tokens, without a position, and the features are the mean of
    their outputs behind the final norm. While training, the penalty is
    :math:`-\lambda \sum_{j \in s} \cos(q, k_j)`, a mean over the rows: it alone moves
    keys, and the task loss alone prompts.

    Shapes: ``prompts`` (M, l, d), ``keys`` (M, d); ``present`` (B, 2) bool,
    ``pixel_values`` (B, 3, H, W), ``input_ids`` and ``attention_mask`` (B, T); features
    (B, d); logits (B, C), or those of the stage that is learned.
    """

    def __init__(
        self,
        backbone: Backbone,
        columns: Sequence[Sequence[int]],
        *,
        pool_size: int,
        prompt_length: int,
        top_k: int,
        lambda_pull: float,
        selection: str,
        query: str,
        store=None,
    ):
        super().__init__(backbone, columns, query, store)
        self.top_k, self.lambda_pull, self.selection = top_k, lambda_pull, selection
        width = self.stream.width
        self.prompts = nn.Parameter(torch.empty(pool_size, prompt_length, width))
        self.keys = nn.Parameter(torch.empty(pool_size, width))
        for tensor in (self.prompts, self.keys):
            nn.init.uniform_(tensor, -1, 1)
        # What is taken from every query: zeros, or a mean that stays for ever.
        self.register_buffer("center", torch.zeros(width))

    def forward(
        self, present: Tensor, learning: int | None = None, **batch: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; of the stage ``learning`` while training, with the penalty."""
        cosines = self.similarity(present, **batch)  # (B, M)
        chosen = self._choose(cosines, learning)
        features = self._read(chosen, batch)
        if learning is None:
            return self.classify(features)
        logits = self.stages[learning].head(features)
        if not self.training:
            return logits
        pull = cosines.gather(1, chosen).sum(dim=1).mean()
        return logits, -self.lambda_pull * pull

    def features(self, present: Tensor, learning=None, **batch: Tensor) -> Tensor:
        """Return the mean of the prompts' outputs, (B, d)."""
        return self._read(self.selected(present, **batch), batch)

    def selected(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the prompts that each row takes, the nearest first, (B, N)."""
        return self._choose(self.similarity(present, **batch))

    def similarity(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the cosine of each row's query and each key, (B, M)."""
        query = self.query(present, **batch) - self.center
        # Not in half precision, which would make ties of what are different keys.
        with torch.autocast(query.device.type, enabled=False):
            return F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).T

    def _choose(self, cosines: Tensor, learning: int | None = None) -> Tensor:
        """Choose for each row alone: a vote of a batch would tell whose rows these are.

        The authors' code lets a batch vote, where a batch holds rows of one stage.
        """
        own = learning is not None and self.training and self.selection == "per_stage"
        if own and (learning + 1) * self.top_k <= len(self.keys):
            first = learning * self.top_k
            places = torch.arange(first, first + self.top_k, device=cosines.device)
            return places.expand(len(cosines), -1)
        return cosines.topk(self.top_k, dim=1).indices

    def _read(self, chosen: Tensor, batch: dict[str, Tensor]) -> Tensor:
        prompt = self.prompts[chosen].flatten(1, 2)  # (B, N * l, d)

        def add(i: int, tokens: Tokens) -> Tokens:
            return tokens if i else tokens.insert("prompt", prompt, before="text")

        stream = self.stream
        tokens = stream.run(stream.embed(**batch), add, keep="prompt")
        return stream.norm(tokens["prompt"]).mean(dim=1)


class L2PClassifier(StagewiseClassifier):
    """A pool of prompts for all stages, of which each row takes the nearest [1]_.

    Each row chooses for itself, whereas the public code lets a batch vote, which at
    test time tells the stage. All rows are treated alike: a missing cell is a dummy.
    Defaults are the prompts of the common re-implementation and the training with which
    DeLo's paper compares.

    Parameters
    ----------
    pool_size : int
        Prompts, and keys.
    prompt_length : int
        Rows of a prompt.
    top_k : int
        Prompts that a row takes.
    lambda_pull : float
        Weight of the loss that pulls the chosen keys towards the queries.
    selection : {"top_k", "per_stage"}
        Whether a training row, too, takes the nearest prompts, or those that are kept
        for its stage, as long as the pool lasts. By the first, the prompts of the first
        stage tend to be taken for ever.
    query : {"text", "mean"}
        What is compared with the keys, of the frozen model: the class token of the
        text, or the mean of the class tokens of what a row has.
    center_queries : bool
        Whether the mean query of the first stage is subtracted from all queries, whose
        cosines are close to 1 otherwise.

    References
    ----------
    .. [1] Wang et al., "Learning to Prompt for Continual Learning", CVPR 2022.

    Examples
    --------
    >>> from robustmm import L2PClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> early = (y == "beach") | (y == "city")
    >>> clf = L2PClassifier("robustmm/tiny-vilt", max_epochs=1, random_state=0)
    >>> clf = clf.partial_fit(X[early], y[early]).partial_fit(X[~early], y[~early])
    >>> clf.predict_proba(X).shape, clf.selected_prompts(X).shape
    ((60, 4), (60, 5))
    """

    # As "L2P" is trained where DeLo's paper compares with it; prompts of the common
    # re-implementation.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "pool_size": 10,
        "prompt_length": 5,
        "top_k": 5,
        "lambda_pull": 0.1,
        "selection": "top_k",
        "query": "text",
        "center_queries": False,
        **COMPARED,
    }

    pool_size: int = 10
    prompt_length: int = 5
    top_k: int = 5
    lambda_pull: float = 0.1
    selection: str = "top_k"
    query: str = "text"
    center_queries: bool = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("pool_size", "prompt_length", "top_k"):
            check_number(name, getattr(self, name), Integral, 1)
        check_number("lambda_pull", self.lambda_pull, Real, 0)
        check_choice("selection", self.selection, SELECTIONS)
        check_choice("query", self.query, QUERIES)
        if self.top_k > self.pool_size:
            raise ValueError(
                f"top_k must be in [1, pool_size={self.pool_size}], got {self.top_k}."
            )

    @classmethod
    def _small(cls, **params):
        sizes = {"pool_size": 4, "prompt_length": 2, "top_k": 2}
        return super()._small(**sizes | params)

    def _build_stages(self, backbone: Backbone, columns: list[list[int]]) -> L2PModule:
        return L2PModule(
            backbone,
            columns,
            pool_size=self.pool_size,
            prompt_length=self.prompt_length,
            top_k=self.top_k,
            lambda_pull=self.lambda_pull,
            selection=self.selection,
            query=self.query,
            store=self._state_cache(),
        )

    def _look_at(self, net, train: Subset) -> None:
        # Of the first stage alone: moved later, keys that are learned would be wrong.
        if self.center_queries and not self.__sklearn_is_fitted__():
            queries = self._read_rows(net, train, L2PModule.query)
            center = net.module_.center
            center.copy_(queries.mean(dim=0))

    def selected_prompts(self, X: TableLike) -> np.ndarray:
        """Return the prompts that each row takes, (n, top_k) int, the nearest first.

        -1 for a row without any modality. How many of the pool are ever used, and in
        how many different sets, is ``np.unique`` of it.
        """
        return self._places(X, L2PModule.selected)
