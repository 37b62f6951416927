"""Parameter checks whose messages state the rule and the value received."""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Real


def check_number(
    name: str,
    value,
    kind: type,
    low: float,
    high: float = float("inf"),
    *,
    open: str = "none",
    finite: bool = True,
) -> None:
    """Raise unless ``value`` is a ``kind`` between ``low`` and ``high``.

    ``open`` says which ends are excluded: ``"none"``, ``"low"`` or ``"both"``. Infinity
    is, unless ``finite`` is false, and NaN always: they train to NaN in silence.

    Examples
    --------
    >>> check_number("lr", float("inf"), Real, 0, open="low")
    Traceback (most recent call last):
        ...
    ValueError: lr must be in (0, inf), got inf.
    """
    # True is an Integral and a Real, and would pass for 1.
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = "a number" if kind is Real else "an integer"
        raise TypeError(f"{name} must be {expected}, got {value!r}.")
    too_low = value <= low if open in ("low", "both") else value < low
    open_high = open == "both" or (finite and high == float("inf"))
    too_high = value >= high if open_high else value > high
    # NaN is in no order with anything, so no comparison above finds it.
    if too_low or too_high or value != value:
        left = "(" if open in ("low", "both") else "["
        right = ")" if open_high else "]"
        interval = f"{left}{low}, {high}{right}"
        raise ValueError(f"{name} must be in {interval}, got {value!r}.")


def check_choice(name: str, value, choices: Iterable) -> None:
    """Raise unless ``value`` is one of ``choices``.

    Examples
    --------
    >>> check_choice("routing", "soft", ["top_k", "soft_merge"])
    Traceback (most recent call last):
        ...
    ValueError: routing must be one of ['top_k', 'soft_merge'], got 'soft'.
    """
    choices = list(choices)
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


def check_names(name: str, value, choices: Iterable) -> None:
    """Raise unless ``value`` is a sequence of different ones of ``choices``.

    Examples
    --------
    >>> check_names("targets", ["key", "key"], ["query", "key"])
    Traceback (most recent call last):
        ...
    ValueError: targets must be different names of ['query', 'key'], got ['key', 'key'].
    """
    choices = list(choices)
    names = [] if isinstance(value, str) else list(value)
    known = [choice for choice in choices if choice in names]
    if not names or len(known) < len(names):
        raise ValueError(f"{name} must be different names of {choices}, got {value!r}.")


def check_folder(name: str, value, choices: Iterable) -> None:
    """Raise unless ``value`` is one of ``choices`` or an existing folder.

    Examples
    --------
    >>> check_folder("cache", "memory", ("memory", None))
    >>> check_folder("cache", 3, ("memory", None))
    Traceback (most recent call last):
        ...
    ValueError: cache must be one of ['memory', None] or an existing folder, got 3.
    """
    choices = list(choices)
    if value in choices:
        return
    is_path = isinstance(value, str | os.PathLike)
    if not is_path or not os.path.isdir(value):
        rule = f"{name} must be one of {choices} or an existing folder"
        raise ValueError(f"{rule}, got {value!r}.")
