"""Composed image retrieval: how often a picture and a text find the picture meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
import torch

from ..backbones import Backbone, FrozenFeatures, projected_width
from ..checks import check_choice, check_number
from ..data import Collate, ImageTransform, MultimodalDataset, Rows, prepare_tokenizer
from ..data.frame import is_null, read_rows
from ..data.tables import as_frame
from ..methods.fine_tune import FineTuneClassifier
from ..methods.linear_probe import LinearProbeClassifier
from ..methods.mora import MoRAClassifier

KINDS = ("image", "text", "both")
COMBINE = ("sum", "unit_sum")
# Their adapters are part of the encoders; the others' features are no embeddings.
_ADAPTED = MoRAClassifier, FineTuneClassifier, LinearProbeClassifier
_SUBSET_K = (1, 2, 3)


def retrieval_scores(
    model: Backbone | MoRAClassifier | FineTuneClassifier | LinearProbeClassifier,
    queries: pd.DataFrame,
    gallery: Mapping | pd.Series,
    *,
    k: Sequence[int] = (1, 5, 10, 50),
    combine: str = "sum",
    image_column: str = "image",
    text_column: str = "text",
    target_column: str = "target",
    reference_column: str | None = "reference",
    subset_column: str | None = "subset",
    image_root=None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Score composed image retrieval: pictures found by picture, by text and by both.

    A query's vector is the sum of the embeddings of its picture and of its text; the
    gallery is ranked by the cosine. Where a cell is missing, the other one asks alone.
    Pictures that are as similar as the target stand before it.

    Parameters
    ----------
    model : Backbone, or fitted MoRAClassifier, FineTuneClassifier or \
LinearProbeClassifier
        An image and a text encoder with one common space, as CLIP has, with the updates
        that a training has put into them.
    queries : DataFrame of shape (n, ...)
        A row per query, with the columns named below. Rows without a target are not
        allowed, nor rows with neither cell.
    gallery : mapping or Series from name to image cell
        What is searched. Every cell must be a picture that can be read.
    k : sequence of int
        How many of the first pictures count.
    combine : {"sum", "unit_sum"}
        Embeddings as they are are added, as in CLIP4Cir; or those of length 1.
    image_column, text_column : str
        The cells of a query.
    target_column : str
        Names of the pictures that are meant.
    reference_column : str or None
        Names of gallery pictures that a query does not search: its own picture, as in
        CIRR. Where there is no such column, or for None, as in FashionIQ, all of the
        gallery is searched.
    subset_column : str or None
        Lists of names, among which the target is looked for once more, as in CIRR.
    image_root : path-like, optional
        Folder that relative image paths start from.
    batch_size : int
        Rows per forward pass.

    Returns
    -------
    DataFrame
        Rows ``"image"`` and ``"text"``, of the queries that have such a cell;
        ``"both"``, of all queries; and ``"chance"``. Columns ``n_queries``,
        ``n_gallery``, and ``R@1``, ... in [0, 1]; with subsets also ``R_subset@1``,
        ``@2`` and ``@3``.

    Raises
    ------
    TypeError
        If the model is none of these.
    ValueError
        If its encoders have no common space, or if a name is not in the gallery, a cell
        cannot be read or a column is absent.

    References
    ----------
    Baldrati et al., "Effective Conditioned and Composed Image Retrieval Combining
    CLIP-based Features", CVPR 2022; Liu et al., "Image Retrieval on Real-life Images
    with Pre-trained Vision-and-Language Models", ICCV 2021.

    Examples
    --------
    >>> from robustmm import load_backbone, retrieval_scores
    >>> from robustmm.datasets import make_modified_scenes
    >>> queries, gallery = make_modified_scenes(40, random_state=0)
    >>> clip = load_backbone("robustmm/tiny-clip")
    >>> scores = retrieval_scores(clip, queries, gallery, k=(1, 10))
    >>> scores.index.tolist(), scores.columns.tolist()
    (['image', 'text', 'both', 'chance'], ['n_queries', 'n_gallery', 'R@1', 'R@10'])
    >>> bool(scores.loc["both", "R@10"] > scores.loc["chance", "R@10"])
    True
    """
    check_choice("combine", combine, COMBINE)
    check_number("batch_size", batch_size, Integral, 1)
    for number in k:
        check_number("k", number, Integral, 1)
    backbone = _encoders(model)
    queries, gallery = as_frame(queries), pd.Series(gallery, dtype=object)
    rows = read_rows(queries, image_column, text_column, image_root)
    names = _Names(gallery, queries)
    target = names.required(target_column)
    reference = names.optional(reference_column)
    subset = names.lists(subset_column)
    if not rows.present.any(axis=1).all():
        raise ValueError("Every query must have an image or a text.")

    images, texts = _embed(backbone, rows, batch_size)
    pictures = read_rows(
        pd.DataFrame({"image": gallery.to_numpy(), "text": None}), image_root=image_root
    )
    if not pictures.present[:, 0].all():
        lost = gallery.index[~pictures.present[:, 0]][:3].tolist()
        raise ValueError(f"Every name of the gallery must have a picture, not {lost}.")
    vectors = _unit(_embed(backbone, pictures, batch_size)[0])

    has = rows.present
    if combine == "unit_sum":
        images, texts = _unit(images), _unit(texts)
    asked = {
        "image": (images, has[:, 0]),
        "text": (texts, has[:, 1]),
        "both": (images * has[:, [0]] + texts * has[:, [1]], np.ones(len(has), bool)),
    }
    ranking = _Ranking(vectors, target, reference, subset)
    table = {
        kind: ranking.scores(_unit(of), there, k) for kind, (of, there) in asked.items()
    }
    table["chance"] = ranking.chance(k)
    return pd.DataFrame(table).T.astype({"n_queries": int, "n_gallery": int})


