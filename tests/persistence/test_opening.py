"""Folders that strangers forged are refused before they are believed."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from contract import ToyClassifier, small
from safetensors.numpy import load_file, save_file
from saved import X, Y, edit, open_toy, same

import robustmm
from robustmm import MAPClassifier, persistence


def rewrite(folder, change):
    """Change the arrays of a saved model, and its list of files with them."""
    (file,) = folder.glob("*.safetensors")
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)
    edit(folder, lambda d: d["files"].update(persistence.facts(folder, [file.name])))


def rewrite_inside(folder, name, content):
    """Change or add a file of the included backbone, and the list of files."""
    (inside,) = folder.glob("backbone-*")
    (inside / name).write_bytes(content)
    fact = persistence.facts(folder, [f"{inside.name}/{name}"])
    edit(folder, lambda document: document["files"].update(fact))
    return inside / name


def never_built(monkeypatch):
    """Fail where a module is built for real."""
    build = ToyClassifier._build_module

    def watched(self, backbone, n_outputs):
        module = build(self, backbone, n_outputs)
        assert module.head.weight.is_meta, "built before sizes were compared"
        return module

    monkeypatch.setattr(ToyClassifier, "_build_module", watched)


@pytest.mark.parametrize("name", ["head.weight", "head.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensors_that_are_not_finite_are_refused(folder, name, value, monkeypatch):
    rewrite(folder, lambda a: a[f"_trained.tensors.{name}"].flat.__setitem__(0, value))
    never_built(monkeypatch)
    with pytest.raises(ValueError, match=rf"must be finite .* '{name}'"):
        open_toy(folder)


def test_a_model_that_is_not_finite_is_not_saved_either(tmp_path):
    clf = small(ToyClassifier).fit(X, Y)
    with torch.no_grad():
        clf.net_.module_.head.bias[0] = np.nan
    with pytest.raises(ValueError, match=r"finite numbers, .* 'head\.bias'"):
        robustmm.save(clf, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_tensors_whose_products_overflow_say_so_when_rows_are_predicted(folder):
    rewrite(folder, lambda a: a["_trained.tensors.head.weight"].fill(3e38))
    with pytest.raises(ValueError, match=r"finite numbers.*row"):
        open_toy(folder).predict_proba(X)


def test_frequencies_that_are_not_finite_are_refused(folder):
    rewrite(folder, lambda arrays: arrays["class_prior_"].fill(np.nan))
    with pytest.raises(ValueError, match="class_prior_ must have a frequency"):
        open_toy(folder)


def test_sizes_are_compared_before_a_module_is_built(folder, monkeypatch):
    never_built(monkeypatch)
    n_outputs = 10**6
    labels = {"$type": "array", "name": "labels"}
    edit(folder, lambda document: document["state"].update(classes_=labels))

    def many(arrays):
        arrays["labels"] = np.arange(n_outputs)
        arrays["class_prior_"] = np.full(n_outputs, 1 / n_outputs)

    rewrite(folder, many)
    with pytest.raises(ValueError, match=r"names and shapes of the module.*1000000"):
        open_toy(folder)


HUGE = {
    "CMPTClassifier": ["rank"],
    "DeLoClassifier": ["rank", "pool_size", "factor_rank"],
    "FineTuneClassifier": ["rank"],
    "MAILClassifier": ["rank", "n_experts"],
    "MAPClassifier": ["prompt_length"],
    "MSPClassifier": ["prompt_length"],
    "MemPromptClassifier": ["memory_size", "prompt_length"],
    "MoRAClassifier": ["rank"],
}


@pytest.mark.parametrize("name", HUGE)
def test_a_forged_size_takes_no_memory(name, tmp_path):
    clf = small(getattr(robustmm, name))
    if name == "FineTuneClassifier":
        clf.set_params(tune="lora")
    robustmm.save(clf.fit(X[:12], Y[:12]), tmp_path / "model")
    for parameter in HUGE[name]:
        shutil.copytree(tmp_path / "model", tmp_path / parameter)
        edit(
            tmp_path / parameter,
            lambda document, p=parameter: document["parameters"].update({p: 10**9}),
        )
        with pytest.raises(ValueError, match="must"):
            robustmm.load(tmp_path / parameter, device="cpu")


def test_a_text_of_any_length_has_no_table_of_positions(folder):
    forged = small(MAPClassifier).fit(X[:12], Y[:12])
    robustmm.save(forged, folder)
    edit(folder, lambda document: document["parameters"].update(max_text_length=10**9))
    with pytest.raises(ValueError, match="max_text_length must be at most 32768, got"):
        robustmm.load(folder, device="cpu")


def test_parameters_out_of_their_range_are_refused(folder):
    edit(folder, lambda document: document["parameters"].update(batch_size=-1))
    with pytest.raises(ValueError, match=r"batch_size must be in \[1, inf\)"):
        open_toy(folder)


TWICE = {"$type": "array", "name": "class_prior_"}


@pytest.mark.parametrize("root", [3, ["a"], TWICE])
def test_a_root_of_images_is_a_path(tmp_path, root):
    robustmm.save(small(MAPClassifier).fit(X[:12], Y[:12]), tmp_path)
    edit(tmp_path, lambda document: document["parameters"].update(image_root=root))
    rule = "image_root must be a path or None, got"
    if root is TWICE:
        rule = "No two parts of a saved model may name the same array"
    with pytest.raises(ValueError, match=rule):
        robustmm.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "_build_module",
        "_check_parameters",
        "_load_backbone",
        "_width",
        "_skl_callbacks",
        "_metadata_request",
        "_checkpoints",
        "_epoch_tasks",
        "_repr_html_inner",
        "__dict__",
        "backbone",
        "lr",
        "net_",
    ],
)
def test_state_that_no_fitted_classifier_sets(folder, name):
    edit(folder, lambda document: document["state"].update({name: 3}))
    with pytest.raises(ValueError, match=f"No fitted ToyClassifier sets '{name}'"):
        open_toy(folder)


@pytest.mark.parametrize("name", ["foo_", "_foo", "task_classes_", "_task", "history_"])
def test_a_class_of_robustmm_has_exactly_its_own_state(tmp_path, name):
    robustmm.save(small(MAPClassifier).fit(X[:12], Y[:12]), tmp_path)
    edit(tmp_path, lambda document: document["state"].update({name: 3}))
    with pytest.raises(ValueError, match=f"No fitted MAPClassifier sets '{name}'"):
        robustmm.load(tmp_path, device="cpu")


def test_the_callers_own_class_may_keep_more(folder):
    edit(folder, lambda document: document["state"].update(foo_=3, _foo=[4]))
    assert (open_toy(folder).foo_, open_toy(folder)._foo) == (3, [4])


def test_what_set_output_chose_is_kept(tmp_path):
    clf = small(MAPClassifier).fit(X[:12], Y[:12]).set_output(transform="pandas")
    robustmm.save(clf, tmp_path)
    opened = robustmm.load(tmp_path, device="cpu")
    assert isinstance(opened.transform(X[:3]), pd.DataFrame)


def test_net_params_are_taken_if_asked_for(tmp_path):
    given = {"optimizer__betas": (0.9, 0.95), "iterator_valid__batch_size": 7}
    clf = small(ToyClassifier, net_params=given).fit(X, Y)
    robustmm.save(clf, tmp_path)
    with pytest.warns(UserWarning, match="net_params .* left out: trust_net_params="):
        again = open_toy(tmp_path)
    assert again.net_params is None
    assert again.net_.iterator_valid__batch_size == 64
    same(again, clf)
    again = open_toy(tmp_path, trust_net_params=True)
    assert again.net_params == given
    assert again.net_.iterator_valid__batch_size == 7


def test_no_net_params_no_warning(folder):
    edit(folder, lambda document: document["parameters"].update(net_params={}))
    assert open_toy(folder).net_params == {}


def test_a_hub_backbone_is_looked_up_without_the_token(folder, monkeypatch):
    seen = []

    def find(location, filename, **options):
        seen.append(options["token"])

    monkeypatch.setattr("transformers.utils.cached_file", find)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", lambda api, *_, **__: seen.append(api.token)
    )
    edit(folder, lambda document: document["parameters"].update(backbone="evil/model"))
    with pytest.raises(OSError, match="never makes use of your token"):
        open_toy(folder)
    assert len(seen) >= 3
    assert set(seen) == {False}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b'{"base_model_name_or_path": "/etc"}'),
        ("other.json", b"{}"),
        ("chat_template.jinja", b"{{ 1 / 0 }}"),
        (".metadata", pickle.dumps({})),
    ],
)
def test_an_included_backbone_has_known_files_only(complete, tmp_path, name, content):
    shutil.copytree(complete, tmp_path / "model")
    rewrite_inside(tmp_path / "model", name, content)
    with pytest.raises(ValueError, match="No saved model has a file named"):
        open_toy(tmp_path / "model")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_included_backbone_is_behind_no_link(complete, tmp_path, what):
    shutil.copytree(complete, tmp_path / "model")
    (inside,) = (tmp_path / "model").glob("backbone-*")
    place = inside if what == "folder" else inside / "tokenizer.json"
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"must (not be a link|be a file)"):
        open_toy(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokenizer.json", {"normalizer": None}, "tokenizer or the image settings"),
        ("preprocessor_config.json", {"resample": 0}, "tokenizer or the image settin"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "image_std must be"),
        ("config.json", {"projection_dim": 2**31}, "describes a model of"),
        ("config.json", {"quantization_config": {}}, "got a quantization_config"),
    ],
)
def test_a_forged_backbone_is_refused(complete, tmp_path, name, change, message):
    shutil.copytree(complete, tmp_path / "model")
    (file,) = (tmp_path / "model").glob(f"*/{name}")
    forged = json.loads(file.read_text()) | change
    rewrite_inside(tmp_path / "model", name, json.dumps(forged).encode())
    with pytest.raises((ValueError, OSError), match=message):
        open_toy(tmp_path / "model")


def test_an_index_that_leads_out_of_the_folder_is_refused(complete, tmp_path):
    shutil.copytree(complete, tmp_path / "model")
    (weights,) = (tmp_path / "model").glob("*/model.safetensors")
    shutil.move(weights, tmp_path / "outside.safetensors")
    names = load_file(tmp_path / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(names, "../../outside.safetensors")}
    name = f"{weights.parent.name}/model.safetensors"
    edit(tmp_path / "model", lambda document: document["files"].pop(name))
    data = json.dumps(index).encode()
    rewrite_inside(tmp_path / "model", "model.safetensors.index.json", data)
    with pytest.raises(OSError, match=r"must name .safetensors files beside it"):
        open_toy(tmp_path / "model")
