"""Low-rank adapters of two encoders that update each other through Gram matrices.

Unlike :mod:`robustmm.adapters.lora`, a part of the trained parameters is shared by two
encoders of different width: what one contributes to the other is its Gram matrix,
whose size is the rank alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRAMS = ("cross", "own", "identity", "learnable")
PARAMETRIZATIONS = ("column_norm", "additive")
SIDES = ("image", "text")
# The norm of a column that is divided by, at least.
_EPS = 1e-5


class GramPair(nn.Module):
    r"""One low-rank factor per encoder, and the update each makes of the two [1]_.

    With :math:`S` the factor (r, d) of an encoder and :math:`S'` that of the other
    one, the update of the former's weights is :math:`S^\top G S`, where :math:`G` is
    :math:`S' S'^\top` (``"cross"``, equations 3 and 4), :math:`S S^\top` (``"own"``),
    the identity, or trained on its own (``"learnable"``).

    Parameters
    ----------
    image_width, text_width : int
        Widths :math:`d` of the two encoders.
    rank : int
        :math:`r`, at least 1.
    gram : {"cross", "own", "identity", "learnable"}
        The matrix in the middle.

    Notes
    -----
    Shapes: ``factors`` (r, d) each, normal of variance 1 / r; never zero, where the
    gradient of every update but a learnable one's Gram vanishes. ``grams`` (r, r) start
    at what the other factor's Gram matrix is on average.

    References
    ----------
    .. [1] Zhao, Ahuja, Yu, Shen and Narayanan, "MoRA: Missing Modality Low-Rank
       Adaptation for Visual Recognition", arXiv:2511.06225, 2025.

    Examples
    --------
    >>> pair = GramPair(image_width=6, text_width=4, rank=2)
    >>> pair.update("image").shape, pair.update("text").shape
    (torch.Size([6, 6]), torch.Size([4, 4]))
    """

    def __init__(
        self, image_width: int, text_width: int, rank: int, gram: str = "cross"
    ):
        super().__init__()
        self.gram = gram
        widths = dict(zip(SIDES, (image_width, text_width), strict=True))
        self.factors = nn.ParameterDict(
            {side: _normal_factor(rank, width) for side, width in widths.items()}
        )
        self.grams = None
        if gram == "learnable":
            others = {"image": text_width, "text": image_width}
            self.grams = nn.ParameterDict(
                {s: nn.Parameter(torch.eye(rank) * d / rank) for s, d in others.items()}
            )

    def update(self, side: str) -> Tensor:
        """Return the update of one encoder's weights, (d, d)."""
        factor = self.factors[side]
        if self.gram == "identity":
            return factor.T @ factor
        return factor.T @ (self._middle(side) @ factor)

    def _middle(self, side: str) -> Tensor:
        if self.grams is not None:
            return self.grams[side]
        own, other = SIDES if side == "image" else SIDES[::-1]
        factor = self.factors[own if self.gram == "own" else other]
        return factor @ factor.T

    @torch.no_grad()
    def shrink(self, adapters: Iterable[GramLinear], tolerance: float) -> None:
        """Scale the factors so that the update is small but not zero.

        The largest ratio of norms, of update to frozen weight, over ``adapters``
        becomes ``tolerance``.
        """
        ratios = [
            float(a.shared_update().norm()) / float(a.frozen.weight.norm())
            for a in adapters
        ]
        degree = 2 if self.gram in ("identity", "learnable") else 4
        scale = (tolerance / max(ratios)) ** (1 / degree)
        for factor in self.factors.values():
            factor.mul_(scale)


