"""Pools of low-rank factors, of which a router selects some for every sample.

A LoRA update is a fixed sum of products; here each sample composes its own sum from a
pool. All pools of all linears that read one input are stacked: one matrix product makes
the codes of every factor, a gather and a scatter pick and pair them, a second product
maps them to the outputs. No weight matrix is ever made per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROUTER_GRADIENTS = ("straight_through", "none", "score")


class Selection(NamedTuple):
    """The factors selected for each sample, by descending score.

    ``down`` and ``up`` (B, J, Q, r) are their positions in the pools of J linears for
    Q queries, ``weight`` (B, J, Q, r) what the k-th pair of them is multiplied by.

    Examples
    --------
    >>> places = torch.zeros(3, 2, 1, 4, dtype=torch.long)
    >>> Selection(down=places, up=places, weight=torch.ones(3, 2, 1, 4)).up.shape
    torch.Size([3, 2, 1, 4])
    """

    down: Tensor
    up: Tensor
    weight: Tensor


class FactorPools(nn.Module):
    r"""Factor pools of several linears with a common input, and their routers [1]_.

    The update of one linear is the sum over queries :math:`m` (one per modality) of

    .. math:: \Delta W^m = \alpha \sum_{k=1}^{r} b_{\beta(k)}^m \otimes a_{\alpha(k)}^m

    with :math:`\alpha(k)` the factor of the k-th highest score
    :math:`\mathrm{softmax}(W_A q_m)` and :math:`\beta(k)` that of the k-th highest
    :math:`\mathrm{softmax}(W_B q_m) + \sum_j \mathrm{softmax}(W_{AB,j} a_{\alpha(j)})`,
    whose second term says which b goes with the selected a (as in MixLoRA [2]_).

    Parameters
    ----------
    d_in, d_out : int
        Width of the linears.
    n_linears : int
        How many linears read the input, J.
    n_queries : int
        Queries per sample, Q.
    pool_size : int
        Factors in a pool, E.
    rank : int
        Factors selected from a pool, r.
    factor_rank : int
        Rank of one factor, f: 1 for vectors, as in the paper's equations.
    shared : bool
        Whether all queries select from one pool instead of a pool each.
    gradient : {"straight_through", "none", "score"}
        How routers learn. The selection is binary; ``"straight_through"`` passes the
        gradient of a selected factor's weight to its score as if the weight were the
        score, ``"none"`` is the literal formula, whose routers never move, and
        ``"score"`` weights the factors by their scores, relative to their mean.

    Notes
    -----
    Shapes, with P pools (Q, or 1 if shared): ``down`` (J, P, E, f, d_in) Gaussian of
    variance ``1 / d_in``; ``up`` (J, P, E, f, d_out) zero, so that the update starts
    at zero; ``router_weight`` (2, J, P, E, d_in), ``router_bias`` (2, J, P, E), the
    first for a, the second for b; ``affinity`` (J, P, r, d_in, E), :math:`W_{AB}`.
    Query (B, Q, d_in), input (B, L, d_in), update (J, B, L, d_out).

    References
    ----------
    .. [1] Liu et al., "DeLo: Dual Decomposed Low-Rank Experts Collaboration for
       Continual Missing Modality Learning", arXiv:2603.01632, 2026, equations 2 to 4.
    .. [2] Shen et al., "Multimodal Instruction Tuning with Conditional Mixture of
       LoRA", ACL 2024.

    Examples
    --------
    >>> import torch
    >>> pools = FactorPools(8, 6, n_linears=3, pool_size=5, rank=2)
    >>> selection = pools.route(torch.randn(4, 2, 8))
    >>> selection.down.shape
    torch.Size([4, 3, 2, 2])
    >>> update = pools(torch.randn(4, 7, 8), selection)
    >>> update.shape, bool((update == 0).all())
    (torch.Size([3, 4, 7, 6]), True)
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        n_linears: int = 1,
        n_queries: int = 2,
        pool_size: int = 16,
        rank: int = 4,
        factor_rank: int = 1,
        shared: bool = False,
        gradient: str = "straight_through",
    ):
        super().__init__()
        if not 1 <= rank <= pool_size:
            raise ValueError(
                f"rank must be in [1, pool_size={pool_size}], got {rank!r}."
            )
        self.pool_size, self.rank, self.n_queries = pool_size, rank, n_queries
        self.gradient = gradient
        pools = (n_linears, 1 if shared else n_queries)
        self.down = nn.Parameter(torch.empty(*pools, pool_size, factor_rank, d_in))
        self.up = nn.Parameter(torch.zeros(*pools, pool_size, factor_rank, d_out))
        self.router_weight = nn.Parameter(torch.empty(2, *pools, pool_size, d_in))
        self.router_bias = nn.Parameter(torch.empty(2, *pools, pool_size))
        self.affinity = nn.Parameter(torch.randn(*pools, rank, d_in, pool_size))
        # So that what a factor makes of a normalised token has variance 1.
        nn.init.normal_(self.down, std=d_in**-0.5)
        for router in (self.router_weight, self.router_bias):
            nn.init.uniform_(router, -(d_in**-0.5), d_in**-0.5)

    def route(self, query: Tensor) -> Selection:
        """Select factors for queries (B, Q, d_in)."""
        # Half precision would make ties, and so selections, depend on the hardware.
        with torch.autocast(query.device.type, enabled=False):
            weight, bias = self._per_query(self.router_weight, self.router_bias)
            logits = torch.einsum("bqd,sjqed->sbjqe", query.float(), weight)
            scores_down, scores_up = (logits + bias[:, None]).softmax(dim=-1)
            down = scores_down.topk(self.rank, dim=-1)
            agreement = self._agreement(down.indices)
            # Both terms are distributions; their mean has the order of their sum.
            scores_up = (scores_up + agreement) / (1 + self.rank)  # (B, J, Q, E)
            # The k-th best a goes with the k-th best b: selected independently, an a
            # and a b of one number, the paper's pairs, need not both be there.
            up = scores_up.topk(self.rank, dim=-1)
            weight = self._weight(down.values) * self._weight(up.values)
        return Selection(down.indices, up.indices, weight)

    def forward(self, x: Tensor, selection: Selection) -> Tensor:
        """Map (B, L, d_in) to the updates of all linears, (J, B, L, d_out)."""
        code = F.linear(x, self.down.flatten(0, 3))  # (B, L, J * P * E * f)
        code = code.unflatten(-1, self.down.shape[:-1])  # (B, L, J, P, E, f)
        mixed = self._mix(code, selection)
        n_linears, d_out = self.up.shape[0], self.up.shape[-1]
        mixed = mixed.flatten(3).flatten(0, 1).transpose(0, 1)  # (J, B * L, P * E * f)
        update = torch.bmm(mixed, self.up.reshape(n_linears, -1, d_out).to(mixed.dtype))
        return update.unflatten(1, x.shape[:2])

    def _mix(self, code: Tensor, selection: Selection) -> Tensor:
        """Move the code of the k-th a to the place of the k-th b; drop the others."""
        shape = (-1, code.shape[1], -1, self.n_queries, -1, code.shape[-1])
        # A shared pool's codes are those of every query: seen twice, not copied.
        code = code.expand(*shape[:4], *code.shape[4:])
        down, up = (
            index[:, None, ..., None].expand(shape)
            for index in (selection.down, selection.up)
        )  # (B, L, J, Q, r, f)
        weight = selection.weight[:, None, ..., None].to(code.dtype)
        picked = code.gather(4, down) * weight  # (B, L, J, Q, r, f)
        placed = torch.zeros_like(code).scatter(4, up, picked)  # (B, L, J, Q, E, f)
        shared = self.up.shape[1] < self.n_queries
        # The product with one pool of b's then takes the sum over queries along.
        return placed.sum(dim=3, keepdim=True) if shared else placed

    def _agreement(self, selected: Tensor) -> Tensor:
        """How well each b goes with the selected a's, summed over them, (B, J, Q, E).

        Made from a table over all a's (E of them, whatever the batch), in which the
        selected are looked up.
        """
        # Detached as in MixLoRA: a factor is not trained to be a feature of itself.
        factors = self.down.detach().float().mean(dim=3)  # (J, P, E, d_in)
        table = torch.einsum("jped,jprdx->jprex", factors, self.affinity.float())
        # A softmax, as in MixLoRA: raw sums of a normal affinity would swamp the score
        # that the query gives.
        (table,) = self._per_query(table.softmax(dim=-1)[None])  # (1, J, Q, r, E, E)
        _, n_linears, n_queries, rank = selected.shape
        linear = torch.arange(n_linears, device=selected.device)[:, None, None]
        query = torch.arange(n_queries, device=selected.device)[:, None]
        order = torch.arange(rank, device=selected.device)
        return table[0, linear, query, order, selected].sum(dim=-2)

    def _per_query(self, *stacked: Tensor) -> Sequence[Tensor]:
        """Repeat shared pools, dimension 2 of each tensor, for every query."""
        size = self.n_queries
        return [t.expand(*t.shape[:2], size, *t.shape[3:]) for t in stacked]

    def _weight(self, scores: Tensor) -> Tensor:
        if self.gradient == "score":
            # By their mean, so that the update is as large as with weights of 1.
            return scores / scores.mean(dim=-1, keepdim=True)
        ones = torch.ones_like(scores)
        # Written so that the value is exactly 1.
        return ones if self.gradient == "none" else ones + (scores - scores.detach())


