"""What is said when a backbone cannot be had."""

import shutil
import time

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from robustmm.backbones import load_backbone


@pytest.fixture
def _offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def hub_cache(monkeypatch, tmp_path, folders):
    """Put the tiny CLIP into a local cache of the hub, as "me/clip"."""
    repository = tmp_path / "models--me--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = shutil.copytree(folders("clip"), repository / "snapshots" / "abc")
    (snapshot / "preprocessor_config.json").write_text('{"size": 18}')
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return snapshot


@pytest.mark.usefixtures("_offline")
def test_the_hubs_cache_is_enough(hub_cache, folders):
    backbone = load_backbone("me/clip")
    assert backbone.sources == {"image": "me/clip", "text": "me/clip"}
    assert backbone.image_config["size"] == {"shortest_edge": 18}
    assert backbone.fingerprint == load_backbone(folders("clip")).fingerprint
    (hub_cache / "preprocessor_config.json").unlink()
    with pytest.raises(
        OSError, match=r"cache has none of \['preprocessor_config\.json'"
    ):
        load_backbone("me/clip")


@pytest.mark.usefixtures("_offline")
def test_unreachable_hub_says_what_was_tried():
    start = time.monotonic()
    with pytest.raises(OSError, match="cannot be found") as caught:
        load_backbone("no-such-owner/no-such-model")
    assert time.monotonic() - start < 5
    words = str(caught.value)
    for part in ("no folder", "local cache", "HF_HUB_OFFLINE", "save_pretrained"):
        assert part in words
    for part in ("robustmm/tiny-clip", "'vilt'", "'siglip_vision_model'"):
        assert part in words


def test_no_network_gives_up_after_one_request(monkeypatch):
    asked = []

    def refuse(self, name, timeout=None):
        asked.append((name, timeout))
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(OSError, match=r"answered ConnectionError: no route to host\."):
        load_backbone("no-such-owner/no-such-model")
    assert asked == [("no-such-owner/no-such-model", 5.0)]


def test_unknown_embedded_name_lists_the_names():
    with pytest.raises(ValueError, match=r"tiny-bert', .*, got 'robustmm/tiny-gpt'"):
        load_backbone("robustmm/tiny-gpt")


@pytest.mark.parametrize("name", [None, 3, ""])
def test_a_name_is_text(name):
    with pytest.raises(ValueError, match="must be a name or a path"):
        load_backbone(name)


def test_a_folder_needs_a_configuration(tmp_path):
    with pytest.raises(OSError, match=r"must hold a config\.json"):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "gpt2"}', "supported architecture, .*, got 'gpt2'"),
        ("{}", "got None"),
        ("[1]", "got None"),
        ("{", "must be JSON"),
    ],
)
def test_an_unsupported_architecture(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_backbone(tmp_path)


def test_a_text_encoder_needs_its_tokenizer(save_model, tmp_path):
    folder = save_model("clip", tmp_path, tokenizer=False)
    with pytest.raises(OSError, match=r"none of \['tokenizer.json', 'vocab.txt'"):
        load_backbone(folder)
    assert list(load_backbone(folder, streams=("image",)).streams) == ["image"]


def test_weights_must_be_there(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.0.output.dense.bias")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(OSError, match=r"1 are missing .* 'encoder\.layer\.0\."):
        load_backbone(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"weights of .* cannot be read"):
        load_backbone(folder)
