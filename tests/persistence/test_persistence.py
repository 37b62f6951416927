"""Saved models: whole at any moment, opened without pickle, refused when damaged."""

import json
import os
import pickle
import random
import shutil
import signal
import warnings
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from contract import ToyClassifier, small
from safetensors.numpy import load_file, save_file
from saved import X, Y, edit, open_toy, same
from sklearn.exceptions import NotFittedError
from vilt_cases import full_size_vilt

import robustmm
from robustmm import (
    DeLoClassifier,
    FineTuneClassifier,
    LinearProbeClassifier,
    MAILClassifier,
    MAPClassifier,
    MemPromptClassifier,
    MSPClassifier,
    persistence,
)
from robustmm.backbones import checkpoint
from robustmm.storage.tensors import own_tensors
from robustmm.training.device import resolve_device


def loads(state):
    return pickle.loads(state)


# What is saved ------------------------------------------------------------------------


def test_all_that_was_fitted_comes_back(toy, folder):
    again = open_toy(folder)
    same(again, toy)
    assert again.get_params() == toy.get_params() | {"device": "auto"}
    assert set(vars(again)) == set(vars(toy))
    assert again.missing_report_ == toy.missing_report_
    assert list(again.feature_names_in_) == ["image", "text"]
    assert again.history_.equals(toy.history_)
    assert len(again.net_.history) == 1


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, -4]),
        np.array([3, 200], dtype=np.uint8),
        np.array([0.5, 2.0]) * 2,
        np.array([True, False]),
        np.array(["yes", "naïve \udc80"]),
        np.array(["a", "b"], dtype=object),
    ],
    ids=lambda labels: f"{labels.dtype}",
)
def test_labels_keep_their_type(labels, tmp_path):
    y = labels[np.arange(12) % 2]
    clf = small(ToyClassifier).fit(X[:12], y)
    robustmm.save(clf, tmp_path)
    predicted = open_toy(tmp_path).predict(X[:12])
    assert predicted.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(predicted, clf.predict(X[:12]))


