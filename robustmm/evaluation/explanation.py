"""Which words and which regions of a picture one prediction comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Integral

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.base import BaseEstimator
from tqdm.auto import tqdm

from ..annotations import TableLike
from ..checks import check_choice, check_number
from ..data import MAX_PIXELS, BadImage, decode_image
from ..data.frame import MODALITIES, Rows
from ..data.screening import report_bad_images
from ._columns import columns_of, common_value
from ._occlusion import OneRow, cover, grid_regions, leave_out, text_words
from .calibration import one_column_per_label

# Of one call: rows, and pixels of their pictures (three bytes each).
_MOST_ROWS = 64
_MOST_PIXELS = 2**26
# Probabilities of zero and one have log-odds, too.
_LEAST = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What one row's prediction comes from, as :func:`explain` finds it.

    In the three tables ``probability`` is that of the class without the part, and
    ``support`` how far the measure falls without it: what is positive speaks for the
    class, what is negative against it.

    Parameters
    ----------
    label : object
        The class, or of several labels the one, that is explained.
    probability : float
        Of the class, for the row as it is.
    pattern : {"complete", "text_missing", "image_missing"}
        What the row lacks.
    measure : {"log_odds", "probability"}
        What ``support`` is a difference of.
    image : PIL.Image.Image or None
        The picture as it was read; None where it is missing.
    text : str or None
        The text; None where it is missing.
    modalities : DataFrame of shape (2, 2) or (0, 2)
        Index ``modality``: the whole image and the whole text, where the row has both.
    words : DataFrame of shape (n_words, 5)
        Index ``position``; columns ``word``, ``start`` and ``stop``, its characters in
        the text, ``probability`` and ``support``. Empty without a text.
    regions : DataFrame of shape (n_regions, 8)
        Columns ``row`` and ``column`` in the grid, ``left``, ``top``, ``right`` and
        ``bottom`` in pixels of ``image``, ``probability`` and ``support``. Empty
        without an image.

    Examples
    --------
    >>> empty = pd.DataFrame()
    >>> Explanation(
    ...     "cat", 0.9, "image_missing", "log_odds", None, "a cat", empty, empty, empty
    ... )
    <Explanation of 'cat', probability 0.90, image_missing>
    """

    label: object
    probability: float
    pattern: str
    measure: str
    image: Image.Image | None
    text: str | None
    modalities: pd.DataFrame
    words: pd.DataFrame
    regions: pd.DataFrame

    def __repr__(self) -> str:
        number = f"probability {self.probability:.2f}"
        return f"<Explanation of {self.label!r}, {number}, {self.pattern}>"


def explain(
    estimator: BaseEstimator,
    row: TableLike,
    *,
    class_: object = None,
    grid: int | tuple[int, int] = 6,
    measure: str = "log_odds",
    max_words: int = 200,
    image_column: str | None = None,
    text_column: str | None = None,
    image_root=None,
    verbose: int = 0,
) -> Explanation:
    """Find which words and which regions of the picture speak for a class.

    By occlusion [1]_: each word is left out in turn, and each region of the picture
    gets the picture's mean colour; what the probability of the class loses is what the
    part adds to it. A missing cell stays missing, so that this is the prediction that
    was made, not that of a filled row. Only ``predict_proba`` is called on such rows,
    once for the class ``predict``, and nothing is drawn at random.

    Parts are changed one at a time: of two words that say the same, neither is missed
    when the other is left, and both have little support.

    Parameters
    ----------
    estimator : classifier
        Fitted, with ``predict_proba``; any that takes the frame, and pictures of PIL in
        it: one of this package, or a pipeline, search or ensemble with such inside.
    row : DataFrame of one row, Series, dict, or what else a classifier takes
        The row. Columns beside the two stay what they are.
    class_ : label, optional
        The class to explain, one of ``classes_``; of several labels per row that label,
        or its position where the estimator has no names for them. None is what
        ``predict`` says, and of several labels the most probable one.
    grid : int or (int, int)
        Regions down and across. At most one a pixel.
    measure : {"log_odds", "probability"}
        What ``support`` is a difference of. Log-odds still tell parts apart where the
        classifier is nearly certain, and the probability hardly changes.
    max_words : int
        Longer texts lose several neighbouring words at a time, so that there are at
        most so many parts.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.
    image_root : path-like, optional
        Folder that a relative image path starts from; None takes the estimator's.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    Explanation
        With the tables ``words``, ``regions`` and ``modalities``.

    Raises
    ------
    TypeError
        If the estimator has no ``predict_proba``, or ``row`` is no table.
    ValueError
        If there is not exactly one row, it has neither an image nor a text, its image
        cannot be read, or a parameter is out of its range.

    See Also
    --------
    ExplanationDisplay : Draws it.
    modality_importance : What image and text are worth over many rows.

    Notes
    -----
    A word is what stands between blanks. In the place of a text's only word stands
    ``"."``, as nothing at all would be a missing text; what that costs is in
    ``modalities``.

    References
    ----------
    .. [1] Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks",
       ECCV 2014, section 4.2.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier, explain
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=3, random_state=0)
    >>> probe = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    >>> found = explain(probe, X.iloc[0], grid=2)
    >>> found.regions[["row", "column", "left", "top"]].to_numpy().tolist()
    [[0, 0, 0, 0], [0, 1, 32, 0], [1, 0, 0, 32], [1, 1, 32, 32]]
    >>> list(found.words)
    ['word', 'start', 'stop', 'probability', 'support']
    """
    grid = _check_grid(grid)
    check_choice("measure", measure, ("log_odds", "probability"))
    check_number("max_words", max_words, Integral, 1)
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"estimator must have predict_proba, got {type(estimator).__name__}."
        )
    columns = columns_of([estimator], image_column, text_column)
    if columns.modalities != MODALITIES:
        raise ValueError(
            "estimator must read an image and a text for its rows to be explained, got "
            f"one of {columns.modalities}."
        )
    if image_root is None:
        image_root = common_value([estimator], "image_root")
    rows = _decoded(estimator, replace(columns.rows(row), image_root=image_root))
    one = OneRow(row, rows, *columns.names)
    words = text_words(rows.texts[0], max_words)
    regions = grid_regions(rows.images[0], grid)
    modalities = pd.DataFrame(index=pd.Index(one.removable, name="modality"))
    total = 1 + len(modalities) + len(words) + len(regions)
    proba = _predict(estimator, one, _variants(one, words, regions), total, verbose)
    label, k, several = _choose(estimator, one, class_, proba[0])
    # The row as it is comes first, then the parts in the order of the tables.
    whole, parts = proba[0, k], proba[1:, k]
    values = _measured(proba, k, measure, several)
    support = values[0] - values[1:]
    tables, start = [], 0
    for table in (modalities, words, regions):
        at = slice(start, start := start + len(table))
        tables.append(table.assign(probability=parts[at], support=support[at]))
    held = rows.images[0], rows.texts[0]
    return Explanation(
        label, float(whole), str(rows.patterns[0]), measure, *held, *tables
    )


