"""Names that a saved model may have, bounds of its JSON, and readers beside writers."""

import json

import pytest

from robustmm.storage import folder as storage_folder
from robustmm.storage.folder import (
    DOCUMENT,
    dump_document,
    may_be_in_backbone,
    read_document,
    while_saved,
)

WHOLE = {
    "format": "robustmm",
    "format_version": 1,
    "class": "MAPClassifier",
    "parameters": {},
    "state": {},
    "files": {},
}


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "model-00001-of-00003.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
    ],
)
def test_names_inside_a_backbone(name):
    assert may_be_in_backbone(name)


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "other.json",
        "config.json\n",
        "Config.json",
        "model-1-of-2.safetensors",
        "model-00001-of-00003.safetensors.json",
        "model-0000\u0661-of-0000\u0663.safetensors",
        "modeling.py",
        "pytorch_model.bin",
        "chat_template.jinja",
        ".metadata",
        "",
    ],
)
def test_names_that_no_backbone_has(name):
    assert not may_be_in_backbone(name)


def test_a_document_that_is_too_large_is_neither_written_nor_read(
    tmp_path, monkeypatch
):
    whole = WHOLE | {"state": {"missing_report_": {"bad_images": {"a": "b" * 1000}}}}
    (tmp_path / DOCUMENT).write_bytes(dump_document(whole))
    assert read_document(tmp_path) == whole
    monkeypatch.setattr(storage_folder, "MAX_DOCUMENT_BYTES", 1000)
    with pytest.raises(ValueError, match=r"at most 1000 bytes, .*bad_images"):
        dump_document(whole)
    with pytest.raises(ValueError, match="at most 1000 bytes, got"):
        read_document(tmp_path)


@pytest.mark.parametrize("bracket", ["[]", "{}"])
def test_a_document_that_nests_too_deeply(tmp_path, bracket):
    deep = []
    for _ in range(100):
        deep = [deep] if bracket == "[]" else {"a": deep}
    whole = WHOLE | {"state": {"a": deep}}
    (tmp_path / DOCUMENT).write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="nest at most 64 deep"):
        read_document(tmp_path)
    with pytest.raises(ValueError, match="nest at most 64 deep"):
        dump_document(whole)


def test_a_reader_tries_again_only_after_a_saving(tmp_path):
    (tmp_path / DOCUMENT).write_text("1")
    calls = []

    def read():
        calls.append((tmp_path / DOCUMENT).read_text())
        if len(calls) < 3:
            (tmp_path / "new").write_text(f"{calls[-1]}1")
            (tmp_path / "new").replace(tmp_path / DOCUMENT)
            raise ValueError("the weights are gone")
        return calls[-1]

    assert while_saved(tmp_path, read) == "111"

    def broken():
        calls.append("broken")
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        while_saved(tmp_path, broken)
    assert calls.count("broken") == 1


def test_patience_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_folder, "PATIENCE", 0.0)
    calls = []

    def read():
        calls.append(None)
        (tmp_path / DOCUMENT).write_text("1" * len(calls))
        raise ValueError("never whole")

    with pytest.raises(ValueError, match="never whole"):
        while_saved(tmp_path, read)
    assert len(calls) < 3
