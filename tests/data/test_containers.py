"""Containers of film and sound: read by their signatures, and within bounds."""

import sys
from io import BytesIO

import numpy as np
import pytest
from media import RATE, film_bytes, shades, sound_bytes, tone

from robustmm.data import containers
from robustmm.data.containers import (
    container_format,
    count_frames,
    frames_at,
    opened_cell,
    opened_container,
    read_sound,
)
from robustmm.data.faults import BadCell

FILM = film_bytes(shades(6))


def greys(data, positions, max_pixels=10**6):
    frames = frames_at(BytesIO(data), np.array(positions), max_pixels)
    return [int(frame.mean()) for frame in frames]


@pytest.mark.parametrize(
    ("format", "codec", "name"),
    [
        ("mp4", "mpeg4", "mp4"),
        ("mov", "mpeg4", "mp4"),
        ("matroska", "mpeg4", "matroska"),
        ("webm", "vp8", "matroska"),
        ("flv", "flv", "flv"),
        ("avi", "mpeg4", "avi"),
        ("gif", "gif", "gif"),
        ("asf", "mpeg4", "asf"),
        ("mpeg", "mpeg1video", "mpeg"),
    ],
)
def test_formats(format, codec, name):
    data = film_bytes(shades(6), format, codec)
    assert container_format(BytesIO(data)) == name
    assert count_frames(BytesIO(data), 100) in (5, 6)
    assert np.all(np.diff(greys(data, [0, 2, 4])) > 20)


def test_frames_are_those_asked_for():
    wanted = shades(6)[:, 0, 0, 0].astype(int)
    np.testing.assert_allclose(greys(FILM, [1, 3, 3, 5]), wanted[[1, 3, 3, 5]], atol=4)


def test_the_last_frame_stands_for_those_that_are_not_there():
    assert greys(FILM, [5, 6, 9]) == [greys(FILM, [5])[0]] * 3


def test_too_many_frames_are_not_even_counted():
    with pytest.raises(BadCell, match="at most 5 frames, got more"):
        count_frames(BytesIO(FILM), 5)


def test_large_frames_are_refused_before_they_are_decoded():
    with pytest.raises(BadCell, match="at most 10000 pixels, got 200 x 202"):
        greys(film_bytes(shades(1, (202, 200))), [0], max_pixels=10_000)


def test_a_size_that_the_header_hides_is_found_by_the_decoder():
    # A header of FLV says no size: the first frame does.
    with pytest.raises(Exception, match=r"Invalid data|at most 10000") as caught:
        greys(film_bytes(shades(1, (202, 200)), "flv", "flv"), [0], 10_000)
    assert type(caught.value).__module__.partition(".")[0] in ("av", "robustmm")


def test_all_frames_together_are_bounded(monkeypatch):
    monkeypatch.setattr(containers, "MAX_DECODED_PIXELS", 3 * 24 * 32)
    assert len(greys(FILM, [2])) == 1
    with pytest.raises(BadCell, match="frames of 32 x 24 pixels are too many"):
        greys(FILM, [3])


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"ffconcat version 1.0\nfile other.mp4\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        bytes(100),
    ],
)
def test_playlists_and_pictures_are_never_opened(data):
    with pytest.raises(BadCell, match="not a file in a format that is read"):
        count_frames(BytesIO(data), 10)


def test_sound_of_a_film():
    data = film_bytes(shades(6), "flv", "flv", sound=(44_100, tone(0.5, 44_100)))
    rate, samples = read_sound(BytesIO(data), 10)
    assert rate == 44_100
    assert samples.dtype == np.float32
    assert 0.4 < len(samples) / rate < 0.7
    assert 0.4 < np.abs(samples).max() < 0.6
    assert len(read_sound(BytesIO(data), 0.1)[1]) == 4410


def test_a_silent_film_has_no_sound():
    assert read_sound(BytesIO(FILM), 10) is None


def test_sound_alone_is_no_film():
    data = film_bytes(shades(0), sound=(44_100, tone(0.5, 44_100)))
    with pytest.raises(BadCell, match="no video track"):
        count_frames(BytesIO(data), 10)


def test_without_pyav_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with (
        pytest.raises(ImportError, match=r'pip install "robustmm\[audio\]"'),
        opened_container(BytesIO(FILM)),
    ):
        pass


class TestOpenedCell:
    def test_bytes_and_paths(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(sound_bytes(tone(), RATE))
        with opened_cell("a.wav", tmp_path) as stream:
            data = stream.read()
        for cell in (data, bytearray(data), memoryview(data)):
            with opened_cell(cell) as stream:
                assert stream.read() == data

    @pytest.mark.parametrize(
        ("cell", "reason"),
        [
            (b"", "empty"),
            ("", "the path is an empty string"),
            ("http://127.0.0.1:9/a.mp4", "URLs are never opened"),
            ("file:///etc/passwd", "URLs are never opened"),
            ("nothing.mp4", "no such file"),
            ("/dev/zero", "not a regular file"),
            ("a\0b", "cannot be opened"),
        ],
    )
    def test_what_is_no_file(self, cell, reason):
        with pytest.raises(BadCell, match=reason), opened_cell(cell):
            pass
