"""The folder of a saved model: which files it may hold, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .._version import __version__
from .files import opened, read_bytes

# Of a classifier, and of what stands around classifiers, such as a pipeline.
FORMAT_VERSION, COMPOSITION_VERSION = 1, 2
DOCUMENT = "robustmm.json"
WEIGHTS = re.compile(r"weights-[0-9a-f]{12}\.safetensors")
TREE = re.compile(r"tree-[0-9a-f]{12}\.skops")
BACKBONE = re.compile(r"[a-z_]*backbone-[0-9a-f]{12}")
# All that transformers writes of a frozen model: no pickles and no programs.
IN_BACKBONE = frozenset(
    (
        *("config.json", "preprocessor_config.json"),
        *("model.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
        *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    )
)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)
# Lists, as JSON, take twenty times their text in memory.
MAX_DOCUMENT_BYTES = 2**24
MAX_DEPTH = 64
PATIENCE = 30.0  # seconds of saving by another process
_TEMPORARY = re.compile(r"\.robustmm\.json\.[0-9a-f]{12}")
_KEYS = {
    FORMAT_VERSION: {"class": str, "parameters": dict, "state": dict, "files": dict},
    COMPOSITION_VERSION: {"class": str, "tree": str, "members": dict, "files": dict},
}
_T = TypeVar("_T")


def named(folder: Path) -> str:
    """Return a path as messages have it."""
    return repr(str(folder))


def read_document(folder: Path) -> dict:
    """Return the JSON, which has the keys that are needed, each of its type."""
    path = folder / DOCUMENT
    if not os.path.lexists(path):
        raise FileNotFoundError(
            f"There is no saved model in {named(folder)}: it has no {DOCUMENT}."
        )
    data = read_bytes(path, MAX_DOCUMENT_BYTES)
    try:
        document = json.loads(data)
        _check_depth(document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{named(path)} is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != "robustmm":
        raise ValueError(f"{named(path)} does not describe a model of robustmm.")
    version = document.get("format_version")
    if type(version) is not int or version not in _KEYS:
        raise ValueError(
            f"The model in {named(folder)} has format {version!r:.80}, written by "
            f"robustmm {document.get('written_by')!r:.80}; robustmm {__version__} "
            f"opens formats 1 to {max(_KEYS)}."
        )
    keys = _KEYS[version].items()
    wrong = [k for k, kind in keys if not isinstance(document.get(k), kind)]
    if wrong:
        raise ValueError(f"{named(path)} is damaged: it lacks {wrong}.")
    return document


def dump_document(document: dict) -> bytes:
    """Return the JSON, which :func:`read_document` will take.

    Raises
    ------
    ValueError
        If it would not.
    """
    _check_depth(document)
    data = json.dumps(document, indent=1, allow_nan=False).encode()
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(
            f"{DOCUMENT} must have at most {MAX_DOCUMENT_BYTES} bytes, got "
            f"{len(data)}: missing_report_['bad_images'] may be what can be cleared."
        )
    return data


def _check_depth(value) -> None:
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"Values must nest at most {MAX_DEPTH} deep.")
        inside = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for part in inside for v in part]


def while_saved(folder: Path, read: Callable[[], _T]) -> _T:
    """Return what ``read()`` returns, called again where a saving came in between.

    A saving exchanges the document in one step and only then removes what the old one
    named, so a reader that finds a file gone finds another document as well.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        before = _state_of(folder)
        try:
            return read()
        except (ValueError, OSError):
            if _state_of(folder) == before or time.monotonic() > deadline:
                raise


