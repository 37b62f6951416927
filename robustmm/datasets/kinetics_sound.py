"""Kinetics-Sound: films of Kinetics-400 whose classes can be heard and seen."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ._files import Origin, check_split

ORIGIN = Origin(
    "Kinetics-Sound",
    "Kinetics-400, https://github.com/cvdfoundation/kinetics-dataset",
)
SPLITS = ("train", "val", "test")
_PLAYED = (
    "accordion bagpipes bass_guitar clarinet drums guitar harmonica keyboard organ "
    "piano saxophone trombone trumpet violin xylophone"
)
KINETICS_SOUND_CLASSES = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    *(f"playing {name.replace('_', ' ')}" for name in _PLAYED.split()),
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".flv")


def load_kinetics_sound(
    root: str | os.PathLike,
    split: str = "train",
    *,
    listing: str | os.PathLike | None = None,
    classes: Sequence[str] | None = KINETICS_SOUND_CLASSES,
    on_missing_clip: str = "raise",
) -> tuple[pd.DataFrame, pd.Series]:
    """Read Kinetics-Sound from a folder: films of ten seconds, of musicians and others.

    Nothing is downloaded. The data set is a list of classes of Kinetics-400 and was
    never published as files: 31 to 34 classes and different numbers of films are in
    circulation, so say which you used. One file fills both columns.

    Parameters
    ----------
    root : path-like
        Holds ``<split>/<class>/<clip>.mp4``; spaces of a class may be underscores.
    split : {"train", "val", "test"}
        Papers test on Kinetics' ``"val"``.
    listing : path-like, optional
        A CSV file with a header, whose rows are taken in the place of what is in the
        folder. With columns ``path`` and ``label``, paths start from `root`; with
        Kinetics' own ``label``, ``youtube_id``, ``time_start`` and ``time_end``, files
        are ``<split>/<class>/<id>_<start>_<end>.mp4``, numbers of six digits.
    classes : sequence of str or None
        Rows of other classes are left out; None takes all that there are. The default
        are the 31 that most papers use.
    on_missing_clip : {"raise", "missing"}
        What to do if a film of `listing` is not there: raise, or leave its cells empty.

    Returns
    -------
    X : DataFrame of shape (n, 2)
        Columns ``audio`` and ``video``, both the path of the film; a film without a
        sound track counts as missing sound when it is read. The index is its name.
    y : Series of shape (n,)
        The class, such as ``"playing organ"``.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` is unknown, `listing` has not these columns, or no row is left.

    References
    ----------
    Arandjelovic and Zisserman, "Look, Listen and Learn", ICCV 2017.

    Examples
    --------
    >>> from robustmm.datasets.kinetics_sound import KINETICS_SOUND_CLASSES
    >>> len(KINETICS_SOUND_CLASSES)
    31
    """
    check_split(split, SPLITS)
    root = Path(root)
    rows = _found(root, split) if listing is None else _listed(root, split, listing)
    if classes is not None:
        rows = [(path, label) for path, label in rows if label in set(classes)]
    if not rows:
        raise ValueError(
            f"There must be films of {ORIGIN.name}, got none of the classes below "
            f"{str(root / split)!r}."
        )
    cells = ORIGIN.file_cells([path for path, _ in rows], on_missing_clip, "clip")
    index = pd.Index([path.stem for path, _ in rows], name="clip", dtype=object)
    X = pd.DataFrame({"audio": cells, "video": cells}, index=index, dtype=object)
    labels = [label for _, label in rows]
    return X, pd.Series(labels, index=index, name="label", dtype=object)


def _found(root: Path, split: str) -> list[tuple[Path, str]]:
    """Return the films of each folder of a class, with the class."""
    folders = sorted(
        path for path in ORIGIN.find(root, split).iterdir() if path.is_dir()
    )
    return [
        (folder / name, folder.name.replace("_", " "))
        for folder in folders
        for name in sorted(os.listdir(folder))
        if name.lower().endswith(_SUFFIXES)
    ]


def _listed(
    root: Path, split: str, listing: str | os.PathLike
) -> list[tuple[Path, str]]:
    with open(listing, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = set(reader.fieldnames or ())
        lines = list(reader)
    if {"path", "label"} <= names:
        return [(root / line["path"], line["label"]) for line in lines]
    if not {"label", "youtube_id", "time_start", "time_end"} <= names:
        raise ValueError(
            "A listing must have the columns path and label, or label, youtube_id, "
            f"time_start and time_end, got {sorted(names)} in {str(listing)!r:.200}."
        )
    # Kinetics' own files name the split of each row; others are of one split.
    lines = [line for line in lines if line.get("split") in (None, "", split)]
    return [_of_line(root / split, line) for line in lines]


def _of_line(folder: Path, line: dict[str, str]) -> tuple[Path, str]:
    label = line["label"]
    start, end = (int(float(line[name])) for name in ("time_start", "time_end"))
    place = folder / label
    if not place.is_dir() and (folder / label.replace(" ", "_")).is_dir():
        place = folder / label.replace(" ", "_")
    return place / f"{line['youtube_id']}_{start:06d}_{end:06d}.mp4", label
