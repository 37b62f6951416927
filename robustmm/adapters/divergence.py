"""How far one prediction is from another."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def divergence(true: Tensor, other: Tensor, multilabel: bool) -> Tensor:
    """Return KL(true || other) of logits (B, C), a scalar.

    Of categories, the mean over rows; of independent labels (``multilabel``), the mean
    over rows and labels.
    """
    if not multilabel:
        target, other = true.log_softmax(dim=1), other.log_softmax(dim=1)
        return F.kl_div(other, target, log_target=True, reduction="batchmean")
    loss, target = F.binary_cross_entropy_with_logits, true.sigmoid()
    return loss(other, target) - loss(true, target)
