import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

from robustmm.backbones import load_backbone

LONG = [("bert", 12), ("roberta", 12), ("distilbert", 12), ("clip", 12), ("vilt", 12)]


def text_stream(backbone):
    return backbone.streams[list(backbone.streams)[-1]]


@pytest.mark.parametrize(("name", "length"), LONG)
def test_longer_texts_interpolate_positions(folders, batch, name, length):
    short, long = (
        load_backbone(folders(name), max_text_length=size) for size in (length, 30)
    )
    assert (short.max_text_length, long.max_text_length) == (length, 30)
    assert text_stream(long).capacity == 30
    assert text_stream(short).capacity == load_backbone(folders(name)).max_text_length
    batch["input_ids"] = torch.randint(4, 10, (3, 30))
    batch["attention_mask"] = torch.ones(3, 30)
    assert text_stream(long).embed(**batch)["text"].shape == (3, 30, 16)
    with pytest.raises(ValueError, match=r"at most 1[12] tokens, got 30"):
        text_stream(short).embed(**batch)
    # All but the one table stays shared.
    mine = {id(p) for p in short.parameters()}
    others = [p for p in long.parameters() if id(p) not in mine]
    assert [p.shape[1] for p in others] == [16]
    assert all(long.is_shared(p) and not p.requires_grad for p in long.parameters())
    assert long.fingerprint == short.fingerprint


def test_interpolation_is_linear_along_positions(folders):
    table = AutoModel.from_pretrained(folders("bert")).embeddings.position_embeddings
    longer = load_backbone(folders("bert"), max_text_length=30)["text"]
    got = longer.embeddings.position_embeddings.weight
    as_image = table.weight.T[None, :, None]  # (1, d, 1, 12)
    expected = F.interpolate(as_image, size=(1, 30), mode="bilinear")[0, :, 0].T
    torch.testing.assert_close(got, expected)


def test_roberta_keeps_the_rows_of_its_padding(folders, batch):
    table = AutoModel.from_pretrained(folders("roberta")).embeddings.position_embeddings
    longer = load_backbone(folders("roberta"), max_text_length=30)["text"]
    got = longer.embeddings.position_embeddings.weight
    assert got.shape == (31, 16)
    assert torch.equal(got[0], table.weight[0])
    positions = longer.positions(batch["input_ids"])
    assert positions[1].tolist() == [1, 2, 0, 0, 0]


def test_decoders_are_refused(folders, save_model, tmp_path):
    import json

    folder = save_model("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_decoder": True}))
    with pytest.raises(ValueError, match="must not be a decoder"):
        load_backbone(folder)
