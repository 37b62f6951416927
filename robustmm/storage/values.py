"""Python values as JSON and arrays: what a saved model is made of, without pickle."""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

# What JSON cannot say is an object with this key, whose value is the kind.
TAG = "$type"
_PLAIN_KINDS = "biuf"  # kept as arrays; text, objects and times go into the JSON
_LISTED_DTYPE = re.compile(r"[<>|=]?(O|[US]\d+|[mM]8(\[\w+\])?)")
_SCALAR_DTYPE = re.compile(r"[<>|=]?([biuf][1248]|[US]\d+|[mM]8(\[\w+\])?)")
# Parsing a time of any length takes any time.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?([+-]\d\d:\d\d(:\d\d)?)?", re.ASCII
)
_MAX_BYTES = 2**27  # of an array of text: a type may be wider than what it holds
_MAX_KEY = 2**60  # up to here no two integers have the same hash


def pack(value, arrays: dict[str, np.ndarray], name: str):
    """Return a value as JSON; numeric arrays are put into ``arrays``.

    Parameters
    ----------
    value : None, bool, int, float, str, path, list, tuple, dict, array, ...
        NumPy scalars, ``pd.NA``, ``pd.NaT`` and ``pd.Timestamp`` too, nested at will.
    arrays : dict from name to ndarray
        Is added to.
    name : str
        What the value is called, in messages and in ``arrays``.

    Raises
    ------
    TypeError
        For a value of any other type; the message has its name.

    Examples
    --------
    >>> arrays = {}
    >>> pack({"rank": 4, "beta": (0.9, 0.98)}, arrays, "p")
    {'rank': 4, 'beta': {'$type': 'tuple', 'items': [0.9, 0.98]}}
    >>> pack([np.ones(2)], arrays, "p"), list(arrays)
    ([{'$type': 'array', 'name': 'p.0'}], ['p.0'])
    """
    # By exact type: JSON would write a subclass, such as an enum's member, and read
    # back another type.
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        # JSON has no NaN and no infinity; what Python writes for them is none.
        if math.isfinite(value):
            return value
        return {TAG: "float", "value": repr(value)}
    if isinstance(value, np.ndarray):
        return _pack_array(value, arrays, name)
    if isinstance(value, np.generic) and _SCALAR_DTYPE.fullmatch(value.dtype.str):
        item = pack(_items(value)[0], arrays, name)
        return _tagged("scalar", dtype=value.dtype.str, value=item)
    if type(value) in (list, tuple):
        items = [pack(v, arrays, f"{name}.{i}") for i, v in enumerate(value)]
        # JSON would make a list of it, and betas in a list are another parameter.
        return items if type(value) is list else _tagged("tuple", items=items)
    if type(value) is dict:
        return _pack_dict(value, arrays, name)
    if value is pd.NA or value is pd.NaT:
        return _tagged("null", value=str(value))
    if isinstance(value, pd.Timestamp):
        return _tagged("timestamp", value=value.isoformat())
    if isinstance(value, PurePath):
        return _tagged("path", value=str(value))
    raise TypeError(
        f"{name} must be a value that JSON can hold, a path or an array, got "
        f"{type(value).__module__}.{type(value).__qualname__}."
    )


def unpack(value, arrays: dict[str, np.ndarray]):
    """Return what :func:`pack` was given.

    Raises
    ------
    ValueError
        For anything that it cannot have returned.

    Examples
    --------
    >>> unpack({"$type": "tuple", "items": [1, {"$type": "float", "value": "nan"}]}, {})
    (1, nan)
    """
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"A plain number must be finite, got {value!r}.")
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {k: unpack(v, arrays) for k, v in value.items()}
    kind = value[TAG]
    if not isinstance(kind, str) or kind not in _UNPACK:
        raise ValueError(f"The kind must be one of {list(_UNPACK)}, got {kind!r:.80}.")
    try:
        return _UNPACK[kind](value, arrays)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"Not a {kind}: {value!r:.200}.") from error


def _tagged(kind: str, **fields) -> dict:
    return {TAG: kind, **fields}