class _Names:
    """Names of a gallery in the columns of a table, as positions."""

    def __init__(self, gallery: pd.Series, queries: pd.DataFrame):
        if not gallery.index.is_unique:
            raise ValueError("The names of the gallery must be different.")
        self.index, self.queries = gallery.index, queries

    def required(self, column: str) -> np.ndarray:
        if column not in self.queries:
            raise ValueError(
                f"The queries must have a column {column!r}, got "
                f"{list(self.queries.columns)}."
            )
        return self._positions(column, self.queries[column])

    def optional(self, column: str | None) -> np.ndarray:
        """Positions (n,), -1 where there is no name or no column."""
        found = np.full(len(self.queries), -1)
        if column is not None and column in self.queries:
            there = ~self.queries[column].map(is_null).to_numpy(dtype=bool)
            found[there] = self._positions(column, self.queries[column][there])
        return found

    def lists(self, column: str | None) -> list[np.ndarray] | None:
        if column is None or column not in self.queries:
            return None
        return [self._positions(column, names) for names in self.queries[column]]

    def _positions(self, column: str, names) -> np.ndarray:
        names = list(names)
        found = self.index.get_indexer(pd.Index(names, dtype=object))
        if (found < 0).any():
            unknown = [n for n, at in zip(names, found, strict=True) if at < 0][:3]
            raise ValueError(
                f"Names in the column {column!r} must be in the gallery, got {unknown}."
            )
        return found


class _Ranking:
    """A gallery of unit vectors, and what each query looks for in it."""

    def __init__(self, vectors, target, reference, subset):
        self.vectors, self.target = vectors, target
        self.reference, self.subset = reference, subset
        # Who asks for the picture that is left out would never find it.
        if (reference == target).any():
            raise ValueError("A query's target must not be its reference.")

    def scores(self, asked: np.ndarray, there: np.ndarray, k: Sequence[int]) -> dict:
        """Recall of the queries ``there`` (n,), whose vectors are ``asked`` (n, p)."""
        rows = np.flatnonzero(there)
        counts = {"n_queries": len(rows), "n_gallery": len(self.vectors)}
        ranks, inside = np.zeros(len(rows)), np.zeros(len(rows))
        for place, row in enumerate(rows):
            similar = self.vectors @ asked[row]
            target, left_out = self.target[row], self.reference[row]
            # Equal pictures from two batches may differ in the last digit.
            before = similar >= similar[target] - 1e-6
            before[target] = False
            if left_out >= 0:
                before[left_out] = False
            ranks[place] = before.sum()
            if self.subset is not None:
                inside[place] = before[self.subset[row]].sum()
        found = {f"R@{n}": _share(ranks < n) for n in k}
        if self.subset is not None:
            found |= {f"R_subset@{n}": _share(inside < n) for n in _SUBSET_K}
        return counts | found

    def chance(self, k: Sequence[int]) -> dict:
        """The same for who guesses."""
        searched = len(self.vectors) - (self.reference >= 0)
        counts = {"n_queries": len(self.target), "n_gallery": len(self.vectors)}
        found = {f"R@{n}": np.minimum(n / searched, 1).mean() for n in k}
        if self.subset is not None:
            pairs = zip(self.subset, self.reference, strict=True)
            sizes = np.array([len(set(s) - {r}) for s, r in pairs])
            found |= {
                f"R_subset@{n}": np.minimum(n / sizes, 1).mean() for n in _SUBSET_K
            }
        return counts | found


def _share(found: np.ndarray) -> float:
    return float(found.mean()) if len(found) else float("nan")


def _encoders(model) -> Backbone:
    """Return the two encoders of a model, with what was trained inside of them."""
    if isinstance(model, _ADAPTED) and hasattr(model, "net_"):
        model = model.net_.module_.eval().backbone
    if not isinstance(model, Backbone):
        names = [cls.__name__ for cls in _ADAPTED]
        raise TypeError(
            f"model must be a Backbone, or a fitted one of {names}, got {model!r:.80}."
        )
    streams = dict(model.streams)
    common = set(streams) == {"image", "text"} and all(
        stream.projection is not None for stream in streams.values()
    )
    if not common or len({projected_width(s) for s in streams.values()}) != 1:
        raise ValueError(
            "model must have an image and a text encoder with one common space, as "
            f"CLIP has, got {model.sources}."
        )
    return model


def _embed(backbone: Backbone, rows: Rows, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, p) of images and of texts, zeros where missing."""
    tokenizer = prepare_tokenizer(backbone.tokenizer, backbone.max_text_length)
    collate = Collate(ImageTransform.from_config(backbone.image_config), tokenizer)
    data = MultimodalDataset(rows, collate.transform, collate.tokenizer)
    device = next(backbone.parameters()).device
    encode, parts = FrozenFeatures(backbone), []
    for start in range(0, len(data), size):
        stop = min(start + size, len(data))
        batch, _ = collate([data[i] for i in range(start, stop)])
        batch |= batch["pictures"].pixels()
        names = "present", "pixel_values", "input_ids", "attention_mask"
        inputs = {name: batch[name].to(device) for name in names}
        parts.append(encode(inputs.pop("present"), inputs).float().cpu())
    found = torch.cat(parts).numpy()
    width = projected_width(backbone["image"])
    return found[:, :width], found[:, width : 2 * width]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
