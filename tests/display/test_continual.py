"""The heat map of continual learning shows the numbers of the matrix."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from contract import small

from robustmm import ContinualMatrixDisplay, DeLoClassifier
from robustmm.datasets import make_scenes


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def score_matrix():
    names = ["first", "second", "third"]
    values = [[0.9, 0.5, 0.25], [np.nan, 0.8, 0.7], [np.nan, np.nan, 1.0]]
    return pd.DataFrame(values, index=names, columns=names)


def test_every_score_is_written_in_its_cell():
    matrix = score_matrix()
    display = ContinualMatrixDisplay.from_frame(matrix, label="accuracy")
    places = {t.get_position(): t.get_text() for t in display.ax_.texts}
    assert places == {
        (0, 0): "0.90",
        (1, 0): "0.50",
        (2, 0): "0.25",
        (1, 1): "0.80",
        (2, 1): "0.70",
        (2, 2): "1.00",
    }
    drawn = np.ma.filled(display.im_.get_array(), np.nan)
    np.testing.assert_array_equal(drawn, matrix)
    assert display.im_.get_clim() == (0, 1)
    ticks = display.ax_.get_xticklabels(), display.ax_.get_yticklabels()
    assert [[t.get_text() for t in axis] for axis in ticks] == [list(matrix)] * 2
    assert display.ax_.get_xlabel() == "after learning"
    assert display.im_.colorbar.ax.get_ylabel() == "accuracy"


def test_matrix_is_drawn_in_the_axes_that_are_given():
    figure, axes = plt.subplots()
    display = ContinualMatrixDisplay.from_frame(score_matrix(), ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is figure
    assert display.plot() is display
    assert display.ax_ is not axes


def test_matrix_from_an_estimator():
    X, y = make_scenes(80, n_classes=4, random_state=0)
    first = np.isin(y, np.unique(y)[:2])
    tasks = [(X[at][:8], y[at][:8], X[at][8:12], y[at][8:12]) for at in (first, ~first)]
    clf = small(DeLoClassifier)
    display = ContinualMatrixDisplay.from_estimator(clf, tasks, names=["a", "b"])
    assert display.names == ["a", "b"]
    assert len(display.ax_.texts) == 3
    assert not hasattr(clf, "classes_")


def test_a_table_that_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"must be square.*\(2, 3\)"):
        ContinualMatrixDisplay.from_frame(score_matrix().iloc[:2])
