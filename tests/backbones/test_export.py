"""An adapted CLIP as plain weights: only what was given differs."""

import json

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from robustmm.backbones import load_backbone
from robustmm.backbones.export import plain_clip, save_clip


@pytest.fixture
def clip(folders):
    return load_backbone(folders("clip"))


def test_only_the_weights_given_are_replaced(clip, folders):
    place = ("image", 1, "value")
    weights = {place: torch.full((16, 16), 0.5), ("text", 0, "up"): torch.ones(24, 16)}
    state = plain_clip(clip, weights).state_dict()
    before = CLIPModel.from_pretrained(folders("clip")).state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed == {
        "vision_model.encoder.layers.1.self_attn.v_proj.weight",
        "text_model.encoder.layers.0.mlp.fc1.weight",
    }
    assert (state["vision_model.encoder.layers.1.self_attn.v_proj.weight"] == 0.5).all()


def test_the_shared_weights_stay_as_they_are(clip):
    before = clip["image"].linear(0, "query").weight.detach().clone()
    plain_clip(clip, {("image", 0, "query"): torch.zeros(16, 16)})
    assert torch.equal(clip["image"].linear(0, "query").weight, before)


def test_longer_texts_take_their_positions_along(folders, tmp_path):
    longer = load_backbone(folders("clip"), max_text_length=20)
    save_clip(plain_clip(longer, {}), longer, tmp_path)
    model = CLIPModel.from_pretrained(tmp_path)
    assert model.config.text_config.max_position_embeddings == 20
    ids = torch.full((1, 20), 4)
    ids[0, -1] = 3
    theirs = model.text_model(input_ids=ids).last_hidden_state
    stream = longer["text"]
    ours = stream.run(stream.embed(ids, torch.ones_like(ids)), keep="all")
    torch.testing.assert_close(stream.norm(ours.values), theirs, atol=1e-5, rtol=1e-5)


def test_a_folder_that_transformers_reads(clip, tmp_path, capfd):
    save_clip(plain_clip(clip, {}), clip, tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    model = CLIPModel.from_pretrained(tmp_path / "model")
    assert model.config.text_config.num_hidden_layers == 3
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("a red ball").input_ids == clip.tokenizer("a red ball").input_ids
    settings = (tmp_path / "model" / "preprocessor_config.json").read_text()
    assert json.loads(settings) == clip.image_config
    assert load_backbone(tmp_path / "model").fingerprint == clip.fingerprint
