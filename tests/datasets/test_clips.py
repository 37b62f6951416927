"""Clips: what make_clips returns, and that both modalities say something."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robustmm.data import AudioTransform, held_audio, held_video
from robustmm.datasets import make_clips


@pytest.fixture(scope="module")
def clips():
    return make_clips(n_samples=450, n_classes=6, random_state=0)


def test_shapes_and_types(clips):
    df, y = clips
    assert list(df.columns) == ["audio", "video"]
    assert len(df) == len(y) == 450
    assert df.index.equals(y.index)
    assert y.name == "label"
    assert all(type(label) is str for label in y)
    for cell in df["audio"]:
        assert held_audio(cell)[0] == 16_000
        assert (cell[1].dtype, cell[1].shape) == (np.int16, (16_000,))
    for cell in df["video"]:
        assert held_video(cell) is cell
        assert (cell.dtype, cell.shape) == (np.uint8, (6, 32, 32, 3))


@pytest.mark.parametrize("n_classes", [2, np.int64(8)])
def test_classes_are_balanced(n_classes):
    _, y = make_clips(n_samples=25, n_classes=n_classes, random_state=0)
    counts = y.value_counts()
    assert len(counts) == n_classes
    assert counts.max() - counts.min() <= 1


def test_seeds_repeat():
    one, again, other = (make_clips(9, 3, random_state=seed) for seed in (0, 0, 1))
    pd.testing.assert_series_equal(one[1], again[1])
    for first, second in zip(one[0]["video"], again[0]["video"], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one[0]["audio"][0][1], other[0]["audio"][0][1])


@pytest.mark.parametrize(
    ("scenario", "left"),
    [("audio", (4, 10)), ("video", (10, 4)), ("both", (7, 7))],
)
def test_missing_cells_are_exact(scenario, left):
    df, _ = make_clips(10, 2, random_state=0, missing_rate=0.65, scenario=scenario)
    assert tuple(df.notna().sum()) == left
    assert df.notna().any(axis=1).all()
    assert df["audio"].isna().sum() == sum(cell is None for cell in df["audio"])


def test_missing_cells_change_no_others():
    whole, holes = make_clips(9, 3, 0), make_clips(9, 3, 0, missing_rate=1)
    pd.testing.assert_series_equal(whole[1], holes[1])
    row = holes[0]["video"].first_valid_index()
    np.testing.assert_array_equal(holes[0]["video"][row], whole[0]["video"][row])


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"n_classes": 9}, r"n_classes must be an integer in \[2, 8\], got 9"),
        ({"n_samples": 5}, "n_samples must be an integer >= 6, got 5"),
        ({"missing_rate": 1.5}, "got 1.5"),
        ({"scenario": "text"}, r"scenario must be one of \['audio', 'video', 'both'\]"),
    ],
)
def test_bad_arguments(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        make_clips(**arguments)


def test_each_modality_says_something_and_both_more(clips):
    df, y = clips
    transform = AudioTransform(n_mels=32, n_frames=98, mean=0.0, std=0.5)
    banks = np.stack([transform.read(cell) for cell in df["audio"]])
    # Few rows: what a clip is like on the whole, and how it changes.
    sound = np.concatenate([banks.mean(axis=1), banks.std(axis=1)], axis=1)
    films = np.stack(df["video"].tolist())[:, :, ::4, ::4].astype(float)
    film = np.concatenate([f.reshape(450, -1) for f in (films[:, 0], films[:, 5])], 1)

    def score(features):
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
        return head.fit(features[:300], y[:300]).score(features[300:], y[300:])

    audio, video = score(sound), score(film)
    assert min(audio, video) > 0.35  # chance is 1/6
    assert score(np.concatenate([sound, film], axis=1)) > max(audio, video)
