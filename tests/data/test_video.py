"""Video cells: a few frames, of each kind of cell the same, and within bounds."""

import numpy as np
import pytest
import torch
from media import film_bytes, shades, tone, turned
from PIL import Image

from robustmm.data.faults import BadAudio, BadVideo
from robustmm.data.preprocess import ImageTransform
from robustmm.data.video import VideoTransform, frame_positions, sound_of

IMAGE = ImageTransform(size=(8, 12))
TRANSFORM = VideoTransform(IMAGE, n_frames=3)
FRAMES = shades(9)
MIDDLES = FRAMES[[1, 4, 7], 0, 0, 0].astype(int)


class Decoder:
    """As torchcodec's: torch tensors with the channels first."""

    def __len__(self):
        return len(FRAMES)

    def get_frame_at(self, i):
        class Frame:
            data = torch.from_numpy(FRAMES[i]).permute(2, 0, 1)

        return Frame


@pytest.fixture
def folder(tmp_path):
    for i, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"frame{i + 4}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    return tmp_path


def greys(frames):
    return frames.reshape(len(frames), -1).mean(axis=1)


@pytest.mark.parametrize(
    "cell",
    [
        FRAMES,
        list(FRAMES),
        [Image.fromarray(frame) for frame in FRAMES],
        Decoder(),
        film_bytes(FRAMES),
        {"bytes": film_bytes(FRAMES, "flv", "flv"), "path": "a.flv"},
    ],
    ids=["array", "arrays", "pictures", "decoder", "mp4", "struct"],
)
def test_cells_of_many_kinds_are_one_video(cell):
    frames = TRANSFORM(cell)
    assert frames.dtype == np.uint8
    assert frames.shape == (3, 8, 12, 3)
    np.testing.assert_allclose(greys(frames), MIDDLES, atol=4)


def test_a_folder_of_frames_in_the_order_of_their_numbers(folder):
    # Frame 10 comes after frame 9.
    np.testing.assert_array_equal(greys(TRANSFORM(folder)), MIDDLES)
    frames = TRANSFORM(folder.name, root=folder.parent)
    np.testing.assert_array_equal(greys(frames), MIDDLES)
    assert sound_of(folder) is None


def test_files_below_a_root(tmp_path):
    (tmp_path / "a.mp4").write_bytes(film_bytes(FRAMES))
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    assert TRANSFORM("a.mp4", root=tmp_path).shape == (3, 8, 12, 3)
    assert TRANSFORM(["a.png"] * 3, root=tmp_path).shape == (3, 8, 12, 3)


def test_frames_are_prepared_as_pictures_are():
    noisy = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)
    expected = np.stack([IMAGE(frame) for frame in noisy])
    np.testing.assert_array_equal(TRANSFORM(noisy), expected)


def test_films_that_lie_on_their_side_are_turned_upright():
    lying = np.zeros((3, 32, 48, 3), dtype=np.uint8)
    lying[:, :, 24:] = 200  # dark on the left, which is to be the top
    flat, upright = TRANSFORM(film_bytes(lying)), TRANSFORM(turned(film_bytes(lying)))
    assert flat[:, :, :5].max() < 60 < 150 < flat[:, :, 7:].min()
    assert upright[:, :3].max() < 60 < 150 < upright[:, 5:].min()


class TestPositions:
    @pytest.mark.parametrize(("n", "expected"), [(1, [0, 0, 0]), (2, [0, 1, 1])])
    def test_too_few_frames_are_repeated(self, n, expected):
        assert frame_positions(n, 3).tolist() == expected

    def test_the_middle_of_each_segment(self):
        assert frame_positions(9, 3).tolist() == [1, 4, 7]
        assert frame_positions(7, 1).tolist() == [3]

    @pytest.mark.parametrize("n", [1, 2, 7, 30])
    def test_one_of_each_segment_at_random(self, n):
        rng = np.random.default_rng(0)
        drawn = np.stack([frame_positions(n, 3, rng) for _ in range(300)])
        assert np.all(np.diff(drawn, axis=1) >= 0)
        # All frames get their turn, and each only in its own segment.
        assert set(drawn.ravel()) == set(range(n))
        start, stop = np.arange(3) * n / 3, np.arange(1, 4) * n / 3
        assert np.all((drawn >= np.floor(start)) & (drawn < np.ceil(stop)))

    def test_draws_repeat_with_the_generator(self):
        cell = film_bytes(shades(30))
        one, again, other = (
            TRANSFORM(cell, draw=np.random.default_rng(seed)) for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)


def test_the_key_and_the_blank():
    assert TRANSFORM.key == VideoTransform(IMAGE, max_frames=5).key
    assert TRANSFORM.key != VideoTransform(IMAGE, n_frames=2).key
    assert TRANSFORM.blank().shape == (3, 8, 12, 3)
    assert np.all(TRANSFORM.blank() == 255)


def test_frames_are_normalised_as_pictures_are():
    batch = torch.from_numpy(np.stack([TRANSFORM(FRAMES), TRANSFORM.blank()]))
    values = TRANSFORM.normalize(batch)
    assert values.shape == (2, 3, 3, 8, 12)
    torch.testing.assert_close(values[1, 2], IMAGE.normalize(batch[1, 2:])[0])


def test_frames_have_one_size():
    with pytest.raises(ValueError, match="must have one size"):
        VideoTransform(ImageTransform(shortest_edge=8))


def test_sound_of_one_file_that_fills_both_columns():
    data = film_bytes(FRAMES, sound=(44_100, tone(0.5, 44_100)))
    rate, samples = sound_of(data)
    assert rate == 44_100
    assert 0.4 < len(samples) / rate < 0.7
    assert sound_of(film_bytes(FRAMES)) is None
    assert sound_of(list(FRAMES)) is None
    with pytest.raises(BadAudio, match="cannot be decoded"):
        sound_of(data[: len(data) // 3])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (FRAMES[:0], "it has no frames"),
        ([], "it has no frames"),
        (FRAMES[0], "uint8 of shape"),
        (FRAMES.astype(float), r"\(T, H, W, 3\), got float64"),
        (FRAMES[..., :1], "uint8 of shape"),
        ([b"no picture"], "not an image"),
        (["nothing.png"], "no such file"),
        ([3.5], "no image cell has the type float"),
        (film_bytes(FRAMES)[:300], "cannot be decoded"),
        (b"", "it is empty"),
        (b"#EXTM3U\nother.mp4", "not a file in a format that is read"),
        ("http://127.0.0.1:9/a.mp4", "URLs are never opened"),
        ("nothing.mp4", "no such file"),
        ("", "the path is an empty string"),
        ("/dev/zero", "not a regular file"),
        (None, "there is no cell"),
        (3.5, "got float 3.5"),
    ],
)
def test_bad_cells_say_why(cell, reason):
    with pytest.raises(BadVideo, match=reason):
        TRANSFORM(cell)


def test_long_clips_are_refused(folder):
    short = VideoTransform(IMAGE, max_frames=8)
    for cell in (film_bytes(FRAMES), folder):
        with pytest.raises(BadVideo, match="at most 8 frames, got more"):
            short(cell)


def test_large_frames_are_refused():
    few = VideoTransform(ImageTransform(size=(8, 12), max_pixels=100))
    for cell in (film_bytes(FRAMES), list(FRAMES)):
        with pytest.raises(BadVideo, match="100 pixels, got 32 x 24"):
            few(cell)
