"""The heat map of scenarios shows every number of the matrix in its place."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from evaluation_cases import HALVES, Reader, labelled_cells

from robustmm import CrossScenarioDisplay, cross_scenario_matrix


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def matrix():
    names = ["text", "complete"]
    return pd.DataFrame([[0.8, 0.35], [0.4, np.nan]], index=names, columns=names)


def test_every_score_is_in_its_cell(matrix):
    display = CrossScenarioDisplay.from_frame(matrix, label="F1-macro")
    places = {t.get_position(): t.get_text() for t in display.ax_.texts}
    assert places == {(0, 0): "0.80", (1, 0): "0.35", (0, 1): "0.40"}
    drawn = np.ma.filled(display.im_.get_array(), np.nan)
    np.testing.assert_array_equal(drawn, matrix)
    assert display.im_.get_clim() == (0.35, 0.8)
    ticks = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert ticks == ["text\nmissing", "complete"]
    assert display.ax_.get_ylabel() == "trained on"
    assert display.ax_.get_xlabel() == "tested on"


def test_numbers_can_be_read_on_light_and_dark(matrix):
    display = CrossScenarioDisplay.from_frame(matrix)
    colours = {t.get_text(): t.get_color() for t in display.ax_.texts}
    assert colours == {"0.80": "white", "0.35": "black", "0.40": "black"}


def test_given_axes_and_a_wide_matrix(matrix):
    axes = plt.subplots()[1]
    display = CrossScenarioDisplay.from_frame(matrix.iloc[:1], ax=axes)
    assert display.ax_ is axes
    assert display.values.shape == (1, 2)
    assert display.plot() is display
    assert display.ax_ is not axes


def test_from_estimator_draws_what_the_function_computes():
    X, y = labelled_cells()
    options = {"rate": 0.5, "cv": HALVES, "random_state": 0}
    estimator = Reader(uses=["image"])
    display = CrossScenarioDisplay.from_estimator(estimator, X, y, **options)
    numbers = cross_scenario_matrix(estimator, X, y, **options)
    np.testing.assert_array_equal(display.values, numbers)
    assert display.trained == ["text", "image", "both"]
    assert display.values[0].tolist() == [1.0, 0.5, 0.75]


def test_an_empty_matrix_is_refused(matrix):
    with pytest.raises(ValueError, match=r"a row per scenario .*\(0, 2\)"):
        CrossScenarioDisplay.from_frame(matrix[:0])
