"""MM-IMDb: posters and plots of films, and their genres."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ._files import Origin, check_split, text_cell

# The order of missing-aware prompts, by frequency; rarer genres are not used.
# All are 27, a number that papers print whose code uses these 23.
GENRES = (
    "Drama",
    "Comedy",
    "Romance",
    "Thriller",
    "Crime",
    "Action",
    "Adventure",
    "Horror",
    "Documentary",
    "Mystery",
    "Sci-Fi",
    "Fantasy",
    "Family",
    "Biography",
    "War",
    "History",
    "Music",
    "Animation",
    "Musical",
    "Western",
    "Sport",
    "Short",
    "Film-Noir",
)
ORIGIN = Origin("MM-IMDb", "https://archive.org/download/mmimdb")


def load_mmimdb(
    root: str | os.PathLike,
    split: str = "train",
    *,
    plots: str = "all",
    on_missing_image: str = "raise",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read MM-IMDb from a folder: posters, plots and 23 genres of 25,959 films.

    Nothing is downloaded. The folder is either the original archive, ``split.json`` and
    ``dataset`` with a ``.json`` and a ``.jpeg`` per film, or laid out as the code of
    missing-aware prompts wants it, ``split.json``, ``labels`` and ``images``; it may
    also be the parent of a folder ``mmimdb`` of that kind.

    Parameters
    ----------
    root : path-like
        The folder.
    split : {"train", "dev", "test"}
        Official split: 15,552, 2,608 and 7,799 films.
    plots : {"all", "first", "outline"}
        Most films have several plots. ``"all"`` makes a row of each, in every split, as
        the published results do; ``"first"`` takes the first one; ``"outline"`` the
        plot outline, or else the first plot.
    on_missing_image : {"raise", "missing"}
        What to do if a poster is not there: raise, or leave its cell empty.

    Returns
    -------
    X : DataFrame of shape (n, 2)
        Columns ``image``, a path, and ``text``. The index is the number of the film,
        which repeats with ``plots="all"``: pass it as ``groups`` to
        :func:`robustmm.drop_modalities`, so that all plots of a film miss the same and
        counts are exact over films, as published.
    y : DataFrame of shape (n, 23)
        A column of zeros and ones per genre, most frequent first.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message names it and says where it comes from.
    ValueError
        If ``split`` or ``plots`` is unknown.

    References
    ----------
    Arevalo et al., "Gated Multimodal Units for Information Fusion", ICLR workshop 2017.

    Examples
    --------
    >>> from robustmm.datasets import load_mmimdb
    >>> load_mmimdb("nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: MM-IMDb needs nowhere/split.json (or mmimdb/split.json), which \
is not there. It comes from https://archive.org/download/mmimdb.
    """
    check_split(split)
    if plots not in ("all", "first", "outline"):
        choices = ["all", "first", "outline"]
        raise ValueError(f"plots must be one of {choices}, got {plots!r}.")
    listing = ORIGIN.find(Path(root), "split.json", "mmimdb/split.json")
    films = [str(film) for film in ORIGIN.read_json(listing)[split]]
    facts = ORIGIN.find(listing.parent, "labels", "dataset")
    posters = ORIGIN.find(listing.parent, "images", "dataset")
    rows = []
    for film in films:
        fact = ORIGIN.read_json(facts / f"{film}.json")
        genres = [int(genre in fact["genres"]) for genre in GENRES]
        # A row per plot, as in the code of missing-aware prompts; the index says which
        # rows are one film, for ``groups``.
        rows += [(film, text, genres) for text in _texts(fact, plots)]
    index = pd.Index([film for film, _, _ in rows], name="film", dtype=object)
    paths = [posters / f"{film}.jpeg" for film in index]
    cells = {
        "image": ORIGIN.image_cells(paths, on_missing_image),
        "text": [text for _, text, _ in rows],
    }
    X = pd.DataFrame(cells, index=index, dtype=object)
    y = pd.DataFrame([g for _, _, g in rows], index=index, columns=list(GENRES))
    return X, y


def _texts(fact: dict, plots: str) -> list[str | None]:
    """Return the texts of a film, a row each; at least one, which may be None."""
    told = fact.get("plot") or []
    told = [told] if isinstance(told, str) else told
    told = list(map(text_cell, told))
    outline = text_cell(fact.get("plot outline"))
    if plots == "all":
        return told or [None]
    if plots == "outline" and outline is not None:
        return [outline]
    return told[:1] or [None]
