import pytest
import torch
from transformers import AutoModel

from robustmm.backbones import load_backbone


@pytest.fixture
def stream(folders):
    return load_backbone(folders("vilt"))["joint"]


@pytest.fixture
def model(folders):
    return AutoModel.from_pretrained(folders("vilt")).eval()


def pooled(stream, batch):
    with torch.no_grad():
        return stream.pool(stream.run(stream.embed(**batch)))


@pytest.mark.parametrize("size", [(16, 16), (24, 12), (4, 28), (4, 4)])
def test_other_sizes_interpolate_positions(stream, model, batch, size):
    batch["pixel_values"] = torch.randn(3, 3, *size)
    with torch.no_grad():
        mask = torch.ones(3, *size, dtype=torch.long)
        expected = model(**batch, pixel_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(pooled(stream, batch), expected, atol=1e-5, rtol=1e-5)


def test_a_pixel_mask_gives_each_image_its_own_grid(stream, model, batch):
    sizes = [(16, 24), (20, 8), (4, 4)]
    pixels, mask = torch.zeros(3, 3, 20, 24), torch.zeros(3, 20, 24, dtype=torch.long)
    for row, (height, width) in enumerate(sizes):
        pixels[row, :, :height, :width] = torch.randn(3, height, width)
        mask[row, :height, :width] = 1
    batch |= {"pixel_values": pixels, "pixel_mask": mask}
    got = pooled(stream, batch)
    with torch.no_grad():
        expected = model(**batch).last_hidden_state[:, 0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    for row, (height, width) in enumerate(sizes):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        alone["pixel_values"] = alone["pixel_values"][..., :height, :width]
        del alone["pixel_mask"]
        one = pooled(stream, alone)
        torch.testing.assert_close(one, got[row : row + 1], atol=1e-5, rtol=1e-5)


def test_segments_and_masks(stream, batch):
    tokens = stream.embed(**batch)
    assert tokens.spans == {"text": (0, 5), "image": (5, 5 + 1 + 16)}
    assert torch.equal(tokens.mask_of("text"), batch["attention_mask"].bool())
    assert tokens.mask_of("image").all()
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    assert stream.embed(**batch).mask is None
