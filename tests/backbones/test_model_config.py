"""A config.json decides about sizes, and about nothing that runs or is fetched."""

import json
import shutil

import pytest
import transformers

from robustmm.backbones import load_backbone
from robustmm.backbones.model_config import model_config

# What chooses a program, a kernel, other files or another loader.
CHOICES = {
    "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"},
    "trust_remote_code": True,
    "_attn_implementation": "stranger/kernel",
    "attn_implementation": "stranger/kernel",
    "_attn_implementation_internal": "stranger/kernel",
    "experts_implementation": "stranger/kernel",
    "fusion_config": {"patch_embeddings": True},
    "transformers_weights": "elsewhere.safetensors",
    "custom_pipelines": {"x": {"impl": "evil.Pipeline"}},
    "dtype": "float64",
    "name_or_path": "/somewhere/else",
    "_name_or_path": "/somewhere/else",
    "num_labels": 10**12,
    "id2label": {str(i): "a" for i in range(1000)},
    "use_kernels": True,
    "base_model_tp_plan": {"*": "colwise"},
}


@pytest.fixture
def folder(save_model, tmp_path):
    return save_model("bert", tmp_path / "model")


def change(folder, **entries):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_is_no_size_is_left_out(folder, name):
    fingerprint = load_backbone(folder).fingerprint
    plain = model_config(json.loads((folder / "config.json").read_text()))
    (folder / "evil.py").write_text("raise AssertionError('executed')")
    change(folder, **{name: CHOICES[name]})
    chosen = model_config(json.loads((folder / "config.json").read_text()))
    assert chosen.to_dict() == plain.to_dict()
    assert load_backbone(folder).fingerprint == fingerprint


def test_the_parts_of_a_clip_are_cleaned_too(save_model, tmp_path):
    folder = save_model("clip", tmp_path)
    fingerprint = load_backbone(folder).fingerprint
    config = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part]["_attn_implementation"] = "stranger/kernel"
    (folder / "config.json").write_text(json.dumps(config))
    assert load_backbone(folder).fingerprint == fingerprint
    config["vision_config"]["hidden_size"] = "large"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="must describe a 'clip' model"):
        load_backbone(folder)


def test_the_older_names_of_a_clips_parts(save_model, tmp_path):
    folder = save_model("clip", tmp_path)
    fingerprint = load_backbone(folder).fingerprint
    config = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[f"{part}_dict"] = config.pop(part)
    (folder / "config.json").write_text(json.dumps(config))
    assert load_backbone(folder).fingerprint == fingerprint


@pytest.mark.parametrize("place", ["top", "part"])
def test_a_quantisation_is_refused(save_model, tmp_path, place):
    folder = save_model("clip", tmp_path)
    chosen = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    config = json.loads((folder / "config.json").read_text())
    owner = config if place == "top" else config["text_config"]
    owner["quantization_config"] = chosen
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="plain numbers, got a quantization_config"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", "12"),
        ("hidden_size", 2**40),
        ("hidden_size", {"a": 1}),
        ("hidden_act", "x" * 100),
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", float("inf")),
        ("vocab_size", [1] * 1000),
        ("hidden_size", 7),
    ],
)
def test_values_that_no_model_has(folder, name, value):
    change(folder, **{name: value})
    with pytest.raises((ValueError, OSError), match=r"must describe|cannot be read"):
        load_backbone(folder)


def test_layers_of_dinov2_are_counted_before_their_names_are_made(folders, tmp_path):
    folder = shutil.copytree(folders("dinov2"), tmp_path / "model")
    change(folder, num_hidden_layers=10**9)
    with pytest.raises(ValueError, match=r"num_hidden_layers must be in \[1, 1000\]"):
        load_backbone(folder)


@pytest.mark.parametrize("content", ['{"model_type": ["bert"]}', '{"model_type": {}}'])
def test_a_type_that_is_no_word(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="must be of a supported architecture"):
        load_backbone(tmp_path)


def test_every_field_that_matters_is_taken(folders):
    for name in ("vilt", "dinov2", "distilbert", "roberta", "siglip"):
        stored = json.loads((folders(name) / "config.json").read_text())
        full = transformers.AutoConfig.from_pretrained(folders(name)).to_dict()
        ours, default = model_config(stored), type(model_config(stored))().to_dict()
        ours = ours.to_dict()
        # Of the file and of the weights, not of the model.
        aside = {"architectures", "dtype", "transformers_version", "_name_or_path"}
        for part in (None, "text_config", "vision_config"):
            theirs = full if part is None else full.get(part, {})
            mine = ours if part is None else ours.get(part, {})
            fields = set(default if part is None else default.get(part, {}))
            for key in fields - aside - {"text_config", "vision_config"}:
                assert mine[key] == theirs[key], (name, part, key)
