import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from robustmm.backbones import Backbone, clear_backbone_cache, load_backbone
from robustmm.data import AudioTransform
from robustmm.datasets import make_clips


def pointers(backbone):
    return {p.data_ptr() for p in backbone.parameters()}


def test_loads_share_their_weights(folders):
    first, second = load_backbone(folders("clip")), load_backbone(folders("clip"))
    assert pointers(first) == pointers(second)
    assert first["text"] is not second["text"]
    only = load_backbone(folders("clip"), streams=("image",))
    assert pointers(only) < pointers(first)
    clear_backbone_cache()
    assert not pointers(load_backbone(folders("clip"))) & pointers(first)


def test_a_part_of_a_checkpoint(folders):
    image = load_backbone(folders("clip"), streams=("image",))
    assert list(image.streams) == ["image"]
    assert (image.tokenizer, image.max_text_length) == (None, None)
    assert image.image_config["size"] == {"shortest_edge": 16}
    text = load_backbone(folders("clip"), streams="text", max_text_length=8)
    assert (list(text.streams), text.max_text_length) == (["text"], 8)
    assert text.image_config is None
    assert "image" not in text
    with pytest.raises(ValueError, match=r"one of \['text'\], got 'image'"):
        text["image"]


def test_half_precision_files_become_float32(save_model, tmp_path):
    half = save_model("clip", tmp_path / "half", dtype=torch.float16)
    backbone = load_backbone(half)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    full = AutoModel.from_pretrained(half, dtype=torch.float32)
    full.save_pretrained(tmp_path / "full")
    load_backbone(half).tokenizer.save_pretrained(tmp_path / "full")
    assert load_backbone(tmp_path / "full").fingerprint == backbone.fingerprint


def test_fingerprint_follows_the_weights_not_the_path(save_model, tmp_path):
    first = load_backbone(save_model("bert", tmp_path / "a")).fingerprint
    assert len(first) == 64
    same = save_model("bert", tmp_path / "b")
    assert load_backbone(str(same)).fingerprint == first
    assert load_backbone(same, max_text_length=5).fingerprint == first
    weights = load_file(same / "model.safetensors")
    for name in ("encoder.layer.1.output.dense.weight", "pooler.dense.bias"):
        changed = {key: value.clone() for key, value in weights.items()}
        changed[name].view(-1)[0] += 1e-3
        save_file(changed, same / "model.safetensors", {"format": "pt"})
        assert load_backbone(same).fingerprint != first


def test_fingerprint_follows_the_configuration(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    first = load_backbone(folder).fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert load_backbone(folder).fingerprint != first
    config["architectures"] = ["BertForMaskedLM"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_backbone(folder).fingerprint == first


def test_fingerprint_is_that_of_the_frozen_model(folders):
    backbone = load_backbone(folders("bert"))
    stream = backbone["text"]
    stream.wrap(0, "query", torch.nn.Linear(16, 16))
    assert backbone.fingerprint == load_backbone(folders("bert")).fingerprint
    assert backbone.copy().fingerprint == backbone.fingerprint


def test_overwritten_files_are_read_again(save_model, tmp_path):
    old = load_backbone(save_model("bert", tmp_path, seed=0))
    values = [p.clone() for p in old.parameters()]
    new = load_backbone(save_model("bert", tmp_path, seed=1))
    assert new.fingerprint != old.fingerprint
    assert all(map(torch.equal, old.parameters(), values))


def test_join(folders, batch):
    image = load_backbone(folders("vit"))
    text = load_backbone(folders("bert"), max_text_length=9)
    both = Backbone.join(image=image, text=text)
    assert list(both.streams) == ["image", "text"]
    assert both.sources == {"image": str(folders("vit")), "text": str(folders("bert"))}
    assert (both.max_text_length, both.image_config) == (9, image.image_config)
    assert both.tokenizer is text.tokenizer
    assert both.fingerprint not in (image.fingerprint, text.fingerprint)
    parts = [load_backbone(folders("clip"), streams=(m,)) for m in ("image", "text")]
    rejoined = Backbone.join(image=parts[0], text=parts[1])
    assert rejoined.fingerprint == load_backbone(folders("clip")).fingerprint
    with pytest.raises(ValueError, match="got 'image'"):
        Backbone.join(image=text, text=text)


def test_a_missing_pooler_is_none_and_not_random(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if not k.startswith("pooler")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert load_backbone(folder)["text"].pooler is None


def test_a_backbone_can_be_pickled(folders, batch):
    stream = load_backbone(folders("bert"))["text"]
    again = pickle.loads(pickle.dumps(stream))
    expected = stream.pool(stream.run(stream.embed(**batch)))
    assert torch.equal(again.pool(again.run(again.embed(**batch))), expected)


@pytest.mark.parametrize("name", ["tiny-vilt", "tiny-clip", "tiny-bert"])
def test_embedded_names(name):
    backbone = load_backbone(f"robustmm/{name}")
    words = backbone.tokenizer("a red ball")["input_ids"]
    assert 2 < len(words) <= backbone.max_text_length
    assert set(backbone.sources.values()) == {f"robustmm/{name}"}


def test_the_embedded_ear_hears_what_clips_are_made_of():
    backbone = load_backbone("robustmm/tiny-ast")
    transform = AudioTransform.from_config(backbone.audio_config)
    df, y = make_clips(180, n_classes=4, random_state=1)
    banks = torch.from_numpy(np.stack([transform.read(cell) for cell in df["audio"]]))
    # Close to the mean and the deviation that it was trained at.
    assert banks[:, :98].mean().abs() < 0.1
    assert (banks[:, :98].std() - 0.5).abs() < 0.1
    with torch.no_grad():
        stream = backbone["audio"]
        tokens = stream.pool(stream.run(stream.embed(input_values=banks))).numpy()
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.05))
    assert head.fit(tokens[:120], y[:120]).score(tokens[120:], y[120:]) > 0.5


def test_loading_is_silent(folders, capfd, caplog):
    load_backbone(folders("clip"))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_weights_loaded_in_inference_mode_can_be_trained_around(folders, batch):
    with torch.inference_mode():
        load_backbone(folders("bert"))
    stream = load_backbone(folders("bert"))["text"]
    prompt = torch.zeros(1, 16, requires_grad=True)
    tokens = stream.embed(**batch).insert("prompt", prompt)
    stream.pool(stream.run(tokens)).sum().backward()
    assert prompt.grad.abs().sum() > 0


def test_streams_must_be_offered(folders):
    rule = r"\('text',\), .* architecture 'bert' offers, got \('image',\)"
    with pytest.raises(ValueError, match=rule):
        load_backbone(folders("bert"), streams=("image",))
    with pytest.raises(ValueError, match=r"got \(\)"):
        load_backbone(folders("clip"), streams=())


@pytest.mark.parametrize("length", [0, 1, -3, 2.5, True, "40"])
def test_text_length_must_leave_room(folders, length):
    with pytest.raises(ValueError, match="integer of at least 2"):
        load_backbone(folders("bert"), max_text_length=length)
