"""Saved models that strangers forged: what they change, by kind of attack.

Each is a function of a folder, a copy of an honest model whose frozen encoder is
inside, and of a `World`: paths outside that must not be read, and a canary that a
payload creates. Hashes are computed anew afterwards, as a stranger would.
"""

import json
import os
import pickle
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from robustmm.storage.folder import facts


@dataclass
class World:
    """What lies around a model folder."""

    outside: Path
    canary: Path

    def payload(self) -> bytes:
        """A pickle that leaves a trace."""
        return pickle.dumps(Trap(str(self.canary / "pickle")))

    def program(self) -> bytes:
        """A module that leaves a trace."""
        return f"open({str(self.canary / 'module')!r}, 'w')\n".encode()


class Trap:
    """Creates a file when it is opened as a pickle."""

    def __init__(self, file: str):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


# Folders ------------------------------------------------------------------------------


def document_of(folder):
    return json.loads((folder / "robustmm.json").read_text())


def write(folder, document):
    (folder / "robustmm.json").write_text(json.dumps(document))


def inside(folder) -> Path:
    return next(folder.glob("*backbone-*"))


def weights_of(folder) -> Path:
    return next(folder.glob("weights-*"))


def relist(folder):
    """Compute sizes and hashes anew, of all files that are there."""
    document = document_of(folder)
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != "robustmm.json"]
    names = [str(f.relative_to(folder)) for f in files if not f.is_symlink()]
    document["files"] = facts(folder, names)
    write(folder, document)


def entry(value, *path):
    """A change of one value of the document."""

    def change(folder, world):
        document = document_of(folder)
        owner = document
        for key in path[:-1]:
            owner = owner[key]
        owner[path[-1]] = value(world) if callable(value) else value
        write(folder, document)

    return change


def settings(name, **entries):
    """A change of a JSON file of the encoder."""

    def change(folder, world):
        file = inside(folder) / name
        stored = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(stored | entries))
        relist(folder)

    return change


def content(name, data, listed=True):
    """A file of the encoder, changed or added."""

    def change(folder, world):
        made = data(world) if callable(data) else data
        (inside(folder) / name).write_bytes(made)
        if listed:
            relist(folder)

    return change


def arrays(change_arrays, frozen=False):
    """A change of the trained tensors, or of the frozen ones."""

    def change(folder, world):
        file = inside(folder) / "model.safetensors" if frozen else weights_of(folder)
        found = load_file(file)
        change_arrays(found)
        save_file(found, file, {"format": "pt"})
        relist(folder)

    return change


# Attacks ------------------------------------------------------------------------------

PATHS = [
    *(
        "../secret.safetensors",
        "../../secret.safetensors",
        "/etc/passwd",
        "",
        ".",
        "..",
    ),
    *("weights-0123456789ab.safetensors/../../x", "..\\secret.safetensors", "a\0b"),
    *("backbone-0123456789ab/../../x", "backbone-0123456789ab/a/b", "~/x", "file:///x"),
    *("weights-0123456789AB.safetensors", "weights-0123456789ab.bin", "robustmm.json"),
    *("weights-0123456789ab.safetensors\n", "backbone-0123456789ab/..", "x" * 10_000),
]


def paths():
    """Names of files and folders that lead elsewhere."""
    for name in PATHS:

        def move(folder, world, name=name):
            document = document_of(folder)
            document["files"][name] = document["files"].pop(document["weights"])
            document["weights"] = name
            write(folder, document)

        yield f"weights {name!r:.40}", move
    for name in [*PATHS[:12], 3, None, [], {"a": 1}, True]:
        yield f"backbone {name!r:.40}", entry({"backbone": name}, "backbones")
    for name in ("image_root", "verbose", "class", "__class__", "text_backbone"):
        change = entry({name: "backbone-0123456789ab"}, "backbones")
        yield f"backbone of {name}", change


def outside_names():
    """Backbones by name: hub, elsewhere, devices."""
    for name in (
        *("evil/model", "http://127.0.0.1:9/model", "hf://evil/model", "../..", "/etc"),
        *("/proc/self/cwd", "/dev/fd/0", "/dev", "robustmm/../../etc", "~root", "a\0b"),
        *("\\\\server\\share", "evil/model@main", "robustmm/tiny-none", "x" * 5000, ""),
        *(3, None, [], {"a": 1}, True, {"$type": "path", "value": "/etc"}),
    ):

        def change(folder, world, name=name):
            document = document_of(folder)
            document["backbones"] = {}
            document["parameters"]["backbone"] = name
            write(folder, document)

        yield f"{name!r:.40}", change


