"""Locks that a forked child finds open, whatever its parent's threads were doing."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class ForkSafeLock:
    """A lock that is open in a forked child.

    A plain one that another thread holds when the process forks stays closed in the
    child, where nobody is left to open it.

    Parameters
    ----------
    reentrant : bool
        Whether the thread that holds it may take it again.

    Examples
    --------
    >>> lock = ForkSafeLock()
    >>> with lock.held():
    ...     print("by this thread alone")
    by this thread alone
    """

    _all: ClassVar[weakref.WeakSet[ForkSafeLock]] = weakref.WeakSet()

    def __init__(self, *, reentrant: bool = False) -> None:
        self._make = threading.RLock if reentrant else threading.Lock
        self._renew()
        self._all.add(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock during a block, waiting for whoever holds it."""
        # A child that is forked within the block leaves it by the lock of its parent.
        with self._lock:
            yield

    def _renew(self) -> None:
        self._lock = self._make()

    @classmethod
    def _renew_all(cls) -> None:
        for lock in list(cls._all):
            lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ForkSafeLock._renew_all)
