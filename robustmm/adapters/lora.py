"""Low-rank adapters of one frozen linear: LoRA, DoRA and VeRA.

All keep the frozen layer as ``frozen`` inside and reproduce it at initialisation.
They differ in what is trained: LoRA two factors; DoRA also the length of each column
of the weight; VeRA only two scaling vectors around factors that are random, frozen and
shared by every adapted layer of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MergingLinear(nn.Module):
    """An adapter that is one weight while nothing is trained.

    Subclasses have the ``frozen`` linear, say what the ``weight`` is, and use
    ``merged`` where there is one. It is not saved.

    Examples
    --------
    >>> adapted, x = LoRALinear(nn.Linear(8, 6), rank=2).eval(), torch.randn(3, 8)
    >>> before = adapted(x)
    >>> adapted.merge()
    >>> bool(torch.allclose(adapted(x), before, atol=1e-5))
    True
    """

    frozen: nn.Linear

    def __init__(self):
        super().__init__()
        self.register_buffer("merged", None, persistent=False)

    def weight(self) -> Tensor:
        """Return the adapted weight, (d_out, d_in)."""
        raise NotImplementedError

    def merge(self) -> None:
        """Compute the weight once and for all, until the next training."""
        device = self.frozen.weight.device.type
        exactly = torch.autocast(device, enabled=False)
        with torch.inference_mode(False), torch.no_grad(), exactly:
            self.merged = self.weight()

    def train(self, mode: bool = True) -> MergingLinear:
        """Set the mode; training forgets the merged weight."""
        if mode:
            self.merged = None
        return super().train(mode)


class LoRALinear(MergingLinear):
    r"""LoRA [1]_: :math:`y = W_0 x + b + \frac{\alpha}{r} B A x`.

    Parameters
    ----------
    frozen : torch.nn.Linear
        The layer to adapt, of weight :math:`W_0` (d_out, d_in).
    rank : int
        :math:`r`, at least 1.
    alpha : float
        The update is scaled by ``alpha / rank``.
    dropout : float
        Probability of dropping an input of the low-rank path.

    Notes
    -----
    Shapes: ``down`` :math:`A` (r, d_in), Kaiming uniform; ``up`` :math:`B` (d_out, r),
    zero, so that the adapted layer starts as the frozen one.

    References
    ----------
    .. [1] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
       equation 3.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(8, 6)
    >>> adapted = LoRALinear(layer, rank=2)
    >>> x = torch.randn(3, 8)
    >>> bool(torch.equal(adapted(x), layer(x)))
    True
    """

    def __init__(
        self, frozen: nn.Linear, rank: int, alpha: float = 1.0, dropout: float = 0.0
    ):
        super().__init__()
        self.frozen = frozen
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        weight = frozen.weight
        # That of a linear layer, and of the authors' code; the paper says Gaussian. On
        # the CPU: a seed means the same start on every device.
        down = torch.empty(rank, weight.shape[1], dtype=weight.dtype)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.frozen.bias)
        code = F.linear(self.dropout(x), self.down)  # (..., r)
        return self._updated(x, code)

    @staticmethod
    def together(adapters: Sequence[LoRALinear], x: Tensor) -> tuple[Tensor, ...]:
        """Map one input by several layers, with one dropout and one way down.

        Parameters
        ----------
        adapters : sequence of LoRALinear
            With one rate of dropout, as query, key and value of one attention have.
        x : Tensor of shape (..., d_in)

        Returns
        -------
        tuple of Tensor, each of shape (..., d_out)
            What each layer gives; where inputs are dropped, all drop the same ones.
        """
        alone = any(adapter.merged is not None for adapter in adapters)
        if alone or len({adapter.dropout.p for adapter in adapters}) > 1:
            return tuple(adapter(x) for adapter in adapters)
        down = torch.cat([adapter.down for adapter in adapters])
        codes = F.linear(adapters[0].dropout(x), down)  # (..., sum of ranks)
        codes = codes.split([len(adapter.down) for adapter in adapters], dim=-1)
        pairs = zip(adapters, codes, strict=True)
        return tuple(adapter._updated(x, code) for adapter, code in pairs)

    def _updated(self, x: Tensor, code: Tensor) -> Tensor:
        """Add what the code (..., r) stands for to the frozen layer's output."""
        frozen = self.frozen(x)
        flat = frozen.flatten(0, -2), code.flatten(0, -2), self.up.t()
        # Product, scale and sum are one pass over the output.
        return torch.addmm(*flat, alpha=self.scale).view(frozen.shape)

    def weight(self) -> Tensor:
        """Return the adapted weight, (d_out, d_in)."""
        return self.frozen.weight + self.scale * (self.up @ self.down)


