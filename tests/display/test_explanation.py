"""Regions and words have the colour of what they say, and one scale."""

import dataclasses

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import TextArea
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.dummy import DummyClassifier

from robustmm import Explanation, ExplanationDisplay, explain

BLUE, VERMILION = to_rgb("#0072B2"), to_rgb("#D55E00")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def explanation(words=(), regions=(), label="cat", measure="log_odds"):
    """An explanation of a picture of 4 x 2 pixels and some words with their support."""
    text = " ".join(word for word, _ in words) or None
    image = Image.new("RGB", (4, 2), "red") if regions else None
    pattern = (
        "complete" if text and image else f"{'text' if image else 'image'}_missing"
    )
    index = ["image", "text"] if pattern == "complete" else []
    modalities = {"probability": [0.25, 0.5][: len(index)]}
    boxes = [(0, i, 2 * i, 0, 2 * i + 2, 2, 0.5, s) for i, s in enumerate(regions)]
    names = ["row", "column", "left", "top", "right", "bottom"]
    return Explanation(
        label,
        0.75,
        pattern,
        measure,
        image,
        text,
        pd.DataFrame(modalities, index=index),
        pd.DataFrame(words, columns=["word", "support"], dtype=object),
        pd.DataFrame(boxes, columns=[*names, "probability", "support"]),
    )


def written(display):
    """Return the texts in words' boxes: (word, colour of the box), in order."""
    areas = display.ax_.child_axes[1].findobj(TextArea)
    texts = [area._text for area in areas]
    return [(t.get_text(), t.get_bbox_patch().get_facecolor()[:3]) for t in texts]


def boxes(display):
    """Return what lies over the picture: (x, y, width, height, colour)."""
    original, covered = display.ax_.child_axes[0].child_axes
    assert not original.patches
    patches = [p for p in covered.patches if isinstance(p, Rectangle)]
    return [(*p.get_bbox().bounds, p.get_facecolor()) for p in patches]


def title(display):
    return display.ax_.get_title(loc="left").splitlines()


def notes(display):
    axes = display.ax_.child_axes[:2]
    return [text.get_text() for ax in axes for text in ax.texts]


def test_colours_say_for_and_against_on_one_scale():
    found = explanation([("a", 0.0), ("cat", 1.0), ("dog", -2.0)], [2.0, -1.0])
    display = ExplanationDisplay.from_explanation(found)
    (nothing, half, against) = written(display)
    assert nothing == ("a", (1, 1, 1))
    np.testing.assert_allclose(half[1], np.add(BLUE, 1) / 2, atol=0.01)
    np.testing.assert_allclose(against[1], VERMILION, atol=0.01)
    (first, second) = boxes(display)
    assert (first[:4], second[:4]) == ((0, 0, 2, 2), (2, 0, 2, 2))
    np.testing.assert_allclose(first[4][:3], BLUE, atol=0.01)
    np.testing.assert_allclose(second[4][:3], VERMILION, atol=0.01)
    assert 1 > first[4][3] == pytest.approx(2 * second[4][3])


def test_the_picture_stands_beside_itself_in_grey():
    display = ExplanationDisplay.from_explanation(explanation(regions=[1.0, 0.0]))
    original, covered = display.ax_.child_axes[0].child_axes
    assert original.images[0].get_array()[0, 0].tolist() == [255, 0, 0]
    assert covered.images[0].get_array().ndim == 2
    assert original.images[0].get_extent() == covered.images[0].get_extent()


def test_a_large_picture_keeps_its_boxes():
    found = explanation(regions=[1.0, 0.0])
    large = Image.new("RGB", (4000, 2000))
    table = found.regions.assign(right=[2000, 4000], left=[0, 2000], bottom=2000)
    found = dataclasses.replace(found, image=large, regions=table)
    display = ExplanationDisplay.from_explanation(found)
    image = display.ax_.child_axes[0].child_axes[1].images[0]
    assert image.get_array().shape == (512, 1024)
    assert image.get_extent() == [0, 4000, 2000, 0]
    assert boxes(display)[1][:4] == (2000, 0, 2000, 2000)
    assert large.size == (4000, 2000)


