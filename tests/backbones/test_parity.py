"""Every stream against the Hugging Face model it is made of."""

import pytest
import torch
from transformers import AutoModel

from robustmm.backbones import load_backbone

STREAMS = [
    ("vilt", "joint"),
    ("clip", "image"),
    ("clip", "text"),
    ("siglip", "image"),
    ("bert", "text"),
    ("roberta", "text"),
    ("distilbert", "text"),
    ("vit", "image"),
    ("deit", "image"),
    ("dinov2", "image"),
    ("dinov2-gated", "image"),
    ("clip_vision_model", "image"),
    ("siglip_vision_model", "image"),
    ("audio-spectrogram-transformer", "audio"),
]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def reference(folder, name, modality, batch):
    """Return what Hugging Face pools, and its own pooler's output."""
    model = AutoModel.from_pretrained(folder).eval()
    part = {"text": "text_model", "image": "vision_model"}.get(modality)
    model = getattr(model, part) if name in ("clip", "siglip") else model
    wanted = {
        "joint": ("input_ids", "attention_mask", "pixel_values"),
        "image": ("pixel_values",),
        "text": ("input_ids", "attention_mask"),
        "audio": ("input_values",),
    }[modality]
    with torch.no_grad():
        output = model(**{key: batch[key] for key in wanted})
    pooler = output.get("pooler_output")
    if modality == "audio":  # theirs is the mean of two tokens, without a layer
        pooler = None
    if name.startswith(("clip", "siglip")):
        return pooler, None
    return output.last_hidden_state[:, 0], pooler


def pooled(stream, batch, **options):
    with torch.no_grad():
        return stream.pool(stream.run(stream.embed(**batch), **options))


@pytest.mark.parametrize(("name", "modality"), STREAMS)
class TestStream:
    def test_equals_hugging_face(self, folders, batch, name, modality):
        stream = load_backbone(folders(name))[modality]
        expected, pooler = reference(folders(name), name, modality, batch)
        torch.testing.assert_close(pooled(stream, batch), expected, **TOLERANCE)
        whole = pooled(stream, batch, keep="all")
        torch.testing.assert_close(whole, expected, **TOLERANCE)
        if stream.pooler is not None:
            torch.testing.assert_close(stream.pooler(whole), pooler, **TOLERANCE)

    def test_same_twice_and_alone(self, folders, batch, name, modality):
        stream = load_backbone(folders(name))[modality]
        first = pooled(stream, batch)
        assert torch.equal(first, pooled(stream, batch))
        sizes = batch["attention_mask"].sum(dim=1)
        for row, size in enumerate(sizes):
            alone = {
                "input_ids": batch["input_ids"][row : row + 1, :size],
                "pixel_values": batch["pixel_values"][row : row + 1],
                "input_values": batch["input_values"][row : row + 1],
            }
            expected = first[row : row + 1]
            torch.testing.assert_close(pooled(stream, alone), expected, **TOLERANCE)

    def test_continues_from_any_layer(self, folders, batch, name, modality):
        stream = load_backbone(folders(name))[modality]
        expected = pooled(stream, batch)
        for layer in range(stream.n_layers):
            half = stream.run(stream.embed(**batch), stop=layer)
            whole = stream.run(half, start=layer)
            torch.testing.assert_close(stream.pool(whole), expected, **TOLERANCE)

    def test_is_frozen(self, folders, batch, name, modality):
        stream = load_backbone(folders(name))[modality].train()
        assert not any(p.requires_grad for p in stream.parameters())
        assert not any(m.training for m in stream.modules() if m is not stream)
        assert torch.equal(pooled(stream, batch), pooled(stream, batch))


def test_every_architecture_is_tested():
    from robustmm.backbones.loading import _ARCHITECTURES

    assert {name.removesuffix("-gated") for name, _ in STREAMS} == set(_ARCHITECTURES)
    for name, modality in STREAMS:
        assert modality in _ARCHITECTURES[name.removesuffix("-gated")]


def test_has_the_poolers_and_projections_of_the_checkpoint(folders):
    poolers = {n for n, m in STREAMS if load_backbone(folders(n))[m].pooler is not None}
    assert poolers == {"vilt", "bert", "roberta", "vit", "deit"}
    clip = load_backbone(folders("clip"))
    model = AutoModel.from_pretrained(folders("clip"))
    assert torch.equal(clip["text"].projection.weight, model.text_projection.weight)
    assert torch.equal(clip["image"].projection.weight, model.visual_projection.weight)
