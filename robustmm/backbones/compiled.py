"""Blocks of layers as torch's compiler makes them, shared by streams of one kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from functools import cache
from types import FunctionType

import torch


@cache
def compiled(function: FunctionType, kind: Hashable) -> Callable:
    """Return a function compiled for tensors of any size, one for each kind of caller.

    Parameters
    ----------
    function : function
        What is compiled: when it is called, and for each combination of what is there
        anew. Of sizes, only 0 and 1 differ from all others.
    kind : hashable
        Who calls: torch forgets what it made when one function has more than a few
        variants, so those of several kinds are kept apart.

    Examples
    --------
    >>> def double(x):
    ...     return 2 * x
    >>> compiled(double, "a") is compiled(double, "a")
    True
    >>> compiled(double, "a") is compiled(double, "b")
    False
    """
    # Torch keeps what it has compiled by code object, not by function.
    code = function.__code__.replace()
    names = function.__globals__, function.__name__, function.__defaults__
    twin = FunctionType(code, *names, function.__closure__)
    # Dropout draws what it would draw otherwise, not from a stream of the compiler's.
    return torch.compile(twin, dynamic=True, options={"fallback_random": True})


@cache
def why_not() -> str | None:
    """Return why nothing can be compiled in this process; None if it can.

    Tries it, which takes seconds once. There may be no C++ compiler, or torch may not
    support this version of Python yet.
    """
    try:
        # Torch warns of parts of its own when the compiler is loaded.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(torch.sin)(torch.zeros(2))
    except Exception as error:  # of many kinds, some of them private to torch
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def check_compiler() -> None:
    """Raise RuntimeError, with the remedy, unless torch can compile here."""
    reason = why_not()
    if reason is not None:
        raise RuntimeError(
            "compile=True needs a C++ compiler that torch finds, such as g++ or what "
            f"CXX names: install one, or pass compile=False. Torch says {reason}"
        )
