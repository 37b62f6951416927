"""Which experts a token is sent to, and how to look at that.

A router is a linear and a softmax per adapted linear. Its decisions can be collected,
for the load-balancing loss and for the table of which expert serves which rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.frame import PATTERNS
from .whole_batch import as_mean, over_batch

LEVELS = ("token", "instance")


class Router(nn.Module):
    r"""Gates of the experts: :math:`R(x) = \mathrm{softmax}(W_r x)`, then the top k.

    The product and the softmax run in float32 (or wider) under autocast too. For
    :math:`k \ge 2` the chosen gates are divided by their sum. A single chosen gate
    keeps its probability: divided by itself it would be 1, and the router would get no
    gradient.

    Parameters
    ----------
    d_in : int
        Width of the input.
    n_experts : int
        :math:`N`.
    n_linears : int
        Linears that read this input; each has a router of its own.
    top_k : int or None
        Experts per token; None keeps all (soft merging).
    level : {"token", "instance"}
        Whether each token is routed, or the mean of the attended tokens of a row.

    Notes
    -----
    Shapes: ``weight`` (P, N, d_in) for P linears; input (..., d_in), gates (..., P, N);
    for ``"instance"`` input (B, L, d_in), gates (B, 1, P, N).

    Where the context of the tokens has a dict ``"decisions"``, each call puts its
    (probabilities, gates) there, under the router itself.

    Examples
    --------
    >>> router = Router(d_in=8, n_experts=5, top_k=2)
    >>> gates = router(torch.randn(3, 7, 8))
    >>> gates.shape, bool(((gates > 0).sum(dim=-1) == 2).all())
    (torch.Size([3, 7, 1, 5]), True)
    """

    def __init__(
        self,
        d_in: int,
        n_experts: int,
        n_linears: int = 1,
        *,
        top_k: int | None = 2,
        level: str = "token",
    ):
        super().__init__()
        if level not in LEVELS:
            raise ValueError(f"level must be one of {list(LEVELS)}, got {level!r}.")
        if top_k is not None and not 1 <= top_k <= n_experts:
            raise ValueError(
                f"top_k must be in [1, n_experts={n_experts}], got {top_k!r}."
            )
        self.top_k, self.level = top_k, level
        # What a linear layer without a bias starts with: Kaiming uniform, a = sqrt(5).
        bound = d_in**-0.5
        self.weight = nn.Parameter(
            torch.empty(n_linears, n_experts, d_in).uniform_(-bound, bound)
        )

    def forward(self, x: Tensor, tokens=None) -> Tensor:
        """Return the gates of an input.

        Parameters
        ----------
        x : Tensor of shape (..., d_in), or (B, L, d_in)
        tokens : Tokens, optional
            What entered the layer, whose mask says which tokens of an instance count.

        Raises
        ------
        RuntimeError
            If the level is "instance" and the mask, or a token, is not known.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.level == "instance":
                x = _mean(x, tokens)
            logits = F.linear(x, self.weight.flatten(0, 1).to(x.dtype))  # (..., P * N)
            probabilities = logits.unflatten(-1, self.weight.shape[:2]).softmax(-1)
            gates = self._choose(probabilities)
        if tokens is not None and "decisions" in tokens.context:
            # In the caller's dict: kept on the router, two threads would take each
            # other's.
            tokens.context["decisions"][self] = (probabilities, gates)
        return gates

    def _choose(self, probabilities: Tensor) -> Tensor:
        if self.top_k is None:
            return probabilities
        values, experts = probabilities.topk(self.top_k, dim=-1)  # (..., P, top_k)
        if self.top_k > 1:
            values = values / values.sum(dim=-1, keepdim=True)
        return torch.zeros_like(probabilities).scatter(-1, experts, values)


def _mean(x: Tensor, tokens) -> Tensor:
    """Average the attended tokens, (B, L, d) -> (B, 1, d)."""
    if tokens is None:
        raise RuntimeError(
            "A router of level 'instance' must be called with the tokens of its layer, "
            "whose mask says what is padding, got none."
        )
    if tokens.length != x.shape[1]:
        # A layer that was cut down to the pooled row would be routed by that row.
        raise RuntimeError(
            f"A router of level 'instance' must read all {tokens.length} tokens of its "
            f'layer, got {x.shape[1]}: run the stream with keep="all".'
        )
    if tokens.mask is None:
        return x.mean(dim=1, keepdim=True)
    weight = tokens.mask.unsqueeze(-1).to(x.dtype)  # (B, L, 1)
    total = weight.sum(dim=1, keepdim=True).clamp(min=1)
    return (x * weight).sum(dim=1, keepdim=True) / total


