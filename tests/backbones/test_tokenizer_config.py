"""A tokenizer's files say how words are cut, and nothing about files and programs."""

import json
import os
import tempfile

import pytest
from transformers import AutoTokenizer

from robustmm.backbones import load_backbone

TEXT = "a red ball"


@pytest.fixture
def folder(save_model, tmp_path):
    return save_model("bert", tmp_path / "model")


def change(folder, name, **entries):
    file = folder / name
    stored = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(stored | entries))


def ids(folder):
    return load_backbone(folder).tokenizer(TEXT)["input_ids"]


HOSTILE = {
    "auto_map": {"AutoTokenizer": ["evil.Slow", "evil.Fast"]},
    "vocab_file": "/etc/passwd",
    "tokenizer_file": "/etc/passwd",
    "merges_file": "/etc/passwd",
    "chat_template": "{{ ''.__class__ }}",
    "init_inputs": ["/etc/passwd"],
    "fast_tokenizer_files": ["tokenizer.9.0.json"],
    "processor_class": "EvilProcessor",
    "name_or_path": "stranger/model",
    "tokenizer_object": "x",
    "sp_model_kwargs": {"enable_sampling": True},
}


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("name", HOSTILE)
def test_entries_that_are_no_settings_are_left_out(folder, file, name):
    expected = ids(folder)
    (folder / "evil.py").write_text("raise AssertionError('executed')")
    (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    change(folder, file, **{name: HOSTILE[name]})
    tokenizer = load_backbone(folder).tokenizer
    assert tokenizer(TEXT)["input_ids"] == expected
    assert tokenizer.chat_template is None
    assert not {"auto_map", "init_inputs"} & set(tokenizer.init_kwargs)


@pytest.mark.parametrize(
    "name",
    ["BertJapaneseTokenizer", "Wav2Vec2CTCTokenizer", "RagTokenizer", "os.system"],
)
def test_classes_that_run_something_else_are_refused(folder, name):
    change(folder, "tokenizer_config.json", tokenizer_class=name)
    with pytest.raises(OSError, match=f"runs on the tokenizers library, got '{name}'"):
        load_backbone(folder)


def test_the_same_as_transformers_reads(folder, tmp_path):
    expected = AutoTokenizer.from_pretrained(folder)
    ours = load_backbone(folder).tokenizer
    assert type(ours) is type(expected)
    assert ours(TEXT)["input_ids"] == expected(TEXT)["input_ids"]
    assert ours.get_vocab() == expected.get_vocab()
    assert (ours.pad_token, ours.cls_token) == (expected.pad_token, expected.cls_token)
    assert ours.name_or_path == str(folder)
    ours.save_pretrained(tmp_path / "again")
    assert tempfile.gettempdir() + "/robustmm-" not in "".join(
        file.read_text() for file in (tmp_path / "again").iterdir()
    )


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_a_vocabulary_without_a_tokenizer_json(save_model, tmp_path, kind):
    folder = save_model("bert" if kind == "words" else "clip", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "ball", "b", "##all"]
    if kind == "words":
        (folder / "vocab.txt").write_text("\n".join(words))
    else:
        pieces = ["<|startoftext|>", "<|endoftext|>", "a</w>", "r", "e", "d</w>", "re"]
        vocabulary = {piece: i for i, piece in enumerate(pieces)}
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("#version: 0.2\nr e\n")
    expected = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    backbone = load_backbone(folder, streams=("text",))
    assert backbone.tokenizer(TEXT)["input_ids"] == expected
    backbone.tokenizer.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": 3}}',
    ],
)
def test_a_tokenizer_json_that_is_none(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(OSError, match=r"tokenizer of .* cannot be read"):
        load_backbone(folder)


def test_a_vocabulary_that_is_too_large(folder):
    os.truncate(folder / "tokenizer.json", 2**28)
    with pytest.raises(OSError, match=r"at most \d+ bytes, got 268435456"):
        load_backbone(folder)
