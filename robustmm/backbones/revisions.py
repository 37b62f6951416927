"""Revisions of models on the hub: a name and a revision are one text, "name@revision".

Neither a model's name nor a revision's has the sign, and what travels with the name (to
caches, messages and saved models) cannot be lost on the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

EMBEDDED = "robustmm/"  # what the names of embedded backbones start with
# Of a branch, a tag or a commit. A part never starts with a dot: the hub's cache has a
# file for each, and a saved model may have any text here.
_REVISION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)


def pin(name: str | Path, revision: str | None) -> str | Path:
    """Return the name of a model as it is at a revision.

    Raises
    ------
    ValueError
        If the revision cannot be one, or the name is not that of a model on the hub.

    Examples
    --------
    >>> pin("openai/clip-vit-base-patch16", "57c2164")
    'openai/clip-vit-base-patch16@57c2164'
    """
    if revision is None:
        return name
    check_revision(revision)
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if not text or text.startswith(EMBEDDED) or os.path.isdir(Path(text).expanduser()):
        raise ValueError(
            "A revision must be that of a model on the hub: there is none of "
            f"{name!r}, got {revision!r}."
        )
    if "@" in text:
        raise ValueError(f"{text!r} must not name another revision, got {revision!r}.")
    return f"{text}@{revision}"


def split(location: str) -> tuple[str, str | None]:
    """Return what :func:`pin` was given; a folder, which is absolute, has no revision.

    Examples
    --------
    >>> split("openai/clip-vit-base-patch16@57c2164"), split("/models/me@home")
    (('openai/clip-vit-base-patch16', '57c2164'), ('/models/me@home', None))
    """
    if os.path.isabs(location):
        return location, None
    name, at, revision = location.partition("@")
    if at:
        check_revision(revision)
    return name, revision or None


def check_revision(revision) -> None:
    """Raise ValueError unless a text can be a branch's, a tag's or a commit's name."""
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise ValueError(
            "A revision must be the name of a branch, a tag or a commit, "
            f"got {revision!r:.80}."
        )


def revisions_by_name(revision, parameters: Iterable[str]) -> dict[str, str]:
    """Return what an estimator's parameter ``revision`` says of each backbone.

    Parameters
    ----------
    revision : str, dict or None
        A text means the parameter ``backbone``.
    parameters : iterable of str
        The estimator's; those that name a backbone end with the word.

    Raises
    ------
    ValueError
        If it is anything else, or names another parameter.

    Examples
    --------
    >>> revisions_by_name("v1", ["backbone", "lr"])
    {'backbone': 'v1'}
    """
    known = [name for name in parameters if name.endswith("backbone")]
    given = {"backbone": revision} if isinstance(revision, str) else revision
    given = {} if given is None else given
    if not isinstance(given, dict) or not set(given) <= set(known):
        text = "a text, a dict" if "backbone" in known else "a dict"
        raise ValueError(
            f"revision must be None, or {text} with keys of {known}, "
            f"got {revision!r:.80}."
        )
    for value in given.values():
        check_revision(value)
    return given