def test_indicators_and_rows_with_bad_images(tmp_path):
    table = X[:12].copy()
    table.iloc[2, 0] = b"no picture"
    table.index = pd.date_range("2026-01-01", periods=12)
    Y2 = pd.DataFrame({"drama": [0, 1] * 6, ("a", 1): [1, 1, 0] * 4})
    clf = small(ToyClassifier, on_bad_image="missing")
    with pytest.warns(UserWarning, match="1 image cells"):
        clf.fit(table, Y2)
    robustmm.save(clf, tmp_path)
    again = open_toy(tmp_path)
    assert list(again.classes_) == ["drama", ("a", 1)]
    assert again.missing_report_ == clf.missing_report_
    assert again.predict(X).shape == (24, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_weight", {"beach": print}),
        ("random_state", np.random.RandomState(0)),
    ],
)
def test_a_parameter_that_json_cannot_hold_is_named(toy, name, value, tmp_path):
    copy = pickle.loads(pickle.dumps(toy)).set_params(**{name: value})
    with pytest.raises(TypeError, match=f"{name}.* got (builtins|numpy)"):
        robustmm.save(copy, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_only_a_training_needs_is_left_out_with_a_warning(toy, tmp_path):
    clf = pickle.loads(pickle.dumps(toy))
    given = {"callbacks": [print, ("own", len)], "optimizer__betas": (0.9, 0.95)}
    given["optimizer"] = torch.optim.SGD
    clf.set_params(net_params=given)
    message = "saved model .* cannot hold print, own len, optimizer=SGD: left out"
    with pytest.warns(UserWarning, match=message) as seen:
        robustmm.save(clf, tmp_path)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert clf.net_params is given
    assert len(given["callbacks"]) == 2
    again = open_toy(tmp_path, trust_net_params=True)
    expected = {"callbacks": [], "optimizer__betas": (0.9, 0.95)}
    assert again.net_params == expected


def test_parameters_keep_their_type(toy, tmp_path):
    given = {
        "class_weight": {"beach": 1.0, 3: np.float64(2)},
        "net_params": {"optimizer__betas": (0.9, 0.95)},
        "batch_size": np.int64(6),
        "verbose": True,
    }
    copy = pickle.loads(pickle.dumps(toy)).set_params(**given)
    robustmm.save(copy, tmp_path)
    again = open_toy(tmp_path, trust_net_params=True).get_params()
    for name, value in given.items():
        assert repr(again[name]) == repr(value)


def test_what_belongs_to_the_machine_stays_there(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    clf = small(MAPClassifier, cache=cache).fit(X[:12], Y[:12])
    robustmm.save(clf, tmp_path / "model")
    shutil.rmtree(cache)
    again = robustmm.load(tmp_path / "model", device="cpu")
    assert (again.cache, again.device) == ("memory", "cpu")


def test_only_fitted_classifiers_are_saved(tmp_path):
    with pytest.raises(NotFittedError):
        robustmm.save(MAPClassifier(), tmp_path)
    with pytest.raises(TypeError, match="AutoMultimodalClassifier, got int"):
        robustmm.save(3, tmp_path)


def test_no_pickle_is_written_or_read(toy, tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError

    for owner, name in [(pickle, "loads"), (pickle, "load"), (torch, "load")]:
        monkeypatch.setattr(owner, name, never)
    robustmm.save(toy, tmp_path, include_backbone=True)
    same(open_toy(tmp_path), toy)
    kinds = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert kinds == {".json", ".safetensors"}


# Backbones ----------------------------------------------------------------------------


def test_the_included_backbone_is_the_parameter_and_stays(toy, complete, tmp_path):
    shutil.copytree(complete, tmp_path / "model")
    again = open_toy(tmp_path / "model")
    inside = Path(again.backbone)
    assert inside.parent == (tmp_path / "model").resolve()
    robustmm.save(again, tmp_path / "model")
    assert inside.is_dir()
    same(open_toy(tmp_path / "model"), toy)


def test_a_changed_or_missing_backbone_is_refused_by_name(tmp_path):
    original = tmp_path / "original"
    shutil.copytree(checkpoint._EMBEDDED / "tiny-vilt", original)
    clf = small(MAPClassifier, backbone=str(original)).fit(X[:12], Y[:12])
    fingerprint = clf.net_.module_.backbone.fingerprint[:12]
    robustmm.save(clf, tmp_path / "model")
    state = pickle.dumps(clf)
    weights = load_file(original / "model.safetensors")
    weights["embeddings.text_embeddings.word_embeddings.weight"] += 1
    save_file(weights, original / "model.safetensors", {"format": "pt"})
    for reopen in (lambda: robustmm.load(tmp_path / "model"), lambda: loads(state)):
        with pytest.raises(ValueError, match=f"original.*differs.*{fingerprint}"):
            reopen()
    with pytest.raises(ValueError, match=r"original.*have changed"):
        robustmm.save(clf, tmp_path / "model", include_backbone=True)
    shutil.rmtree(original)
    for reopen in (lambda: robustmm.load(tmp_path / "model"), lambda: loads(state)):
        with pytest.raises(OSError, match=f"MAPClass.*{fingerprint}.*original"):
            reopen()


# Other formats and versions -----------------------------------------------------------


def dump_with_skops(clf, path):
    skops.io.dump(clf, path)
    untrusted = skops.io.get_untrusted_types(file=path)
    assert untrusted == [f"{type(clf).__module__}.{type(clf).__name__}"]
    return skops.io.load(path, trusted=untrusted)


def dump_with_joblib(clf, path):
    joblib.dump(clf, path)
    return joblib.load(path, mmap_mode="r")


def dump_with_cloudpickle(clf, path):
    path.write_bytes(cloudpickle.dumps(clf))
    return cloudpickle.loads(path.read_bytes())


@pytest.mark.parametrize("cls", [ToyClassifier, DeLoClassifier, LinearProbeClassifier])
@pytest.mark.parametrize(
    "there_and_back", [dump_with_skops, dump_with_joblib, dump_with_cloudpickle]
)
def test_other_serialisers(cls, there_and_back, tmp_path):
    if cls not in FITTED:
        FITTED[cls] = small(cls).fit(X, Y)
    again = there_and_back(FITTED[cls], tmp_path / "model")
    same(again, FITTED[cls])
    # What a memory-mapped file cannot do: be written to.
    again.fit(X, Y)
    same(again, FITTED[cls])


FITTED = {}


# The papers' own settings make DeLo, MemPrompt and MAIL larger than a fiftieth.
LARGEST = {
    MAPClassifier: 0.02,
    MSPClassifier: 0.02,
    FineTuneClassifier: 0.02,
    MAILClassifier: 0.026,
    MemPromptClassifier: 0.048,
    DeLoClassifier: 0.064,
}


@pytest.mark.parametrize("cls", LARGEST, ids=lambda cls: cls.__name__)
def test_share_of_the_backbone_that_a_model_takes_at_full_size(cls):
    # Without weights there is no fingerprint, which a cache would ask for.
    clf, backbone = cls(cache=None), full_size_vilt()
    clf.classes_, clf._multilabel = np.arange(2), False
    clf.task_classes_, clf._task = [clf.classes_], 0
    with torch.device("meta"):
        module = clf._build_module(backbone, 2)
    # A pickle holds these and a few kB; see test_contract.
    own = sum(tensor.numel() for tensor in own_tensors(module).values())
    frozen = sum(p.numel() for p in full_size_vilt().parameters())
    assert own / frozen < LARGEST[cls]


# Devices ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "rule"),
    [("cuda:7", "cuda:7.*this machine has"), ("tpu", "device must be .*, got 'tpu'")],
)
def test_an_absent_device_is_an_error_before_anything_is_read(tmp_path, device, rule):
    with pytest.raises(ValueError, match=rule):
        robustmm.load(tmp_path / "nowhere", device=device)


def test_a_model_of_another_gpu_opens_here(toy, monkeypatch):
    state = toy.__getstate__() | {"device": "cuda:1"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    again = ToyClassifier.__new__(ToyClassifier)
    with pytest.warns(UserWarning, match="cuda:1.*0 CUDA devices; using another"):
        again.__setstate__(state)
    assert again.device == "cuda:1"
    same(again, toy)


def test_the_second_gpu_becomes_the_only_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match=r"cuda:1.*1 CUDA devices; using another"):
        assert resolve_device("cuda:1", fall_back=True) == torch.device("cuda")
    assert resolve_device("cuda:0", fall_back=True) == torch.device("cuda:0")
    with pytest.raises(ValueError, match=r"cuda:1.*1 CUDA devices"):
        resolve_device("cuda:1")


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["pickle", "save"])
def test_cuda_and_cpu_open_each_others_models(way, toy, tmp_path):
    there = small(ToyClassifier, device="cuda").fit(X, Y)
    for clf, device in ((there, "cpu"), (toy, "cuda"), (there, "cuda:0")):
        if way == "save":
            robustmm.save(clf, tmp_path)
            again = open_toy(tmp_path, device=device)
        else:
            state = clf.__getstate__() | {"device": device}
            again = ToyClassifier.__new__(ToyClassifier)
            again.__setstate__(pickle.loads(pickle.dumps(state)))
        assert next(again.net_.module_.parameters()).device.type == device[:4].strip(
            ":"
        )
        np.testing.assert_allclose(
            again.predict_proba(X), clf.predict_proba(X), atol=2e-2
        )


@pytest.mark.cuda
def test_the_second_gpu_of_another_machine_becomes_the_first(toy, tmp_path):
    absent = f"cuda:{torch.cuda.device_count()}"
    state = toy.__getstate__() | {"device": absent}
    again = ToyClassifier.__new__(ToyClassifier)
    with pytest.warns(UserWarning, match=f"{absent}.*using another"):
        again.__setstate__(state)
    assert next(again.net_.module_.parameters()).device.type == "cuda"


# Damage and attack --------------------------------------------------------------------


def test_nothing_there(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="There is no saved model"):
            robustmm.load(place)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["robustmm.json", "*.safetensors", "*/tokenizer.json"])
