"""How a checkpoint wants its sound."""

import json

import pytest

from robustmm.backbones import load_backbone
from robustmm.backbones.audio_config import audio_config
from robustmm.data import AudioTransform

NAME = "audio-spectrogram-transformer"
CONFIG = {"model_type": NAME, "max_length": 46, "num_mel_bins": 28}


def test_defaults_are_the_architectures(folders):
    backbone = load_backbone(folders(NAME))
    transform = AudioTransform.from_config(backbone.audio_config)
    assert transform == AudioTransform(n_mels=28, n_frames=46)
    assert backbone.image_config is None
    assert list(backbone.inputs) == ["audio"]
    whole = audio_config({"model_type": NAME}, {})
    assert AudioTransform.from_config(whole) == AudioTransform()


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_the_checkpoints_own_settings_come_first(save_model, tmp_path, name):
    folder = save_model(NAME, tmp_path)
    before = load_backbone(folder).inputs
    own = {"mean": -1.0, "std": 2, "do_normalize": None, "feature_size": 1}
    own = own if name.startswith("pre") else {"feature_extractor": own}
    (folder / name).write_text(json.dumps(own))
    backbone = load_backbone(folder)
    assert backbone.audio_config["mean"] == -1.0
    assert backbone.audio_config["do_normalize"] is True
    assert backbone.inputs != before


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        ({"sampling_rate": 8000}, "sampling_rate must be 16000, got 8000"),
        ({"max_length": 1024}, "max_length must be 46, got 1024"),
        ({"num_mel_bins": 128}, "num_mel_bins must be 28, got 128"),
        ({"std": 0}, "std must be a positive number, got 0"),
        ({"mean": float("nan")}, "mean must be a number, got nan"),
        ({"mean": "x" * 999}, "mean must be a number, got 'xxx"),
        ({"do_normalize": "no"}, "do_normalize must be a bool, got 'no'"),
    ],
)
def test_settings_that_the_model_cannot_read(stored, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        audio_config(CONFIG, stored)
    assert len(str(caught.value)) < 200


def test_the_error_names_the_checkpoint(save_model, tmp_path):
    folder = save_model(NAME, tmp_path)
    (folder / "preprocessor_config.json").write_text('{"max_length": 7}')
    with pytest.raises(ValueError, match=r"audio settings of .* cannot be used"):
        load_backbone(folder)
