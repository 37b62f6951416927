"""Class tokens: what a run keeps, what is remembered, and cells that are hidden."""

import pytest
import torch
from vilt_cases import vilt_batch

from robustmm import load_backbone
from robustmm.backbones import (
    IMAGE_CLASS,
    FrozenClasses,
    HostBatch,
    class_tokens,
    hide_modality,
    with_image_class,
)


class Kept(dict):
    put = dict.__setitem__


@pytest.fixture
def backbone():
    return load_backbone("robustmm/tiny-vilt")


def data_of(batch):
    return {k: v for k, v in batch.items() if k != "present"}


def test_they_are_the_first_rows_of_both_segments(backbone):
    stream, batch = backbone["joint"], vilt_batch()
    tokens = stream.embed(**data_of(batch))
    every = stream.norm(stream.run(tokens, keep="all").values)
    start = tokens.span("image")[0]
    expected = torch.stack([every[:, start], every[:, 0]], dim=1)
    named = stream.run(with_image_class(tokens), keep=IMAGE_CLASS)
    torch.testing.assert_close(class_tokens(stream, named), expected)
    found = FrozenClasses(backbone).tokens(batch["present"], data_of(batch))
    torch.testing.assert_close(found, expected)


def test_what_is_remembered_is_what_was_computed(backbone):
    batch, store = vilt_batch(), Kept()
    data, keys = data_of(batch), torch.arange(80, dtype=torch.uint8).view(4, 20)
    encode = FrozenClasses(backbone, store)
    first = encode.tokens(batch["present"], data, keys)
    assert len(store) == 4
    backbone["joint"].embed = None  # nothing is computed again
    assert torch.equal(encode.tokens(batch["present"], data, keys), first)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_hidden_cell_has_no_influence(backbone, modality):
    batch = vilt_batch(present=[[True, True]] * 4)
    blank = {"pixel_values": torch.ones_like(batch["pixel_values"][:1])}
    blank |= {"input_ids": torch.tensor([[2, 3]]), "attention_mask": torch.ones(1, 2)}
    batch["host"] = HostBatch.of(batch["present"], batch)
    hidden = hide_modality(batch, blank, modality)
    column = ["image", "text"].index(modality)
    assert not hidden["present"][:, column].any()
    assert hidden["present"][:, 1 - column].all()
    assert torch.equal(hidden["host"].present, hidden["present"])
    assert batch["present"].all()
    entry = {"image": "pixel_values", "text": "input_ids"}
    mine, other = entry.pop(modality), next(iter(entry.values()))
    assert torch.equal(hidden[mine], blank[mine].expand_as(hidden[mine]))
    assert torch.equal(hidden[other], batch[other])
