"""The weights of a checkpoint as tensors by name, from files with plain names only."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping

from torch import Tensor, nn

from .hub import find_file, read_json

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX = ".index.json"
# A name inside the folder, without a way out of it.
_SHARD = re.compile(r"\w[\w.-]*\.(safetensors|bin)", re.ASCII)
_MAX_SHARDS = 1000


def read_weights(location: str, local_only: bool) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint; those of safetensors are mapped, not read.

    Raises
    ------
    OSError
        If there are no such files.
    ValueError
        If an index names anything but files beside it.
    """
    for name in WEIGHTS:
        file = find_file(location, name, local_only)
        if file is not None:
            files = [file]
            if name.endswith(_INDEX):
                files = _shards(location, name, local_only)
            return {k: tensor for f in files for k, tensor in _read(f).items()}
    raise OSError(f"there is none of {list(WEIGHTS)}.")


def _shards(location: str, index: str, local_only: bool) -> list[str]:
    """Return the paths of the files that an index names."""
    content = read_json(location, index, local_only)
    named = content.get("weight_map") if isinstance(content, dict) else None
    names = list(named.values()) if isinstance(named, dict) else [None]
    kind = ".safetensors" if "safetensors" in index else ".bin"
    for name in names:
        plain = isinstance(name, str) and _SHARD.fullmatch(name)
        if not (plain and name.endswith(kind)):
            raise ValueError(
                f"The weight_map of {index} must name {kind} files beside it, "
                f"got {name!r:.80}."
            )
    names = sorted(set(names))
    if len(names) > _MAX_SHARDS:
        raise ValueError(
            f"{index} must name at most {_MAX_SHARDS} files, got {len(names)}."
        )
    files = [find_file(location, name, local_only) for name in names]
    lacking = [name for name, file in zip(names, files, strict=True) if file is None]
    if lacking:
        raise OSError(f"{index} names {lacking[0]!r}, which is not there.")
    return files


def _read(file: str) -> dict[str, Tensor]:
    if file.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(file)
    return _read_bin(file)


def _read_bin(file: str) -> dict[str, Tensor]:
    import torch

    # Mapped, so that records which were compressed are no way to fill the memory.
    mapped = zipfile.is_zipfile(file)
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(found, dict):
        raise ValueError(f"it must hold a dictionary, got {type(found).__name__}.")
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)}
    for name, tensor in tensors.items():
        # Strides of zero make a tensor of any size out of one number.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name!r:.80} claims to be larger than it is.")
    return tensors


def check_room(empty: nn.Module, arrays: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a model has more numbers than the files that it is read from.

    Parameters
    ----------
    empty : Module
        The model on the meta device, where nothing has a size in memory. A pooler,
        which may be missing, counts by itself.
    arrays : mapping of str to Tensor
        What the files hold.
    """
    held = sum(tensor.numel() for tensor in arrays.values())
    named = list(empty.named_parameters())
    wanted = sum(t.numel() for n, t in named if not n.startswith("pooler."))
    # Buffers, which no file has to hold, are tables of positions.
    alone = [t.numel() for _, t in [*named, *empty.named_buffers()]]
    wanted = max([wanted, *alone])
    if wanted > held:
        raise ValueError(
            f"the config.json describes a model of {wanted} numbers, but the files "
            f"hold {held}."
        )
