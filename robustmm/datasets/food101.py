"""UPMC Food-101: pictures and page titles of recipes, and the dish."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd

from ._files import Origin, check_split, text_cell

ORIGIN = Origin(
    "UPMC Food-101",
    "https://visiir.isir.upmc.fr/explore (also on Kaggle, gianmarco96/upmcfood101); "
    "split.json from https://github.com/YiLunLee/missing_aware_prompts, "
    "datasets/Food101",
)
TITLES = ("texts/train_titles.csv", "texts/test_titles.csv")


def load_food101(
    root: str | os.PathLike, split: str = "train", *, on_missing_image: str = "raise"
) -> tuple[pd.DataFrame, pd.Series]:
    """Read UPMC Food-101 from a folder: pictures and titles of recipes of 101 dishes.

    Nothing is downloaded. The folder holds ``images/train`` and ``images/test``, each
    with a folder per dish; the page titles, as ``text.json`` or as
    ``texts/train_titles.csv`` and ``texts/test_titles.csv``; and the ``split.json`` of
    missing-aware prompts, which takes a tenth of the training images for validation.

    Parameters
    ----------
    root : path-like
        The folder.
    split : {"train", "dev", "test"}
        61,142, 6,846 and 22,716 pictures. ``"dev"`` was taken from the training
        images; join the two where a paper trains on all 67,988.
    on_missing_image : {"raise", "missing"}
        What to do if a picture is not there: raise, or leave its cell empty.

    Returns
    -------
    X : DataFrame of shape (n, 2)
        Columns ``image``, a path, and ``text``, the title, None where there is none.
        Published results leave such rows out: ``X = X[X["text"].notna()]``. The index
        is the name of the file.
    y : Series of shape (n,)
        The dish, such as ``"apple_pie"``.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` is unknown.

    References
    ----------
    Wang et al., "Recipe Recognition with Large Multimodal Food Dataset", ICME workshop
    2015.

    Examples
    --------
    >>> from robustmm.datasets import load_food101
    >>> load_food101("nowhere", split="val")
    Traceback (most recent call last):
        ...
    ValueError: split must be one of ['train', 'dev', 'test'], got 'val'.
    """
    check_split(split)
    root = Path(root)
    splits = ORIGIN.read_json(ORIGIN.find(root, "split.json"))
    # The published file says "val"; "dev" here, as in the other data sets.
    names = splits["val" if split == "dev" and "dev" not in splits else split]
    titles = _titles(root)
    # From the right: names of dishes have underscores themselves.
    dishes = [name[: name.rindex("_")] for name in names]
    # The validation rows are a part of the archive's training folder.
    folder = ORIGIN.find(root, "images") / ("test" if split == "test" else "train")
    paths = [folder / dish / name for dish, name in zip(dishes, names, strict=True)]
    index = pd.Index(names, name="file", dtype=object)
    cells = {
        "image": ORIGIN.image_cells(paths, on_missing_image),
        "text": [text_cell(titles.get(name)) for name in names],
    }
    X = pd.DataFrame(cells, index=index, dtype=object)
    return X, pd.Series(dishes, index=index, name="dish")


def _titles(root: Path) -> dict[str, str]:
    """Return the title of each file that has one."""
    if (root / "text.json").exists():
        return ORIGIN.read_json(root / "text.json")
    ORIGIN.find(root, TITLES[0], "text.json")
    titles = {}
    for name in TITLES:
        with ORIGIN.find(root, name).open(encoding="utf-8", newline="") as file:
            titles |= {row[0]: row[1] for row in csv.reader(file) if len(row) > 1}
    return titles
