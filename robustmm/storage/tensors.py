"""The trained tensors of a module: taken out, put back, and what they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


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


class _OnMeta(TorchDispatchMode):
    """Move whatever takes part in a computation to the meta device.

    Asked for a number, which is not there, a tensor says one: a module that scales its
    first weights is built like any other.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(
            Tensor, lambda tensor: tensor.to("meta"), (args, kwargs or {})
        )
        if func is torch.ops.aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).tolist()
        if "device" in kwargs:
            kwargs["device"] = torch.device("meta")
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Make tensors inside the block that have a shape and take no memory."""
    with torch.device("meta"), _OnMeta():
        yield


def check_shapes(module: nn.Module, values: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless names and shapes are those of a module's tensors.

    The module may be one on the meta device, which takes no memory.
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


def load_tensors(module: nn.Module, values: dict[str, np.ndarray]) -> None:
    """Write what :func:`dump_tensors` returned into a module of the same build.

    Raises
    ------
    ValueError
        If names or shapes differ from the module's.
    """
    check_shapes(module, values)
    own = own_tensors(module)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(torch.from_numpy(np.array(value)))
