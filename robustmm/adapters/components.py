"""Prompts that are weighted sums of components, which grow by a slice per stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PromptSlice(nn.Module):
    """Components of several pools and layers that one stage learns.

    Parameters
    ----------
    n_pools, n_layers, n_components : int
        Each pool has so many components in each layer.
    length, width : int
        Shape of a prompt.

    Notes
    -----
    Shapes: ``prompts`` (pools, layers, K, l, d), ``keys`` and ``attention`` (pools,
    layers, K, d).

    Examples
    --------
    >>> piece = PromptSlice(3, 2, n_components=4, length=8, width=16)
    >>> sum(p.numel() for p in piece.parameters())
    3840
    """

    def __init__(
        self, n_pools: int, n_layers: int, n_components: int, length: int, width: int
    ):
        super().__init__()
        shape = n_pools, n_layers, n_components
        self.prompts = nn.Parameter(torch.randn(*shape, length, width))
        self.keys = nn.Parameter(torch.randn(*shape, width))
        self.attention = nn.Parameter(torch.randn(*shape, width))

    @torch.no_grad()
    def begin(self, earlier: Sequence[PromptSlice]) -> None:
        """Make the components orthonormal, and orthogonal to those of other slices."""
        for name, own in self.named_parameters():
            before = [getattr(piece, name).flatten(3) for piece in earlier]
            every = torch.cat([*before, own.flatten(3)], dim=2).double()
            # Gram-Schmidt: the first columns span what was there, the others do not.
            basis = torch.linalg.qr(every.mT).Q.mT[:, :, -own.shape[2] :]
            own.copy_(basis.reshape(own.shape))


class ComponentPool:
    r"""The components of one pool: queries to prompts (CODA-Prompt [1]_, RebQ [2]_).

    :math:`p = \sum_k \cos(q \odot A_k, K_k)\, P_k`, in each layer, with weights of any
    sign. The cosines of all rows and components are two products,
    :math:`q (A \odot \hat K)^\top / \sqrt{q^2 (A^2)^\top}`.

    Parameters
    ----------
    slices : sequence of PromptSlice
        Of all stages.
    pool : int
        Which of their pools.

    Notes
    -----
    Shapes: query (B, d), weights (layers, B, K), prompts (layers, B, l, d). It is
    made anew in each pass, as it has no tensors of its own.

    References
    ----------
    .. [1] Smith et al., "CODA-Prompt: Continual Decomposed Attention-based Prompting",
       CVPR 2023.
    .. [2] Zhao et al., "Reconstruct before Query: Continual Missing Modality Learning
       with Decomposed Prompt Collaboration", arXiv:2403.11373, 2024.

    Examples
    --------
    >>> slices = [PromptSlice(3, 2, 4, length=8, width=16) for stage in range(2)]
    >>> pool = ComponentPool(slices, pool=0)
    >>> weights = pool.weights(torch.randn(5, 16))
    >>> weights.shape, pool.mix(weights).shape
    (torch.Size([2, 5, 8]), torch.Size([2, 5, 8, 16]))
    """

    def __init__(self, slices: Sequence[PromptSlice], pool: int):
        self.parts = {
            name: torch.cat([getattr(piece, name)[pool] for piece in slices], dim=1)
            for name in ("prompts", "keys", "attention")
        }

    def weights(self, query: Tensor) -> Tensor:
        """Return the weight of each component in each layer, (layers, B, K)."""
        keys, attention = self.parts["keys"], self.parts["attention"]  # (L, K, d)
        with torch.autocast(query.device.type, enabled=False):
            query = query.to(keys.dtype)
            above = query @ (attention * F.normalize(keys, dim=-1)).mT
            below = query.square() @ attention.square().mT
            return above / below.sqrt().clamp(min=1e-8)

    def mix(self, weights: Tensor) -> Tensor:
        """Return the prompts of rows with these weights, (layers, B, l, d)."""
        prompts = self.parts["prompts"]  # (layers, K, l, d)
        return (weights @ prompts.flatten(2)).unflatten(2, prompts.shape[2:])
