"""Audio cells: decoded, bounded, and the same filter bank as transformers'."""

import sys

import numpy as np
import pytest
from media import RATE, film_bytes, shades, sound_bytes, tone
from transformers import ASTFeatureExtractor
from transformers.models.audio_spectrogram_transformer import (
    feature_extraction_audio_spectrogram_transformer as theirs,
)

from robustmm.data.audio import AudioTransform, decode_audio, mel_filters
from robustmm.data.faults import BadAudio, BadCell


class Decoder:
    """As torchcodec's: torch-like samples with the channels first."""

    class Samples:
        sample_rate = RATE
        data = np.stack([tone(), np.zeros_like(tone())])

    def get_samples_played_in_range(self, start, stop):
        self.asked = start, stop
        return self.Samples


class Mapped:
    """As Hugging Face's around it, seen by its keys alone."""

    def __getitem__(self, key):
        return {"array": tone(), "sampling_rate": RATE}[key]


@pytest.fixture
def their_numpy(monkeypatch):
    """Have transformers take the path that needs no torchaudio."""
    monkeypatch.setattr(theirs, "is_speech_available", lambda: False)


SOUNDS = {
    "tone": tone(1.0, 16_000),
    "noise": np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32),
    "silence": np.zeros(5_000, dtype=np.float32),
    "shortest": tone(0.025, 16_000),
    "off centre": tone(0.4, 16_000) + np.float32(0.3),
}


