"""Linears of 8 bits: close to what they stand for, and named as what they are."""

import copy
import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, public_classifiers, small
from torch import nn

import robustmm
from robustmm import CMPTClassifier, MAPClassifier
from robustmm.backbones.quantized import Int8Linear

X, Y = frame_with_holes(40, n_classes=3)
CLASSES = sorted(public_classifiers(), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("shape", [(1, 1, 24), (3, 5, 24), (7, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_close_to_the_linear(shape, bias):
    linear, x = nn.Linear(24, 18, bias=bias), torch.randn(shape)
    found = Int8Linear(linear.weight, linear.bias)(x)
    assert found.shape == (*shape[:-1], 18)
    assert (found - linear(x)).norm() < 0.02 * linear(x).norm()


def test_scales_are_those_of_a_token():
    linear = nn.Linear(24, 18, bias=False)
    x = torch.randn(2, 24)
    x[1] *= 1e4
    both, alone = (Int8Linear(linear.weight, None)(v) for v in (x, x[:1]))
    assert torch.equal(both[:1], alone)
    assert torch.equal(Int8Linear(linear.weight, None)(0 * x), torch.zeros(2, 18))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_classifier_has_a_twin_that_says_how_far_off_it_is(cls):
    clf = small(cls).fit(X, Y)
    before = clf.predict_proba(X)
    twin = clf.quantized(X)
    error = twin.quantization_error_
    assert 0 < error["mean_probability"] < error["max_probability"] < 0.1
    assert error["changed"] < 0.2
    assert np.abs(twin.predict_proba(X) - before).max() == error["max_probability"]
    assert (clf.predict_proba(X) == before).all()
    assert not hasattr(clf, "quantization_error_")


def test_no_float_linear_is_left_in_the_layers_of_merged_adapters():
    clf = CMPTClassifier._small().fit(X, Y)
    backbone = clf.quantized(X).net_.module_.backbone
    layers = [layer for stream in backbone.streams.values() for layer in stream.layers]
    parts = [part for layer in layers for part in layer.modules()]
    assert not [part for part in parts if isinstance(part, nn.Linear)]
    assert [part for part in parts if isinstance(part, Int8Linear)]


def test_it_cannot_be_saved(tmp_path):
    twin = MAPClassifier._small().fit(X, Y).quantized(X)
    assert (copy.copy(twin).predict(X) == twin.predict(X)).all()
    for save in (pickle.dumps, lambda clf: robustmm.save(clf, tmp_path / "model")):
        with pytest.raises(ValueError, match="cannot be saved"):
            save(twin)
    with pytest.raises(ValueError, match="cannot be saved or exported"):
        twin.quantized(X)


def test_a_fit_makes_a_model_that_is_not_quantised():
    twin = MAPClassifier._small().fit(X, Y).quantized(X)
    pickle.dumps(twin.fit(X, Y))
    assert not hasattr(twin, "quantization_error_")
