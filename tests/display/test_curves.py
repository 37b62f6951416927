"""Curves show the means of the table, in its order, and bands where folds differ."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from evaluation_cases import HALVES, Reader, labelled_cells

from robustmm import MissingRateCurveDisplay, missing_rate_curve


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def curve(scenarios=("text", "both"), folds=(0, 1), **columns):
    rows = [
        (scenario, rate, fold, 0.9 - rate / (2 + i) + fold / 10)
        for i, scenario in enumerate(scenarios)
        for rate in (0.5, 0.0)
        for fold in folds
    ]
    frame = pd.DataFrame(rows, columns=["scenario", "rate", "fold", "score"])
    return frame.assign(**columns)


def test_lines_are_the_means_over_folds():
    display = MissingRateCurveDisplay.from_frame(curve(), label="accuracy")
    text, both = display.lines_
    np.testing.assert_allclose(text.get_xdata(), [0.0, 0.5])
    np.testing.assert_allclose(text.get_ydata(), [0.95, 0.7])
    np.testing.assert_allclose(both.get_ydata(), [0.95, 0.95 - 0.5 / 3])
    legend = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert legend == ["text missing", "either missing"]
    assert display.ax_.get_ylabel() == "accuracy"
    assert display.ax_.get_xlabel() == "test rows that miss a modality"


def test_bands_are_deviations_and_absent_for_one_fold():
    display = MissingRateCurveDisplay.from_frame(curve())
    assert len(display.ax_.collections) == 2
    band = display.ax_.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.95 + np.std([0, 0.1], ddof=1))
    single = MissingRateCurveDisplay.from_frame(curve(folds=[0]))
    assert not single.ax_.collections


def test_methods_have_colours_and_scenarios_dashes():
    frame = pd.concat([curve(method="a"), curve(method="b")])
    lines = MissingRateCurveDisplay.from_frame(frame).lines_
    names = ["a, text missing", "a, either missing"]
    assert [line.get_label() for line in lines[:2]] == names
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert lines[0].get_linestyle() == lines[2].get_linestyle()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_what_does_not_vary_is_the_title():
    frame = pd.concat([curve(["both"], method="a"), curve(["both"], method="b")])
    display = MissingRateCurveDisplay.from_frame(frame)
    assert [line.get_label() for line in display.lines_] == ["a", "b"]
    assert display.ax_.get_title() == "either missing"
    alone = MissingRateCurveDisplay.from_frame(curve(["image"]))
    assert alone.ax_.get_title() == "image missing"
    assert alone.ax_.get_legend() is None


def test_another_metric_and_other_axes():
    axes = plt.subplots()[1]
    frame = curve().rename(columns={"score": "f1"})
    display = MissingRateCurveDisplay.from_frame(frame, metric="f1", ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is axes.figure
    assert axes.get_ylabel() == "f1"
    assert display.plot() is display
    assert display.ax_ is not axes


def test_from_estimator_draws_what_the_function_computes():
    X, y = labelled_cells()
    options = {
        "rates": [0.0, 0.5, 1.0],
        "scenario": ["text", "image"],
        "cv": HALVES,
        "random_state": 0,
    }
    estimator = Reader(uses=["text"])
    display = MissingRateCurveDisplay.from_estimator(estimator, X, y, **options)
    numbers = missing_rate_curve(estimator, X, y, **options)
    expected = numbers.pivot(index="rate", columns="scenario", values="score")
    pd.testing.assert_frame_equal(display.means, expected[["text", "image"]])
    assert display.means["text"].tolist() == [1.0, 0.5, 0.0]


def test_many_lines_are_named_beside_the_curves():
    frame = pd.concat([curve(["text"], method=f"m{i}") for i in range(10)])
    display = MissingRateCurveDisplay.from_frame(frame)
    assert len({line.get_color() for line in display.lines_}) == 10
    display.figure_.draw_without_rendering()
    box = display.ax_.get_legend().get_window_extent()
    assert box.x0 > display.ax_.get_window_extent().x1


def test_a_table_that_is_no_curve_is_refused():
    for column in ("rate", "score", "scenario"):
        with pytest.raises(ValueError, match="curve must have rows and the columns"):
            MissingRateCurveDisplay.from_frame(curve().drop(columns=column))
    with pytest.raises(ValueError, match="got 0 rows"):
        MissingRateCurveDisplay.from_frame(curve()[:0])