# Theirs says so of the filter that is empty.
@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize(("n_mels", "n_frames"), [(128, 1024), (64, 128), (64, 20)])
def test_equals_the_feature_extractor(their_numpy, name, n_mels, n_frames):
    extract = ASTFeatureExtractor(num_mel_bins=n_mels, max_length=n_frames)
    expected = extract(SOUNDS[name], sampling_rate=16_000, return_tensors="np")
    ours = AudioTransform(n_mels=n_mels, n_frames=n_frames)(SOUNDS[name])
    assert ours.dtype == np.float32
    assert ours.shape == (n_frames, n_mels)
    np.testing.assert_allclose(ours, expected["input_values"][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("do_normalize", [True, False])
def test_is_made_from_an_extractors_settings(their_numpy, do_normalize):
    extract = ASTFeatureExtractor(
        num_mel_bins=32, max_length=50, mean=-3.0, std=2.0, do_normalize=do_normalize
    )
    ours = AudioTransform.from_config(extract.to_dict())(SOUNDS["noise"])
    expected = extract(SOUNDS["noise"], sampling_rate=16_000)["input_values"][0]
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


def test_incomplete_settings_are_named():
    with pytest.raises(ValueError, match=r"\['max_length', 'std'\] are left out"):
        AudioTransform.from_config(
            {"sampling_rate": 1, "num_mel_bins": 1, "do_normalize": True, "mean": 0.0}
        )


def test_facts_of_the_bank():
    transform = AudioTransform()
    assert round(transform.seconds, 3) == 10.255
    padding, silence = transform(SOUNDS["silence"])[[-1, 0], 5]
    assert (round(float(padding), 3), round(float(silence), 3)) == (0.467, -1.278)
    # The paper's own bank has a filter between two frequencies.
    assert not mel_filters(16_000, 128)[:, 3].any()
    np.testing.assert_array_equal(transform.blank()[0], padding)


def test_a_key_tells_transforms_apart():
    assert AudioTransform().key == AudioTransform(n_mels=128).key
    assert AudioTransform().key != AudioTransform(mean=0.0).key


@pytest.mark.parametrize(
    "cell",
    [
        (RATE, tone()),
        (RATE, (tone() * 32767).astype(np.int16)),
        {"array": np.stack([tone(), tone()]), "sampling_rate": RATE},
        {"bytes": sound_bytes(tone()), "path": None},
        sound_bytes(tone(), format="FLAC"),
        Mapped(),
    ],
    ids=["floats", "int16", "channels", "struct", "flac", "mapped"],
)
def test_cells_of_many_kinds_are_one_sound(cell):
    samples = decode_audio(cell)
    assert samples.dtype == np.float32
    assert samples.shape == (8000,)
    np.testing.assert_allclose(samples, tone(0.5, 16_000), atol=0.02, rtol=0)


def test_paths_start_from_a_root(tmp_path):
    (tmp_path / "a.wav").write_bytes(sound_bytes(tone()))
    assert decode_audio("a.wav", root=tmp_path).shape == (8000,)
    assert decode_audio(tmp_path / "a.wav").shape == (8000,)


def test_decoders_are_asked_for_as_much_as_is_read():
    decoder = Decoder()
    np.testing.assert_allclose(
        decode_audio(decoder, max_seconds=3), tone(0.5, 16_000) / 2, atol=0.02
    )
    assert decoder.asked == (0, 3)


def test_sound_at_the_rate_is_not_resampled():
    np.testing.assert_array_equal(
        decode_audio((16_000, SOUNDS["tone"])), SOUNDS["tone"]
    )


def test_seconds_are_bounded():
    assert decode_audio((RATE, tone(3)), max_seconds=1).shape == (16_000,)
    assert decode_audio(sound_bytes(tone(3)), max_seconds=0.5).shape == (8000,)
    transform = AudioTransform(n_mels=16, n_frames=10)
    hour = np.broadcast_to(np.float32(0.5), 3600 * RATE)
    np.testing.assert_array_equal(
        transform.read((RATE, hour)), transform.read((RATE, hour[:RATE]))
    )


@pytest.mark.parametrize("rate", [8000, 44_100, 47_999])
def test_no_more_is_decoded_than_is_looked_at(rate):
    transform = AudioTransform(n_mels=16, n_frames=30)
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    np.testing.assert_array_equal(
        transform.read((rate, sound)), transform(decode_audio((rate, sound)))
    )


def test_the_sound_of_a_film():
    data = film_bytes(shades(3), "flv", "flv", sound=(44_100, tone(0.5, 44_100)))
    assert 0.4 < np.abs(decode_audio(data)).max() < 0.6


def test_a_silent_film_has_a_missing_sound_and_no_bad_one():
    assert decode_audio(film_bytes(shades(3))) is None
    assert AudioTransform().read(film_bytes(shades(3))) is None


NAN = tone().copy()
NAN[7] = np.nan


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ((RATE, tone()[:0]), "has no samples"),
        ((RATE, NAN), "not all finite"),
        ((RATE, tone() * 32768), "divide those of 16-bit sound"),
        ((500, tone()), "1000 to 192000 samples a second, got 500"),
        ((RATE, np.zeros((99, 40), dtype=np.float32)), "1 to 16 channels, got 40"),
        (sound_bytes(tone())[:20], "cannot be decoded"),
        (sound_bytes(tone()[:0]), "has no samples"),
        (b"", "it is empty"),
        (b"no sound at all, but a text", "not sound in a format that is read"),
        ("http://127.0.0.1:9/a.wav", "URLs are never opened"),
        ("data:audio/wav;base64,UklGRg==", "URLs are never opened"),
        ("nothing.wav", "no such file: .*image_root is not set"),
        (None, "there is no cell"),
        (tone(), "^An audio cell of samples needs their rate"),
        (3.5, "got float 3.5$"),
    ],
)
def test_bad_cells_say_why(cell, reason):
    with pytest.raises(BadAudio, match=reason) as caught:
        decode_audio(cell)
    assert isinstance(caught.value, BadCell)


def test_too_little_sound_for_one_window_is_bad():
    with pytest.raises(BadAudio, match="at least 400 samples at 16000"):
        AudioTransform().read((16_000, tone(0.02, 16_000)))
    with pytest.raises(BadAudio, match="at least 400 samples"):
        AudioTransform()(np.zeros((2, 16_000)))
    with pytest.raises(BadAudio, match="not all finite"):
        AudioTransform()(NAN)


def test_a_missing_library_is_no_fault_of_the_cell(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert decode_audio((RATE, tone())).shape == (8000,)
    with pytest.raises(ImportError, match="soundfile: pip install"):
        decode_audio(b"fLaC" + bytes(99))


def test_somebodys_time_limit_passes():
    class Slow(Mapped):
        def __getitem__(self, key):
            raise TimeoutError("of a task queue")

    with pytest.raises(TimeoutError):
        decode_audio(Slow())