def _pack_dict(value: dict, arrays: dict, name: str) -> dict:
    # A key of the user's that looks like ours must not be read as a kind.
    if all(type(key) is str for key in value) and TAG not in value:
        return {k: pack(v, arrays, f"{name}.{k}") for k, v in value.items()}
    items = [
        [pack(k, arrays, f"a key of {name}"), pack(v, arrays, f"{name}.{k}")]
        for k, v in value.items()
    ]
    return _tagged("dict", items=items)


def _pack_array(value: np.ndarray, arrays: dict, name: str) -> dict:
    if value.dtype.kind in _PLAIN_KINDS and value.dtype.itemsize <= 8:
        # safetensors writes what is in memory: big-endian numbers would come back as
        # others, and views that are not contiguous in another order.
        native = value.dtype.newbyteorder("=")
        arrays[name] = np.asarray(value, dtype=native, order="C")
        return _tagged("array", name=name)
    if not _LISTED_DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"{name} must not be an array of {value.dtype}.")
    items = [pack(v, arrays, f"{name}.{i}") for i, v in enumerate(_items(value))]
    shape = list(value.shape)
    return _tagged("list", dtype=value.dtype.str, shape=shape, items=items)


def _items(value: np.ndarray | np.generic) -> list:
    """The elements, as JSON can hold them: times are integers, bytes are Latin-1."""
    if value.dtype.kind in "mM":
        return np.ravel(value).view(np.int64).tolist()
    items = np.ravel(value).tolist()
    return [v.decode("latin-1") for v in items] if value.dtype.kind == "S" else items


def _from_items(items: list, dtype: str) -> np.ndarray:
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    if size * len(items) > _MAX_BYTES:
        raise ValueError(f"{len(items)} of {dtype!r:.80} are too large.")
    if kind in "mM":
        return np.array(items, dtype=np.int64).view(dtype)
    # Filled one by one: np.array would look into items that are sequences.
    array = np.empty(len(items), dtype=dtype)
    for i, item in enumerate(items):
        array[i] = item.encode("latin-1") if kind == "S" else item
    return array


def _unpack_dict(value: dict, arrays: dict) -> dict:
    items = unpack(value["items"], arrays)
    if any(type(key) is int and abs(key) >= _MAX_KEY for key, _ in items):
        raise ValueError("Keys that are integers must be smaller.")
    return dict(items)


def _unpack_time(value: dict, _) -> pd.Timestamp:
    if not _TIME.fullmatch(value["value"]):
        raise ValueError(f"Not a timestamp: {value['value']!r:.80}.")
    return pd.Timestamp(value["value"])


def _unpack_list(value: dict, arrays: dict) -> np.ndarray:
    # A forged dtype could be a structure of any size.
    if not _LISTED_DTYPE.fullmatch(value["dtype"]):
        raise ValueError(f"No array of {value['dtype']!r:.80} is ever saved.")
    items = _from_items(unpack(value["items"], arrays), value["dtype"])
    return items.reshape(value["shape"])


def _unpack_array(value: dict, arrays: dict) -> np.ndarray:
    if value["name"] not in arrays:
        raise ValueError(f"There is no array {value['name']!r:.200}.")
    return arrays[value["name"]]


def _unpack_scalar(value: dict, arrays: dict):
    if not _SCALAR_DTYPE.fullmatch(value["dtype"]):
        raise ValueError(f"No scalar of {value['dtype']!r:.80} is ever saved.")
    return _from_items([unpack(value["value"], arrays)], value["dtype"])[0]


# All that a file can ask for: nothing is looked up by a name that it holds.
_UNPACK = {
    "float": lambda value, _: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[
        value["value"]
    ],
    "tuple": lambda value, arrays: tuple(unpack(value["items"], arrays)),
    "dict": _unpack_dict,
    "null": lambda value, _: {"<NA>": pd.NA, "NaT": pd.NaT}[value["value"]],
    "timestamp": _unpack_time,
    "path": lambda value, _: Path(value["value"]),
    "array": _unpack_array,
    "list": _unpack_list,
    "scalar": _unpack_scalar,
}
