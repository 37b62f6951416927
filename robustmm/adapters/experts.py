"""Mixtures of low-rank experts beside frozen linears.

All experts of a place, and of several linears that read the same input, are stacked:
one matrix product down, a gate that is zero for the experts that were not chosen, one
product up. At rank 4 that is cheaper than gathering each expert's tokens, and exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .routing import Router


class Experts(nn.Module):
    r"""Low-rank experts of P linears with the same input and equally many outputs.

    Adds :math:`\frac{\alpha}{r} \sum_n R(x)_n B_n A_n x` to the output of each linear,
    each with experts :math:`A_n, B_n` and a router :math:`R` of its own.

    Parameters
    ----------
    d_in, d_out : int
        Inputs, and outputs of each linear.
    n_experts : int
        :math:`N`.
    rank : int
        :math:`r` of each expert.
    n_linears : int
        P.
    alpha : float
        The update is scaled by ``alpha / rank``.
    dropout : float
        Probability of dropping an input of the experts; the router sees all of them.
    top_k, level
        See :class:`Router`.

    Notes
    -----
    Shapes: ``down`` (P, N, r, d_in), Gaussian; ``up`` (P, N, r, d_out), zero, so that
    nothing is added at the start.

    Examples
    --------
    >>> import torch
    >>> experts = Experts(8, 6, n_experts=3, rank=2, n_linears=2, top_k=1)
    >>> outputs = [torch.ones(4, 5, 6), torch.ones(4, 5, 6)]
    >>> [tuple(y.shape) for y in experts(torch.randn(4, 5, 8), outputs)]
    [(4, 5, 6), (4, 5, 6)]
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        n_experts: int,
        rank: int,
        n_linears: int = 1,
        *,
        alpha: float = 1.0,
        dropout: float = 0.0,
        top_k: int | None = 2,
        level: str = "token",
    ):
        super().__init__()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.router = Router(d_in, n_experts, n_linears, top_k=top_k, level=level)
        stack = n_linears, n_experts, rank
        # The spread of a linear's default initialisation: uniform, variance 1/(3 d).
        spread = 1 / math.sqrt(3 * d_in)
        self.down = nn.Parameter(spread * torch.randn(*stack, d_in))
        self.up = nn.Parameter(torch.zeros(*stack, d_out))

    def forward(
        self, x: Tensor, outputs: Sequence[Tensor], tokens=None
    ) -> list[Tensor]:
        """Add the update to P outputs (..., d_out) of x (..., d_in).

        Without gradients, the outputs themselves are changed. ``tokens`` is for the
        router.
        """
        gates = (self.scale * self.router(x, tokens)).unsqueeze(-1)  # (..., P, N, 1)
        # One mask per token for all experts; the router has read the input without it.
        code = F.linear(self.dropout(x), self.down.flatten(0, 2))  # (..., P * N * r)
        code = code.unflatten(-1, self.down.shape[:3]) * gates  # (..., P, N, r)
        code = code.flatten(-2).flatten(0, -3)  # (tokens, P, N * r)
        stacked = code.unbind(dim=1), self.up.flatten(1, 2).unbind()  # P of each
        return [_add_product(*parts) for parts in zip(outputs, *stacked, strict=True)]


def _add_product(y: Tensor, code: Tensor, up: Tensor) -> Tensor:
    """Return y (..., d_out) + code (tokens, N * r) times up (N * r, d_out)."""
    # Adding in place saves a pass over memory that costs more than the product; but a
    # gradient through it would be copied, as that of any view changed in place.
    add = torch.addmm if torch.is_grad_enabled() else Tensor.addmm_
    flat = y.flatten(0, -2)  # (tokens, d_out)
    return add(flat, code.to(y.dtype), up.to(y.dtype)).view(y.shape)


class ExpertLinear(nn.Module):
    """A frozen linear with ``Experts`` beside it.

    Parameters
    ----------
    frozen : torch.nn.Linear
        The layer to adapt.
    n_experts, rank, **options
        See :class:`Experts`.

    Examples
    --------
    >>> import torch
    >>> layer, x = torch.nn.Linear(8, 6), torch.randn(4, 5, 8)
    >>> adapted = ExpertLinear(layer, n_experts=3, rank=2)
    >>> bool(torch.equal(adapted(x), layer(x)))
    True
    """

    reads_tokens = True

    def __init__(self, frozen: nn.Linear, n_experts: int, rank: int, **options):
        super().__init__()
        self.frozen = frozen
        d_in, d_out = frozen.in_features, frozen.out_features
        self.experts = Experts(d_in, d_out, n_experts, rank, **options)

    def forward(self, x: Tensor, tokens=None) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        return self.experts(x, [self.frozen(x)], tokens)[0]


class JointExpertLinear(nn.Module):
    """Frozen linears that read the same input, with stacked ``Experts``.

    Parameters
    ----------
    frozen : sequence of torch.nn.Linear
        Layers of equal shape, such as query, key and value.
    n_experts, rank, **options
        See :class:`Experts`; each layer has as many experts, and its own router.

    Examples
    --------
    >>> import torch
    >>> layers = [torch.nn.Linear(8, 6) for _ in range(3)]
    >>> query, key, value = JointExpertLinear(layers, n_experts=3, rank=2)(
    ...     torch.randn(4, 5, 8)
    ... )
    >>> query.shape
    torch.Size([4, 5, 6])
    """

    reads_tokens = True

    def __init__(
        self, frozen: Sequence[nn.Linear], n_experts: int, rank: int, **options
    ):
        super().__init__()
        shapes = {(layer.in_features, layer.out_features) for layer in frozen}
        if len(shapes) != 1:
            raise ValueError(
                f"Joint linears must have one (d_in, d_out), got {sorted(shapes)}."
            )
        self.frozen = nn.ModuleList(frozen)
        n_linears = len(self.frozen)
        self.experts = Experts(*shapes.pop(), n_experts, rank, n_linears, **options)

    def forward(self, x: Tensor, tokens=None) -> tuple[Tensor, ...]:
        """Map (..., d_in) to as many (..., d_out) as there are linears."""
        return tuple(self.experts(x, [layer(x) for layer in self.frozen], tokens))
