"""What audio and video cells may be, and what a table keeps of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robustmm.data.cells import held_audio, held_video, is_null

SOUND = np.zeros(4, dtype=np.float32)
FRAMES = np.zeros((2, 4, 4, 3), dtype=np.uint8)


class SoundDecoder:
    """As torchcodec's."""

    def get_samples_played_in_range(self, start, stop):
        raise AssertionError("held, not read")


class FrameDecoder:
    """As torchcodec's."""

    def __len__(self):
        return 3

    def get_frame_at(self, i):
        raise AssertionError("held, not read")


@pytest.mark.parametrize("cell", [None, np.nan, pd.NA, pd.NaT])
def test_missing_cells_are_none(cell):
    assert is_null(cell)
    assert held_audio(cell) is None
    assert held_video(cell) is None


@pytest.mark.parametrize("held", [held_audio, held_video])
class TestFiles:
    @pytest.mark.parametrize(
        "cell", ["a.wav", Path("a.wav"), b"x", bytearray(b"x"), ""]
    )
    def test_paths_and_bytes_stay(self, held, cell):
        assert held(cell) is cell

    def test_a_dict_of_arrow_gives_what_it_holds(self, held):
        assert held({"bytes": b"x", "path": "a.wav"}) == b"x"
        assert held({"bytes": None, "path": "a.wav"}) == "a.wav"
        assert held({"bytes": None, "path": None}) is None

    @pytest.mark.parametrize(
        "cell", [{"bytes": "a.wav"}, {"path": 3}, {}, {"a": 1}, {"bytes": b"", "x": 1}]
    )
    def test_other_dicts_are_refused(self, held, cell):
        with pytest.raises(ValueError, match="cell must be a path"):
            held(cell)

    @pytest.mark.parametrize("cell", [3.5, True, object(), {1, 2}, str])
    def test_other_types_are_refused_by_name(self, held, cell):
        with pytest.raises(ValueError, match=f"got {type(cell).__name__} "):
            held(cell)


@pytest.mark.parametrize("rate", [8000, 8000.0, np.int64(8000), np.float32(8000)])
@pytest.mark.parametrize(
    "form",
    [
        lambda rate: (rate, SOUND),
        lambda rate: [rate, SOUND.tolist()],
        lambda rate: {"array": SOUND, "sampling_rate": rate},
        lambda rate: {"raw": SOUND, "sampling_rate": rate},
        lambda rate: {"array": SOUND, "sampling_rate": rate, "path": "a.wav"},
        lambda rate: (rate, torch.zeros(4)),
    ],
)
def test_samples_come_with_a_whole_rate(rate, form):
    found, samples = held_audio(form(rate))
    assert found == 8000
    assert type(found) is int
    np.testing.assert_array_equal(samples, SOUND)


def test_channels_from_arrow_are_stacked():
    channels = np.empty(2, dtype=object)
    channels[:] = [SOUND, SOUND]
    assert held_audio((8000, channels))[1].shape == (2, 4)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "float64", "float16"])
def test_kinds_of_samples_in_files(dtype):
    assert held_audio((8000, SOUND.astype(dtype)))[1].dtype == dtype


@pytest.mark.parametrize("cell", [SOUND, SOUND.tolist(), torch.zeros(9), (1.0,) * 5])
def test_samples_alone_ask_for_their_rate(cell):
    with pytest.raises(ValueError, match="needs their rate"):
        held_audio(cell)


def test_the_reversed_pair_is_recognised():
    with pytest.raises(ValueError, match=r"the rate first; got \(ndarray, int\)"):
        held_audio((SOUND, 8000))


@pytest.mark.parametrize("rate", [0, -8000, 0.5, np.nan, np.inf, "8000", None, True])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match="rate of an audio cell"):
        held_audio((rate, SOUND))


@pytest.mark.parametrize(
    "samples",
    [SOUND.astype(int), np.zeros((1, 2, 3)), np.float32(1), ["a"], [[1.0], []]],
)
def test_samples_that_are_none(samples):
    with pytest.raises(ValueError, match="samples of an audio cell"):
        held_audio((8000, samples))


def test_videos_of_many_kinds_are_kept():
    assert held_video(FRAMES) is FRAMES
    assert held_video(("a.png", FRAMES[0]))[0] == "a.png"
    listed = np.empty(2, dtype=object)
    listed[:] = [b"1", b"2"]
    assert held_video(listed) == [b"1", b"2"]


def test_decoders_are_kept_unread():
    sound, film = SoundDecoder(), FrameDecoder()
    assert held_audio(sound) is sound
    assert held_video(film) is film
    with pytest.raises(ValueError, match="SoundDecoder"):
        held_video(sound)


def test_a_long_cell_makes_no_long_message():
    with pytest.raises(ValueError, match="audio cell") as caught:
        held_audio({str(i): 0 for i in range(10**5)})
    assert len(str(caught.value)) < 500