def _check_grid(grid) -> tuple[int, int]:
    """Return regions (down, across)."""
    pair = (grid, grid) if isinstance(grid, Integral) else grid
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"grid must be an integer or a pair of them, got {grid!r}.")
    for number in pair:
        check_number("grid", number, Integral, 1)
    return tuple(pair)


def _decoded(estimator: BaseEstimator, rows: Rows) -> Rows:
    """Return the one row with its picture decoded, or without one if it may be bad."""
    if len(rows) != 1:
        raise ValueError(f"row must be one row, got {len(rows)}.")
    if rows.images[0] is not None:
        largest = common_value([estimator], "max_pixels", MAX_PIXELS)
        try:
            image = decode_image(rows.images[0], rows.image_root, None, largest)
        except BadImage as error:
            # What the estimator itself does with the row.
            action = common_value([estimator], "on_bad_image", "raise")
            report_bad_images(rows, {0: str(error)}, action)
            image = None
        rows = replace(rows, images=[image])
    if not rows.present.any():
        raise ValueError(
            "row must have an image or a text, got neither: its prediction is that of "
            "any such row, and comes from no part of it."
        )
    return rows


def _variants(
    one: OneRow, words: pd.DataFrame, regions: pd.DataFrame
) -> Iterator[tuple]:
    """Yield (image, text) of the row, and without each part, in order of the tables."""
    image, text = one.image, one.text
    yield image, text
    if one.removable:
        yield None, text
        yield image, None
    for start, stop in zip(words["start"], words["stop"], strict=True):
        yield image, leave_out(text, start, stop)
    if image is not None:
        colour = tuple(np.asarray(image).mean(axis=(0, 1)).round().astype(int).tolist())
        for box in regions[["left", "top", "right", "bottom"]].to_numpy().tolist():
            yield cover(image, tuple(box), colour), text


def _predict(
    estimator: BaseEstimator,
    one: OneRow,
    variants: Iterator[tuple],
    total: int,
    verbose: int,
) -> np.ndarray:
    """Return probabilities (total, C) of the changed rows."""
    pixels = 1 if one.image is None else one.image.width * one.image.height
    size = min(max(_MOST_PIXELS // pixels, 1), _MOST_ROWS)
    found = []
    with tqdm(total=total, desc="explain", disable=not verbose) as bar:
        # Lazily: of a large photograph, few copies fit into memory at a time.
        while batch := list(islice(variants, size)):
            proba = estimator.predict_proba(one.table(batch))
            found.append(
                one_column_per_label(proba, getattr(estimator, "classes_", None))
            )
            bar.update(len(batch))
    return np.concatenate(found)


def _choose(
    estimator: BaseEstimator, one: OneRow, class_, proba: np.ndarray
) -> tuple[object, int, bool]:
    """Return the label to explain, its column, and whether a row may have several."""
    said = estimator.predict(one.table([(one.image, one.text)]))
    several = getattr(said, "ndim", 1) == 2
    labels = estimator.classes_
    # scikit-learn's forests have the values of each label there, and no names.
    labels = range(len(proba)) if isinstance(labels, list) else np.asarray(labels)
    labels = [_plain(label) for label in labels]
    if class_ is None:
        class_ = labels[int(proba.argmax())] if several else _plain(said[0])
    check_choice("class_", class_, labels)
    k = next(i for i, label in enumerate(labels) if label == class_)
    return labels[k], k, several


def _plain(label):
    """Return a label as Python has it, for messages; dates stay what they are."""
    kinds = np.str_ | np.integer | np.floating | np.bool_
    return label.item() if isinstance(label, kinds) else label


def _measured(proba: np.ndarray, k: int, measure: str, several: bool) -> np.ndarray:
    """Return the log-odds or the probability of column ``k``, (n,)."""
    own = proba[:, k]
    if measure == "probability":
        return own
    # Of one class among many, 1 - p would be 0 in float32 where the others are small.
    rest = 1 - own if several else np.delete(proba, k, axis=1).sum(axis=1)
    return np.log(np.maximum(own, _LEAST)) - np.log(np.maximum(rest, _LEAST))
