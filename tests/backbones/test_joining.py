"""Encoders of several checkpoints as one backbone."""

import pytest
import torch

from robustmm.backbones import load_backbone
from robustmm.backbones.joining import join_encoders, load_encoders

SOUND = "audio-spectrogram-transformer"


def pooled(stream, **batch):
    with torch.no_grad():
        return stream.pool(stream.run(stream.embed(**batch)))


@pytest.fixture
def clips():
    return torch.randn(2, 3, 3, 16, 16)


def test_sound_and_frames_are_joined(folders, clips, batch):
    backbone = join_encoders(audio=folders(SOUND), video=folders("vit"))
    assert list(backbone.streams) == ["audio", "video"]
    assert set(backbone.inputs) == {"audio", "images"}
    assert backbone.tokenizer is None
    found = pooled(backbone["video"], frame_values=clips, **batch)
    alone = load_backbone(folders("vit"), streams="video")["video"]
    assert torch.equal(found, pooled(alone, frame_values=clips))
    four = join_encoders(
        folders("vit"), folders("bert"), audio=folders(SOUND), video=folders("vit")
    )
    assert list(four.streams) == ["image", "text", "audio", "video"]
    assert four.max_text_length is not None


def test_images_and_texts(folders):
    backbone = join_encoders(folders("vit"), folders("bert"), max_text_length=7)
    assert (list(backbone.streams), backbone.max_text_length) == (["image", "text"], 7)
    assert backbone.audio_config is None
    assert list(load_encoders(folders("clip"), folders("bert")).streams) == [
        "image",
        "text",
    ]
    whole = load_encoders(folders("clip"))
    assert whole.fingerprint == load_backbone(folders("clip")).fingerprint
