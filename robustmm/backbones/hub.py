"""The files of a checkpoint by name: in a folder, in the hub's cache or on the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from .revisions import split

TIMEOUT = 5.0  # seconds to wait for the hub before giving up
# The largest that are known have a hundredth of this: lists of shards, added tokens.
MAX_JSON_BYTES = 2**24

# False asks as nobody; None is the hub's own choice, the token of who logged in.
_TOKEN: ContextVar[bool | None] = ContextVar("_TOKEN", default=None)


@contextmanager
def without_token() -> Iterator[None]:
    """Ask the hub as nobody inside the block, whoever is logged in."""
    before = _TOKEN.set(False)
    try:
        yield
    finally:
        _TOKEN.reset(before)


def token_note() -> str:
    """Say, where that is so, that the hub was asked as nobody, and the way around."""
    if _TOKEN.get() is None:
        return ""
    return (
        "; a saved model never makes use of your token: if the backbone is private, "
        "call robustmm.load_backbone with its name first, which fills the cache"
    )


def find_file(location: str, filename: str, local_only: bool) -> str | None:
    """Return the path of a checkpoint's file, fetched if need be; None if absent."""
    from transformers.utils import cached_file

    name, revision = split(location)
    return cached_file(
        name,
        filename,
        revision=revision,
        local_files_only=local_only,
        token=_TOKEN.get(),
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def has_any(location: str, filenames: tuple[str, ...], local_only: bool) -> bool:
    """Tell whether a checkpoint has one of some files."""
    return any(find_file(location, f, local_only) is not None for f in filenames)


def read_json(location: str, filename: str, local_only: bool):
    """Return what a JSON file of a checkpoint holds, None if there is no such file.

    Raises
    ------
    ValueError
        If it is no JSON, or larger than any that is known.
    """
    path = find_file(location, filename, local_only)
    if path is None:
        return None
    size = os.path.getsize(path)
    if size > MAX_JSON_BYTES:
        raise ValueError(
            f"{filename} of {location!r} must have at most {MAX_JSON_BYTES} bytes, "
            f"got {size}."
        )
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{filename} of {location!r} must be JSON: {error}."
        ) from error


def ask_hub(name: str) -> str:
    """Ask the hub once whether it has a model; return why that was not done, or ""."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "the hub was not asked, as HF_HUB_OFFLINE is set"
    # One request that gives up soon, before the many patient ones of loading.
    name, revision = split(name)
    pinned = {} if revision is None else {"revision": revision}
    HfApi(token=_TOKEN.get()).model_info(name, timeout=TIMEOUT, **pinned)
    return ""
