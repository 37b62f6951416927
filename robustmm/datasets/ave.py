"""AVE: ten-second films of events that are both heard and seen."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pandas as pd

from ._files import SPLITS, Origin, check_split

ORIGIN = Origin(
    "AVE", "https://github.com/YapengTian/AVE-ECCV18 (a Google Drive folder)"
)
_LISTS = {"train": "trainSet.txt", "dev": "valSet.txt", "test": "testSet.txt"}
_SHARED = ("warn", "keep", "drop")


def load_ave(
    root: str | os.PathLike,
    split: str = "train",
    *,
    shared: str = "warn",
    on_missing_clip: str = "raise",
) -> tuple[pd.DataFrame, pd.Series]:
    """Read AVE from a folder: 4,143 rows of ten-second films in 28 classes of events.

    Nothing is downloaded. The folder holds ``AVE/<id>.mp4`` and the lists
    ``trainSet.txt``, ``valSet.txt`` and ``testSet.txt``. One file fills both columns.
    The original task labels every second; classifiers take the clip's category.

    The clips come from AudioSet, whose labels the published AST was tuned on: it has
    very likely seen the test.

    Parameters
    ----------
    root : path-like
        The folder.
    split : {"train", "dev", "test"}
        3,339, 402 and 402 rows. Some films stand in two splits, under another category
        each, and some twice in one.
    shared : {"warn", "keep", "drop"}
        What to do with rows whose film is in another split too: warn and keep them,
        keep them, or leave them out of this split.
    on_missing_clip : {"raise", "missing"}
        What to do if a film is not there: raise, or leave its cells empty.

    Returns
    -------
    X : DataFrame of shape (n, 2)
        Columns ``audio`` and ``video``, both the path of the film. The index is its id.
    y : Series of shape (n,)
        The category, such as ``"Church bell"``.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` or ``shared`` is unknown, or a list has another form.

    References
    ----------
    Tian et al., "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018.

    Examples
    --------
    >>> from robustmm.datasets import load_ave
    >>> load_ave("nowhere", split="val")
    Traceback (most recent call last):
        ...
    ValueError: split must be one of ['train', 'dev', 'test'], got 'val'.
    """
    check_split(split)
    if shared not in _SHARED:
        raise ValueError(f"shared must be one of {list(_SHARED)}, got {shared!r}.")
    root = Path(root)
    rows = _rows(root, split)
    if shared != "keep":
        others = {film for o in SPLITS if o != split for film, _ in _rows(root, o)}
        twice = sorted({film for film, _ in rows} & others)
        if shared == "drop":
            rows = [(film, category) for film, category in rows if film not in others]
        elif twice:
            warnings.warn(
                f"{len(twice)} films of AVE's {split!r} are in another split too, the "
                f"first is {twice[0]!r}: shared='drop' leaves them out.",
                stacklevel=2,
            )
    paths = [ORIGIN.find(root, "AVE") / f"{film}.mp4" for film, _ in rows]
    cells = ORIGIN.file_cells(paths, on_missing_clip, "clip")
    index = pd.Index([film for film, _ in rows], name="film", dtype=object)
    X = pd.DataFrame({"audio": cells, "video": cells}, index=index, dtype=object)
    categories = [category for _, category in rows]
    return X, pd.Series(categories, index=index, name="category", dtype=object)


def _rows(root: Path, split: str) -> list[tuple[str, str]]:
    """Return the film and the category of each row of a list."""
    path = ORIGIN.find(root, _LISTS[split])
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        # Not by commas, which are part of some categories.
        parts = line.strip().split("&")
        if parts in ([""], ["Category", "VideoID", "Quality", "StartTime", "EndTime"]):
            continue
        if len(parts) != 5 or not all(parts[:2]):
            raise ValueError(
                "A row must be Category&VideoID&Quality&StartTime&EndTime, got "
                f"{line!r:.80} in {str(path)!r}."
            )
        rows.append((parts[1], parts[0]))
    return rows
