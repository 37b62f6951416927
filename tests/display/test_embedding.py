"""Every row is a point with the colour of its class and the mark of its pattern."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from sklearn.base import BaseEstimator

from robustmm import EmbeddingDisplay, embedding_coordinates


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def points():
    patterns = ["complete", "text_missing", "image_missing"] * 4
    labels = ["a", "a", "b", "b", "c", "a"] * 2
    coordinates = np.random.default_rng(0).normal(size=(12, 2))
    frame = pd.DataFrame(coordinates, columns=["first", "second"])
    return frame.assign(pattern=patterns, label=labels)


def names(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_points_are_where_the_table_says(points):
    display = EmbeddingDisplay.from_frame(points)
    for scatter, pattern in zip(
        display.ax_.collections,
        ["complete", "text_missing", "image_missing"],
        strict=True,
    ):
        expected = points.loc[points["pattern"] == pattern, ["first", "second"]]
        np.testing.assert_allclose(scatter.get_offsets(), expected)
    patterns = ["complete", "text missing", "image missing"]
    assert names(display) == ["a", "b", "c", *patterns]


def test_classes_have_the_colours_of_the_legend(points):
    display = EmbeddingDisplay.from_frame(points)
    shades = {
        handle.get_label(): to_rgb(handle.get_color())
        for handle in display.ax_.get_legend().legend_handles
    }
    assert len({shades[name] for name in "abc"}) == 3
    complete = display.ax_.collections[0].get_facecolors()[:, :3]
    labels = points.loc[points["pattern"] == "complete", "label"]
    np.testing.assert_allclose(complete, [shades[name] for name in labels])


def test_rare_classes_are_grey(points):
    display = EmbeddingDisplay.from_frame(points, max_classes=1)
    assert names(display)[:2] == ["a", "others"]
    colours = np.concatenate([c.get_facecolors() for c in display.ax_.collections])
    assert len(np.unique(colours, axis=0)) == 2


def test_without_labels_there_are_marks_only(points):
    display = EmbeddingDisplay.from_frame(
        points.drop(columns="label")[points["pattern"] != "complete"]
    )
    assert names(display) == ["text missing", "image missing"]


def test_given_axes_are_used(points):
    axes = plt.subplots()[1]
    display = EmbeddingDisplay.from_frame(points, ax=axes, label="PCA")
    assert display.ax_ is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("PCA 1", "PCA 2")
    assert display.plot() is display
    assert display.ax_ is not axes


class Lengths(BaseEstimator):
    """Features from the length of the text."""

    def transform(self, X):
        n = X["text"].fillna("").str.len().to_numpy(dtype=float)
        return np.column_stack([n, n**2, np.ones_like(n)])


@pytest.mark.parametrize(
    ("method", "label"), [("pca", "principal direction 1"), ("tsne", "t-SNE 1")]
)
def test_from_estimator_draws_what_the_function_computes(method, label):
    X = pd.DataFrame({"image": [None] * 3 + ["1.png"] * 5, "text": [*"abcdefg", None]})
    X["text"] = X["text"] * pd.Series(range(1, 9))
    y = [0, 1] * 4
    display = EmbeddingDisplay.from_estimator(Lengths(), X, y, method=method)
    expected = embedding_coordinates(Lengths(), X, y, method=method)
    pd.testing.assert_frame_equal(display.points, expected)
    assert display.ax_.get_xlabel() == label
    assert names(display)[:2] == ["0", "1"]


def test_a_table_without_points_is_refused(points):
    with pytest.raises(ValueError, match="must have rows and the columns 'first'"):
        EmbeddingDisplay.from_frame(points.drop(columns="pattern"))
    with pytest.raises(ValueError, match="got 0 rows"):
        EmbeddingDisplay.from_frame(points[:0])