FILES = ["robustmm.json", "weights-*", "*backbone-*/config.json"]
FILES += [f"*backbone-*/{n}" for n in ("model.safetensors", "tokenizer.json")]
FILES += [
    f"*backbone-*/{n}" for n in ("tokenizer_config.json", "preprocessor_config.json")
]


def links():
    """Links, FIFOs, devices and folders in the place of files."""
    for pattern in [*FILES, "*backbone-*"]:
        for kind in ("gone", "link", "dangling", "loop", "fifo", "folder", "zero"):

            def change(folder, world, pattern=pattern, kind=kind):
                place = next(folder.glob(pattern))
                saved = world.outside / "secret"
                if place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink()
                if kind == "fifo":
                    os.mkfifo(place)
                elif kind == "folder":
                    place.mkdir()
                elif kind != "gone":
                    targets = {"link": saved, "loop": place, "zero": "/dev/zero"}
                    place.symlink_to(targets.get(kind, world.outside / "nowhere"))

            yield f"{pattern} {kind}", change


FOREIGN = {
    **dict.fromkeys(("pytorch_model.bin", "adapter_model.bin"), World.payload),
    **dict.fromkeys((".metadata", "training_args.bin", "optimizer.pt"), World.payload),
    **dict.fromkeys(("modeling_evil.py", "evil.py", "__init__.py"), World.program),
    "adapter_config.json": b'{"base_model_name_or_path": "/etc", "peft_type": "LORA"}',
    "chat_template.jinja": b"{{ ''.__class__.__mro__ }}",
    "generation_config.json": b'{"_from_model_config": true}',
    "tokenizer.model": b"\x0a\x05evil",
    "special_tokens_map.json": b'{"vocab_file": "/etc/passwd", "x_token": "y"}',
    "added_tokens.json": b'{"evil": 99999999}',
    "processor_config.json": b'{"image_processor": {"image_std": [0, 0, 0]}}',
    "config.json.bak": b"{}",
    "\u202egpj.json": b"{}",
    "model.safetensors.py": World.program,
    "vocab.txt": b"a\nb\n",
    "merges.txt": b"#version\na b\n",
    "tekken.json": b"{}",
}


def foreign_files():
    """Files beside the encoder's, listed and not."""
    for name, data in FOREIGN.items():
        for listed in (True, False):
            word = "listed" if listed else "not listed"
            yield f"{name} {word}", content(name, data, listed)


