"""The radar plot has a spoke per pair and a closed polygon per method."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from evaluation_cases import HALVES, Reader, labelled_cells

from robustmm import AvailabilityRadarDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def grid(**columns):
    rows = [(1.0, 1.0), (1.0, 0.3), (0.65, 0.65), (0.3, 1.0)]
    scores = [0.9, 0.6, 0.7, 0.8]
    frame = pd.DataFrame(rows * 2, columns=["image", "text"])
    return frame.assign(fold=[0] * 4 + [1] * 4, score=scores * 2, **columns)


def test_polygons_are_closed_and_keep_the_order_of_the_pairs():
    display = AvailabilityRadarDisplay.from_frame(grid(), name="MAIL", label="F1")
    (line,) = display.lines_
    assert line.get_label() == "MAIL"
    np.testing.assert_allclose(line.get_ydata(), [0.9, 0.6, 0.7, 0.8, 0.9])
    np.testing.assert_allclose(np.diff(line.get_xdata()[:-1]), np.pi / 2)
    assert line.get_xdata()[0] == line.get_xdata()[-1]
    labels = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert labels[1] == "100% images\n30% texts"
    assert len(labels) == 4
    assert display.ax_.get_ylim()[0] == 0
    assert display.ax_.get_title() == "F1"
    assert display.ax_.get_legend() is None


def test_a_polygon_per_method():
    low = grid(method="low").assign(score=lambda frame: frame["score"] / 2)
    display = AvailabilityRadarDisplay.from_frame(pd.concat([grid(method="b"), low]))
    assert list(display.means.columns) == ["b", "low"]
    np.testing.assert_allclose(display.means["low"], [0.45, 0.3, 0.35, 0.4])
    names = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert names == ["b", "low"]
    first, second = display.lines_
    assert first.get_color() != second.get_color()


def test_given_axes_must_be_polar():
    figure, axes = plt.subplots(subplot_kw={"projection": "polar"})
    display = AvailabilityRadarDisplay.from_frame(grid(), ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is figure
    assert display.plot().ax_ is not axes
    with pytest.raises(ValueError, match=r'projection="polar", got \'rectilinear\''):
        display.plot(ax=plt.subplots()[1])


def test_from_estimator_draws_what_the_function_computes():
    X, y = labelled_cells()
    pairs = [(1.0, 1.0), (1.0, 0.3), (0.3, 1.0)]
    display = AvailabilityRadarDisplay.from_estimator(
        Reader(uses=["text"]), X, y, availability=pairs, cv=HALVES, random_state=0
    )
    assert display.means.index.tolist() == pairs
    np.testing.assert_allclose(display.means["Reader"], [1.0, 0.3, 1.0])


def test_a_table_that_is_no_grid_is_refused():
    with pytest.raises(ValueError, match=r"at least 3 pairs .* and 0 pairs"):
        AvailabilityRadarDisplay.from_frame(grid().drop(columns="text"))
    with pytest.raises(ValueError, match="and 2 pairs"):
        AvailabilityRadarDisplay.from_frame(grid()[:2])
