"""Bounded JSON, and nobody's token where a stranger chose the name."""

import json

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from robustmm.backbones import hub, load_backbone


def test_json_that_is_too_large_or_too_deep(save_model, tmp_path, monkeypatch):
    folder = save_model("bert", tmp_path)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="must be JSON"):
        load_backbone(folder)
    (folder / "config.json").write_text(text)
    monkeypatch.setattr(hub, "MAX_JSON_BYTES", len(text) - 1)
    with pytest.raises(ValueError, match=f"at most {len(text) - 1} bytes, got"):
        load_backbone(folder)


@pytest.fixture
def tokens(monkeypatch):
    """The tokens of all requests."""
    seen = []

    def ask(self, name, timeout=None):
        seen.append(self.token)

    def fetch(*args, token="not given", **kwargs):
        seen.append(token)
        raise LocalEntryNotFoundError("no route to host")

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", ask)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", fetch)
    return seen


def test_requests_without_a_token(tokens):
    with hub.without_token(), pytest.raises(OSError, match="call robustmm"):
        load_backbone("stranger/model")
    assert len(tokens) > 1
    assert set(tokens) == {False}
    tokens.clear()
    with pytest.raises(OSError, match="cannot be found") as caught:
        load_backbone("friend/model")
    assert set(tokens) == {None}
    assert "your token" not in str(caught.value)


def test_every_file_is_asked_for_as_nobody(save_model, tmp_path, monkeypatch):
    folder = save_model("vilt", tmp_path)
    image = {"image_processor_type": "ViltImageProcessor", "size": 18}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    seen = []

    def fetch(location, filename, **options):
        seen.append((filename, options["token"]))
        path = folder / filename
        return str(path) if path.is_file() else None

    monkeypatch.setattr("transformers.utils.cached_file", fetch)
    with hub.without_token():
        load_backbone("stranger/vilt")
    assert {token for _, token in seen} == {False}
    asked = {name for name, _ in seen}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= asked
