"""Processes that train one classifier together: who they are, and what they say."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .device import may_start_workers

# What torchrun and `accelerate launch` tell the processes that they start.
_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Seconds that one process waits for another; those of torch by default.
TIMEOUT = "ROBUSTMM_TIMEOUT"
_SECONDS = 1800.0
# How long those that are left are waited for, to tell who is not.
_GRACE = 2.0


class Processes:
    """The processes of one training, as one of them sees them.

    Parameters
    ----------
    rank, size : int
        Which one this is, from 0, of how many.
    group, fast : ProcessGroup, optional
        What numbers on the CPU travel by, and those on a GPU, if by another.
    store : Store, optional
        Where a process leaves word before it goes.
    """

    def __init__(self, rank: int = 0, size: int = 1, group=None, fast=None, store=None):
        self.rank, self.size = rank, size
        self._group, self._fast, self._store = group, fast, store
        self.name = "" if group is None else group.group_name

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Return the sum of the values of all processes, the same to the bit in each.

        Parameters
        ----------
        values : Tensor
            Of one shape and type in all processes.
        """
        if self.size == 1:
            return values
        direct = self._fast is not None and values.is_cuda
        # gloo knows the CPU, and some devices only by way of it.
        there = values.clone() if direct else values.detach().cpu().clone()
        with self._loss_named():
            dist.all_reduce(there, group=self._fast if direct else self._group)
        return there.to(values.device)

    def gather(self, value: Any) -> list:
        """Return what each process passed, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list = [None] * self.size
        with self._loss_named():
            dist.all_gather_object(found, value, group=self._group)
        return found

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return what the first process makes; what it raises is raised in all."""
        if self.size == 1:
            return make()
        made: list = [None, None]
        if self.is_first:
            try:
                made[0] = make()
            except Exception as error:
                made[1] = _storable(error)
        with self._loss_named():
            dist.broadcast_object_list(made, group_src=0, group=self._group)
        if made[1] is not None:
            raise made[1]
        return made[0]

    def share_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the values that the first one has, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            value = tensor.detach()
            direct = self._fast is not None and value.is_cuda
            there = value.contiguous() if direct else value.cpu().contiguous()
            with self._loss_named():
                group = self._fast if direct else self._group
                dist.broadcast(there, group_src=0, group=group)
            value.copy_(there)

    def refuse_others(self, what: str, value: bytes) -> None:
        """Raise in all processes unless they pass the same value.

        Raises
        ------
        ValueError
            With the ranks that have another one than the first.
        """
        values = self.gather(blake2b(value).digest())
        others = [rank for rank, other in enumerate(values) if other != values[0]]
        if others:
            raise ValueError(
                f"All processes must fit the same {what}, got others than those of "
                f"rank 0 in the ranks {others}. A process that is to fit for itself "
                "does so inside of robustmm.fit_alone()."
            )

    def leave(self, error: BaseException) -> None:
        """Say why this process goes, and hang up, so that no other one waits for it."""
        if self.size > 1:
            self._write(f"{type(error).__name__}: {error}"[:500])

    def close(self) -> None:
        """End the connections of this training."""
        groups = [group for group in (self._fast, self._group) if group is not None]
        self._group = self._fast = None
        for group in groups:
            with suppress(Exception):  # a broken one has nothing to end
                dist.destroy_process_group(group)

    @contextmanager
    def _loss_named(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(self._loss(error)) from error

    def _loss(self, error: Exception) -> str:
        self._write("")
        reasons, silent = self._asked()
        said = [f"rank {rank} left it ({why})" for rank, why in reasons.items() if why]
        if silent:
            ranks = ", ".join(map(str, silent))
            said.append(f"nothing is heard of rank {ranks}, as if killed or cut off")
        said = said or ["a connection broke, although all are there"]
        return (
            f"A training of {self.size} processes has ended in rank {self.rank}: "
            f"{'; '.join(said)}. With checkpoint_dir, the same fit goes on after its "
            "last whole epoch, with any number of processes whose batch_size comes to "
            f"as many rows in a step. Torch says: {error}"
        )

    def _write(self, word: str) -> None:
        if self._store is not None:
            with suppress(RuntimeError):
                self._store.set(f"{self.name}/{self.rank}", word)

    def _asked(self) -> tuple[dict[int, str], list[int]]:
        """Return what the other processes left word of, and those that did not."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        if self._store is None:
            return {}, others
        # Of two, it is the other one; of more, those that are left need a moment.
        end = time.monotonic() + (_GRACE if self.size > 2 else 0.1)
        heard: dict[int, str] = {}
        with suppress(RuntimeError):  # the store was that of a process that is gone
            while len(heard) < len(others) and time.monotonic() < end:
                for rank in set(others) - set(heard):
                    if self._store.check([f"{self.name}/{rank}"]):
                        heard[rank] = self._store.get(f"{self.name}/{rank}").decode()
                time.sleep(0.02)
        return heard, [rank for rank in others if rank not in heard]


ALONE = Processes()
_CURRENT: ContextVar[Processes] = ContextVar("processes", default=ALONE)
_MAY_SHARE: ContextVar[bool] = ContextVar("may_share", default=True)
# Whether a fork has taken over a group that is its parent's.
_INHERITED = False


def _note_fork() -> None:
    global _INHERITED
    _INHERITED = dist.is_available() and dist.is_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def current() -> Processes:
    """Return the processes that the training of this thread is shared by."""
    return _CURRENT.get()


@contextmanager
def fit_alone() -> Iterator[None]:
    """Let each process fit for itself inside the block, as if it were the only one.

    Under ``torchrun`` or ``accelerate launch``, a ``fit`` is one training of all
    processes, which have to call it with the same rows. Inside of this block it is not:
    for folds or candidates that are dealt to the processes, say.

    Examples
    --------
    >>> import robustmm
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(20, n_classes=2, random_state=0)
    >>> with robustmm.fit_alone():
    ...     clf = robustmm.LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    """
    token = _MAY_SHARE.set(False)
    try:
        yield
    finally:
        _MAY_SHARE.reset(token)


@contextmanager
def together(device: torch.device) -> Iterator[Processes]:
    """Train with the other processes inside the block, where there are any.

    Not in another thread than the main one, nor in a worker of joblib, nor within
    another training: these train for themselves, as there nobody says that all
    processes come to the same fit in the same order.

    Parameters
    ----------
    device : torch.device
        Where this process computes.
    """
    within = _CURRENT.get() is not ALONE
    processes = _join(device) if not within and is_launched() else ALONE
    token = _CURRENT.set(processes)
    try:
        yield processes
        processes.gather(None)  # nobody hangs up before all are done
    except BaseException as error:
        processes.leave(error)
        raise
    finally:
        _CURRENT.reset(token)
        processes.close()


def is_launched() -> bool:
    """Whether this thread is that of a process that was started as one of several."""
    if not _MAY_SHARE.get() or not dist.is_available() or _INHERITED:
        return False
    main = threading.current_thread() is threading.main_thread()
    if not (main and may_start_workers()):
        return False
    if dist.is_initialized():
        return dist.get_world_size() > 1
    # A child that is not of the launcher's has its parent's environment.
    is_child = multiprocessing.parent_process() is not None
    told = all(name in os.environ for name in _TOLD)
    return told and not is_child and int(os.environ["WORLD_SIZE"]) > 1


def _join(device: torch.device) -> Processes:
    timeout = timedelta(seconds=float(os.environ.get(TIMEOUT, _SECONDS)))
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timeout)
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.new_group(backend="gloo", timeout=timeout)
    processes = Processes(rank, size, group, store=_meeting_point())
    # NCCL refuses two processes on one device.
    places = processes.gather(_place(device))
    if None not in places and len(set(places)) == size and dist.is_nccl_available():
        processes._fast = dist.new_group(backend="nccl", timeout=timeout)
    return processes


def _place(device: torch.device) -> tuple[str, str] | None:
    if device.type != "cuda":
        return None
    return socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)


def _meeting_point() -> dist.Store | None:
    """The store of the launcher, by a connection that a dead group does not break."""
    if not all(name in os.environ for name in _TOLD):
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with suppress(RuntimeError):
        store = dist.TCPStore(host, port, timeout=timedelta(seconds=10))
        return dist.PrefixStore("robustmm", store)
    return None


def _storable(error: Exception) -> Exception:
    """The error, or where it cannot be sent, one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
