"""Linears of layers in 8 bits, for predictions on the CPU: an approximation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .stream import Stream


class Int8Linear(nn.Module):
    r"""A linear of 8-bit weights and inputs, each with a scale per row.

    With :math:`s_i = \max_j |W_{ij}| / 127` and, for each token,
    :math:`t = \max_j |x_j| / 127`, :math:`y_i = t s_i \sum_j [x_j / t] [W_{ij} / s_i] + b_i`, where
    :math:`[\cdot]` rounds and sums are whole numbers.

    Parameters
    ----------
    weight : Tensor of shape (d_out, d_in)
    bias : Tensor of shape (d_out,), or None

    Examples
    --------
    >>> layer, x = nn.Linear(64, 32), torch.randn(5, 64)
    >>> error = (Int8Linear(layer.weight, layer.bias)(x) - layer(x)).norm()
    >>> bool(error < 0.02 * layer(x).norm())
    True
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        weight = weight.detach().float()
        scale = _scale(weight)  # (d_out, 1)
        whole = (weight / scale).round_().to(torch.int8)
        self.register_buffer("whole", whole.T.contiguous())  # (d_in, d_out)
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        rows = x.flatten(0, -2).float()
        scale = _scale(rows)  # (tokens, 1)
        # What torchao calls, too: torch's own quantised linears are being removed.
        sums = torch._int_mm((rows / scale).round_().to(torch.int8), self.whole)
        y = sums.float().mul_(scale).mul_(self.scale)
        y = y if self.bias is None else y.add_(self.bias)
        return y.view(*x.shape[:-1], -1).to(x.dtype)


def _scale(rows: Tensor) -> Tensor:
    """What 127 stands for in each row, (n, 1)."""
    # A row of zeros may have any scale.
    return rows.abs().amax(dim=1, keepdim=True).div_(127).clamp_min_(1e-12)


def quantize_layers(stream: Stream) -> None:
    """Put linears of 8 bits into the places of all in a stream's layers.

    Adapters that can be merged become one with their linear first; of others, what is
    frozen is replaced. What they train stays as it is.

    Parameters
    ----------
    stream : Stream
        On the CPU, and never to be trained again.
    """
    _replace_in(stream.layers)
    _replace_in(stream.joint_adapters)


def is_quantized(module: nn.Module) -> bool:
    """Tell whether a module has a linear of 8 bits."""
    return any(isinstance(part, Int8Linear) for part in module.modules())


def _replace_in(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if hasattr(child, "merge"):
            child.merge()
        merged = getattr(child, "merged", None)
        if merged is not None:
            setattr(parent, name, Int8Linear(merged, child.frozen.bias))
        elif isinstance(child, nn.Linear):
            setattr(parent, name, Int8Linear(child.weight, child.bias))
        else:
            _replace_in(child)
