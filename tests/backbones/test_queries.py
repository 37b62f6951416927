"""Frozen queries: means of a modality's tokens after any layer, computed once."""

import pytest
import torch

from robustmm import load_backbone
from robustmm.backbones import FrozenQueries, HostBatch, Stream, read_queries
from robustmm.data.cache import ByteCache

PRESENT = torch.tensor([[True, True], [False, True], [True, False], [True, True]])
VILT, CLIP, BERT = "robustmm/tiny-vilt", "robustmm/tiny-clip", "robustmm/tiny-bert"


def inputs(backbone):
    """Four rows of texts and images of the size that a backbone reads."""
    size = next(s for s in backbone.image_config["size"].values())
    ids = torch.randint(5, 50, (4, 6))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    pixels = torch.randn(4, 3, size, size)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}


def states_of(stream, batch):
    """What enters each layer, and what leaves the last, behind the norm."""
    states = []
    tokens = stream.embed(**batch)
    for i in range(stream.n_layers):
        states.append(tokens)
        tokens = stream.step(i, stream.enter(tokens) if i == 0 else tokens)
    return [*states, tokens.replace(stream.norm(tokens.values))]


@pytest.mark.parametrize("layers", [(0, 0), (1, 0), (3, 2), (-1, -2), (2, 2), (4, 0)])
def test_they_are_the_means_of_all_states(layers):
    backbone = load_backbone(VILT)
    batch, stream = inputs(backbone), backbone["joint"]
    states, queries = states_of(stream, batch), FrozenQueries(backbone, layers)
    with torch.no_grad():
        vectors = queries.split(queries(PRESENT, batch))
    for place, name in enumerate(queries.modalities):
        here = PRESENT[:, place]
        expected = states[layers[place]].mean(name)[here]
        torch.testing.assert_close(vectors[place][here], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [(2, 1), ("pooled", -1)])
def test_two_encoders_are_read_each_alone(layers):
    backbone = load_backbone(CLIP)
    batch, queries = inputs(backbone), FrozenQueries(backbone, layers)
    image, text = queries.split(queries(PRESENT, batch))
    pixels = {"pixel_values": batch["pixel_values"]}
    stream = backbone["image"]
    expected = states_of(stream, pixels)[2].mean("image")
    if layers[0] == "pooled":
        expected = stream.projection(stream.pool(stream.run(stream.embed(**pixels))))
    torch.testing.assert_close(
        image[PRESENT[:, 0]], expected[PRESENT[:, 0]], atol=1e-5, rtol=1e-4
    )
    words = {k: v for k, v in batch.items() if k != "pixel_values"}
    expected = states_of(backbone["text"], words)[layers[1]].mean("text")
    torch.testing.assert_close(
        text[PRESENT[:, 1]], expected[PRESENT[:, 1]], atol=1e-5, rtol=1e-4
    )
    assert not image[1].any()
    assert (image.shape[1], text.shape[1]) == queries.widths


def test_one_encoder_has_one_query():
    backbone = load_backbone(BERT)
    queries = FrozenQueries(backbone, ("anything", -1))
    assert (queries.modalities, queries.width) == (("text",), 128)


def test_only_rows_with_the_deeper_modality_are_run(monkeypatch):
    backbone = load_backbone(VILT)
    batch, stream = inputs(backbone), backbone["joint"]
    ran, step = [], Stream.step

    def count(self, i, tokens, *args):
        ran.append((i, len(tokens)))
        return step(self, i, tokens, *args)

    monkeypatch.setattr(Stream, "step", count)
    tokens, host = stream.embed(**batch), HostBatch(PRESENT)
    read_queries(stream, tokens, host, (2, 0))
    assert ran == [(0, 3), (1, 3)]
    ran.clear()
    read_queries(stream, tokens, host, (0, 0))
    assert ran == []


def test_they_are_computed_once(monkeypatch):
    backbone, store = load_backbone(VILT), ByteCache(2**20)
    batch = inputs(backbone)
    keys = torch.arange(4 * 20, dtype=torch.uint8).reshape(4, 20)
    fresh = FrozenQueries(backbone, (1, 0))(PRESENT, batch)
    kept = FrozenQueries(backbone, (1, 0), store)
    torch.testing.assert_close(kept(PRESENT, batch, keys), fresh)
    other = FrozenQueries(backbone, (2, 0), store)(PRESENT, batch, keys)
    assert not torch.allclose(other, fresh)
    monkeypatch.setattr(Stream, "step", None)
    torch.testing.assert_close(kept(PRESENT, batch, keys), fresh)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((5, 0), r"for the image an int in \[-5, 4\], got \(5, 0\)"),
        ((0, -6), r"for the text an int in \[-5, 4\], got"),
        ((True, 0), "for the image an int"),
        (("pooled", 0), r"for the image an int in \[-5, 4\], got"),
        ((1,), r"a pair, for the image and for the text, got \(1,\)"),
        (1, "a pair, .* got 1"),
        ("10", "a pair, .* got '10'"),
    ],
)
def test_layers_that_are_none_are_named(layers, message):
    with pytest.raises(ValueError, match=f"layers must (have|be) {message}"):
        FrozenQueries(load_backbone(VILT), layers)
