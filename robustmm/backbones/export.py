"""Write an adapted CLIP as a checkpoint that needs nothing but transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .loading import load_model, quiet


def plain_clip(backbone: Backbone, weights: Mapping[tuple[str, int, str], Tensor]):
    """Return a Hugging Face model of its own, with some linears replaced.

    Parameters
    ----------
    backbone : Backbone
        Both encoders of one checkpoint, which is read again.
    weights : mapping of (stream, layer, linear) to Tensor
        The weights that differ from the checkpoint's.

    Returns
    -------
    transformers.CLIPModel
    """
    sources = set(backbone.sources.values())
    model, streams = load_model(sources.pop())
    text, capacity = streams["text"], backbone["text"].capacity
    if capacity > text.capacity:
        text.extend_positions(capacity)
        model.config.text_config.max_position_embeddings = capacity
    with torch.no_grad():
        for (name, layer, linear), weight in weights.items():
            streams[name].linear(layer, linear).weight.copy_(weight)
    return model


def save_clip(model: nn.Module, backbone: Backbone, folder: Path) -> None:
    """Write model, tokenizer and image settings into a folder, which is made."""
    with quiet():
        model.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)
    settings = json.dumps(backbone.image_config, indent=2, sort_keys=True)
    (folder / "preprocessor_config.json").write_text(settings + "\n")
