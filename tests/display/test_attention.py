"""Attention maps lie on the row's own picture and words."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, small
from matplotlib.patches import Rectangle

from robustmm import AttentionMapDisplay, CMPTClassifier, MAILClassifier
from robustmm.data import ImageTransform

X, Y = frame_with_holes()
PATTERN = {
    "complete": X.notna().all(axis=1),
    "image": X["image"].notna() & X["text"].isna(),
    "text": X["image"].isna() & X["text"].notna(),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    return small(CMPTClassifier).fit(X, Y)


def one(pattern):
    return X[PATTERN[pattern]].iloc[[0]]


def text_maps(words=("red", "kite"), class_token=(0.3, 0.4), proxy=(0.1, 0.8)):
    parts = [
        pd.DataFrame({"token": token, "word": words, "attention": values})
        for token, values in (("class", class_token), ("proxy", proxy))
    ]
    maps = pd.concat(parts, ignore_index=True)
    return maps.assign(row=0, modality="text", y=None, x=None)


def written(ax):
    return [text.get_text() for text in ax.texts]


def boxes(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def test_a_complete_row_has_its_picture_two_maps_and_its_words_twice(fitted):
    row = one("complete")
    display = AttentionMapDisplay.from_estimator(fitted, row)
    maps = fitted.attention_maps(row)
    transform = ImageTransform.from_config(
        fitted.net_.module_.backbone.image_config, fitted.max_pixels
    )
    drawn = display.axes_["image", None].images[0].get_array()
    np.testing.assert_array_equal(drawn, transform(row["image"].iloc[0]))
    for token in ("class", "proxy"):
        part = maps[maps["token"] == token]
        image = display.axes_["image", token].images[-1]
        expected = part[part["modality"] == "image"]["attention"].to_numpy()
        np.testing.assert_array_equal(image.get_array().ravel(), expected)
        texts = written(display.axes_["text", token])
        assert texts == part[part["modality"] == "text"]["word"].tolist()


def test_both_tokens_share_a_scale_that_begins_at_zero(fitted):
    row = one("complete")
    display = AttentionMapDisplay.from_estimator(fitted, row)
    maps = fitted.attention_maps(row)
    most = maps[maps["modality"] == "image"]["attention"].max()
    for token in ("class", "proxy"):
        image = display.axes_["image", token].images[-1]
        assert image.get_clim() == (0, most)
        height, width = display.picture.shape[:2]
        assert image.get_extent() == [-0.5, width - 0.5, height - 0.5, -0.5]


@pytest.mark.parametrize(("there", "missing"), [("image", "text"), ("text", "image")])
def test_a_missing_modality_is_said(fitted, there, missing):
    display = AttentionMapDisplay.from_estimator(fitted, one(there))
    assert written(display.axes_[missing, None]) == [f"The {missing} is missing."]
    assert {(there, "class"), (there, "proxy")} <= set(display.axes_)
    assert (missing, "class") not in display.axes_


def test_titles_say_how_much_is_shown():
    display = AttentionMapDisplay(text_maps()).plot()
    titles = [ax.get_title(loc="left") for ax in list(display.axes_.values())[1:]]
    assert titles == [
        "class token: 70% on the words, at most 40% each",
        "proxy token: 90% on the words, at most 80% each",
    ]


def test_words_are_the_darker_the_more_they_are_attended_to():
    display = AttentionMapDisplay(text_maps()).plot()
    faces = [
        sum(box.get_facecolor()[:3])
        for token in ("class", "proxy")
        for box in boxes(display.axes_["text", token])
    ]
    assert np.argsort(faces).tolist() == [3, 1, 0, 2]
    colours = [text.get_color() for text in display.axes_["text", "proxy"].texts]
    assert colours == ["black", "white"]


def test_long_texts_are_wrapped_into_the_width():
    words = ["word"] * 90 + ["x" * 500, "\u732b" * 90]
    shares = np.full(len(words), 1 / len(words))
    display = AttentionMapDisplay(text_maps(words, shares, shares)).plot()
    ax = display.axes_["text", "class"]
    right = ax.get_xlim()[1]
    ends = [box.get_x() + box.get_width() for box in boxes(ax)]
    assert max(ends) <= right
    assert len({box.get_y() for box in boxes(ax)}) > 5
    assert sum(text.endswith("\u2026") for text in written(ax)) == 2


def test_a_dollar_is_no_formula():
    display = AttentionMapDisplay(text_maps(("$x", "_y$"))).plot()
    display.figure_.canvas.draw()
    texts = display.axes_["text", "class"].texts
    assert not any(text.get_parse_math() for text in texts)


def test_draws_into_the_figure_it_is_given(fitted):
    figure = plt.figure(figsize=(5, 4))
    display = AttentionMapDisplay.from_estimator(fitted, one("complete"), figure=figure)
    assert display.figure_ is figure
    assert figure.get_size_inches().tolist() == [5, 4]
    part = plt.figure().subfigures(1, 2)[0]
    assert display.plot(figure=part).figure_ is part


def test_one_row_may_be_a_frame_a_series_or_a_dict(fitted):
    row = one("complete")
    found = [
        AttentionMapDisplay.from_estimator(fitted, given, layer=0).maps["attention"]
        for given in (row, row.iloc[0], row.iloc[0].to_dict())
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    last = AttentionMapDisplay.from_estimator(fitted, row).maps["attention"]
    assert not np.allclose(last, found[0])


def test_without_proxies_the_class_token_stands_alone():
    plain = small(CMPTClassifier, use_proxy=False).fit(X, Y)
    display = AttentionMapDisplay.from_estimator(plain, one("complete"))
    assert {token for _, token in display.axes_} == {None, "class"}


def test_unusable_arguments_are_named(fitted):
    draw = AttentionMapDisplay.from_estimator
    with pytest.raises(TypeError, match=r"class and proxy .* got MAILClassifier"):
        draw(MAILClassifier(), one("complete"))
    with pytest.raises(ValueError, match=r"row must be one row.* got 3 rows"):
        draw(fitted, X.iloc[:3])
    nothing = one("complete").assign(image=None, text=None)
    with (
        pytest.warns(UserWarning, match="neither image nor text"),
        pytest.raises(ValueError, match="must have an image or a text"),
    ):
        draw(fitted, nothing)
    with pytest.raises(ValueError, match=r"layer must be in \[-4, 3\], got 4"):
        draw(fitted, one("complete"), layer=4)
    both = pd.concat([text_maps(), text_maps().assign(row=1)])
    for maps in (both, text_maps().iloc[:0], text_maps().drop(columns="word")):
        with pytest.raises(ValueError, match="maps must be of one row"):
            AttentionMapDisplay(maps).plot()
