"""Files of a published data set: found, or missed with a word on where to get them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Origin:
    """A data set and where it comes from.

    Parameters
    ----------
    name : str
        What its authors call it.
    url : str
        Where it is offered.
    """

    name: str
    url: str

    def find(self, root: Path, *alternatives: str) -> Path:
        """Return the first of several files or folders below ``root`` that is there."""
        for alternative in alternatives:
            if (root / alternative).exists():
                return root / alternative
        rest = "".join(f" (or {name})" for name in alternatives[1:])
        raise FileNotFoundError(
            f"{self.name} needs {root / alternatives[0]}{rest}, which is not there. "
            f"It comes from {self.url}."
        )

    def read_json(self, path: Path):
        """Return what a JSON file holds."""
        if not path.exists():
            self.find(path.parent, path.name)
        with path.open(encoding="utf-8") as file:
            return json.load(file)

    def image_cells(self, paths: Sequence[Path], on_missing_image: str) -> list:
        """Return paths as str; of files that are not there, None or one error."""
        return self.file_cells(paths, on_missing_image, "image")

    def file_cells(self, paths: Sequence[Path], on_missing: str, kind: str) -> list:
        """Do the same for ``"clip"``s: ``on_missing_clip`` is what the caller got."""
        if on_missing not in ("raise", "missing"):
            raise ValueError(
                f"on_missing_{kind} must be one of ['raise', 'missing'], got "
                f"{on_missing!r}."
            )
        # One listing per folder: asking for every file takes minutes on a network.
        folders = {path.parent for path in paths}
        listed = {f: set(os.listdir(f)) if f.is_dir() else set() for f in folders}
        absent = [path for path in paths if path.name not in listed[path.parent]]
        if absent and on_missing == "raise":
            raise FileNotFoundError(
                f"{len(set(absent))} {kind}s of {self.name} are not there, the first "
                f"is {absent[0]}. They come from {self.url}; "
                f"on_missing_{kind}='missing' takes them as missing."
            )
        gone = set(absent)
        return [None if path in gone else str(path) for path in paths]


def check_split(split: str, splits: Sequence[str] = SPLITS) -> None:
    """Raise unless ``split`` is one of ``splits``."""
    if split not in splits:
        raise ValueError(f"split must be one of {list(splits)}, got {split!r}.")


def text_cell(text) -> str | None:
    """Return the text, or None where it says nothing."""
    return text if isinstance(text, str) and text.strip() else None
