"""Frames through image encoders: the mean of what the image streams read of them."""

import copy
import pickle

import pytest
import torch

from robustmm.backbones import Backbone, FrameStream, frames_of, load_backbone
from robustmm.backbones.loading import MissingStream, save_checkpoint

ENCODERS = ["clip", "siglip", "vit", "deit", "dinov2", "dinov2-gated"]
ENCODERS += ["clip_vision_model", "siglip_vision_model"]
SOUND = "audio-spectrogram-transformer"


@pytest.fixture
def clips():
    return torch.randn(2, 3, 3, 16, 16)


def pooled(stream, **batch):
    with torch.no_grad():
        return stream.pool(stream.run(stream.embed(**batch)))


@pytest.mark.parametrize("name", ENCODERS)
class TestEncoder:
    def test_is_the_mean_of_the_image_stream(self, folders, clips, name):
        image = load_backbone(folders(name))["image"]
        video = load_backbone(folders(name), streams="video")["video"]
        alone = [pooled(image, pixel_values=clips[:, i]) for i in range(3)]
        expected = torch.stack(alone).mean(dim=0)
        found = pooled(video, frame_values=clips)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_a_proxy_is_read_as_a_mean_too(self, folders, clips, name):
        image = load_backbone(folders(name))["image"]
        video = frames_of(image)
        proxy = torch.randn(1, video.width)

        def read(stream, **batch):
            tokens = stream.embed(**batch).insert("proxy", proxy)
            tokens = stream.run(tokens, keep=("proxy",))
            values = stream.norm(tokens["proxy"][:, 0])
            return stream.per_row(tokens, values)

        alone = [read(image, pixel_values=clips[:, i]) for i in range(3)]
        expected = torch.stack(alone).mean(dim=0)
        found = read(video, frame_values=clips)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_shares_the_weights_and_no_adapters(self, folders, name):
        image = load_backbone(folders(name))["image"]
        video = frames_of(image)
        assert isinstance(video, FrameStream)
        assert (video.modality, video.segments) == ("video", ("video",))
        assert {id(p) for p in video.parameters()} == {
            id(p) for p in image.parameters()
        }
        video.wrap(0, "query", torch.nn.Sequential(video.linear(0, "query")))
        assert not isinstance(image.linear(0, "query"), torch.nn.Sequential)
        assert not any(p.requires_grad for p in video.parameters())


def test_other_numbers_of_frames(folders, clips):
    video = load_backbone(folders("vit"), streams="video")["video"]
    one = pooled(video, frame_values=clips[:, :1])
    assert one.shape == (2, 16)
    torch.testing.assert_close(
        pooled(video, frame_values=clips[:, :1].expand(-1, 4, -1, -1, -1)), one
    )
    assert video.grid(clips) == (4, 4)


def test_copies_and_pickles(folders, clips):
    backbone = load_backbone(folders("clip"), streams=("video",))
    expected = pooled(backbone["video"], frame_values=clips)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(pooled(twin["video"], frame_values=clips), expected)


def test_only_image_encoders_read_frames(folders):
    with pytest.raises(MissingStream, match="streams must be one or more of"):
        load_backbone(folders("bert"), streams="video")
    with pytest.raises(ValueError, match="Frames need an image encoder"):
        frames_of(load_backbone(folders("vilt"))["joint"])


def test_a_checkpoint_offers_images_unless_it_is_asked_for_frames(folders):
    assert list(load_backbone(folders("vit")).streams) == ["image"]
    both = load_backbone(folders("clip"), streams=("video", "text"))
    assert set(both.streams) == {"text", "video"}
    assert both.image_config == load_backbone(folders("clip")).image_config


def test_pictures_and_frames_are_prepared_in_one_way(folders):
    parts = {
        name: load_backbone(folders(kind), streams=name)
        for name, kind in (("image", "vit"), ("video", "clip"))
    }
    with pytest.raises(ValueError, match="must be prepared in one way"):
        Backbone.join(**parts)


@pytest.mark.parametrize(("name", "stream"), [(SOUND, "audio"), ("vit", "video")])
def test_a_written_checkpoint_is_the_same(folders, tmp_path, name, stream):
    backbone = load_backbone(folders(name), streams=(stream,))
    save_checkpoint(backbone, str(folders(name)), tmp_path / "copy")
    twin = load_backbone(tmp_path / "copy", streams=(stream,))
    assert (twin.fingerprint, twin.inputs) == (backbone.fingerprint, backbone.inputs)
