"""Values and tensors as one file: JSON and safetensors before a sum, and no pickle."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from .files import read_bytes
from .values import pack, unpack

_DOCUMENT = "document"  # no name that `pack` gives
_SUM = 4


def dump_archive(value) -> bytes:
    """Return a file's content for nested values with tensors anywhere inside.

    Raises
    ------
    TypeError
        For what neither JSON nor an array can hold; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "archive")
    >>> _ = path.write_bytes(dump_archive({"step": 3, "values": [torch.ones(2)]}))
    >>> load_archive(path, most=1000)
    {'step': 3, 'values': [tensor([1., 1.])]}
    """
    arrays: dict[str, np.ndarray] = {}
    document = json.dumps(pack(_to_arrays(value), arrays, "value"), allow_nan=False)
    arrays[_DOCUMENT] = np.frombuffer(document.encode(), dtype=np.uint8)
    data = save_arrays(arrays)
    return data + _sum(data)


def load_archive(path: Path, most: int):
    """Return what :func:`dump_archive` was given.

    Raises
    ------
    Exception
        Of many a kind, if the file is no such archive, or has more bytes than ``most``.
    """
    data = read_bytes(path, most)
    content = data[:-_SUM]
    if _sum(content) != data[-_SUM:]:
        raise ValueError("it is cut short or was changed")
    arrays = load_arrays(content)
    document = arrays.pop(_DOCUMENT).tobytes()
    return _to_tensors(unpack(json.loads(document), arrays))


def _sum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_SUM, "little")


def _to_arrays(value):
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if type(value) is dict:
        return {key: _to_arrays(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_to_arrays, value))
    return value


def _to_tensors(value):
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, dict):
        return {key: _to_tensors(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_to_tensors, value))
    return value
