"""Axes, colours and numbers that all pictures share."""

import inspect
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from robustmm import display
from robustmm.display._axes import (
    COLOURS,
    cell_axes,
    colours,
    plain_axes,
    text_colour,
    write_numbers,
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def heat_map(values, **options):
    return cell_axes(np.shape(values)).imshow(values, cmap="gray", **options)


# Axes -------------------------------------------------------------------------------


def test_a_figure_grows_with_its_cells():
    shapes = (2, 2), (2, 20), (20, 2)
    sizes = [cell_axes(shape).figure.get_size_inches() for shape in shapes]
    small, wide, tall = sizes
    assert wide[0] - small[0] == pytest.approx(18 * 0.22)
    assert wide[1] == small[1]
    assert tall[1] - small[1] == pytest.approx(18 * 0.17)
    assert tall[0] == small[0]


def test_each_call_opens_a_figure_of_its_own():
    first, second = plain_axes(3, 2), plain_axes(3, 2, "polar")
    assert first.figure is not second.figure
    assert first.figure.get_size_inches().tolist() == [3, 2]
    assert (first.name, second.name) == ("rectilinear", "polar")


# Colours ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 8, 9, 20, 21, 60])
def test_there_are_as_many_different_colours_as_are_asked_for(n):
    found = [to_rgb(colour) for colour in colours(n)]
    assert len(found) == len(set(found)) == n


def test_few_lines_have_colours_that_the_colour_blind_can_tell_apart():
    assert list(colours(3)) == list(COLOURS[:3])
    # What is hard to see on white is drawn for eight lines only.
    assert COLOURS[-1] not in colours(7)


def test_text_can_be_read_on_its_colour():
    image = heat_map([[0.0, 1.0]], vmin=0, vmax=1)
    assert [text_colour(image, v) for v in (0, 0.3, 0.8, 1)] == [
        "white",
        "white",
        "black",
        "black",
    ]


def test_green_is_brighter_than_blue():
    image = plain_axes(2, 2).imshow(
        [[0, 1]], cmap=matplotlib.colors.ListedColormap(["#0000FF", "#00FF00"])
    )
    assert (text_colour(image, 0), text_colour(image, 1)) == ("white", "black")


# Numbers ----------------------------------------------------------------------------


def test_numbers_stand_in_their_cells_and_nan_is_left_out():
    values = np.array([[0.125, np.nan, 1.0], [0.5, 0.0, np.nan]])
    image = heat_map(values, vmin=0, vmax=1)
    write_numbers(image, values, "accuracy")
    written = {text.get_position(): text.get_text() for text in image.axes.texts}
    assert written == {(0, 0): "0.12", (2, 0): "1.00", (0, 1): "0.50", (1, 1): "0.00"}
    colour = {text.get_text(): text.get_color() for text in image.axes.texts}
    assert (colour["1.00"], colour["0.00"]) == ("black", "white")


def test_the_colour_bar_is_named_and_the_frame_is_gone():
    image = heat_map(np.zeros((2, 2)))
    write_numbers(image, np.zeros((2, 2)), "F1")
    assert image.colorbar.ax.get_ylabel() == "F1"
    assert not any(spine.get_visible() for spine in image.axes.spines.values())


def test_a_map_of_nothing_has_no_numbers():
    values = np.full((2, 2), np.nan)
    image = heat_map(values, vmin=0, vmax=1)
    write_numbers(image, values, "F1")
    assert not image.axes.texts


# Without matplotlib -----------------------------------------------------------------


DRAWN = [n for n, c in vars(display).items() if hasattr(c, "from_estimator")]


def test_displays_are_drawn_but_for_rows():
    displays = {n for n in vars(display) if n.endswith("Display")}
    assert displays - set(DRAWN) == {"RowsDisplay"}  # HTML


@pytest.mark.parametrize("name", DRAWN)
def test_a_display_says_what_to_install_before_it_computes(name, monkeypatch):
    cls = getattr(display, name)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    taken = inspect.signature(cls.from_estimator).parameters.values()
    given = [p for p in taken if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    with pytest.raises(ImportError, match=r'pip install "robustmm\[plot\]"'):
        cls.from_estimator(**{p.name: object() for p in given})


def test_new_axes_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for make in (lambda: cell_axes((1, 1)), lambda: plain_axes(1, 1)):
        with pytest.raises(ImportError, match="A display needs matplotlib"):
            make()
