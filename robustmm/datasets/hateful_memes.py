"""Hateful Memes: pictures with writing in them, and whether they are hateful."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

from ._files import Origin, check_split, text_cell

ORIGIN = Origin("Hateful Memes", "https://hatefulmemeschallenge.com")
# Of each split, the file of the challenge, and what others have renamed it to.
FILES = {
    "train": ("train.jsonl",),
    "dev": ("dev_seen.jsonl", "dev.jsonl"),
    "test": ("test_seen.jsonl", "test.jsonl"),
    "dev_unseen": ("dev_unseen.jsonl",),
    "test_unseen": ("test_unseen.jsonl",),
}


def load_hateful_memes(
    root: str | os.PathLike, split: str = "train", *, on_missing_image: str = "raise"
) -> tuple[pd.DataFrame, pd.Series]:
    """Read Hateful Memes from a folder: memes, the writing in them, and a label.

    Nothing is downloaded. The folder holds ``img`` and ``train.jsonl``,
    ``dev_seen.jsonl`` and ``test_seen.jsonl``, or is the parent of a folder ``data``
    of that kind.

    Parameters
    ----------
    root : path-like
        The folder.
    split : {"train", "dev", "test", "dev_unseen", "test_unseen"}
        ``"dev"`` and ``"test"`` are ``dev_seen`` and ``test_seen``, with which results
        are published: 8,500, 500 and 1,000 memes. A ``dev.jsonl`` or ``test.jsonl`` is
        read if those are not there, provided that it has labels. The two others are
        those of the second phase of the challenge.
    on_missing_image : {"raise", "missing"}
        What to do if a picture is not there: raise, or leave its cell empty.

    Returns
    -------
    X : DataFrame of shape (n, 2)
        Columns ``image``, a path, and ``text``. The index is the number of the meme.
    y : Series of shape (n,)
        1 for hateful, 0 for not.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` is unknown, or the file has no labels.

    References
    ----------
    Kiela et al., "The Hateful Memes Challenge", NeurIPS 2020.

    Examples
    --------
    >>> from robustmm.datasets import load_hateful_memes
    >>> load_hateful_memes("nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: Hateful Memes needs nowhere/train.jsonl (or data/train.jsonl), \
which is not there. It comes from https://hatefulmemeschallenge.com.
    """
    check_split(split, tuple(FILES))
    # "test" is test_seen, as in the field's code, whose test.jsonl is that file
    # renamed.
    names = FILES[split]
    listing = ORIGIN.find(Path(root), *names, *(f"data/{name}" for name in names))
    with listing.open(encoding="utf-8") as file:
        memes = [json.loads(line) for line in file if line.strip()]
    # The challenge's test rows were first released without labels.
    if any("label" not in meme for meme in memes):
        raise ValueError(
            f"Every row must have a label, {listing} has rows without. The rows of "
            f"test_seen.jsonl have one; it comes from {ORIGIN.url}."
        )
    index = pd.Index([meme["id"] for meme in memes], name="meme")
    paths = [listing.parent / meme["img"] for meme in memes]
    cells = {
        "image": ORIGIN.image_cells(paths, on_missing_image),
        "text": [text_cell(meme.get("text")) for meme in memes],
    }
    # As objects: pandas' own strings would turn the None of a missing image into NaN.
    X = pd.DataFrame(cells, index=index, dtype=object)
    y = pd.Series([int(meme["label"]) for meme in memes], index=index, name="hateful")
    return X, y