class GramLinear(nn.Module):
    r"""A frozen linear with a shared and a specific branch [1]_.

    With :math:`U` the update of the pair, :math:`BA` a low-rank update of this layer
    alone, :math:`\tau` the strength and :math:`N(\cdot)` the division of every column
    by its norm (over the outputs), ``"column_norm"`` is what the authors' program
    computes,

    .. math:: W = m_s \odot N(W_0 + \tau U) + m_p \odot N(W_0 + \tau BA),

    and ``"additive"`` what the paper prints (equation 4),

    .. math:: W = (\alpha_s + \alpha_p) W_0 + \tau U + \tau BA.

    Parameters
    ----------
    frozen : torch.nn.Linear
        The layer to adapt, of weight :math:`W_0` (d_out, d_in); square, if there is a
        pair.
    pair : GramPair or None
        The shared branch; None leaves it out.
    side : {"image", "text"}
        Whose update of the pair this layer takes.
    rank : int
        Rank of :math:`BA`; 0 leaves the specific branch out.
    strength : float
        :math:`\tau`.
    dropout : float
        Probability of dropping an input of the layer, of the frozen path as well.
    parametrization : {"column_norm", "additive"}
        Which of the two equations.
    residual : bool
        Subtract :math:`W_0`, which the paper leaves out after equation 2.
    halved : bool
        Start with magnitudes that add up to the frozen weight. Otherwise those of
        ``"column_norm"`` start at the column norms of :math:`W_0` in each branch.

    Notes
    -----
    Shapes: ``down`` :math:`A` (r, d_in), normal of variance 1 / r; ``up`` :math:`B`
    (d_out, r), zero; the magnitudes :math:`m` (1, d_in), or :math:`\alpha` (1,).

    :meth:`merge` computes the weight once; :meth:`train` forgets it.

    References
    ----------
    .. [1] Zhao, Ahuja, Yu, Shen and Narayanan, "MoRA: Missing Modality Low-Rank
       Adaptation for Visual Recognition", arXiv:2511.06225, 2025.

    Examples
    --------
    >>> layer = torch.nn.Linear(6, 6)
    >>> adapted = GramLinear(layer, GramPair(6, 4, rank=2), "image", rank=2).eval()
    >>> x = torch.randn(3, 6)
    >>> before = adapted(x)
    >>> adapted.merge()
    >>> bool(torch.allclose(adapted(x), before, atol=1e-5))
    True
    """

    def __init__(
        self,
        frozen: nn.Linear,
        pair: GramPair | None,
        side: str,
        *,
        rank: int,
        strength: float = 0.01,
        dropout: float = 0.0,
        parametrization: str = "column_norm",
        residual: bool = False,
        halved: bool = False,
    ):
        super().__init__()
        d_out, d_in = frozen.weight.shape
        if pair is not None and d_in != d_out:
            raise ValueError(
                "A layer with a shared update must be square, "
                f"got a weight of shape {(d_out, d_in)}."
            )
        self.frozen = frozen
        self.pair = pair
        self.side = side
        self.strength = strength
        self.dropout = nn.Dropout(dropout)
        self.additive = parametrization == "additive"
        self.residual = residual
        self.down = self.up = None
        if rank:
            self.down = _normal_factor(rank, d_in, frozen.weight.device)
            self.up = nn.Parameter(frozen.weight.new_zeros(d_out, rank))
        self.magnitudes = self._first_magnitudes(halved or self.additive)
        # Not persistent: what is saved are the factors.
        self.register_buffer("merged", None, persistent=False)

    def _first_magnitudes(self, halved: bool) -> nn.ParameterDict:
        branches = [
            name
            for name, there in (("shared", self.pair), ("specific", self.up))
            if there is not None
        ]
        start = self.frozen.weight.norm(dim=0, keepdim=True)
        start = torch.ones_like(start[0, :1]) if self.additive else start
        total = 1.0 + self.residual
        start = start * (total / len(branches)) if halved else start
        return nn.ParameterDict({b: nn.Parameter(start.clone()) for b in branches})

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.frozen.bias)
        return F.linear(self.dropout(x), self.weight(), self.frozen.bias)

    def weight(self) -> Tensor:
        """Return the adapted weight, (d_out, d_in), in full precision."""
        frozen = self.frozen.weight
        with torch.autocast(frozen.device.type, enabled=False):
            terms = [
                self._branch(frozen, magnitude, getattr(self, f"{name}_update")())
                for name, magnitude in self.magnitudes.items()
            ]
            total = torch.stack(terms).sum(dim=0) if len(terms) > 1 else terms[0]
            return total - frozen if self.residual else total

    def _branch(self, frozen: Tensor, magnitude: Tensor, update: Tensor) -> Tensor:
        if self.additive:
            return magnitude * frozen + update
        # The gradient flows through the norm, unlike DoRA's.
        return magnitude * F.normalize(frozen + update, dim=0, eps=_EPS)

    def shared_update(self) -> Tensor:
        """Return the shared branch's update, times the strength, (d, d)."""
        return self.strength * self.pair.update(self.side)

    def specific_update(self) -> Tensor:
        """Return the specific branch's update, times the strength, (d_out, d_in)."""
        return self.strength * (self.up @ self.down)

    def merge(self) -> None:
        """Compute the weight once and for all, until the next training."""
        with torch.inference_mode(False), torch.no_grad():
            self.merged = self.weight()

    def train(self, mode: bool = True) -> GramLinear:
        """Set the mode; training forgets the merged weight."""
        if mode:
            self.merged = None
        return super().train(mode)


def _normal_factor(
    rank: int, width: int, device: torch.device | None = None
) -> nn.Parameter:
    # Moved before it becomes a parameter: what Parameter.to returns is none.
    return nn.Parameter((torch.randn(rank, width) / rank**0.5).to(device))