CHOICES = {
    "auto_map": {"AutoModel": "evil.M", "AutoConfig": "evil.C"},
    "trust_remote_code": True,
    "_attn_implementation": "evil/kernel",
    "attn_implementation": "evil/kernel:f",
    "_experts_implementation": "evil/kernel",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "fusion_config": {"patch_embeddings": True},
    "transformers_weights": "../../../outside/secret.safetensors",
    "name_or_path": "/etc",
    "_name_or_path": "evil/model",
    "dtype": "float64; import os",
    "num_labels": 10**12,
    "architectures": ["EvilModel"],
    "base_model_tp_plan": {"*": "x"},
    "use_kernels": True,
    "pruned_heads": {"0": [0]},
    "tokenizer_class": "RagTokenizer",
    "model_type": "rag",
    "text_config": {"model_type": "rag"},
    "is_decoder": True,
}
SIZES = ("hidden_size", "vocab_size", "intermediate_size", "max_position_embeddings")
SIZES += ("num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
VALUES = (2**31, 2**40, 10**30, 0, -1, 1.5, "12", None, [1] * 1000, {"a": 1}, True)


def configurations():
    """Entries of config.json: choices of code, sizes, values of no model."""
    for name, value in CHOICES.items():
        yield name, settings("config.json", **{name: value})
    for name in SIZES:
        for value in VALUES:
            change = settings("config.json", **{name: value})
            yield f"{name}={value!r:.20}", change
    for data in (
        b"",
        b"[]",
        b"null",
        b"[" * 10**6,
        b"\xff",
        b" " * 2**25,
        b'{"a": NaN}',
    ):
        yield f"config {data[:9]!r}", content("config.json", data)


TOKENIZERS = {
    "auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]},
    "tokenizer_class": "RagTokenizer",
    "vocab_file": "/etc/passwd",
    "tokenizer_file": "/etc/passwd",
    "chat_template": "{{ 1 / 0 }}",
    "init_inputs": ["/etc/passwd"],
    "fast_tokenizer_files": ["../x"],
    "added_tokens_decoder": {"99999999999": {"content": "x"}},
    "extra_special_tokens": {"evil_token": "x"},
    "additional_special_tokens": ["x"] * 1000,
    "model_max_length": 10**400,
    "padding_side": "up",
    "truncation_side": "up",
    "pad_token": {"content": "x", "evil": 1},
    "cls_token": None,
    "tokenizer_object": "x",
}


def tokenizers():
    """Settings and files of the tokenizer."""
    for name, value in TOKENIZERS.items():
        yield name, settings("tokenizer_config.json", **{name: value})
        yield f"map {name}", settings("special_tokens_map.json", **{name: value})
    fixed = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_id": 0}
    fixed |= {"pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "[PAD]"}
    cut = {"max_length": 1, "strategy": "LongestFirst", "stride": 9}
    grown = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10_000}
    for name, value in {
        "padding": fixed,
        "truncation": cut | {"direction": "Right"},
        "normalizer": grown,
        "pre_tokenizer": {"type": "Evil"},
        "post_processor": None,
        "decoder": {"type": "Evil"},
        "model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"},
        "added_tokens": [{"id": 10**12, "content": "x", "special": True}],
        "version": "9.9",
    }.items():
        yield f"json {name}", settings("tokenizer.json", **{name: value})
    for data in (b"", b"{}", b"[]", b"\xff", b"[" * 10**6, b"x" * 2**20):
        yield f"json {data[:9]!r}", content("tokenizer.json", data)


def images():
    """Settings of images that make pixels infinite, or pictures huge."""
    for name, values in {
        "image_std": ([0, 0, 0], [0.5, float("nan"), 1], [1e-320] * 3, 0, "x", [1], -1),
        "image_mean": ([float("inf")] * 3, "x", [1, 2]),
        "rescale_factor": (0, float("nan"), -1, "x", 1e308),
        "size": (10**9, 0, -1, "x", {"shortest_edge": 10**9}, [1, 2, 3], {}, None, 1.5),
        "crop_size": (10**9, {"height": 1}, "x", {"height": 10**9, "width": 1}),
        "resample": (99, -1, "x", [1]),
        "size_divisor": (0, 10**9, -32, "x"),
        "image_processor_type": (3, "Evil", "os.system"),
        "do_resize": (False,),
        "do_normalize": (False,),
    }.items():
        for value in values:
            change = settings("preprocessor_config.json", **{name: value})
            yield f"{name}={value!r:.30}", change


def indices():
    """Weights in shards, which an index names."""
    secret = "../../../outside/secret.safetensors"
    for target in (
        secret,
        "/etc/passwd",
        "..",
        "",
        "a/b.safetensors",
        3,
        None,
        "x.bin",
    ):

        def change(folder, world, target=target):
            weights = inside(folder) / "model.safetensors"
            named = dict.fromkeys(load_file(weights), target)
            index = {"metadata": {}, "weight_map": named}
            weights.unlink()
            name = "model.safetensors.index.json"
            (inside(folder) / name).write_text(json.dumps(index))
            relist(folder)

        yield f"{target!r}", change
    for data in (b"", b"[]", b"{}", b'{"weight_map": {}}', b"[" * 10**6, b" " * 2**25):

        def replace(folder, world, data=data):
            (inside(folder) / "model.safetensors").unlink()
            content("model.safetensors.index.json", data)(folder, world)

        yield f"index {data[:9]!r}", replace


def header(entries, size=0, length=None):
    """A safetensors file of a header and zeros, which take no room on the disk."""
    text = json.dumps(entries).encode()
    length = len(text) if length is None else length

    def change(folder, world, place=None):
        file = place(folder) if place else weights_of(folder)
        with open(file, "wb") as stream:
            stream.write(struct.pack("<Q", length) + text)
            stream.truncate(8 + len(text) + size)
        relist(folder)

    return change


def one(dtype, shape, stop, start=0):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}}