class StaticFactors(nn.Module):
    """Plain LoRA factors of several linears, in the place of ``FactorPools``.

    Shapes: ``down`` (J, r, d_in), ``up`` (J, r, d_out); input (B, L, d_in), update
    (J, B, L, d_out). There is nothing to select.

    Examples
    --------
    >>> factors = StaticFactors(8, 6, n_linears=2, rank=4)
    >>> factors(torch.randn(3, 5, 8)).shape
    torch.Size([2, 3, 5, 6])
    """

    def __init__(self, d_in: int, d_out: int, *, n_linears: int = 1, rank: int = 4):
        super().__init__()
        self.down = nn.Parameter(torch.empty(n_linears, rank, d_in))
        self.up = nn.Parameter(torch.zeros(n_linears, rank, d_out))
        nn.init.normal_(self.down, std=d_in**-0.5)

    def forward(self, x: Tensor, selection: None = None) -> Tensor:
        """Map (B, L, d_in) to the updates of all linears, (J, B, L, d_out)."""
        rows = x.flatten(0, 1).expand(len(self.down), -1, -1)  # (J, B * L, d_in)
        code = torch.bmm(rows, self.down.transpose(1, 2).to(x.dtype))  # (J, B * L, r)
        return torch.bmm(code, self.up.to(code.dtype)).unflatten(1, x.shape[:2])


