"""Where and in which precision to compute, and with which seeds."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def resolve_device(name: str | torch.device, fall_back: bool = False) -> torch.device:
    """Return the device that a name means on this machine.

    Parameters
    ----------
    name : str or torch.device
        ``"auto"`` is CUDA if there is one, else the CPU.
    fall_back : bool
        Whether an absent CUDA device becomes the CPU, with a warning; that is how a
        model trained on a GPU opens anywhere.

    Raises
    ------
    ValueError
        If the device does not exist here and ``fall_back`` is false.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f'device must be "auto", "cpu", "cuda" or "cuda:N", got {name!r}.'
        ) from error
    if device.type != "cuda" or (device.index or 0) < torch.cuda.device_count():
        return device
    found = f"this machine has {torch.cuda.device_count()} CUDA devices"
    if not fall_back:
        raise ValueError(f'device={name!r}, but {found}; device="auto" takes what is.')
    warnings.warn(f"device={name!r}, but {found}; using another.", stacklevel=2)
    return resolve_device("auto")


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type for autocast, or None for plain float32."""
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else None
    return torch.bfloat16 if precision == "bfloat16" else None


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block and leave the caller's generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def may_start_workers() -> bool:
    """Whether this process may have children: a worker of joblib may not."""
    # Those of joblib's own backend are no daemons, but fail to start another process.
    in_loky = multiprocessing.get_start_method(allow_none=True) == "loky"
    return not (multiprocessing.current_process().daemon or in_loky)
