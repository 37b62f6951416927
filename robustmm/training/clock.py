"""A time limit: what of it is spent."""

from __future__ import annotations

import time

from .processes import current


class Clock:
    """Seconds from the making of the clock, against a limit.

    Parameters
    ----------
    limit : float or None
        Seconds; None never ends.

    Examples
    --------
    >>> Clock(60.0).is_over(), Clock(60.0).is_over(ahead=61.0), Clock(None).is_over()
    (False, True, False)
    """

    def __init__(self, limit: float | None):
        self.limit = limit
        self._began = time.monotonic()
        self._asked: float | None = None
        self._told: float | None = None

    def ask(self) -> float:
        """Return the time that is spent, by the clock of the first process.

        It stands still until it is asked again: all processes decide by it alike.
        """
        processes = current()
        if self.limit is None or processes.size == 1:
            return self.seconds()
        now = time.monotonic() - self._began
        self._told = processes.from_first(lambda: now)
        return self._told

    def seconds(self) -> float:
        """Return the time that is spent."""
        return time.monotonic() - self._began if self._told is None else self._told

    def is_over(self, ahead: float = 0.0) -> bool:
        """Whether the time is spent, or will be in ``ahead`` seconds."""
        return self.limit is not None and self.seconds() + ahead >= self.limit

    def fraction(self) -> float:
        """Return the spent part of the time that was left at the first call.

        Zero without a limit, and where nothing was left.
        """
        now = self.seconds()
        self._asked = now if self._asked is None else self._asked
        if self.limit is None or self._asked >= self.limit:
            return 0.0
        return min(1.0, (now - self._asked) / (self.limit - self._asked))
