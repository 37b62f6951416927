"""The picture of a leaderboard: panels, marks, legend, and what is left out."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from ensemble_cases import First, prior, texts

from robustmm import AutoMultimodalClassifier, LeaderboardDisplay


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def board(n_members=2, n_others=2):
    names = ["ensemble", *(f"member {i}" for i in range(n_members))]
    names += [f"other {i}" for i in range(n_others)]
    n = len(names)
    weights = [1.0] + [1 / n_members] * n_members + [0.0] * n_others
    scores = np.linspace(0.9, 0.3, n)
    return pd.DataFrame(
        {
            "score": scores,
            "complete": scores,
            "text_missing": scores / 2,
            "image_missing": np.nan,
            "weight": weights,
            "predict_ms": np.linspace(9, 0, n),
        },
        index=names,
    )


def test_there_is_a_panel_for_each_pattern_with_rows():
    display = LeaderboardDisplay.from_frame(board(), label="accuracy")
    titles = [ax.get_title() for ax in display.axes_]
    assert titles == ["all rows", "complete rows", "text missing"]
    assert display.axes_[0].get_ylabel() == "accuracy"
    assert display.axes_[0].get_xscale() == "log"


def test_points_stand_at_cost_and_score():
    table = board()
    ax = LeaderboardDisplay.from_frame(table).axes_[2]
    found = {tuple(c.get_offsets()[0]) for c in ax.collections}
    cost = table["predict_ms"].clip(lower=1e-3)
    assert found == set(zip(cost, table["text_missing"], strict=True))


def test_each_member_has_a_shape_and_a_colour_and_the_rest_is_grey():
    display = LeaderboardDisplay.from_frame(board(7, 3))
    drawn = display.axes_[0].collections
    labelled = {c.get_label(): c for c in drawn}
    members = [c for name, c in labelled.items() if name.startswith("member")]
    colours = {tuple(c.get_facecolor()[0]) for c in members}
    shapes = {len(c.get_paths()[0].vertices) for c in members}
    assert len(colours) == 7
    assert len(shapes) > 3
    assert labelled["ensemble"].get_sizes()[0] > members[0].get_sizes()[0]


def test_the_legend_names_each_once_with_its_weight():
    (legend,) = LeaderboardDisplay.from_frame(board()).figure_.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["ensemble", "member 0 (0.50)", "member 1 (0.50)", "not chosen"]


def test_nothing_in_the_legend_overlaps():
    display = LeaderboardDisplay.from_frame(board(9))
    display.figure_.canvas.draw()
    (legend,) = display.figure_.legends
    boxes = [text.get_window_extent() for text in legend.get_texts()]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
    assert not any(a.overlaps(b) for a, b in pairs)
    frame = legend.get_window_extent()
    assert not any(frame.overlaps(ax.get_tightbbox()) for ax in display.axes_)


def test_what_has_no_score_is_left_out_without_a_word():
    table = board()
    table.loc["failed"] = np.nan
    table.loc["failed", "weight"] = 0.0
    display = LeaderboardDisplay.from_frame(table)
    assert len(display.axes_[0].collections) == len(table) - 1


def test_axes_of_the_caller_are_used():
    figure, axes = plt.subplots(1, 3)
    display = LeaderboardDisplay.from_frame(board(), axes=axes)
    assert display.figure_ is figure
    with pytest.raises(ValueError, match="axes must be 3, one for each panel, got 1"):
        LeaderboardDisplay.from_frame(board(), axes=axes[:1])


def test_a_fitted_classifier_is_drawn():
    X, y = texts(40)
    pairs = [("first", First()), ("prior", prior())]
    clf = AutoMultimodalClassifier(candidates=pairs, random_state=0).fit(X, y)
    display = LeaderboardDisplay.from_estimator(clf)
    assert [ax.get_title() for ax in display.axes_] == ["all rows", "image missing"]


def test_what_is_no_leaderboard_is_refused():
    with pytest.raises(ValueError, match="must have the columns"):
        LeaderboardDisplay.from_frame(pd.DataFrame({"score": [1.0]}))
    with pytest.raises(ValueError, match="and a score"):
        LeaderboardDisplay.from_frame(board().assign(score=np.nan))
    with pytest.raises(TypeError, match="got First"):
        LeaderboardDisplay.from_estimator(First())
