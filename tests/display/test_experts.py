"""Displays show the numbers they were given, in the axes they were given."""

import itertools

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, small

from robustmm import CMPTClassifier, ExpertUsageDisplay, MAILClassifier

PATTERNS = ("complete", "image_missing")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def usage_frame(counts=(3, 2), linears=("query", "up")):
    """A usage of two layers, the second with fewer experts; every number differs."""
    rows = [
        (pattern, layer, linear, expert)
        for pattern in PATTERNS
        for layer, count in enumerate(counts)
        for linear, expert in itertools.product(linears, range(count))
    ]
    frame = pd.DataFrame(rows, columns=["pattern", "layer", "linear", "expert"])
    steps = np.arange(len(frame)) / len(frame)
    return frame.assign(frequency=steps, weight=1 - steps)


@pytest.mark.parametrize("value", ["frequency", "weight"])
def test_every_cell_is_the_number_of_its_place(value):
    usage = usage_frame()
    display = ExpertUsageDisplay.from_frame(usage, value=value)
    drawn = display.im_.get_array()
    assert drawn.shape == (2 * 3 - 1, 2 * 4 - 1)
    for row in usage.itertuples():
        line = 3 * ("query", "up").index(row.linear) + row.layer
        column = 4 * PATTERNS.index(row.pattern) + row.expert
        assert drawn[line, column] == getattr(row, value)
    assert (~np.ma.getmaskarray(np.ma.masked_invalid(drawn))).sum() == len(usage)
    assert display.im_.get_clim() == (0, 1)


def test_labels_name_patterns_linears_layers_and_experts():
    display = ExpertUsageDisplay.from_frame(usage_frame())
    axes = display.ax_
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "2"] * 2
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0", "1"] * 2
    written = {t.get_text() for t in axes.texts}
    assert written == {"complete", "image missing", "query", "up"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("expert", "layer")


def test_draws_into_the_axes_it_is_given():
    figure, axes = plt.subplots()
    display = ExpertUsageDisplay.from_frame(usage_frame(), ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is figure
    other = plt.subplots()[1]
    assert display.plot(ax=other) is display
    assert display.ax_ is other
    assert display.plot().ax_ is not other


def test_a_part_of_a_usage_can_be_drawn():
    usage = usage_frame()
    part = usage[(usage["linear"] == "up") & (usage["pattern"] == "image_missing")]
    display = ExpertUsageDisplay.from_frame(part)
    assert display.values.shape == (1, 2, 1, 3)
    assert np.isnan(display.values[0, 1, 0, 2])


def test_order_of_rows_does_not_move_numbers():
    usage = usage_frame()
    display = ExpertUsageDisplay.from_frame(usage.sample(frac=1, random_state=0))
    for row in usage.itertuples():
        place = (
            display.linears.index(row.linear),
            display.layers.index(row.layer),
            display.patterns.index(row.pattern),
            display.experts.index(row.expert),
        )
        assert display.values[place] == row.frequency


def test_from_estimator_draws_its_usage():
    X, y = frame_with_holes()
    fitted = small(MAILClassifier, n_experts=3).fit(X, y)
    display = ExpertUsageDisplay.from_estimator(fitted, X, value="weight")
    expected = ExpertUsageDisplay.from_frame(fitted.expert_usage(X), value="weight")
    np.testing.assert_array_equal(display.values, expected.values)
    assert display.values.shape == (4, 4, 3, 3)
    assert list(display.patterns) == ["complete", "text_missing", "image_missing"]


def test_unusable_arguments_are_named():
    X, _ = frame_with_holes(6)
    with pytest.raises(TypeError, match=r"must have experts, .* got CMPTClassifier"):
        ExpertUsageDisplay.from_estimator(CMPTClassifier(), X)
    usage = usage_frame()
    with pytest.raises(ValueError, match=r"value must be one of .* got 'count'"):
        ExpertUsageDisplay.from_frame(usage, value="count")
    with pytest.raises(ValueError, match="usage must have rows and the columns"):
        ExpertUsageDisplay.from_frame(usage.drop(columns="layer"))
    with pytest.raises(ValueError, match="got 0 rows"):
        ExpertUsageDisplay.from_frame(usage.iloc[:0])
