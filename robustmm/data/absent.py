"""Many paths that lead to no file: one message, with the folder that was meant."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from .faults import NO_FILE, short
from .frame import Rows, format_rows
from .inline import is_inline

# So many absent files, and half of a table's, are no accident of single rows.
_FEWEST = 3
# Folders that are looked into, and paths that must be in the one that is named.
_MOST_FOLDERS = 200
_SAMPLE = 3


def gather_absent(
    rows: Rows, bad: dict[int, str], modality: str = "image"
) -> tuple[str, dict[int, str]]:
    """Say in one sentence or two that many paths lead to no file.

    Parameters
    ----------
    rows : Rows
    bad : dict from position to reason
        The images that cannot be read, or the cells of another modality.
    modality : str

    Returns
    -------
    message : str
        Empty where few files are absent. Names at most ten rows and paths, where they
        were looked for, and the ``image_root`` to pass: a folder nearby that has them.
    others : dict from position to reason
        The cells that the message does not speak of.
    """
    cells = rows.cells[modality]
    count = sum(_is_path(cell) for cell in cells)
    absent = [i for i in sorted(bad) if bad[i].startswith(NO_FILE)]
    if len(absent) < _FEWEST or 2 * len(absent) < count:
        return "", bad
    paths = [os.fsdecode(cells[i]) for i in absent]
    relative = [path for path in paths if not os.path.isabs(path)]
    named = [
        (rows.index[i], short(path)) for i, path in zip(absent, paths, strict=True)
    ]
    message = format_rows(named, f"of {count} {modality} paths lead to no file") + "."
    if relative:
        message += " " + _advice(rows.image_root, relative[:_SAMPLE])
    return message, {i: bad[i] for i in bad if i not in set(absent)}


def _is_path(cell) -> bool:
    return isinstance(cell, os.PathLike) or (
        isinstance(cell, str) and not is_inline(cell)
    )


def _advice(image_root: Path | None, paths: list[str]) -> str:
    root = os.path.abspath(image_root or "")
    said = f"They were looked for in {root!r}; pass image_root="
    for folder in _folders_around(root):
        # Said as it can be passed: all of the first ones are there.
        if all(os.path.isfile(os.path.join(folder, path)) for path in paths):
            return f"{said}{_as_typed(folder)!r}, where they are."
    return f"{said}, the folder that they start from."


def _folders_around(root: str) -> Iterator[str]:
    """The obvious places: below, beside and above where paths start from, in turn."""
    here, above = os.getcwd(), os.path.dirname(root)
    below = list(islice(_inside(root), _MOST_FOLDERS))
    places = chain(
        below,
        chain.from_iterable(_inside(folder) for folder in below),
        [here, above],
        _inside(here),
        _inside(above),
    )
    return islice(places, _MOST_FOLDERS)


def _inside(folder: str) -> Iterator[str]:
    # Whatever cannot be listed has no advice to give.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _MOST_FOLDERS):
            if not entry.name.startswith(".") and entry.is_dir():
                yield entry.path


def _as_typed(folder: str) -> str:
    """A folder as one would type it, from the working directory."""
    with suppress(ValueError):  # another drive
        relative = os.path.relpath(folder)
        if not relative.startswith(os.path.join(os.pardir, os.pardir)):
            return Path(relative).as_posix()
    return folder