class FactorLinears(nn.Module):
    """Frozen linears with a common input, plus the update of pools from outside.

    The pools belong to a task and are not part of this module: the context of the
    tokens has them, with what was selected. A call without them raises, so that the
    update is never left out in silence.

    Parameters
    ----------
    frozen : sequence of torch.nn.Linear
        The layers to adapt, J of them, of equal shape.
    alpha : float
        The update is multiplied by it, whatever the rank.
    source : str
        The item of the context that is a pair (pools, selection), or (None, None) for
        the frozen linears alone. As the context goes on from layer to layer, each
        should have an item of its own.

    Examples
    --------
    >>> from robustmm.backbones import Tokens
    >>> adapted = FactorLinears([nn.Linear(8, 6), nn.Linear(8, 6)], alpha=1.0)
    >>> pools = StaticFactors(8, 6, n_linears=2, rank=4)
    >>> x = torch.randn(3, 5, 8)
    >>> context = {"factors": (pools, None)}
    >>> tokens = Tokens(x, None, {"text": (0, 5)}, context=context)
    >>> [y.shape for y in adapted(x, tokens)]
    [torch.Size([3, 5, 6]), torch.Size([3, 5, 6])]
    """

    reads_tokens = True

    def __init__(
        self, frozen: Sequence[nn.Linear], alpha: float, source: str = "factors"
    ):
        super().__init__()
        self.frozen = nn.ModuleList(frozen)
        self.alpha = alpha
        self.source = source

    def forward(self, x: Tensor, tokens=None) -> tuple[Tensor, ...]:
        """Map (B, L, d_in) to a tensor (B, L, d_out) per linear.

        Raises
        ------
        RuntimeError
            If the context of ``tokens`` has no pools for this call.
        """
        context = {} if tokens is None else tokens.context
        if self.source not in context:
            raise RuntimeError(
                "The context of the tokens must have factor pools and a selection as "
                f"{self.source!r}, got the items {list(context)}."
            )
        pools, selection = context[self.source]
        if pools is None:  # said in so many words: the frozen linears alone
            return tuple(f(x) for f in self.frozen)
        update = self.alpha * pools(x, selection)  # (J, B, L, d_out)
        return tuple(f(x) + u for f, u in zip(self.frozen, update, strict=True))