def test_the_title_says_what_is_there_without_a_part():
    both = explanation([("a", 1.0)], [1.0])
    display = ExplanationDisplay.from_explanation(both)
    parts = "0.250 without the image, 0.500 without the text"
    assert title(display) == ["cat: probability 0.750", parts]
    assert notes(display) == []


def test_what_is_missing_is_said():
    display = ExplanationDisplay.from_explanation(explanation([("a", 1.0)]))
    assert title(display)[1] == "image missing"
    assert notes(display) == ["image missing"]
    display = ExplanationDisplay.from_explanation(explanation(regions=[1.0]))
    assert title(display)[1] == "text missing"
    assert notes(display) == ["text missing"]
    assert len(boxes(display)) == 1


@pytest.mark.parametrize(
    ("measure", "named"), [("log_odds", "log-odds"), ("probability", "probability")]
)
def test_the_scale_says_what_the_colours_mean(measure, named):
    found = explanation([("a", 0.5), ("b", -0.25)], measure=measure)
    bar = ExplanationDisplay.from_explanation(found).ax_.child_axes[2].child_axes[0]
    assert bar.get_title() == f"{named} that a part adds to cat"
    ends = [label.get_text() for label in bar.get_xticklabels()]
    assert ends == ["-0.5\nspeaks against", "0", "+0.5\nspeaks for"]


def test_where_nothing_matters_all_is_white():
    found = explanation([("a", 0.0), ("b", 0.0)], [0.0, 0.0])
    display = ExplanationDisplay.from_explanation(found)
    assert {colour for _, colour in written(display)} == {(1, 1, 1)}
    assert all(box[4][3] == 0 for box in boxes(display))


@pytest.mark.parametrize("word", ["$x$", "a" * 500, "\ud800", "<b>"])
def test_any_word_is_drawn(word, tmp_path):
    found = explanation([(word, 1.0), ("b", 0.0)], label=word)
    display = ExplanationDisplay.from_explanation(found)
    shown = written(display)[0][0]
    assert len(shown) < 50
    display.figure_.savefig(tmp_path / "picture.png")


def test_a_longer_text_has_more_lines_and_a_higher_figure():
    short, long = (
        ExplanationDisplay.from_explanation(explanation([("word", 1.0)] * n))
        for n in (5, 100)
    )
    assert len(written(long)) == 100
    heights = [d.figure_.get_size_inches()[1] for d in (short, long)]
    assert heights[1] > heights[0] + 1


def test_a_wide_picture_makes_a_lower_figure():
    heights = []
    for size in ((2000, 200), (200, 200), (200, 2000)):
        found = dataclasses.replace(
            explanation(regions=[1.0]), image=Image.new("RGB", size)
        )
        display = ExplanationDisplay.from_explanation(found)
        heights.append(display.figure_.get_size_inches()[1])
    assert heights[0] < heights[1] - 2
    assert heights[1] == heights[2]


def test_given_axes_are_used():
    axes = plt.subplots()[1]
    found = explanation([("a", 1.0)], [1.0])
    display = ExplanationDisplay.from_explanation(found, ax=axes)
    assert display.ax_ is axes
    assert display.plot() is display
    assert display.ax_ is not axes


def test_from_estimator_draws_what_the_function_computes():
    row = {"image": Image.new("RGB", (4, 4)), "text": "two words"}
    clf = DummyClassifier().fit(pd.DataFrame([row] * 4), [0, 1, 1, 1])
    options = {"grid": 2, "class_": 0, "measure": "probability"}
    display = ExplanationDisplay.from_estimator(clf, row, **options)
    expected = explain(clf, row, **options)
    pd.testing.assert_frame_equal(display.explanation.words, expected.words)
    pd.testing.assert_frame_equal(display.explanation.regions, expected.regions)
    assert title(display)[0] == "0: probability 0.250"
    assert len(boxes(display)) == 4


def test_what_is_no_explanation_is_refused():
    with pytest.raises(TypeError, match="what explain returns, got DataFrame"):
        ExplanationDisplay.from_explanation(pd.DataFrame())