def test_truncated_files_are_refused(complete, kind, part, tmp_path):
    shutil.copytree(complete, tmp_path / "model")
    (file,) = (tmp_path / "model").glob(kind)
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match=f"{file.name}.*(damaged|cut short)"):
        open_toy(tmp_path / "model")


def test_a_flipped_bit_is_found(folder):
    (file,) = folder.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="not the file that was saved"):
        open_toy(folder)


@pytest.mark.parametrize("kind", ["missing", "folder", "link", "fifo"])
@pytest.mark.parametrize("name", ["robustmm.json", "*.safetensors"])
def test_only_regular_files_are_opened(folder, kind, name, tmp_path):
    (file,) = folder.glob(name)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(file, elsewhere)
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(file)
    with pytest.raises((ValueError, FileNotFoundError), match=file.name):
        open_toy(folder)


def move_weights(document, name):
    fact = document["files"].pop(document["weights"])
    document["files"][name] = fact
    document["weights"] = name


TRAVERSALS = [
    "../secret.safetensors",
    "/etc/passwd",
    "backbone-0123456789ab/../../secret.safetensors",
    "weights-0123456789ab.safetensors/../../x",
    "..\\secret.safetensors",
    "",
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_files_outside_the_folder_are_not_read(folder, name):
    edit(folder, lambda document: move_weights(document, name))
    with pytest.raises(ValueError, match="No saved model has a file named"):
        open_toy(folder)


@pytest.mark.parametrize("name", ["..", "../backbone-0123456789ab", "/tmp", 3, None])
def test_backbones_outside_the_folder_are_not_read(folder, name):
    edit(folder, lambda document: document.update(backbones={"backbone": name}))
    with pytest.raises(ValueError, match="No saved model has a backbone 'backbone'"):
        open_toy(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", ".hidden.json"])
@pytest.mark.parametrize("listed", [False, True])
def test_pickles_and_programs_beside_a_backbone_are_refused(
    complete, name, listed, tmp_path
):
    shutil.copytree(complete, tmp_path / "model")
    (inside,) = (tmp_path / "model").glob("backbone-*")
    (inside / name).write_bytes(b"anything")
    if listed:
        key = f"{inside.name}/{name}"
        fact = {"bytes": 8, "hash": "0" * 64}
        edit(tmp_path / "model", lambda document: document["files"].update({key: fact}))
    with pytest.raises(ValueError, match=r"must hold the listed|has a file named"):
        open_toy(tmp_path / "model")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "does not describe a model"),
        ("format_version", 3, "has format 3, written by robustmm .* opens formats 1"),
        ("format_version", 2, r"lacks \['tree', 'members'\]"),
        ("format_version", "1", "has format '1'"),
        ("format_version", True, "has format True"),
        ("class", "Popen", r"one of \[.*'CMPTClassifier'.*got 'Popen'.*classes="),
        ("class", ["ToyClassifier"], r"lacks \['class'\]"),
        ("parameters", {"rank": 3}, "has other parameters"),
        ("parameters", {"backbone": {"$type": "code"}}, "is damaged: The kind"),
        ("state", {}, "must hold what was trained"),
        ("state", {"predict": 3}, "No fitted ToyClassifier sets 'predict'"),
        ("state", {"device": "cpu"}, "No fitted ToyClassifier sets 'device'"),
        ("state", {"__class__": 3}, "No fitted ToyClassifier sets '__class__'"),
        ("state", {"_trained": {}}, "is not a fitted ToyClassifier"),
        ("state", None, r"lacks \['state'\]"),
        ("weights", "robustmm.json", "lists no weights"),
        ("files", {}, "lists no weights"),
    ],
)
def test_a_forged_description_is_refused(folder, key, value, message):
    edit(folder, lambda document: document.update({key: value}))
    with pytest.raises(ValueError, match=message):
        open_toy(folder)


