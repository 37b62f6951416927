"""CREMA-D: actors who say a sentence with an emotion, heard and seen."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pandas as pd

from ._files import Origin, check_split

ORIGIN = Origin(
    "CREMA-D", "https://github.com/CheyneyComputerScience/CREMA-D (with git-lfs)"
)
EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
# One has no sound, one shows all emotions for a minute, two are damaged.
BAD = ("1076_MTI_SAD_XX", "1064_IEO_DIS_MD", "1076_MTI_NEU_XX", "1064_TIE_SAD_XX")
_NAME = re.compile(rf"(\d{{4}})_[A-Z]{{3}}_({'|'.join(EMOTIONS)})_[A-Z]{{1,2}}")
_FOLDERS = {"audio": ("AudioWAV", ".wav"), "video": ("VideoFlash", ".flv")}
# The last digit of an actor's number, 1001 to 1091.
_SPLIT_OF_DIGIT = {"0": "test", "5": "dev"}


def load_crema_d(
    root: str | os.PathLike,
    split: str = "train",
    *,
    listing: str | os.PathLike | None = None,
    on_missing_clip: str = "raise",
) -> tuple[pd.DataFrame, pd.Series]:
    """Read CREMA-D from a folder: 7,442 clips of 91 actors in six emotions.

    Nothing is downloaded. The folder holds ``AudioWAV`` and ``VideoFlash``, as the
    repository does once git-lfs has fetched them. There is no official split. By
    default no actor is on two sides: those whose number ends in 0 are the test, those
    in 5 the development set. Papers use random rows instead, in which all 91 actors
    are on both sides; pass such a list as `listing`, such as the ``train.csv`` and
    ``test.csv`` of OGM-GE, 6,698 and 744 rows.

    Parameters
    ----------
    root : path-like
        The folder.
    split : {"train", "dev", "test"}
        73, 9 and 9 actors. Four clips that their authors call bad are left out.
    listing : path-like, optional
        A CSV file with a clip's name first in each row, such as
        ``1001_DFA_ANG_XX,ANG``. Its rows are returned as they are, and `split` says
        nothing then.
    on_missing_clip : {"raise", "missing"}
        What to do if a file is not there: raise, or leave its cell empty.

    Returns
    -------
    X : DataFrame of shape (n, 2)
        Columns ``audio`` and ``video``, paths. The index is the clip's name.
    y : Series of shape (n,)
        The emotion that was acted, not what viewers voted for, such as ``"anger"``.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` is unknown, or a row of `listing` names no clip.

    References
    ----------
    Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE
    Transactions on Affective Computing 2014.

    Examples
    --------
    >>> from robustmm.datasets import load_crema_d
    >>> load_crema_d("nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: CREMA-D needs nowhere/AudioWAV, which is not there. It comes \
from https://github.com/CheyneyComputerScience/CREMA-D (with git-lfs).
    """
    check_split(split)
    root = Path(root)
    folders = {name: ORIGIN.find(root, place) for name, (place, _) in _FOLDERS.items()}
    names = _of_actors(folders, split) if listing is None else _listed(Path(listing))
    index = pd.Index(names, name="clip", dtype=object)
    cells = {}
    for modality, (_, suffix) in _FOLDERS.items():
        paths = [folders[modality] / f"{name}{suffix}" for name in names]
        cells[modality] = ORIGIN.file_cells(paths, on_missing_clip, "clip")
    X = pd.DataFrame(cells, index=index, dtype=object)
    emotions = [EMOTIONS[_NAME.fullmatch(name)[2]] for name in names]
    return X, pd.Series(emotions, index=index, name="emotion")


def _of_actors(folders: dict[str, Path], split: str) -> list[str]:
    """Return the clips of a split's actors, of which a sound or a film is there."""
    stems = {
        Path(name).stem for folder in folders.values() for name in os.listdir(folder)
    }
    found = {stem: _NAME.fullmatch(stem) for stem in sorted(stems - set(BAD))}
    return [
        stem
        for stem, parts in found.items()
        if parts and _SPLIT_OF_DIGIT.get(parts[1][-1], "train") == split
    ]


def _listed(listing: Path) -> list[str]:
    with listing.open(encoding="utf-8", newline="") as file:
        names = [row[0].strip() for row in csv.reader(file) if row]
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise ValueError(
            "A row of the listing must begin with a clip's name, such as "
            f"1001_DFA_ANG_XX, got {wrong[0]!r:.80} in {str(listing)!r}."
        )
    return names