HEADERS = {
    "no header": header({}),
    "a long header": header({}, length=2**60),
    "a header of a gigabyte": header({}, 2**30, length=2**30),
    "overlapping": header(one("F32", [4], 16) | {"b": one("F32", [4], 16)["a"]}, 16),
    "a hole": header(one("F32", [4], 32, 16), 32),
    "backwards": header(one("F32", [4], 0, 16), 16),
    "overflow": header(one("F32", [2**62, 4], 16), 16),
    "negative": header(one("F32", [-4], 16), 16),
    "an unknown type": header(one("Q99", [4], 16), 16),
    "half bytes": header(one("F4", [4], 2), 2),
    "eight bit floats": header(one("F8_E4M3", [4], 4), 4),
    "complex": header(one("C64", [2], 16), 16),
    "sixteen bit brain floats": header(one("BF16", [4], 8), 8),
    "a sparse gigabyte": header(one("F32", [2**28], 2**30), 2**30),
    "a list": header([]),
    "a text": header("x"),
}


def safetensors():
    """Files that are no safetensors, or claim another size."""
    for name, change in HEADERS.items():
        yield name, change
        yield (
            f"frozen: {name}",
            lambda folder, world, c=change: c(
                folder, world, lambda f: inside(f) / "model.safetensors"
            ),
        )


def numbers():
    """Tensors of other numbers, shapes, types and names."""
    for word, value in {
        "NaN": np.nan,
        "infinity": np.inf,
        "-infinity": -np.inf,
    }.items():
        for name in ("head.layers.3.weight", "class_prior_", "train_loss"):

            def put(found, name=name, value=value):
                key = next(k for k in found if name in k and found[k].dtype.kind == "f")
                found[key].flat[0] = value

            yield f"{word} in {name}", arrays(put)

        def freeze(found, value=value):
            found[next(k for k in found if k.endswith("dense.weight"))].flat[0] = value

        yield f"{word} in the frozen", arrays(freeze, frozen=True)
    for word, scale in {
        "3e38": 3e38,
        "1e20": 1e20,
        "zero": 0.0,
        "denormal": 1e-44,
    }.items():

        def fill(found, scale=scale):
            for key in found:
                if "tensors" in key:
                    found[key] = np.full_like(found[key], scale)

        yield f"trained are {word}", arrays(fill)

        def fill_frozen(found, scale=scale):
            for key in found:
                found[key] = np.full_like(found[key], scale)

        yield f"frozen are {word}", arrays(fill_frozen, frozen=True)
    for word, made in {
        "no rows": lambda a: a[:0],
        "one row": lambda a: a[:1],
        "twice": lambda a: np.concatenate([a, a]),
        "turned": lambda a: np.ascontiguousarray(a.T),
        "flat": np.ravel,
        "double": lambda a: a.astype(np.float64),
        "half": lambda a: a.astype(np.float16),
        "integers": lambda a: a.astype(np.int64),
        "flags": lambda a: a > 0,
    }.items():
        for name in ("head.layers.3.weight", "class_prior_", "train_loss"):

            def remake(found, name=name, made=made):
                key = next(k for k in found if name in k)
                found[key] = np.ascontiguousarray(made(found[key]))

            yield f"{name}: {word}", arrays(remake)
    yield "no tensors", arrays(dict.clear)
    yield "one more", arrays(lambda a: a.update({"_trained.tensors.x": np.ones(3)}))
    yield "a large one more", arrays(lambda a: a.update(x=np.ones(2**25)))


STATE = [
    *("_build_module", "_check_parameters", "_load_backbone", "_restore", "_evaluate"),
    *("predict", "predict_proba", "fit", "__class__", "__dict__", "__reduce__", "net_"),
    *(
        "_skl_callbacks",
        "_metadata_request",
        "_checkpoints",
        "_epoch_tasks",
        "history_",
    ),
    *("_sklearn_output_config", "_KEPT", "STREAMS", "device", "cache", "foo_", "_foo"),
    *("checkpoint_dir", "image_root", "", "a b", "ünï_", "x" * 10_000, "_labels"),
]
JUNK = [
    *(None, True, -1, 2**80, 1.5, "", "x", [], {}, [1], [[[]]], float("nan")),
    {"$type": "tuple", "items": [1]},
    {"$type": "array", "name": "class_prior_"},
    {"$type": "list", "dtype": "<U3", "shape": [1], "items": ["a"]},
    {"$type": "path", "value": "/etc/passwd"},
    {"$type": "float", "value": "inf"},
    {"$type": "os.system", "value": "x"},
]