JUNK = [
    *(None, True, -1, 2**80, 1.5, "", "x", "cuda:9", [], {}, [1]),
    {"$type": "tuple", "items": [1]},
    {"$type": "array", "name": "class_prior_"},
    {"$type": "list", "dtype": "<U3", "shape": [1], "items": ["a"]},
    {"$type": "path", "value": "/"},
    {"$type": "float", "value": "nan"},
]


def places(value, path=()):
    """The paths of all values inside parsed JSON."""
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield (*path, key)
        if isinstance(value[key], list | dict):
            yield from places(value[key], (*path, key))


@pytest.mark.filterwarnings("ignore")
def test_forged_values_end_in_a_model_or_an_error_that_says_so(folder):
    original = json.loads((folder / "robustmm.json").read_text())
    found = [path for path in places(original) if path[0] != "files"]
    draw, outcomes = random.Random(0), set()
    for _ in range(40):
        forged = json.loads(json.dumps(original))
        *path, last = draw.choice(found)
        owner = forged
        for key in path:
            owner = owner[key]
        owner[last] = draw.choice(JUNK)
        (folder / "robustmm.json").write_text(json.dumps(forged))
        try:
            open_toy(folder)
        except (ValueError, OSError):
            outcomes.add("refused")
        else:
            outcomes.add("opened")
    assert outcomes == {"refused", "opened"}


