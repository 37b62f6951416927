"""One vector per row: encoders run where they have something to read."""

import numpy as np
import pytest
import torch

from robustmm import load_backbone
from robustmm.backbones import FrozenFeatures, Stream, encode_streams
from robustmm.backbones.backbone import Identity
from robustmm.data.cache import ByteCache


def inputs(backbone, n=4):
    generator = torch.Generator().manual_seed(0)
    size = backbone.image_config["size"]
    height = size.get("height") or size.get("shortest_edge")
    ids = torch.randint(5, 50, (n, 6), generator=generator)
    return {
        "pixel_values": torch.randn(n, 3, height, height, generator=generator),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


PRESENT = torch.tensor([[True, True], [False, True], [True, False], [True, True]])


def test_an_encoder_is_run_on_the_cells_that_are_there(monkeypatch):
    backbone = load_backbone("robustmm/tiny-clip")
    rows, run = {}, Stream.run

    def count(self, tokens, *args, **kwargs):
        rows[self.modality] = len(tokens)
        return run(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Stream, "run", count)
    features = FrozenFeatures(backbone)(PRESENT, inputs(backbone))
    assert rows == {"image": 3, "text": 3}
    assert torch.equal(features[:, -2:], PRESENT.float())
    width = backbone["image"].projection.out_features
    assert not features[1, :width].any()
    assert features[0, :width].any()


def test_no_row_for_an_encoder_gives_zeros():
    backbone = load_backbone("robustmm/tiny-clip")
    present = torch.tensor([[False, True]] * 4)
    features = FrozenFeatures(backbone, "both")(present, inputs(backbone))
    width = backbone["image"].projection.out_features + backbone["image"].width
    assert torch.equal(features[:, :width], torch.zeros(4, width))
    assert features.shape[1] == FrozenFeatures(backbone, "both").width


@pytest.mark.parametrize("name", ["robustmm/tiny-clip", "robustmm/tiny-vilt"])
def test_stored_vectors_are_not_computed_again(name):
    backbone = load_backbone(name)
    batch, keys = inputs(backbone), torch.arange(80, dtype=torch.uint8).view(4, 20)
    store = ByteCache(10**6)
    encode = FrozenFeatures(backbone, "both", store)
    first = encode(PRESENT, batch, keys)
    assert len(store) == 4
    torch.testing.assert_close(first, FrozenFeatures(backbone, "both")(PRESENT, batch))
    broken = batch | {"pixel_values": torch.full_like(batch["pixel_values"], torch.nan)}
    assert torch.equal(encode(PRESENT, broken, keys), first)
    other = encode(PRESENT, batch, keys + 100)
    assert len(store) == 7  # row 1 has no image, so that its vector is known
    torch.testing.assert_close(other, first)


def test_gradients_pass_through_encode_streams():
    backbone = load_backbone("robustmm/tiny-clip")
    backbone["image"].thaw(lambda name: name.endswith("bias"))

    def pooled(stream, present, batch):
        return stream.pool(stream.run(stream.embed(**batch)))

    parts = encode_streams(backbone, PRESENT, inputs(backbone), pooled)
    sum(part.sum() for part in parts).backward()
    trained = [p for p in backbone["image"].parameters() if p.requires_grad]
    assert trained
    assert any(p.grad is not None and p.grad.any() for p in trained)
    untouched = load_backbone("robustmm/tiny-clip")
    assert not any(p.requires_grad for p in untouched.parameters())


@pytest.mark.parametrize("shape", [(3,), (1, 130), ()])
def test_vectors_that_cannot_be_are_computed_anew(shape):
    backbone, store = load_backbone("robustmm/tiny-bert"), ByteCache(2**20)
    encode = FrozenFeatures(backbone, store=store)
    ids = torch.tensor([[2, 9, 3], [2, 8, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    present = torch.tensor([[False, True]] * 2)
    expected = encode(present, batch)
    for name in list(store._arrays):
        store.put(name, np.zeros(shape, np.float32))
    assert torch.equal(encode(present, batch), expected)


def test_no_batch_waits_for_the_hash_of_the_weights(monkeypatch):
    backbone = load_backbone("robustmm/tiny-clip").copy()
    for name, stream in backbone.streams.items():  # as if it had just been loaded
        backbone._identities[name] = Identity(stream)
    encode = FrozenFeatures(backbone, store=ByteCache(10**6))

    def refuse(stream):
        raise AssertionError("hashed in a batch")

    monkeypatch.setattr("robustmm.backbones.backbone._fingerprint", refuse)
    keys = torch.arange(80, dtype=torch.uint8).view(4, 20)
    assert len(encode(PRESENT, inputs(backbone), keys)) == 4
