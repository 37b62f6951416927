"""A backbone is another one if its tokenizer or its image settings are."""

import json
import shutil

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from robustmm.backbones import load_backbone, save_checkpoint
from robustmm.backbones.backbone import fitted_on


@pytest.fixture
def folder(folders, tmp_path):
    folder = shutil.copytree(folders("clip"), tmp_path / "model")
    settings = {"size": 16, "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def change_tokenizer(folder, change):
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def swap_two_words(content):
    vocabulary = content["model"]["vocab"]
    vocabulary["red"], vocabulary["blue"] = vocabulary["blue"], vocabulary["red"]


def lower(content):
    content["normalizer"] = {"type": "Lowercase"}


def add_no_class_token(content):
    content["post_processor"]["single"].pop(0)


@pytest.mark.parametrize("change", [swap_two_words, lower, add_no_class_token])
def test_another_tokenizer_is_noticed(folder, change):
    first = load_backbone(folder)
    change_tokenizer(folder, change)
    second = load_backbone(folder)
    assert second.fingerprint == first.fingerprint
    assert second.inputs["tokenizer"] != first.inputs["tokenizer"]
    assert second.inputs["images"] == first.inputs["images"]


def test_another_order_of_merges_is_noticed(save_model, tmp_path):
    folder = save_model("clip", tmp_path)
    pieces = ["[UNK]", "a", "b", "c", "ab", "bc", "abc"]
    merges = [["a", "b"], ["b", "c"], ["ab", "c"]]
    hashes = set()
    for order in (merges, [merges[1], merges[0], merges[2]]):
        model = {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}}
        model |= {"merges": order, "unk_token": "[UNK]"}
        content = {"model": model, "added_tokens": []}
        Tokenizer.from_str(json.dumps(content)).save(str(folder / "tokenizer.json"))
        hashes.add(load_backbone(folder, streams=("text",)).inputs["tokenizer"])
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "entry",
    [
        {"image_std": [0.5, 0.5, 0.6]},
        {"size": 20},
        {"resample": 2},
        {"do_center_crop": False},
        {"rescale_factor": 0.5},
    ],
)
def test_other_image_settings_are_noticed(folder, entry):
    first = load_backbone(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entry))
    second = load_backbone(folder)
    assert second.fingerprint == first.fingerprint
    assert second.inputs["images"] != first.inputs["images"]
    assert second.inputs["tokenizer"] == first.inputs["tokenizer"]


def test_writing_the_files_anew_changes_nothing(folder, tmp_path):
    first = load_backbone(folder)
    save_checkpoint(first, str(folder), tmp_path / "again")
    assert load_backbone(tmp_path / "again").inputs == first.inputs
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer("a red ball", padding="max_length", truncation=True, max_length=7)
    tokenizer.save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text("{}")
    assert load_backbone(folder).inputs == first.inputs


def test_only_what_is_there_has_a_hash(folders):
    assert list(load_backbone(folders("vit")).inputs) == ["images"]
    assert list(load_backbone(folders("bert")).inputs) == ["tokenizer"]


@pytest.mark.parametrize("change", ["tokenizer", "images"])
def test_changed_files_are_not_saved_as_the_backbone(folder, tmp_path, change):
    backbone = load_backbone(folder)
    if change == "tokenizer":
        change_tokenizer(folder, lower)
    else:
        (folder / "preprocessor_config.json").write_text('{"size": 12}')
    with pytest.raises(ValueError, match="they have changed"):
        save_checkpoint(backbone, str(folder), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_classifier_is_fitted_on_its_tokenizer(folder):
    first = load_backbone(folder)
    known = first.fingerprint, "Toy", first.inputs
    change_tokenizer(folder, lower)
    second = load_backbone(folder)
    with fitted_on(*known) as check:
        assert check(first) is first
        with pytest.raises(ValueError, match="tokenizer or the image settings of"):
            check(second)
    # Models of the first release do not say what prepared their cells.
    with fitted_on(*known[:2]) as check:
        assert check(second) is second
