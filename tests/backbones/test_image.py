import pytest
import torch
from transformers import AutoModel

from robustmm.backbones import load_backbone


@pytest.mark.parametrize("size", [(24, 24), (12, 20)])
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "clip_vision_model"])
def test_other_sizes_interpolate_positions(folders, name, size):
    stream = load_backbone(folders(name))["image"]
    model = AutoModel.from_pretrained(folders(name)).eval()
    pixels = torch.randn(2, 3, *size)
    more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        got = stream.pool(stream.run(stream.embed(pixels)))
        output = model(pixels, **more)
    expected = output.last_hidden_state[:, 0]
    expected = output.pooler_output if name == "clip_vision_model" else expected
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_siglip_pools_all_rows_beside_inserted_ones(folders, batch):
    stream = load_backbone(folders("siglip"))["image"]
    model = AutoModel.from_pretrained(folders("siglip")).eval().vision_model
    pixels = torch.randn(2, 3, 20, 12)
    with torch.no_grad():
        expected = model(pixels, interpolate_pos_encoding=True).pooler_output
        got = stream.pool(stream.run(stream.embed(pixels)))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    tokens = stream.embed(**batch)
    assert tokens.anchor is None
    tokens = tokens.insert("proxy", torch.randn(1, 16), before="image")
    assert stream.run(tokens).names == ("image",)
    reduced, whole = stream.run(tokens, keep=("proxy",)), stream.run(tokens, keep="all")
    assert reduced.names == ("image", "proxy")
    pools = stream.pool(reduced), stream.pool(whole)
    torch.testing.assert_close(*pools, atol=1e-5, rtol=1e-5)


def test_images_of_different_sizes_are_refused(folders, batch):
    stream = load_backbone(folders("vit"))["image"]
    with pytest.raises(ValueError, match="images of one size, got a pixel_mask"):
        stream.embed(**batch, pixel_mask=torch.ones(3, 16, 16))