def test_json_that_nests_too_deeply(folder):
    (folder / "robustmm.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is damaged"):
        open_toy(folder)


def test_tensors_of_another_shape_are_refused(folder):
    (file,) = folder.glob("*.safetensors")
    arrays = load_file(file)
    name = "_trained.tensors.head.bias"
    # Broadcasting would accept it without a word.
    save_file(arrays | {name: arrays[name][:1]}, file)
    edit(folder, lambda d: d["files"].update(persistence.facts(folder, [file.name])))
    with pytest.raises(ValueError, match=r"names and shapes.*head\.bias"):
        open_toy(folder)


def test_an_unknown_class_is_named(folder):
    with pytest.raises(ValueError, match="got 'ToyClassifier'; pass a class of"):
        robustmm.load(folder)


# Saving over --------------------------------------------------------------------------


def test_saving_again_replaces_and_leaves_nothing_behind(toy, folder):
    before = {file.name for file in folder.iterdir()}
    other = small(ToyClassifier, random_state=1).fit(X, Y)
    (folder / "README.txt").write_text("mine")
    robustmm.save(other, folder, include_backbone=True)
    robustmm.save(other, folder)
    same(open_toy(folder), other)
    after = {file.name for file in folder.iterdir()}
    assert len(after) == len(before) + 1 == 3
    assert "README.txt" in after


def test_a_folder_of_something_else_is_left_alone(toy, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds \['thesis.tex'\]"):
        robustmm.save(toy, tmp_path)
    with pytest.raises(ValueError, match=r"thesis\.tex' is a file"):
        robustmm.save(toy, tmp_path / "thesis.tex")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


STEPS = ["write_bytes", "replace_bytes", "sync_folder", "save_checkpoint"]


@pytest.mark.parametrize(
    "included", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_model_opens_while_another_process_saves(toy, folder, included, tmp_path):
    other = small(ToyClassifier, random_state=1).fit(X, Y)
    with warnings.catch_warnings():
        # Later Pythons warn of threads; torch has one here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            while True:
                for clf in (other, toy):
                    robustmm.save(clf, folder, include_backbone=included)
                    (tmp_path / "saved").touch()
        finally:
            os._exit(1)
    try:
        expected = [clf.decision_function(X) for clf in (toy, other)]
        found = [open_toy(folder).decision_function(X) for _ in range(15)]
        assert (tmp_path / "saved").exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    for values in found:
        assert any(np.allclose(values, e, rtol=0, atol=1e-6) for e in expected)


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_in_the_middle_leaves_the_old_model(toy, folder, step, monkeypatch):
    before = {file.name for file in folder.iterdir()}
    other = small(ToyClassifier, random_state=1).fit(X, Y)

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(persistence, step, fail)
        with pytest.raises(KeyboardInterrupt):
            robustmm.save(other, folder, include_backbone=True)
    same(open_toy(folder), toy)
    assert {file.name for file in folder.iterdir()} == before
    robustmm.save(other, folder)
    same(open_toy(folder), other)


def test_what_a_kill_left_behind_is_removed(toy, folder):
    # A killed process runs no cleaning.
    (folder / "weights-0123456789ab.safetensors").write_bytes(b"half")
    (folder / ".robustmm.json.0123456789ab").write_bytes(b"half")
    (folder / "backbone-0123456789ab").mkdir()
    (folder / "backbone-0123456789ab" / "config.json").write_bytes(b"half")
    same(open_toy(folder), toy)
    robustmm.save(toy, folder)
    assert len(list(folder.iterdir())) == 2
