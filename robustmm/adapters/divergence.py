"""How far one prediction is from another."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def divergence(true: Tensor, other: Tensor, multilabel: bool) -> Tensor:
    """Return KL(true || other) of logits (B, C), a scalar.

    Of categories, the mean over rows; of independent labels (``multilabel``), the mean
    over rows and labels.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[1.0, -1.0]])
    >>> divergence(logits, logits, multilabel=False).item()
    0.0
    >>> divergence(logits, -logits, multilabel=False).item() > 1
    True
    """
    if not multilabel:
        target, other = true.log_softmax(dim=1), other.log_softmax(dim=1)
        # torch takes the two the other way round, and its "mean" divides by the classes
        # as well, which is no divergence.
        return F.kl_div(other, target, log_target=True, reduction="batchmean")
    loss, target = F.binary_cross_entropy_with_logits, true.sigmoid()
    # Cross-entropy less entropy, of each label by itself. DeLo's code takes a softmax
    # here too, over labels that do not exclude one another.
    return loss(other, target) - loss(true, target)
