"""Drawn scenes: what make_scenes returns, and that both modalities say something."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robustmm.datasets import make_modified_scenes, make_scenes


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(n_samples=900, n_classes=10, random_state=0)


def pixels_of(df):
    return np.stack([np.asarray(image) for image in df["image"]])


def test_shapes_and_types(scenes):
    df, y = scenes
    assert list(df.columns) == ["image", "text"]
    assert len(df) == len(y) == 900
    assert df.index.equals(y.index)
    assert y.name == "label"
    assert pd.api.types.is_string_dtype(y)
    assert all(type(label) is str for label in y)
    assert all(type(text) is str for text in df["text"])
    assert all(isinstance(image, Image.Image) for image in df["image"])
    assert {(image.mode, image.size) for image in df["image"]} == {("RGB", (64, 64))}


def test_captions_are_short_sentences(scenes):
    texts = scenes[0]["text"]
    assert texts.str.split().str.len().between(7, 25).all()
    assert texts.str.match(r"[A-Z].*\.$").all()
    assert texts.nunique() > 800


def test_captions_never_name_a_class(scenes):
    df, y = scenes
    for place in set(y):
        assert not df["text"].str.lower().str.contains(place).any()


@pytest.mark.parametrize("n_classes", [2, 6, 10, np.int64(3)])
def test_classes_are_balanced(n_classes):
    _, y = make_scenes(n_samples=25, n_classes=n_classes, random_state=0)
    counts = y.value_counts()
    assert len(counts) == n_classes
    assert counts.max() - counts.min() <= 1


def test_fewer_classes_are_the_first_ones():
    six = make_scenes(n_samples=6, n_classes=6, random_state=0)[1]
    ten = make_scenes(n_samples=10, n_classes=10, random_state=0)[1]
    assert set(six) < set(ten)


def test_an_int_gives_the_same_rows():
    first, again = (make_scenes(30, random_state=3) for _ in range(2))
    other = make_scenes(30, random_state=4)
    pd.testing.assert_series_equal(first[1], again[1])
    pd.testing.assert_series_equal(first[0]["text"], again[0]["text"])
    np.testing.assert_array_equal(pixels_of(first[0]), pixels_of(again[0]))
    assert not first[0]["text"].equals(other[0]["text"])


def test_none_gives_new_rows():
    first, other = (make_scenes(30)[0]["text"] for _ in range(2))
    assert not first.equals(other)


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_a_generator_moves_on(kind):
    rng = kind(0)
    first, second = (make_scenes(20, random_state=rng)[0]["text"] for _ in range(2))
    again = make_scenes(20, random_state=kind(0))[0]["text"]
    assert first.equals(again)
    assert not first.equals(second)


@pytest.mark.parametrize("random_state", [None, 0])
def test_global_generators_are_untouched(random_state):
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    make_scenes(12, random_state=random_state)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1][1])
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("n_classes", [0, 1, 11, -3, 2.0, "six", None, True])
def test_wrong_number_of_classes(n_classes):
    with pytest.raises(ValueError, match=r"n_classes .* in \[2, 10\], got "):
        make_scenes(20, n_classes=n_classes)


@pytest.mark.parametrize("n_samples", [5, 0, -1, 20.0, None])
def test_wrong_number_of_samples(n_samples):
    with pytest.raises(ValueError, match=r"n_samples .* >= 6, got "):
        make_scenes(n_samples, n_classes=6)


def test_each_modality_says_something(scenes):
    df, y = scenes
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=500))
    words.fit(df["text"][:600], y[:600])
    assert words.score(df["text"][600:], y[600:]) > 0.3  # chance: 0.1
    # Mean colours of a grid of 4 x 4 blocks.
    blocks = pixels_of(df).reshape(900, 4, 16, 4, 16, 3).mean((2, 4)).reshape(900, -1)
    colours = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    colours.fit(blocks[:600], y[:600])
    assert colours.score(blocks[600:], y[600:]) > 0.3


def test_no_modality_says_everything(scenes):
    df, y = scenes
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=500))
    words.fit(df["text"][:600], y[:600])
    assert words.score(df["text"][600:], y[600:]) < 0.9


def test_modified_scenes_are_pairs_and_say_what_changes():
    queries, gallery = make_modified_scenes(30, random_state=3)
    assert list(queries) == ["image", "text", "reference", "target"]
    assert len(gallery) == 60
    assert gallery.index.is_unique
    assert set(queries["reference"]) | set(queries["target"]) == set(gallery.index)
    assert all(gallery[r] is i for r, i in queries[["reference", "image"]].to_numpy())
    starts = [text.split()[0] for text in queries["text"]]
    assert set(starts) == {"The", "There"}
    again, _ = make_modified_scenes(30, random_state=3)
    assert again["text"].equals(queries["text"])
    other, _ = make_modified_scenes(30, random_state=4)
    assert not other["text"].equals(queries["text"])
    with pytest.raises(ValueError, match="n_queries must be an integer >= 1, got 0"):
        make_modified_scenes(0)
