"""Saved models of several members: damage and forgery are refused, in any member."""

import json

import numpy as np
import pytest

import robustmm
from robustmm import AutoMultimodalClassifier, LinearProbeClassifier
from robustmm.ensemble.baselines import TfidfClassifier
from robustmm.testing.subject import table


@pytest.fixture(scope="module")
def fitted():
    X, y = table(24)
    pairs = [
        ("words", TfidfClassifier()),
        ("probe", LinearProbeClassifier("robustmm/tiny-clip", C=0.1, device="cpu")),
    ]
    clf = AutoMultimodalClassifier(candidates=pairs, random_state=0, device="cpu")
    clf.fit(X, y)
    # Both, whatever was chosen.
    clf.members_ = [(name, each.fit(X, y)) for name, each in pairs]
    clf.weights_ = np.array([0.5, 0.5])
    return clf


@pytest.fixture
def folder(fitted, tmp_path):
    robustmm.save(fitted, tmp_path / "model")
    return tmp_path / "model"


def edit(folder, change):
    path = folder / "robustmm.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_it_opens_and_predicts_the_same(fitted, folder):
    X, _ = table(24)
    again = robustmm.load(folder, device="cpu")
    np.testing.assert_allclose(again.predict_proba(X), fitted.predict_proba(X))
    assert [name for name, _ in again.members_] == ["words", "probe"]
    assert again.n_trainable_parameters_ == fitted.n_trainable_parameters_
    robustmm.save(again, folder)
    robustmm.load(folder, device="cpu")


def test_a_single_member_is_saved_too(fitted, tmp_path):
    words = fitted.members_[0][1]
    robustmm.save(words, tmp_path / "words")
    X, _ = table(6)
    opened = robustmm.load(tmp_path / "words")
    np.testing.assert_allclose(opened.predict_proba(X), words.predict_proba(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("members"), "has members, or lacks them"),
        (lambda d: d.update(members={}), "has members, or lacks them"),
        (lambda d: d["members"].append(3), "must have a name"),
        (lambda d: d["members"].append({"name": "a"}), "parameters and a state"),
        (lambda d: d["members"].pop(), "weights_ must be"),
        (lambda d: d["members"][0].update({"class": "Popen"}), "must be one of"),
        (lambda d: d["members"][0].update(members=[]), "has members, or lacks them"),
        (lambda d: d["members"][0]["state"].update(net_=1), "sets 'net_'"),
        (lambda d: d["members"][0]["state"].update(vocabulary_=["a"]), "idf_ must be"),
        (lambda d: d["members"][0]["state"].pop("coef_"), "coef_ must be"),
        (lambda d: d["members"][1]["state"].pop("_trained"), "what was trained"),
        (lambda d: d["members"][1]["parameters"].update(C=-1), "C must be"),
        (lambda d: d["members"][1].update(skops=[1]), "not opened|damaged"),
        (lambda d: d["state"].update(temperatures_={}), "temperatures_ must be"),
        (lambda d: d["state"].update(_leaderboard=[{"name": 1}]), "_leaderboard"),
        (lambda d: d["parameters"].update(max_epochs=0), "max_epochs"),
        (lambda d: d["members"][1].update(backbones={"C": "x"}), "backbone 'C'"),
    ],
)
def test_a_forged_member_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        robustmm.load(folder, device="cpu")


def test_net_params_of_a_member_are_left_out(folder):
    def plant(document):
        member = document["members"][1]
        member["class"] = "FineTuneClassifier"
        member["parameters"] = {"net_params": {"callbacks": []}}

    edit(folder, plant)
    # Refused for its tensors; what matters is that nothing of it ran before.
    with pytest.raises((ValueError, OSError)):
        robustmm.load(folder, device="cpu")