def states():
    """Attributes that no fitted classifier has, and values that none has."""
    for name in STATE:
        yield f"sets {name!r:.40}", entry(3, "state", name)
    for name in (
        "classes_",
        "class_prior_",
        "_multilabel",
        "missing_report_",
        "_trained",
    ):
        for i, value in enumerate(JUNK):
            yield f"{name} is {i}", entry(value, "state", name)
    for name in ("fingerprint", "history", "tensors", "inputs"):
        for i, value in enumerate(JUNK):
            yield f"trained {name} is {i}", entry(value, "state", "_trained", name)


COLLIDING = [[i * (2**61 - 1), 0] for i in range(200_000)]
DEEP = '{"$type": "tuple", "items": [' * 900 + "1" + "]}" * 900


def documents():
    """JSON that is large, deep, slow, or of other types."""
    for word, value in {
        "a long time": {"$type": "timestamp", "value": "2026-01-01 " * 10**5},
        "now": {"$type": "timestamp", "value": "now"},
        "wide text": {
            "$type": "list",
            "dtype": "<U999999999",
            "shape": [1],
            "items": [""],
        },
        "wide bytes": {"$type": "scalar", "dtype": "S4000000000", "value": ""},
        "a dtype of fields": {
            "$type": "list",
            "dtype": "i4,O",
            "shape": [0],
            "items": [],
        },
        "colliding keys": {"$type": "dict", "items": COLLIDING},
        "a large integer": 10**4000,
        "a large list": list(range(10**6)),
        "an unhashable key": {"$type": "dict", "items": [[[], 1]]},
        "a shape of no size": {
            "$type": "list",
            "dtype": "O",
            "shape": [9**9, 0],
            "items": [],
        },
        "many references": [{"$type": "array", "name": "class_prior_"}] * 10**5,
    }.items():
        yield word, entry(value, "state", "missing_report_")
    for word, text in {
        "deep": DEEP,
        "deeper": "[" * 10**6,
        "NaN": "NaN",
        "a number without end": "1" * 10**6,
        "no end": '{"a": ',
    }.items():

        def change(folder, world, text=text):
            document = json.dumps(document_of(folder) | {"more": "HERE"})
            (folder / "robustmm.json").write_text(document.replace('"HERE"', text))

        yield word, change
    for key in ("format", "format_version", "class", "parameters", "state", "files"):
        for i, value in enumerate(JUNK):
            yield f"{key} is {i}", entry(value, key)
    for data in (
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"\x80\x04.",
        b" " * 2**25,
        bytes(99),
    ):

        def replace(folder, world, data=data):
            (folder / "robustmm.json").write_bytes(data)

        yield f"all of it {data[:9]!r}", replace


def parameters():
    """Parameters out of range, and those that decide about memory."""
    for name in ("prompt_length", "prompt_layers", "max_text_length", "batch_size"):
        for value in (10**9, 2**63, 2**70, 0, -1, 1.5, "x", [10**9], True):
            yield f"{name}={value!r}", entry(value, "parameters", name)
    for name, value in {
        "device": "cuda:99; x",
        "precision": "float8",
        "image_column": ["a"],
        "text_column": {"a": 1},
        "cache": "/tmp",
        "checkpoint_dir": "/tmp",
        "random_state": 2**99,
        "class_weight": {"a": -1},
        "verbose": 10**9,
        "max_pixels": 0,
        "evil": 1,
        "self": 1,
    }.items():
        yield f"{name}={value!r}", entry(value, "parameters", name)
    for value in (
        {"callbacks": ["x"]},
        {"module": "x"},
        {"iterator_valid__num_workers": 1000},
        {"iterator_valid__batch_size": 10**9},
        {"iterator_valid": "os.system"},
        {"criterion": {"$type": "path", "value": "x"}},
        {"device": "cuda"},
    ):
        yield f"net_params {value!r:.40}", entry(value, "parameters", "net_params")


GROUPS = {
    "paths that lead out": paths,
    "backbones by name": outside_names,
    "links, FIFOs, devices": links,
    "foreign files": foreign_files,
    "config.json": configurations,
    "tokenizer": tokenizers,
    "image settings": images,
    "index of shards": indices,
    "safetensors": safetensors,
    "numbers": numbers,
    "state": states,
    "document": documents,
    "parameters": parameters,
}
