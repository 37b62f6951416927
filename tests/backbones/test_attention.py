"""Attention is what the layers compute, and maps are cut from it in the right place."""

import numpy as np
import pytest
import torch
from torch import nn

from robustmm.backbones import attention_frame, attention_maps, load_backbone
from robustmm.backbones.stream import _take

KINDS = ["clip-image", "clip-text", "bert", "distilbert", "vit", "deit", "dinov2"]


class Shifted(nn.Module):
    """A linear with a low-rank update that does something."""

    def __init__(self, frozen):
        super().__init__()
        self.frozen = frozen
        self.down = nn.Parameter(0.3 * torch.randn(frozen.in_features, 2))
        self.up = nn.Parameter(0.3 * torch.randn(2, frozen.out_features))

    def forward(self, x):
        return self.frozen(x) + x @ self.down @ self.up


@pytest.fixture(params=KINDS)
def stream(request, folders):
    name, _, part = request.param.partition("-")
    streams = load_backbone(folders(name)).streams
    stream = streams[part] if part else streams[list(streams)[-1]]
    torch.manual_seed(3)
    for i in range(stream.n_layers):
        for name in ("query", "key", "value", "out"):
            stream.wrap(i, name, Shifted(stream.linear(i, name)))
    return stream


def entered(stream, batch):
    torch.manual_seed(4)
    tokens = stream.embed(**batch).insert("proxy", torch.randn(1, stream.width))
    return stream.enter(tokens)


def normed(stream, i, tokens):
    norm = stream.layers[i].get_submodule(stream.layout.norms[0])
    return norm(tokens.values) if stream.layout.pre_norm else tokens.values


def by_hand(stream, i, x, tokens):
    """One head after the other, one token after the other."""
    parts = [stream.linear(i, name)(x) for name in ("query", "key")]
    query, key = (part.chunk(stream.n_heads, dim=-1) for part in parts)
    result = torch.zeros(len(x), stream.n_heads, x.shape[1], x.shape[1])
    for row in range(len(x)):
        for head, (q, k) in enumerate(zip(query, key, strict=True)):
            for asking in range(x.shape[1]):
                seen = torch.ones(x.shape[1], dtype=torch.bool)
                if tokens.mask is not None:
                    seen &= tokens.mask[row]
                if stream.causal:
                    seen[asking + 1 :] = False
                scores = (k[row] @ q[row, asking]) / q.shape[-1] ** 0.5
                weights = (scores - scores[seen].max()).exp() * seen
                result[row, head, asking] = weights / weights.sum()
    return result


@torch.no_grad()
def test_probabilities_are_those_computed_by_hand(stream, batch):
    tokens = entered(stream, batch)
    found = stream.attention(1, tokens)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))
    expected = by_hand(stream, 1, normed(stream, 1, tokens), tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_with_values_and_output_they_are_the_layers_attention(stream, batch):
    tokens = entered(stream, batch)
    x = normed(stream, 2, tokens)
    rows = torch.tensor([[0, tokens.length - 1]]).expand(len(tokens), -1)
    for asking in (None, rows):
        weights = stream.attention(2, tokens, asking)
        value = stream.linear(2, "value")(x)
        value = value.unflatten(-1, (stream.n_heads, -1)).transpose(1, 2)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        found = stream.linear(2, "out")(mixed)
        expected = stream._attend(stream._block(2), x, tokens, asking)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_prefix_stands_in_front_of_the_keys(stream, batch):
    tokens = entered(stream, batch)
    prefix = torch.randn(2, 1, 3, stream.width)
    more = stream.attention(0, tokens.with_prefix(*prefix))
    plain = stream.attention(0, tokens)
    assert more.shape[-1] == plain.shape[-1] + 3
    rest = more[..., 3:] / more[..., 3:].sum(-1, keepdim=True)
    torch.testing.assert_close(rest, plain, atol=1e-5, rtol=1e-4)


def test_padding_and_later_words_get_nothing(folders, batch):
    for name in ("bert", "clip"):
        stream = load_backbone(folders(name))["text"]
        weights = stream.attention(0, entered(stream, batch))
        padding = ~torch.cat([batch["attention_mask"] == 1, torch.ones(3, 1) == 1], 1)
        hidden = weights * padding[:, None, None]
        assert padding.any()
        assert hidden.abs().max() == 0
        later = weights.triu(1).abs().max()
        assert (later == 0) == stream.causal


@pytest.mark.parametrize("layer", [0, 1, 2, -1, -3])
@torch.no_grad()
def test_maps_are_of_the_pooled_row_and_the_inserted_one(stream, batch, layer):
    torch.manual_seed(4)
    tokens = stream.embed(**batch).insert("proxy", torch.randn(1, stream.width))
    maps = attention_maps(stream, tokens, layer, batch["pixel_values"])
    place = layer % stream.n_layers
    states, seen = {}, None

    def look(i, tokens):
        states[i] = tokens
        return tokens

    stream.run(tokens, look)
    seen = stream.attention(place, states[place]).mean(1)  # (B, L, L)
    first = tokens.anchor[:, None]
    rows = {"class": _take(seen, first)[:, 0], "proxy": seen[:, -1]}
    assert list(maps) == list(rows)
    for name, expected in rows.items():
        expected = expected[:, :-1]  # not the proxy itself
        if stream.modality == "image":
            expected = expected[:, -16:].unflatten(-1, (4, 4))
        np.testing.assert_allclose(maps[name], expected, atol=1e-6)


def test_an_encoder_without_class_token_has_maps_of_the_inserted_alone(folders, batch):
    stream = load_backbone(folders("siglip_vision_model"))["image"]
    pixels = batch["pixel_values"]
    tokens = stream.embed(pixels)
    assert attention_maps(stream, tokens, -1, pixels) == {}
    tokens = tokens.insert("proxy", torch.randn(1, stream.width))
    maps = attention_maps(stream, tokens, -1, pixels)
    assert {name: m.shape for name, m in maps.items()} == {"proxy": (3, 4, 4)}


def test_patches_are_counted_in_lines(folders):
    stream = load_backbone(folders("clip"))["image"]
    pixels = torch.randn(2, 3, 8, 20)
    maps = attention_maps(stream, stream.embed(pixels), 0, pixels)
    assert maps["class"].shape == (2, 2, 5)
    frame = attention_frame(["a"], [{("image", "class"): maps["class"][0]}], [([], [])])
    for line in frame.itertuples():
        assert line.attention == maps["class"][0, line.y, line.x]
        assert line.position == 5 * line.y + line.x
    assert len(frame) == 10


def test_pieces_are_added_up_to_words_and_padding_is_left_out():
    maps = {("text", "proxy"): np.array([0.5, 0.125, 0.0625, 0.0625, 0.25, 0.0])}
    frame = attention_frame([7], [maps], [(["a", "kite"], [None, 0, 1, 1, None])])
    assert frame["word"].tolist() == ["a", "kite"]
    assert frame["attention"].tolist() == [0.125, 0.125]
    assert frame["position"].tolist() == [0, 1]
    assert frame[["y", "x"]].isna().all(axis=None)


def test_a_layer_that_is_not_there_is_named(folders, batch):
    stream = load_backbone(folders("bert"))["text"]
    with pytest.raises(ValueError, match=r"layer must be in \[0, 3\), got 3"):
        stream.attention(3, stream.embed(**batch))
