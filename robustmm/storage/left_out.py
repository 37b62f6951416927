"""Parameters of which parts cannot be stored: what is kept, and what is left out."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from .values import pack

# Parameters of a training that nothing but another training needs.
_MAY_BE_LEFT_OUT = ("net_params", "scoring")


def without_unstorable(
    parameters: dict, can_store: Callable[[object], bool]
) -> tuple[dict, list[str]]:
    """Return parameters that can be stored, and the names of what was left out.

    Of ``net_params``, each callback counts by itself, and so does each other entry; in
    the place of a ``scoring`` that cannot be stored there is None.

    Parameters
    ----------
    parameters : dict
        Of a classifier. Others than these two are returned as they are.
    can_store : callable (value) -> bool

    Examples
    --------
    >>> params = {"lr": 0.1, "net_params": {"callbacks": [print], "batch_size": 2}}
    >>> without_unstorable(params, can_pack)
    ({'lr': 0.1, 'net_params': {'callbacks': [], 'batch_size': 2}}, ['print'])
    """
    kept, left = dict(parameters), []
    for name in _MAY_BE_LEFT_OUT:
        value = parameters.get(name)
        if isinstance(value, dict) and not can_store(value):
            kept[name] = _of_net(value, can_store, left)
        elif not can_store(value):
            kept[name] = None
            left.append(f"{name}={_named(value)}")
    return kept, left


def _of_net(value: dict, can_store: Callable, left: list[str]) -> dict:
    kept = {}
    for key, part in value.items():
        if key == "callbacks" and isinstance(part, list | tuple):
            kept[key] = [item for item in part if can_store(item)]
            left += [_named(item) for item in part if not can_store(item)]
        elif can_store(part):
            kept[key] = part
        else:
            left.append(f"{key}={_named(part)}")
    return kept


def _named(value) -> str:
    """The name of a callback, of (name, callback), of a class or of a function."""
    if isinstance(value, tuple):
        return " ".join(map(_named, value))
    if isinstance(value, str):
        return value
    return getattr(value, "__name__", type(value).__name__)


def can_pack(value) -> bool:
    """Whether JSON can hold a value."""
    try:
        pack(value, {}, "")
    except TypeError:
        return False
    return True


def can_pickle(value) -> bool:
    """Whether a pickle can hold a value."""
    try:
        pickle.dumps(value)
    # Whatever a handle inside raises: a lock TypeError, a local class AttributeError.
    except Exception:
        return False
    return True