class DoRALinear(LoRALinear):
    r"""DoRA [1]_: :math:`W = m \odot (W_0 + sBA) / \lVert W_0 + sBA \rVert_c`.

    The norm is that of each column (over the outputs), :math:`m` (1, d_in) starts at
    the column norms of :math:`W_0` and is trained; as in the paper, no gradient flows
    through the norm. Parameters as for :class:`LoRALinear`; the dropout falls on the
    input of the update only.

    References
    ----------
    .. [1] Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024,
       equations 5 and 11.

    Examples
    --------
    >>> frozen = nn.Linear(8, 6)
    >>> adapted = DoRALinear(frozen, rank=2)
    >>> x = torch.randn(3, 8)
    >>> torch.allclose(adapted(x), frozen(x), atol=1e-6)  # until it is trained
    True
    """

    together = None  # each scales its inputs by a ratio of its own

    def __init__(
        self, frozen: nn.Linear, rank: int, alpha: float = 1.0, dropout: float = 0.0
    ):
        super().__init__(frozen, rank, alpha, dropout)
        self.magnitude = nn.Parameter(frozen.weight.norm(dim=0, keepdim=True).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.frozen.bias)
        # A scale of the columns is one of the inputs: the frozen weight is never
        # copied.
        ratio = self._ratio()
        frozen_part = F.linear(x * ratio, self.frozen.weight, self.frozen.bias)
        code = F.linear(self.dropout(x) * ratio, self.down)
        return frozen_part + self.scale * F.linear(code, self.up)

    def weight(self) -> Tensor:
        """Return the adapted weight, (d_out, d_in)."""
        return self._ratio() * super().weight()

    def _ratio(self) -> Tensor:
        """What each column is multiplied by, (1, d_in)."""
        # A column of zeros has no direction that a length could be given to.
        norm = super().weight().detach().norm(dim=0, keepdim=True).clamp_min(1e-5)
        return self.magnitude / norm


class VeRABasis(nn.Module):
    """Random frozen factors that all ``VeRALinear`` of one shape share.

    Buffers, so that they are saved with the trained vectors they belong to.

    Examples
    --------
    >>> basis = VeRABasis(d_in=8, d_out=6, rank=2)
    >>> basis.down.shape, basis.up.shape
    (torch.Size([2, 8]), torch.Size([6, 2]))
    """

    def __init__(self, d_in: int, d_out: int, rank: int):
        super().__init__()
        self.register_buffer("down", nn.init.kaiming_uniform_(torch.empty(rank, d_in)))
        self.register_buffer("up", nn.init.kaiming_uniform_(torch.empty(d_out, rank)))


class VeRALinear(MergingLinear):
    r"""VeRA [1]_: :math:`y = W_0 x + b + \Lambda_b B \Lambda_d A x`.

    Parameters
    ----------
    frozen : torch.nn.Linear
        The layer to adapt.
    basis : VeRABasis
        The shared random factors :math:`A` (r, d_in) and :math:`B` (d_out, r).
    dropout : float
        Probability of dropping an input of the low-rank path.

    Notes
    -----
    Trained: ``code_scale`` :math:`d` (r,), starting at 0.1, and ``output_scale``
    :math:`b` (d_out,), starting at 0.

    References
    ----------
    .. [1] Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", ICLR 2024,
       equation 2.

    Examples
    --------
    >>> frozen = nn.Linear(8, 6)
    >>> adapted = VeRALinear(frozen, VeRABasis(d_in=8, d_out=6, rank=2))
    >>> x = torch.randn(3, 8)
    >>> torch.equal(adapted(x), frozen(x))  # until it is trained
    True
    """

    def __init__(self, frozen: nn.Linear, basis: VeRABasis, dropout: float = 0.0):
        super().__init__()
        self.frozen = frozen
        self.basis = basis
        self.dropout = nn.Dropout(dropout)
        weight = frozen.weight
        # Not zero too, or both scales would stay there: each one's gradient is
        # multiplied by the other.
        self.code_scale = nn.Parameter(weight.new_full((len(basis.down),), 0.1))
        self.output_scale = nn.Parameter(weight.new_zeros(weight.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.frozen.bias)
        code = F.linear(self.dropout(x), self.basis.down) * self.code_scale
        return self.frozen(x) + F.linear(code, self.basis.up) * self.output_scale

    def weight(self) -> Tensor:
        """Return the adapted weight, (d_out, d_in)."""
        up = self.output_scale[:, None] * self.basis.up  # (d_out, r)
        return self.frozen.weight + (up * self.code_scale) @ self.basis.down
