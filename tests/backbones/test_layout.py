"""Layouts name parts that are there, in every architecture's layers."""

from functools import reduce

import pytest
from torch import nn

from robustmm.backbones import load_backbone
from robustmm.backbones.layout import Layout

ARCHITECTURES = ["vilt", "clip", "siglip", "bert", "roberta", "distilbert", "vit"]
ARCHITECTURES += ["deit", "dinov2", "dinov2-gated"]


@pytest.fixture(params=ARCHITECTURES)
def stream(request, folders):
    return next(iter(load_backbone(folders(request.param)).streams.values()))


def part(layer, path):
    return reduce(getattr, path.split("."), layer)


def test_every_path_leads_to_a_part_of_every_layer(stream):
    layout = stream.layout
    assert list(layout.linears) == ["query", "key", "value", "out", "up", "down"]
    for layer in stream.layers:
        assert all(
            isinstance(part(layer, p), nn.Linear) for p in layout.linears.values()
        )
        assert all(isinstance(part(layer, p), nn.LayerNorm) for p in layout.norms)


def test_the_paths_cover_all_parameters_of_a_layer(stream):
    layer = stream.layers[0]
    paths = stream.layout.paths()
    assert len(paths) == len(set(paths))
    named = {id(p) for path in paths for p in part(layer, path).parameters()}
    unnamed = [n for n, p in layer.named_parameters() if id(p) not in named]
    assert unnamed == []


def test_paths_come_in_a_fixed_order():
    linears = {"query": "q", "up": "u"}
    layout = Layout("new", linears, "act", ("one", "two"))
    assert layout.paths() == ["q", "u", "one", "two"]
    layout = Layout("new", linears, "act", ("a", "b"), scales=("c", "d"), gate="g")
    assert layout.paths() == ["q", "u", "a", "b", "c", "d", "g"]
