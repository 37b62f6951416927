"""What every public classifier promises; new ones are found by themselves."""

import pickle

import numpy as np
import pytest
from contract import (
    ToyClassifier,
    frame_with_holes,
    public_classifiers,
    public_tables,
    small,
)

from robustmm import MoRAClassifier, MultimodalClassifier
from robustmm.testing import parametrize_with_checks


@parametrize_with_checks([small(cls) for cls in public_tables()])
def test_promise(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda cls: cls.__name__)
def test_another_backbone_is_refused_when_a_pickle_opens(cls):
    state = small(cls).fit(*frame_with_holes(6)).__getstate__()
    state["_trained"]["fingerprint"] = "0" * 64
    with pytest.raises(ValueError, match="differs from the one"):
        cls.__new__(cls).__setstate__(state)


def test_without_a_cache_the_first_fit_is_like_every_other():
    X, y = frame_with_holes(12)
    first, second = (small(MoRAClassifier, cache=None).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(
        first.decision_function(X), second.decision_function(X)
    )


METHODS = [
    cls
    for cls in public_classifiers()
    # Those that are solved have no recipe.
    if cls is not ToyClassifier and issubclass(cls, MultimodalClassifier)
]
RECIPES = [
    (cls, name, recipe)
    for cls in METHODS
    for name, recipe in (
        cls.PAPER.items()
        if all(isinstance(part, dict) for part in cls.PAPER.values())
        else [("all", cls.PAPER)]
    )
]
# What a paper says, or whose absence would leave it to a default that may change.
OF_A_RECIPE = {"lr", "weight_decay", "lr_schedule", "warmup", "head_init", "head_lr"}
OF_A_RECIPE |= {"modality_dropout", "early_stopping"}


@pytest.mark.parametrize(
    ("cls", "name", "recipe"), RECIPES, ids=lambda v: getattr(v, "__name__", str(v)[:9])
)
def test_the_recipe_of_a_paper_is_one_that_the_class_takes(cls, name, recipe):
    clf = cls(**recipe)
    clf._check_parameters()
    assert {key: getattr(clf, key) for key in recipe} == recipe
    assert recipe.keys() >= OF_A_RECIPE
    assert name in {"all", "audio-video", "mmimdb", "food101", "hateful_memes"}
    # It is the class's own, and no default's.
    assert "PAPER" in vars(cls)


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_defaults_work_on_an_encoder_of_few_layers(cls):
    small_ones = {name: v for name, v in vars(small(cls)).items() if "backbone" in name}
    X, y = frame_with_holes(9)
    clf = cls(**small_ones, max_epochs=1, random_state=0).fit(X, y)
    assert clf.predict_proba(X).shape == (9, 2)


@pytest.mark.cuda
@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda cls: cls.__name__)
def test_trains_on_cuda_and_opens_on_the_cpu(cls):
    X, y = frame_with_holes(16)
    estimator = small(cls, device="cuda").fit(X, y)
    state = pickle.dumps(estimator.set_params(device="cpu"))
    copy = pickle.loads(state)
    np.testing.assert_allclose(
        copy.predict_proba(X), estimator.predict_proba(X), atol=2e-2
    )
