"""CIRR and FashionIQ: a picture, what is to change, and the picture asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ._files import Origin, check_split, text_cell

CIRR = Origin("CIRR", "https://github.com/Cuberick-Orion/CIRR")
FASHION_IQ = Origin("FashionIQ", "https://github.com/XiaoxiaoGuo/fashion-iq")
CATEGORIES = ("dress", "shirt", "toptee")
_QUERY = ["image", "text", "reference", "target"]


def load_cirr(
    root: str | os.PathLike, split: str = "val", *, on_missing_image: str = "raise"
) -> tuple[pd.DataFrame, pd.Series]:
    """Read CIRR from a folder: composed queries, and the gallery they search.

    Nothing is downloaded. The folder holds ``captions`` and ``image_splits``, or a
    folder ``cirr`` of that kind, and the pictures where the splits say, below
    ``img_raw`` or the folder itself.

    Parameters
    ----------
    root : path-like
        The folder.
    split : {"train", "val"}
        The targets of ``test1`` are not published.
    on_missing_image : {"raise", "missing"}
        What to do if a picture is not there: raise, or leave its cell empty.

    Returns
    -------
    queries : DataFrame of shape (n, 5)
        ``image``, a path, and ``text``; ``reference`` and ``target``, names of the
        gallery; ``subset``, the list of six names among which the target is looked for
        in the second of the two published scores. The index is the number of the pair.
    gallery : Series
        Paths by name.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` is unknown.

    References
    ----------
    Liu et al., "Image Retrieval on Real-life Images with Pre-trained
    Vision-and-Language Models", ICCV 2021.

    Examples
    --------
    >>> from robustmm.datasets import load_cirr
    >>> load_cirr("nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: CIRR needs nowhere/captions/cap.rc2.val.json (or \
cirr/captions/cap.rc2.val.json), which is not there. It comes from \
https://github.com/Cuberick-Orion/CIRR.
    """
    check_split(split, ("train", "val"))
    root = Path(root)
    names = f"captions/cap.rc2.{split}.json", f"image_splits/split.rc2.{split}.json"
    captions, places = (
        CIRR.read_json(CIRR.find(root, name, f"cirr/{name}")) for name in names
    )
    folders = root / "img_raw", root / "cirr" / "img_raw", root
    folder = next((f for f in folders[:2] if f.is_dir()), root)
    paths = {name: folder / place for name, place in places.items()}
    gallery = _gallery(CIRR, paths, on_missing_image)
    rows = [
        (pair["reference"], pair["caption"], pair["target_hard"]) for pair in captions
    ]
    queries = _queries(gallery, rows)
    queries["subset"] = [pair["img_set"]["members"] for pair in captions]
    queries.index = pd.Index([pair["pairid"] for pair in captions], name="pair")
    return queries, gallery


def load_fashion_iq(
    root: str | os.PathLike,
    category: str,
    split: str = "val",
    *,
    on_missing_image: str = "raise",
) -> tuple[pd.DataFrame, pd.Series]:
    """Read a category of FashionIQ from a folder: composed queries, and the gallery.

    Nothing is downloaded. The folder holds ``captions``, ``image_splits`` and
    ``images``. The two captions of a pair are joined by "and".

    Parameters
    ----------
    root : path-like
        The folder.
    category : {"dress", "shirt", "toptee"}
    split : {"train", "val"}
        The targets of ``test`` are not published.
    on_missing_image : {"raise", "missing"}
        What to do if a picture is not there: raise, or leave its cell empty. Links to
        them have died.

    Returns
    -------
    queries : DataFrame of shape (n, 4)
        ``image``, a path, and ``text``; ``reference`` and ``target``, names of the
        gallery.
    gallery : Series
        Paths by name.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``category`` or ``split`` is unknown.

    References
    ----------
    Wu et al., "Fashion IQ: A New Dataset Towards Retrieving Images by Natural Language
    Feedback", CVPR 2021.

    Examples
    --------
    >>> from robustmm.datasets import load_fashion_iq
    >>> load_fashion_iq("nowhere", "dress")
    Traceback (most recent call last):
        ...
    FileNotFoundError: FashionIQ needs nowhere/captions/cap.dress.val.json, which is \
not there. It comes from https://github.com/XiaoxiaoGuo/fashion-iq.
    """
    check_split(split, ("train", "val"))
    if category not in CATEGORIES:
        raise ValueError(f"category must be one of {CATEGORIES}, got {category!r}.")
    root = Path(root)
    captions, names = (
        FASHION_IQ.read_json(FASHION_IQ.find(root, name))
        for name in (
            f"captions/cap.{category}.{split}.json",
            f"image_splits/split.{category}.{split}.json",
        )
    )
    folder = FASHION_IQ.find(root, "images")
    # Most collections are of jpg; some people's have been converted.
    listed = {Path(file).stem: file for file in os.listdir(folder)}
    paths = {name: folder / listed.get(name, f"{name}.jpg") for name in names}
    gallery = _gallery(FASHION_IQ, paths, on_missing_image)
    rows = [
        (pair["candidate"], " and ".join(pair["captions"]), pair["target"])
        for pair in captions
    ]
    return _queries(gallery, rows), gallery


def _gallery(origin: Origin, paths: dict, on_missing_image: str) -> pd.Series:
    cells = origin.image_cells(list(paths.values()), on_missing_image)
    return pd.Series(cells, index=list(paths), name="image", dtype=object)


def _queries(gallery: pd.Series, rows: list[tuple]) -> pd.DataFrame:
    """Make a table of (reference, text, target)."""
    cells = [
        (gallery.get(reference), text_cell(text), reference, target)
        for reference, text, target in rows
    ]
    return pd.DataFrame(cells, columns=_QUERY, dtype=object)
