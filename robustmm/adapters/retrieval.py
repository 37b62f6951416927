"""What retrieved tokens become: a stand-in for missing ones, and prompts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenFilter(nn.Module):
    r"""Generate a modality's tokens from the mean of those that were retrieved.

    :math:`\mathrm{Linear}(\mathrm{LN}(m + \mathrm{Dropout}(f)))` with :math:`f =
    \mathrm{Re} \, \mathcal{F}^{-1}(W \odot \mathcal{F}(m))`, where :math:`\mathcal{F}`
    runs along the sequence. The real part of it is a circular convolution of each
    feature with the real part of :math:`\mathcal{F}^{-1}(W)`.

    Parameters
    ----------
    length, width : int
    dropout : float

    Notes
    -----
    Shapes: (B, n, d) to (B, n, d), for one n.

    Examples
    --------
    >>> TokenFilter(5, 8, dropout=0.2)(torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, length: int, width: int, dropout: float):
        super().__init__()
        # Two real numbers instead of a complex one: optimisers and files know them.
        self.weight = nn.Parameter(torch.randn(length, width, 2))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, mean: Tensor) -> Tensor:
        """Return generated tokens."""
        with torch.autocast(mean.device.type, enabled=False):  # no FFT in 16 bits
            mean = mean.float()
            weight = torch.view_as_complex(self.weight)
            filtered = torch.fft.ifft(weight * torch.fft.fft(mean, dim=1), dim=1).real
            return self.linear(self.norm(mean + self.dropout(filtered)))


class RetrievedPrompts(nn.Module):
    r"""Prompts of a row, read from retrieved tokens by its own, averaged in bins.

    :math:`P \, \mathrm{softmax}((x W_q + b_q) (r W_k)^\top / \sqrt{d}) \, r W_v + b_v`,
    where :math:`P` averages neighbouring positions of the row's own tokens :math:`x`
    into ``length`` bins, which overlap where they do not divide them.

    Parameters
    ----------
    width, length : int

    Notes
    -----
    Shapes: own tokens (B, n, d) with their lengths (B,), retrieved tokens (B, m, d)
    with a mask (B, m) or None; prompts (B, l, d).

    Examples
    --------
    >>> read = RetrievedPrompts(8, length=2)
    >>> x, r = torch.randn(3, 5, 8), torch.randn(3, 20, 8)
    >>> read(x, torch.tensor([5, 2, 4]), r).shape
    torch.Size([3, 2, 8])
    """

    def __init__(self, width: int, length: int):
        super().__init__()
        self.length = length
        self.query = nn.Linear(width, width)
        # Its bias would be the same for all that is read, and cancel.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)

    def forward(
        self,
        own: Tensor,
        lengths: Tensor,
        retrieved: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the prompts of each row."""
        # Neither the many retrieved tokens nor what they become is ever projected: the
        # keys' weight goes to the queries, and the values' to the few sums.
        queries = self.query(own) @ self.key.weight  # (B, n, d)
        scores = queries @ retrieved.mT / own.shape[-1] ** 0.5  # (B, n, m)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        bins = average_bins(lengths, self.length, own.shape[1])  # (B, l, n)
        return self.value(bins @ scores.softmax(dim=-1).to(bins.dtype) @ retrieved)


def average_bins(lengths: Tensor, n_bins: int, size: int) -> Tensor:
    """Return weights (B, bins, size) that average the first ``lengths`` positions.

    Those of torch's ``adaptive_avg_pool1d``, for each row's own length.

    Examples
    --------
    >>> average_bins(torch.tensor([3, 2]), 2, 4)
    tensor([[[0.5000, 0.5000, 0.0000, 0.0000],
             [0.0000, 0.5000, 0.5000, 0.0000]],
    <BLANKLINE>
            [[1.0000, 0.0000, 0.0000, 0.0000],
             [0.0000, 1.0000, 0.0000, 0.0000]]])
    """
    number = torch.arange(n_bins, device=lengths.device)
    start = number * lengths[:, None] // n_bins  # (B, l)
    stop = -(-(number + 1) * lengths[:, None] // n_bins)  # rounded up
    place = torch.arange(size, device=lengths.device)
    inside = (place >= start[..., None]) & (place < stop[..., None])
    return F.normalize(inside.float(), p=1, dim=-1)