def count_factors(selections: Sequence[Selection], pool_size: int) -> Tensor:
    """How often each sample selects each factor, (B, Q * 2 * E).

    Means over layers, a selection each, and over linears; for every query those of its
    a, then those of its b.

    Examples
    --------
    >>> places = torch.tensor([[[[0, 2]]]])  # one sample, linear and query; two factors
    >>> chosen = Selection(down=places, up=places, weight=torch.ones(1, 1, 1, 2))
    >>> count_factors([chosen], pool_size=3)
    tensor([[1., 0., 1., 1., 0., 1.]])
    """
    picks = torch.stack([torch.stack(s[:2], dim=-2) for s in selections])  # (..., 2, r)
    chosen = F.one_hot(picks, pool_size).sum(dim=-2)  # (layers, B, J, Q, 2, E)
    return chosen.float().mean(dim=(0, 2)).flatten(1)


def factor_frame(
    counts: np.ndarray, tasks: np.ndarray, n_tasks: int, queries: Sequence[str]
) -> pd.DataFrame:
    """Return how often each factor of each task was selected.

    Parameters
    ----------
    counts : ndarray of shape (n, Q * 2 * E)
        What :func:`count_factors` returned.
    tasks : ndarray of shape (n,)
        Whose pools each row was given.
    n_tasks : int
        How many tasks there are.
    queries : sequence of str
        What the Q queries are.

    Returns
    -------
    DataFrame of shape (n_tasks * E, Q * 2)
        Means over rows; NaN for a task without any. The index is (task, factor), the
        columns (modality that selects, side of the factor).

    Examples
    --------
    >>> counts = np.array([[1.0, 0.0, 0.5, 0.5]])  # a row, a query, two factors a side
    >>> table = factor_frame(counts, np.array([0]), n_tasks=1, queries=["image"])
    >>> table["image"]["a"].tolist(), table["image"]["b"].tolist()
    ([1.0, 0.0], [0.5, 0.5])
    """
    sides = [(query, side) for query in queries for side in ("a", "b")]
    means = np.full((n_tasks, counts.shape[1]), np.nan)
    for task in np.unique(tasks).astype(int):
        means[task] = counts[tasks == task].mean(axis=0)
    values = means.reshape(n_tasks, len(sides), -1).transpose(0, 2, 1)  # (T, E, 2 Q)
    places = [range(n_tasks), range(values.shape[1])]
    return pd.DataFrame(
        values.reshape(-1, len(sides)),
        index=pd.MultiIndex.from_product(places, names=["task", "factor"]),
        columns=pd.MultiIndex.from_tuples(sides, names=["modality", "side"]),
    )
