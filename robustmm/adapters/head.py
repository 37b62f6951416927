"""What follows the encoders: a trained pooler, and heads that compute in float32."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def trained_pooler(pooler: nn.Module | None, width: int) -> nn.Module:
    """Return a copy of a checkpoint's pooler to be trained, (B, d) -> (B, d).

    A checkpoint without one gets a new dense layer and tanh.

    Examples
    --------
    >>> frozen = nn.Sequential(nn.Linear(8, 8), nn.Tanh()).requires_grad_(False)
    >>> copied = trained_pooler(frozen, width=8)
    >>> copied[0].weight.requires_grad, frozen[0].weight.requires_grad
    (True, False)
    """
    if pooler is None:
        return nn.Sequential(nn.Linear(width, width), nn.Tanh())
    # A copy, as the frozen one is shared by all that stand on this checkpoint.
    return copy.deepcopy(pooler).requires_grad_(True)


# A Linear, not a module around one: models that were saved with a plain head have its
# names.
class LinearHead(nn.Linear):
    r"""A linear layer that makes logits, in float32 whatever autocast says.

    Eight bits of a bfloat16 logit tie rows, and a score that ranks them sees the ties.

    Shapes: (B, d) to (B, C).

    Examples
    --------
    >>> import torch
    >>> layers, pooled = (LinearHead(8, 3), nn.Linear(8, 3)), torch.zeros(5, 8)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     [layer(pooled).dtype for layer in layers]
    [torch.float32, torch.bfloat16]
    """

    @property
    def last(self) -> nn.Linear:
        """The layer that makes logits of what :meth:`hidden` returns: itself."""
        return self

    def hidden(self, pooled: Tensor) -> Tensor:
        """Return what the last layer reads, (B, d) in float32."""
        return pooled.float()

    def forward(self, pooled: Tensor) -> Tensor:
        """Map pooled rows (B, d) to logits (B, C)."""
        with _in_float32(pooled):
            return super().forward(pooled.float())


class TwoLayerHead(nn.Module):
    r"""The head of missing-aware prompts [1]_: linear to 2d, layer norm, GELU, linear.

    Weights start as :math:`N(0, 0.02^2)`, biases as zero. It computes in float32, as
    :class:`LinearHead` does.

    Shapes: (B, d) to (B, C).

    References
    ----------
    .. [1] Lee et al., "Multimodal Prompting with Missing Modalities for Visual
       Recognition", CVPR 2023, in the authors' code.

    Examples
    --------
    >>> import torch
    >>> TwoLayerHead(8, 3)(torch.zeros(5, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(self, width: int, n_outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.GELU(),
            nn.Linear(2 * width, n_outputs),
        )
        init_linears(self)

    @property
    def last(self) -> nn.Linear:
        """The layer that makes logits of what :meth:`hidden` returns."""
        return self.layers[-1]

    def hidden(self, pooled: Tensor) -> Tensor:
        """Return what the last layer reads, (B, 2d) in float32."""
        with _in_float32(pooled):
            return self.layers[:-1](pooled.float())

    def forward(self, pooled: Tensor) -> Tensor:
        """Map pooled rows (B, d) to logits (B, C)."""
        with _in_float32(pooled):
            return self.layers(pooled.float())


class TiedHead(nn.Module):
    r"""Logits as products with the embeddings of labels, which are read elsewhere too.

    :math:`\mathrm{Linear}(\mathrm{GELU}(\mathrm{LN}(\mathrm{Linear}(x)))) \, E^\top`,
    without bias, in float32 as :class:`LinearHead`. Weights start as
    :math:`N(0, 0.02^2)`, embeddings :math:`E` as :math:`N(0, s^2)`.

    Parameters
    ----------
    d_in, width : int
        Of what it reads, and of an embedding.
    n_outputs : int
    label_std : float
        The :math:`s`.

    Notes
    -----
    Shapes: (B, d_in) to (B, C).

    Examples
    --------
    >>> import torch
    >>> head = TiedHead(16, 8, 3, label_std=1.0)
    >>> head(torch.zeros(5, 16)).shape, head.embed(torch.tensor([[0, 2]])).shape
    (torch.Size([5, 3]), torch.Size([1, 2, 8]))
    """

    def __init__(self, d_in: int, width: int, n_outputs: int, label_std: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d_in, d_in), nn.LayerNorm(d_in), nn.GELU(), nn.Linear(d_in, width)
        )
        init_linears(self)
        self.labels = nn.Parameter(label_std * torch.randn(n_outputs, width))

    def embed(self, labels: Tensor) -> Tensor:
        """Return embeddings of labels (...,), or their sums for indicators (..., C)."""
        if labels.is_floating_point():
            return labels @ self.labels
        return self.labels[labels]

    def forward(self, pooled: Tensor) -> Tensor:
        """Map rows (B, d_in) to logits (B, C)."""
        with _in_float32(pooled):
            return self.layers(pooled.float()) @ self.labels.T


def _in_float32(inputs: Tensor) -> torch.autocast:
    """Switch autocast off where the inputs are."""
    return torch.autocast(inputs.device.type, enabled=False)


def init_linears(module: nn.Module) -> None:
    """Give every linear weights from N(0, 0.02^2) and a zero bias, as in BERT."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
