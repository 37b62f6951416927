"""The trained tensors of a module: taken out, put back, and what they belong to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return what an estimator has to itself: all but the shared frozen tensors."""
    own, seen = {}, set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not module.backbone.is_shared(tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            own[name] = tensor
    return own


def dump_tensors(module: nn.Module) -> dict[str, np.ndarray]:
    """Return CPU copies of :func:`own_tensors`."""
    return {
        name: tensor.detach().cpu().numpy().copy()
        for name, tensor in own_tensors(module).items()
    }


def load_tensors(module: nn.Module, values: dict[str, np.ndarray]) -> None:
    """Write what :func:`dump_tensors` returned into a module of the same build.

    Raises
    ------
    ValueError
        If names or shapes differ from the module's.
    """
    own = own_tensors(module)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: np.shape(value) for name, value in values.items()}
    if found != shapes:
        odd = sorted(set(found.items()) ^ set(shapes.items()))
        raise ValueError(
            "Trained tensors must have the names and shapes of the module's, got "
            f"{len(found)} for {len(shapes)}; they differ in {odd[:3]}."
        )
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(torch.from_numpy(np.array(value)))
