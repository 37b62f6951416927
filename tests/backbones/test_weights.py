"""Weights come from files beside the config.json, and take no more room than these."""

import io
import json
import os
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustmm.backbones import load_backbone


def change(folder, **entries):
    """Write entries into a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def split(folder, names):
    """Turn the weights into shards, which an index says are under these names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: names[i % len(names)] for i, key in enumerate(sorted(tensors))}
    for name in names:
        part = {k: tensors[k] for k, place in places.items() if place == name}
        save_file(part, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_beside_the_index_are_read(save_model, tmp_path):
    whole = load_backbone(save_model("bert", tmp_path / "whole")).fingerprint
    folder = shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    split(folder, [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)])
    assert load_backbone(folder).fingerprint == whole


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/tmp/outside.safetensors", "..", "", 3, None]
)
def test_an_index_names_files_beside_it(save_model, tmp_path, name):
    folder = save_model("bert", tmp_path / "model")
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    split(folder, ["model-00001-of-00001.safetensors"])
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        OSError, match=r"weight_map .* must name .safetensors files bes"
    ):
        load_backbone(folder)


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": []}', "[" * 100_000, "{", "\xff"]
)
def test_an_index_that_is_none(save_model, tmp_path, index):
    folder = save_model("bert", tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index, encoding="latin-1")
    with pytest.raises(OSError, match=r"weights of .* cannot be read"):
        load_backbone(folder)


def test_a_shard_that_is_not_there(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    split(folder, ["model-00001-of-00001.safetensors"])
    (folder / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(
        OSError, match=r"00001-of-00001\.safetensors', which is not there"
    ):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 2**20),
        ("vocab_size", 2**31),
        ("intermediate_size", 2**31),
        ("max_position_embeddings", 2**30),
        ("type_vocab_size", 2**30),
        ("num_hidden_layers", 900),
    ],
)
def test_sizes_are_compared_before_memory_is_taken(save_model, tmp_path, name, value):
    folder = save_model("bert", tmp_path)
    change(folder, **{name: value})
    with pytest.raises(OSError, match=r"describes a model of \d+ numbers, but the fil"):
        load_backbone(folder)


def test_a_pooler_that_is_missing_takes_no_room_either(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    width, kept = 2**16, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.startswith("embeddings"):
            kept[name] = torch.zeros([*tensor.shape[:-1], width])
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    # One layer less than none would not be a model; the pooler alone takes 16 GB.
    change(folder, hidden_size=width, num_hidden_layers=1)
    with pytest.raises(OSError, match="describes a model of"):
        load_backbone(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_must_be_finite(save_model, tmp_path, value):
    folder = save_model("bert", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(OSError, match=r"finite numbers, got NaN or .* 'layers\.1\.out"):
        load_backbone(folder)


# PyTorch's own files -----------------------------------------------------------------


def as_bin(folder, content=None):
    """Exchange the safetensors for a pytorch_model.bin; return its path."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights if content is None else content, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def test_a_bin_file_is_the_same_model(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    fingerprint = load_backbone(folder).fingerprint
    file = as_bin(folder)
    assert load_backbone(folder).fingerprint == fingerprint
    weights = torch.load(file)
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    os.utime(file, ns=(1, 1))
    assert load_backbone(folder).fingerprint == fingerprint


class Trap:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_a_pickle_is_not_executed(save_model, tmp_path):
    folder = save_model("bert", tmp_path / "model")
    as_bin(folder, {"a": Trap(str(tmp_path / "canary"))})
    with pytest.raises(OSError, match=r"weights of .* cannot be read"):
        load_backbone(folder)
    assert not (tmp_path / "canary").exists()


def test_a_view_of_one_number_is_no_large_tensor(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    change(folder, vocab_size=2**31)
    weights = load_file(folder / "model.safetensors")
    huge = torch.zeros(1).expand(2**31, 16)
    as_bin(folder, weights | {"embeddings.word_embeddings.weight": huge})
    with pytest.raises(OSError, match=r"word_embeddings.* claims to be larger"):
        load_backbone(folder)


def test_compressed_records_do_not_unfold(save_model, tmp_path):
    folder = save_model("bert", tmp_path)
    file, packed = as_bin(folder), io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry.filename, data, zipfile.ZIP_DEFLATED)
    file.write_bytes(packed.getvalue())
    with pytest.raises(OSError, match=r"weights of .* (cannot be read|must be finite)"):
        load_backbone(folder)
