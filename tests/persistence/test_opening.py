"""Opening what a stranger may have saved: its class, its parameters, its sizes."""

import json

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from toys import QuickClassifier

import robustmm
from robustmm import LinearProbeClassifier, MSPClassifier
from robustmm.persistence.opening import open_folder
from robustmm.storage.folder import DOCUMENT

X, Y = frame_with_holes(12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained classifier with parameters of its machine, and its folder."""
    folder = tmp_path_factory.mktemp("opening")
    options = {"net_params": {"iterator_train__num_workers": 0}, "cache": None}
    clf = small(MSPClassifier, **options).fit(X, Y)
    robustmm.save(clf, folder / "model")
    return clf, folder / "model"


def open_it(folder, classes=(), trust_net_params=False):
    return open_folder(folder, "cpu", list(classes), trust_net_params)


def test_a_model_opens_without_its_net_params_and_says_so(saved):
    clf, folder = saved
    opened, dropped = open_it(folder)
    assert dropped
    assert opened.net_params is None
    np.testing.assert_array_equal(opened.predict_proba(X), clf.predict_proba(X))


def test_net_params_are_taken_if_they_are_trusted(saved):
    clf, folder = saved
    opened, dropped = open_it(folder, trust_net_params=True)
    assert not dropped
    assert opened.net_params == clf.net_params


def test_a_model_without_net_params_loses_nothing(tmp_path):
    robustmm.save(small(LinearProbeClassifier).fit(X, Y), tmp_path / "model")
    assert open_it(tmp_path / "model")[1] is False


def test_opening_draws_from_no_generator(saved):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    open_it(saved[1])
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_a_class_of_the_callers_own_has_to_be_named(tmp_path):
    clf = QuickClassifier().fit(X, Y)
    robustmm.save(clf, tmp_path / "model")
    with pytest.raises(ValueError, match=r"one of .*'MSPClassifier'.* got 'QuickC"):
        open_it(tmp_path / "model")
    opened, _ = open_it(tmp_path / "model", classes=[QuickClassifier])
    assert type(opened) is QuickClassifier


def forged(folder, tmp_path, **parameters):
    """A copy of a saved model that asks for other parameters."""
    place = tmp_path / "forged"
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    document = json.loads((place / DOCUMENT).read_bytes())
    document["parameters"] |= parameters
    (place / DOCUMENT).write_text(json.dumps(document))
    return place


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompt_length": 10**7}, "shape|differ"),
        ({"prompt_length": -2}, "prompt_length must be"),
        ({"max_text_length": 10**6}, "max_text_length must be at most 32768"),
        ({"rnak": 3}, "has other parameters than"),
    ],
    ids=str,
)
def test_what_a_folder_asks_for_is_compared_before_it_is_built(
    saved, tmp_path, parameters, message
):
    with pytest.raises(ValueError, match=message):
        open_it(forged(saved[1], tmp_path, **parameters))
