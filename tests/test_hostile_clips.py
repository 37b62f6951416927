"""Damaged files of sound and film end in a result or in one named error."""

import resource
import time

import numpy as np
import pytest
from media import film_bytes, shades, sound_bytes, tone

from robustmm.data import BadCell, ImageTransform, VideoTransform, decode_audio

VIDEO = VideoTransform(ImageTransform(size=(8, 8), max_pixels=10**6))
SECONDS, BYTES = 20, 2**30
QUICK = 60


@pytest.fixture(scope="module")
def files():
    sound = 44_100, tone(0.3, 44_100)
    return [
        sound_bytes(tone()),
        sound_bytes(tone(), subtype="FLOAT"),
        sound_bytes(tone(), format="FLAC"),
        sound_bytes(tone(), format="OGG"),
        sound_bytes(tone(), format="MP3"),
        sound_bytes(tone(), format="AIFF"),
        film_bytes(shades(5), sound=sound),
        film_bytes(shades(5), "flv", "flv", sound=sound),
        film_bytes(shades(5), "avi"),
        film_bytes(shades(5), "matroska", sound=sound),
        film_bytes(shades(5), "webm", "vp8"),
        film_bytes(shades(5), "gif", "gif"),
    ]


def damaged(data, rng):
    """Change a file in one of the ways in which files come to harm."""
    data = bytearray(data)
    kind = rng.integers(5)
    # Headers decide more than what follows.
    end = len(data) if rng.random() < 0.5 else min(len(data), 200)
    if kind == 0:  # bytes at random
        for place in rng.integers(end, size=rng.integers(1, 20)):
            data[place] = rng.integers(256)
    elif kind == 1:  # numbers as large as can be, sizes and counts among them
        for place in rng.integers(end, size=rng.integers(1, 4)):
            data[place : place + 4] = bytes(rng.choice([0x00, 0x7F, 0xFF], 4))
    elif kind == 2:  # an end that is missing
        del data[rng.integers(1, len(data)) :]
    elif kind == 3:  # a piece that is missing, or that is there twice
        start = rng.integers(end)
        piece = data[start : start + rng.integers(1, 64)]
        data[start : start + len(piece)] = piece * rng.integers(0, 3)
    else:  # a beginning of another kind
        data[: rng.integers(1, 16)] = rng.bytes(rng.integers(1, 16))
    return bytes(data)


def outcome(read, cell):
    start = time.perf_counter()
    found, reason = None, "read"
    try:
        found = read(cell)
    except BadCell as error:
        reason = str(error)
    assert 0 < len(reason) < 600
    assert time.perf_counter() - start < SECONDS
    return found


def check(files, numbers):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for number in numbers:
        rng = np.random.default_rng(number)
        cell = damaged(files[number % len(files)], rng)
        sound, frames = outcome(decode_audio, cell), outcome(VIDEO, cell)
        if sound is not None:
            assert np.isfinite(sound).all()
            assert 0 < len(sound) <= 60 * 16_000
        if frames is not None:
            assert frames.shape == (3, 8, 8, 3)
        read += sound is not None or frames is not None
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < BYTES
    return read


def test_some_damaged_cells(files):
    # Some damage is none, and the checks are no good if all cells are bad.
    assert 0 < check(files, range(QUICK)) < QUICK


@pytest.mark.slow
def test_a_thousand_damaged_cells(files):
    assert 0 < check(files, range(QUICK, 1000 + QUICK)) < 1000


def test_files_under_other_names_are_what_they_are(files, tmp_path):
    for number, data in enumerate(files):
        path = tmp_path / f"{number}.m3u8"
        path.write_bytes(data)
        assert outcome(decode_audio, path) is not None or number in (8, 10, 11)


def test_no_server_is_asked_and_no_other_file_opened(monkeypatch, tmp_path):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a server was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "secret.mp4").write_bytes(film_bytes(shades(3)))
    playlist = f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n"
    for text in (playlist, concat, "http://127.0.0.1:9/a.mp4", "concat:a|b"):
        path = tmp_path / "a.mp4"
        path.write_text(text)
        for cell in (path, text, text.encode()):
            with pytest.raises(BadCell):
                VIDEO(cell)
            with pytest.raises(BadCell):
                decode_audio(cell)
