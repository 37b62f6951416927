"""Features in two dimensions: which rows, which labels, and the same ones again."""

import numpy as np
import pandas as pd
import pytest
from contract import ToyClassifier, frame_with_holes
from evaluation_cases import words
from sklearn.base import BaseEstimator

from robustmm import embedding_coordinates


class Lengths(BaseEstimator):
    """Features on a line: the length of the text, and twice that."""

    def transform(self, X):
        n = X["text"].fillna("").str.len().to_numpy()
        return np.column_stack([n, 2 * n])


@pytest.fixture
def frame():
    texts = ["a", "abc", None, "abcdef", None]
    images = ["1.png", None, "3.png", "4.png", None]
    return pd.DataFrame({"image": images, "text": texts}, index=list("pqrst"))


def test_rows_without_any_modality_are_left_out(frame):
    points = embedding_coordinates(Lengths(), frame, [0, 1, 0, 1, 0])
    assert list(points) == ["first", "second", "pattern", "label"]
    assert points.index.tolist() == list("pqrs")
    patterns = ["complete", "image_missing", "text_missing", "complete"]
    assert points["pattern"].tolist() == patterns
    assert points["label"].tolist() == [0, 1, 0, 1]
    assert "label" not in embedding_coordinates(Lengths(), frame)


def test_pca_keeps_distances_on_a_line(frame):
    points = embedding_coordinates(Lengths(), frame)
    steps = np.abs(np.diff(points["first"])) / np.sqrt(5)
    np.testing.assert_allclose(steps, [2, 3, 6])
    np.testing.assert_allclose(points["second"], 0, atol=1e-9)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_figure_can_be_drawn_again(method):
    X, y = frame_with_holes(24)
    clf = ToyClassifier("robustmm/tiny-clip", random_state=0).fit(X, y)
    first, again = (embedding_coordinates(clf, X, y, method=method) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert len(first) == 24
    assert np.isfinite(first[["first", "second"]]).all(axis=None)
    assert first["first"].std() > 0


def test_a_pipeline_that_ends_in_features(frame):
    steps = words()[:-1].fit(frame.assign(text="some words"))
    points = embedding_coordinates(
        steps, frame.assign(text=["some", "words"] * 2 + [""])
    )
    assert points.shape == (4, 3)
    assert points["first"].nunique() == 2


def test_features_that_do_not_vary_or_are_few(frame):
    points = embedding_coordinates(Lengths(), frame.assign(text="same"))
    assert not points[["first", "second"]].any(axis=None)

    class Narrow(Lengths):
        def transform(self, X):
            return super().transform(X)[:, :1]

    points = embedding_coordinates(Narrow(), frame)
    np.testing.assert_allclose(points["second"], 0)


def test_what_has_no_embedding_is_named(frame):
    with pytest.raises(TypeError, match=r"must have transform.* got Pipeline"):
        embedding_coordinates(words(), frame)
    with pytest.raises(ValueError, match=r"method must be one of .* got 'umap'"):
        embedding_coordinates(Lengths(), frame, method="umap")
    with pytest.raises(ValueError, match=r"at least 3 rows .* got 2"):
        embedding_coordinates(Lengths(), frame[:2])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        embedding_coordinates(Lengths(), frame, [0, 1])
