"""Where and in which precision to compute, and with which random numbers."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..locks import ForkSafeLock

PRECISIONS = ("auto", "float32", "bfloat16")
# Device types that hold no numbers to compute with, or that nothing here runs on.
_NOT_TO_COMPUTE_ON = ("meta", "vulkan", "fpga", "maia", "lazy")
# Device types with a generator of their own, from which dropout draws there.
_WITH_GENERATOR = ("cuda", "mps", "xpu")


def resolve_device(name: str | torch.device, fall_back: bool = False) -> torch.device:
    """Return the device that a name means on this machine.

    Parameters
    ----------
    name : str or torch.device
        ``"auto"`` is CUDA if there is one, else Apple's MPS, else the CPU. Of several
        GPUs, a process of ``torchrun`` takes that of its local rank.
    fall_back : bool
        Whether an absent device becomes ``"auto"``, with a warning; that is how a model
        trained on a GPU opens anywhere.

    Raises
    ------
    ValueError
        If the device does not exist here and ``fall_back`` is false.
    """
    if name == "auto":
        kind = next(filter(_count, ("cuda", "mps")), "cpu")
        local = os.environ.get("LOCAL_RANK", "")
        if kind != "cuda" or not local.isdecimal() or "WORLD_SIZE" not in os.environ:
            return torch.device(kind)
        # Of several processes that a launcher started here, each has one of its own.
        return torch.device(kind, int(local) % _count(kind))
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            'device must be "auto", "cpu", "cuda", "cuda:N", "mps" or another that '
            f"torch knows, got {name!r}."
        ) from error
    # "cuda" is the current device, of which there is one if there is any.
    if (device.index or 0) < _count(device.type):
        return device
    kind = {"cuda": "CUDA", "mps": "MPS"}.get(device.type, repr(device.type))
    found = f"this machine has {_count(device.type)} {kind} devices"
    if not fall_back:
        raise ValueError(f'device={name!r}, but {found}; device="auto" takes what is.')
    warnings.warn(f"device={name!r}, but {found}; using another.", stacklevel=2)
    return resolve_device("auto")


def _count(kind: str) -> int:
    """Devices of a type that this process can compute on."""
    if kind == "cpu":
        return 1
    if kind in _NOT_TO_COMPUTE_ON:
        return 0
    if kind == "mps":  # torch.mps could not be asked in every supported release
        return int(torch.backends.mps.is_available())
    try:
        module = torch.get_device_module(kind)
        return module.device_count() if module.is_available() else 0
    # A torch built without the device has no module for it, or an empty one.
    except (AttributeError, RuntimeError, AssertionError):
        return 0


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type for autocast, or None for plain float32."""
    if precision == "auto":
        return torch.bfloat16 if _is_fast_in_bfloat16(device) else None
    return torch.bfloat16 if precision == "bfloat16" else None


def _is_fast_in_bfloat16(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    # Cards before Ampere compute with it, too, but emulate it: slower than float32.
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


_COUNTING = ForkSafeLock()
# Blocks of this process without cuDNN's attention; whether they switched it off.
_without_cudnn = 0
_switched_off = False


@contextmanager
def attention_of_any_shape(device: torch.device) -> Iterator[None]:
    """Leave cuDNN's attention out on CUDA, which plans anew for every shape.

    Batches of rows with holes hardly have one shape twice, and a plan takes longer than
    the step: on an H200, most of a training. The switch belongs to the process. It is
    off while any thread is in such a block, and then what it was before.

    Examples
    --------
    >>> with attention_of_any_shape(torch.device("cuda")):
    ...     torch.backends.cuda.cudnn_sdp_enabled()
    False
    """
    if device.type != "cuda":
        yield
        return
    _count_block(1)
    try:
        yield
    finally:
        _count_block(-1)


def _count_block(step: int) -> None:
    global _without_cudnn, _switched_off
    flags = torch.backends.cuda
    with _COUNTING.held():
        _without_cudnn += step
        if step > 0 and _without_cudnn == 1 and flags.cudnn_sdp_enabled():
            # Whoever allows nothing else shall have it.
            others = flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled()
            _switched_off = any(others) or flags.math_sdp_enabled()
            flags.enable_cudnn_sdp(not _switched_off)
        if _without_cudnn == 0 and _switched_off:
            flags.enable_cudnn_sdp(True)
            _switched_off = False


class RandomStream:
    """The random numbers of one fit, whatever other threads draw meanwhile.

    Dropout and initialisation know no generator but torch's global ones. So these are
    lent to a fit while it draws, with the state they had at its last draw, and given
    back as they were: a fit gives what it gives alone, and leaves no trace.

    Parameters
    ----------
    seed : int
        What the stream starts from.
    device : torch.device
        Where the fit computes; no other device's generator is touched.

    Attributes
    ----------
    states : list of Tensor
        Where the stream is: the state of the CPU's generator, then the device's if it
        has one.

    Examples
    --------
    >>> stream = RandomStream(0, torch.device("cpu"))
    >>> with stream.lent():
    ...     first = torch.rand(2)
    >>> _ = torch.rand(3)
    >>> with stream.lent():
    ...     second = torch.rand(2)
    >>> generator = torch.Generator().manual_seed(0)
    >>> bool((torch.cat([first, second]) == torch.rand(4, generator=generator)).all())
    True
    """

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        own = [torch.Generator()]
        if device.type in _WITH_GENERATOR:
            own.append(torch.Generator(device))
        self.states = [generator.manual_seed(seed).get_state() for generator in own]
        self._is_lent = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Draw from this stream inside the block, in which other fits wait."""
        with _DRAWING.held():
            if self._is_lent:  # in the same thread: the lock keeps others out
                yield
                return
            outside, self._is_lent = self._exchange(self.states), True
            try:
                yield
            finally:
                self.states, self._is_lent = self._exchange(outside), False

    def _exchange(self, states: list[Tensor]) -> list[Tensor]:
        """Set the global generators; return what they were."""
        before = generator_states(self.device)
        set_generator_states(self.device, states)
        return before


def generator_states(device: torch.device) -> list[Tensor]:
    """Return where torch's global generators are: the CPU's, then the device's."""
    states = [torch.get_rng_state()]
    if device.type in _WITH_GENERATOR:
        states.append(torch.get_device_module(device).get_rng_state(*_where(device)))
    return states


def set_generator_states(device: torch.device, states: list[Tensor]) -> None:
    """Set what :func:`generator_states` returned; no other generator is touched."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        module = torch.get_device_module(device)
        module.set_rng_state(states[1], *_where(device))


def _where(device: torch.device) -> tuple:
    # Before torch 2.13, torch.mps takes no device as an argument: it has just one.
    return () if device.type == "mps" else (device,)


# Reentrant, as a step that draws may be within a block that draws.
_DRAWING = ForkSafeLock(reentrant=True)


def may_start_workers() -> bool:
    """Whether this process may have children: a worker of joblib may not."""
    # Those of joblib's own backend are no daemons, but fail to start another process.
    in_loky = multiprocessing.get_start_method(allow_none=True) == "loky"
    return not (multiprocessing.current_process().daemon or in_loky)
