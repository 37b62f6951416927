"""Features of a fitted classifier, in two dimensions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import column_or_1d

from ..checks import check_choice
from ..data.frame import either_of
from ..data.tables import as_frame
from ._columns import columns_of


def embedding_coordinates(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: ArrayLike | None = None,
    *,
    method: str = "pca",
    random_state: int | np.random.RandomState | None = 0,
    image_column: str | None = None,
    text_column: str | None = None,
) -> pd.DataFrame:
    """Map the features that a fitted estimator computes to two dimensions.

    Parameters
    ----------
    estimator : classifier or transformer
        Fitted, with ``transform``, which returns (n, d).
    X : DataFrame of shape (n, ...)
        Rows. Those without any modality have no features and are left out.
    y : array-like of shape (n,), optional
        Labels to colour by.
    method : {"pca", "tsne"}
        The two directions of largest variance, or t-SNE started from them, which shows
        neighbours better and distances worse.
    random_state : int, RandomState or None
        Seeds t-SNE; 0 by default, so that a figure can be drawn again.
    image_column, text_column : str, optional
        Names of the two columns; None takes those that the estimator reads, or
        ``"image"`` and ``"text"`` where it does not say.

    Returns
    -------
    DataFrame of shape (n_rows, 3) or (n_rows, 4)
        Columns ``first`` and ``second``, the coordinates, ``pattern`` (``complete``,
        ``text_missing`` or ``image_missing``) and, with ``y``, ``label``; the index is
        that of ``X``.

    Raises
    ------
    TypeError
        If the estimator has no ``transform``.
    ValueError
        If there are fewer than three rows with a modality, or ``method`` is unknown.

    See Also
    --------
    EmbeddingDisplay : Draws the points.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from robustmm import embedding_coordinates
    >>> df = pd.DataFrame({"image": [None] * 3, "text": ["a cat", "a dog", "no cat"]})
    >>> texts = FunctionTransformer(lambda X: X["text"])
    >>> words = make_pipeline(texts, CountVectorizer()).fit(df)
    >>> list(embedding_coordinates(words, df, ["cat", "dog", "cat"]))
    ['first', 'second', 'pattern', 'label']
    """
    check_choice("method", method, ("pca", "tsne"))
    if not hasattr(estimator, "transform"):
        raise TypeError(
            "estimator must have transform, which returns features, got "
            f"{type(estimator).__name__}."
        )
    X = as_frame(X)
    rows = columns_of([estimator], image_column, text_column).rows(X)
    filled = rows.present.any(axis=1)
    if filled.sum() < 3:
        raise ValueError(
            f"There must be at least 3 rows with {either_of(rows.modalities)}, got "
            f"{int(filled.sum())}."
        )
    # Rows without any modality have features of zero, a point that means nothing.
    features = estimator.transform(X[filled])
    if hasattr(features, "toarray"):
        features = features.toarray()
    points = _flatten(np.asarray(features, dtype=float), method, random_state)
    frame = pd.DataFrame(points, columns=["first", "second"], index=X.index[filled])
    frame["pattern"] = rows.patterns[filled]
    if y is not None:
        check_consistent_length(X, y)
        frame["label"] = column_or_1d(y)[filled]
    return frame


def _flatten(features: np.ndarray, method: str, random_state) -> np.ndarray:
    """Return (n, 2) from (n, d)."""
    if features.shape[1] < 2:
        features = np.pad(features, [(0, 0), (0, 2 - features.shape[1])])
    with np.errstate(invalid="ignore"):  # a share of a variance that may be zero
        if method == "pca":
            # Exact for any size; the default turns to a random solver for large ones.
            return PCA(2, svd_solver="full").fit_transform(features)
        # Here, so that who never asks for t-SNE does not wait for its import.
        from sklearn.manifold import TSNE

        # scikit-learn refuses a perplexity that is not below the number of rows.
        perplexity = min(30.0, (len(features) - 1) / 3)
        tsne = TSNE(init="pca", perplexity=perplexity, random_state=random_state)
        return tsne.fit_transform(features)