@dataclass(frozen=True, eq=False)
class Routing:
    """How one router decided in one forward pass.

    Shapes: probabilities and gates (B, L, P, N) for the P ``linears``; counted
    (B, L, P), weight of each decision, 0 for padding.

    Examples
    --------
    >>> gates = torch.tensor([[[[0.7, 0.3]]]])  # one row, token and linear; two experts
    >>> routing = Routing(0, ("up",), gates, gates, counted=torch.ones(1, 1, 1))
    >>> routing.sums().shape
    torch.Size([1, 2, 3])
    """

    layer: int
    linears: tuple[str, ...]
    probabilities: Tensor
    gates: Tensor
    counted: Tensor

    def sums(self) -> Tensor:
        """Return (B, P * N, 3): decisions, those for this expert, and their gates."""
        weight = self.counted.unsqueeze(-1).expand_as(self.gates)  # (B, L, P, N)
        parts = weight, weight * (self.gates > 0), weight * self.gates
        return torch.stack([part.sum(dim=1) for part in parts], dim=-1).flatten(1, 2)


def balance_loss(probabilities: Tensor, gates: Tensor, counted: Tensor) -> Tensor:
    r"""Switch's load balancing [1]_: :math:`N \sum_n f_n p_n`, the mean over linears.

    :math:`f_n` is the share of choices that fell on expert n, :math:`p_n` its mean
    probability; 1 for an even load.

    Parameters
    ----------
    probabilities, gates : Tensor of shape (B, L, P, N)
        What the router computed.
    counted : Tensor of shape (B, L, P)
        Weight of each decision.

    References
    ----------
    .. [1] Fedus, Zoph and Shazeer, "Switch Transformers", JMLR 2022, equations 4-6.

    Examples
    --------
    >>> even = torch.full((1, 4, 1, 2), 0.5)
    >>> float(balance_loss(even, even, counted=torch.ones(1, 4, 1)))
    1.0
    """
    # Of all rows of a step, also where several processes compute a part each.
    total = over_batch(counted.sum(dim=(0, 1)))
    weight = (counted / total).unsqueeze(-1)  # (B, L, P, 1)
    # No gradient through the choice, only through the probability beside it.
    chosen = (gates > 0).to(probabilities.dtype)
    share = over_batch((weight * chosen).sum(dim=(0, 1)))  # (P, N)
    # Of choices, not of tokens, of which each makes top_k.
    share = share / share.sum(dim=-1, keepdim=True)
    probability = as_mean((weight * probabilities).sum(dim=(0, 1)))
    return gates.shape[-1] * (share * probability).sum(dim=-1).mean()


def usage_frame(
    sums: np.ndarray, present: np.ndarray, places: Sequence[tuple[int, str, int]]
) -> pd.DataFrame:
    """Return how often each expert was chosen, per missing pattern.

    Parameters
    ----------
    sums : ndarray of shape (n, K, 3)
        :meth:`Routing.sums` of every row, for K places.
    present : ndarray of shape (n, 2), bool
        Whether the image and the text are there; rows without either are left out.
    places : sequence of (layer, linear, expert)
        What the K places are.

    Returns
    -------
    DataFrame
        Columns ``pattern``, ``layer``, ``linear``, ``expert``; ``frequency``, the share
        of the decisions that chose the expert; ``weight``, its mean gate.

    Examples
    --------
    >>> sums = np.array([[[10.0, 7.0, 5.0], [10.0, 3.0, 5.0]]])  # a row, two experts
    >>> places = [(0, "up", 0), (0, "up", 1)]
    >>> usage_frame(sums, np.array([[True, False]]), places)["frequency"].tolist()
    [0.7, 0.3]
    """
    image, text = present.T
    rows = (image & text, image & ~text, text & ~image)  # as in PATTERNS
    frames = []
    for pattern, here in zip(PATTERNS, rows, strict=False):
        if here.any():
            # Summed before they are divided: rows with more tokens count for more.
            total, chosen, weight = sums[here].sum(axis=0).T
            frame = pd.DataFrame(places, columns=["layer", "linear", "expert"])
            frame.insert(0, "pattern", pattern)
            frames.append(frame.assign(frequency=chosen / total, weight=weight / total))
    return pd.concat(frames, ignore_index=True)