def _state_of(folder: Path) -> tuple | None:
    try:
        status = os.lstat(folder / DOCUMENT)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def check_files(folder: Path, document: dict) -> None:
    """Raise ValueError unless all listed files have proper names and are whole."""
    listed = document["files"]
    around = document["format_version"] == COMPOSITION_VERSION
    for name, fact in listed.items():
        top, *inside = name.split("/")
        kinds = [BACKBONE] if inside else [WEIGHTS, *[TREE] * around]
        proper = all(map(may_be_in_backbone, inside)) and len(inside) <= 1
        if not (any(kind.fullmatch(top) for kind in kinds) and proper):
            raise ValueError(f"No saved model has a file named {name!r:.200}.")
        if inside and (folder / top).is_symlink():
            raise ValueError(f"{named(folder / top)} must not be a link.")
        if not _is_as_saved(folder / name, fact):
            raise ValueError(
                f"{named(folder / name)} is not the file that was saved: it is cut "
                "short or was changed."
            )
    needed = {"weights": WEIGHTS} | ({"tree": TREE} if around else {})
    for part, kind in needed.items():
        name = document.get(part)
        proper = isinstance(name, str) and kind.fullmatch(name)
        if not proper or name not in listed:
            raise ValueError(f"The model in {named(folder)} lists no {part}.")


def may_be_in_backbone(name: str) -> bool:
    """Tell whether a frozen model's folder may hold a file of this name."""
    return name in IN_BACKBONE or _SHARD.fullmatch(name) is not None


def included_backbones(folder: Path, document: dict, parameters: dict) -> dict:
    """Return the parameters that name the backbones inside the folder.

    Raises
    ------
    ValueError
        If such a backbone's folder holds anything but the listed files.
    """
    included = document.get("backbones")
    included = included if isinstance(included, dict) else {}
    for parameter, name in included.items():
        proper = isinstance(name, str) and BACKBONE.fullmatch(name)
        known = parameter in parameters and parameter.endswith("backbone")
        if not (known and proper):
            raise ValueError(
                f"No saved model has a backbone {parameter!r:.80}: {name!r:.80}."
            )
        listed = {f for f in document["files"] if f.startswith(f"{name}/")}
        place = folder / name
        found = {f"{name}/{f}" for f in os.listdir(place)} if place.is_dir() else set()
        if not found or found != listed:
            raise ValueError(
                f"{named(place)} must hold the listed files only, but differs in "
                f"{sorted(found ^ listed)[:3]}."
            )
    return {k: str((folder / name).resolve()) for k, name in included.items()}


def facts(folder: Path, names: list[str]) -> dict[str, dict]:
    """Return size and hash of files by name."""
    return {name: _fact(folder / name) for name in names}


def _fact(path: Path) -> dict:
    with opened(path) as stream:
        digest = hashlib.file_digest(stream, _new_hash)
        return {"bytes": stream.tell(), "hash": digest.hexdigest()}


def _is_as_saved(path: Path, fact) -> bool:
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
    # The size first: hashing a file of the wrong one would only take time.
    return isinstance(fact, dict) and fact.get("bytes") == size and _fact(path) == fact


def _new_hash():
    return hashlib.blake2b(digest_size=32)


def check_replaceable(folder: Path) -> None:
    """Raise unless a model may be saved under this path."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"path must be a folder, but {named(folder)} is a file.")
    names = os.listdir(folder)
    foreign = [name for name in names if not _is_ours(name)]
    if foreign and DOCUMENT not in names:
        raise ValueError(
            "path must be a new or empty folder, or a saved model, but "
            f"{named(folder)} holds {sorted(foreign)[:3]}."
        )


def _is_ours(name: str) -> bool:
    kinds = (WEIGHTS, BACKBONE, TREE, _TEMPORARY)
    return any(kind.fullmatch(name) for kind in kinds)


def remove_unnamed(folder: Path) -> None:
    """Remove what an interrupted saving, or the model before, has left."""
    kept = set()
    if (folder / DOCUMENT).exists():
        try:
            kept = {name.split("/")[0] for name in read_document(folder)["files"]}
        except ValueError:
            return
    for name in os.listdir(folder):
        if name in kept or not _is_ours(name):
            continue
        if BACKBONE.fullmatch(name):
            shutil.rmtree(folder / name, ignore_errors=True)
        else:
            (folder / name).unlink(missing_ok=True)
