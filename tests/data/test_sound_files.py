"""Files of sound, with soundfile and without."""

import sys
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from media import RATE, sound_bytes, tone
from scipy.io import wavfile

from robustmm.data.containers import MAX_CHANNELS
from robustmm.data.faults import BadCell
from robustmm.data.sound_files import is_sound_file, mono, read_sound_file


@pytest.fixture
def no_soundfile(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)


@pytest.mark.parametrize(
    ("format", "subtype", "atol"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0),
        ("FLAC", None, 1e-4),
        ("AIFF", None, 1e-4),
        ("OGG", "VORBIS", 0.1),
        ("MP3", None, 0.2),
    ],
)
def test_formats(format, subtype, atol):
    data = sound_bytes(tone(), format=format, subtype=subtype)
    assert is_sound_file(data[:16])
    rate, samples = read_sound_file(BytesIO(data), 10)
    assert rate == RATE
    assert samples.dtype == np.float32
    if format != "MP3":  # whose encoder adds silence at both ends
        np.testing.assert_allclose(samples, tone(), atol=atol, rtol=0)
    assert abs(np.abs(samples).max() - 0.5) < 0.1


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT"])
def test_wav_needs_no_soundfile(no_soundfile, subtype):
    data = sound_bytes_with_both(subtype)
    rate, samples = read_sound_file(BytesIO(data), 0.25)
    assert rate == RATE
    np.testing.assert_allclose(samples, tone(0.25), atol=1e-2, rtol=0)


def sound_bytes_with_both(subtype):
    kept = sys.modules.pop("soundfile")
    try:
        return sound_bytes(tone(), subtype=subtype)
    finally:
        sys.modules["soundfile"] = kept


def test_both_readers_agree(no_soundfile):
    stereo = np.stack([tone(), tone(pitch=660)], axis=1)
    stream = BytesIO()
    wavfile.write(stream, RATE, (stereo * 32767).astype(np.int16))
    plain = read_sound_file(BytesIO(stream.getvalue()), 10)[1]
    del sys.modules["soundfile"]
    np.testing.assert_allclose(
        plain, read_sound_file(BytesIO(stream.getvalue()), 10)[1], atol=1e-7
    )


def test_other_formats_say_what_to_install(no_soundfile):
    with pytest.raises(ImportError, match=r'pip install "robustmm\[audio\]"'):
        read_sound_file(BytesIO(b"fLaC" + bytes(99)), 10)


def test_channels_are_averaged():
    stereo = np.stack([tone(), -tone() / 2], axis=1)
    samples = read_sound_file(BytesIO(sound_bytes(stereo, subtype="FLOAT")), 10)[1]
    np.testing.assert_allclose(samples, tone() / 4, atol=1e-7)


def test_an_hour_is_read_for_as_long_as_it_is_wanted():
    data = sound_bytes(np.zeros(3600 * RATE, dtype=np.float32), format="FLAC")
    assert len(data) < 10**6
    assert len(read_sound_file(BytesIO(data), 2.5)[1]) == 2.5 * RATE


def test_many_channels_are_refused():
    data = sound_bytes(np.zeros((9, MAX_CHANNELS + 1), dtype=np.float32))
    with pytest.raises(BadCell, match="1 to 16 channels, got 17"):
        read_sound_file(BytesIO(data), 1)


@pytest.mark.parametrize("rate", [999, 192_001])
def test_rates_out_of_bounds_are_refused(rate):
    with pytest.raises(BadCell, match=f"samples a second, got {rate}"):
        read_sound_file(BytesIO(sound_bytes(tone(), rate)), 1)


@pytest.mark.parametrize(
    "head", [b"", b"RIFF1234AVI ", b"\x89PNG", b"ftyp", b"#EXTM3U", b"\xff\x00"]
)
def test_what_is_no_sound_file(head):
    assert not is_sound_file(head)


class TestMono:
    def test_scales_integers_as_files_do(self):
        for dtype, low, high in (
            (np.int16, -(2**15), 2**15 - 1),
            (np.int32, -(2**31), 2**31 - 1),
            (np.uint8, 0, 255),
        ):
            values = mono(8000, np.array([low, high], dtype=dtype), 1)
            np.testing.assert_allclose(values, [-1, 1], atol=1e-2)
        assert mono(8000, np.array([128], dtype=np.uint8), 1) == 0

    def test_the_shorter_axis_is_that_of_channels(self):
        stereo = np.stack([tone(), np.zeros_like(tone())])
        first, last = mono(RATE, stereo, 1), mono(RATE, stereo.T, 1)
        np.testing.assert_array_equal(first, last)
        np.testing.assert_allclose(first, tone() / 2, atol=1e-7)

    def test_an_endless_array_is_cut_before_it_is_copied(self):
        endless = np.broadcast_to(np.float32(0), 10**12)
        assert len(mono(8000, endless, 2)) == 16000

    def test_other_numbers_are_refused(self):
        with pytest.raises(BadCell, match="must be floats or"):
            mono(8000, np.zeros(3, dtype=np.int64), 1)


def test_damaged_headers_make_no_noise(capfd):
    # An offset of all ones leads to a place in front of the file.
    data = sound_bytes(tone(), format="AIFF")
    for place in range(35, 39):
        harmed = data[:place] + b"\xff" * 4 + data[place + 4 :]
        with suppress(RuntimeError, BadCell):
            read_sound_file(BytesIO(harmed), 1)
    assert capfd.readouterr().err == ""
