"""The folder of a saved model: which files it may hold, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path

from .._version import __version__

FORMAT_VERSION = 1
DOCUMENT = "robustmm.json"
WEIGHTS = re.compile(r"weights-[0-9a-f]{12}\.safetensors")
BACKBONE = re.compile(r"[a-z_]*backbone-[0-9a-f]{12}")
# No pickles and no programs; ".model" is a vocabulary of SentencePiece.
IN_BACKBONE = re.compile(r"\w[\w.-]*\.(json|safetensors|txt|model)")
_TEMPORARY = re.compile(r"\.robustmm\.json\.[0-9a-f]{12}")
_KEYS = {"class": str, "parameters": dict, "state": dict, "files": dict}


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
    _check_regular(path)
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{named(path)} is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != "robustmm":
        raise ValueError(f"{named(path)} does not describe a model of robustmm.")
    version = document.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"The model in {named(folder)} has format {version!r}, written by "
            f"robustmm {document.get('written_by')!r}; robustmm {__version__} opens "
            f"formats 1 to {FORMAT_VERSION}."
        )
    wrong = [k for k, kind in _KEYS.items() if not isinstance(document.get(k), kind)]
    if wrong:
        raise ValueError(f"{named(path)} is damaged: it lacks {wrong}.")
    return document


def _check_regular(path: Path) -> None:
    # Opening a FIFO or a device would wait for ever; a link could lead anywhere.
    if not path.exists() or not stat.S_ISREG(os.lstat(path).st_mode):
        raise ValueError(f"{named(path)} must be a file, and there is none.")


def check_files(folder: Path, document: dict) -> None:
    """Raise ValueError unless all listed files have proper names and are whole."""
    listed, weights = document["files"], document.get("weights")
    for name, fact in listed.items():
        top, *inside = name.split("/")
        known = BACKBONE if inside else WEIGHTS
        proper = all(map(IN_BACKBONE.fullmatch, inside)) and len(inside) <= 1
        if not (known.fullmatch(top) and proper):
            raise ValueError(f"No saved model has a file named {name!r}.")
        if inside and (folder / top).is_symlink():
            raise ValueError(f"{named(folder / top)} must not be a link.")
        _check_regular(folder / name)
        if _fact(folder / name) != fact:
            raise ValueError(
                f"{named(folder / name)} is not the file that was saved: it is cut "
                "short or was changed."
            )
    if not isinstance(weights, str) or weights not in listed or "/" in weights:
        raise ValueError(f"The model in {named(folder)} lists no weights.")


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
            raise ValueError(f"No saved model has a backbone {parameter!r}: {name!r}.")
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
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, _new_hash)
        return {"bytes": stream.tell(), "hash": digest.hexdigest()}


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
    kinds = (WEIGHTS, BACKBONE, _TEMPORARY)
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
