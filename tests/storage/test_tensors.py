"""Modules whose tensors have a shape and take no memory."""

import numpy as np
import pytest
import torch
from contract import ToyClassifier, public_classifiers, small

from robustmm import CMPTClassifier, MoRAClassifier
from robustmm.storage.tensors import check_shapes, own_tensors, without_memory

# What reads numbers while a module is built.
OPTIONS = [
    (MoRAClassifier, {"init": "identity"}),
    (MoRAClassifier, {"init": "identity", "use_specific": False, "gram": "learnable"}),
    (CMPTClassifier, {"proxy_init": "class_token"}),
    *((cls, {}) for cls in public_classifiers()),
]


def almost_fitted(cls, **options):
    """A classifier with what its module depends on, and its backbone."""
    clf = small(cls, **options)
    clf.classes_, clf._multilabel = np.arange(3), False
    clf.task_classes_, clf._task = [clf.classes_], 0
    clf.missing_report_ = {"text_missing": 1, "image_missing": 1}
    backbone = clf._load_backbone(torch.device("cpu"))
    assert backbone.fingerprint
    return clf, backbone


@pytest.mark.parametrize(
    ("cls", "options"), OPTIONS, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_every_module_has_the_same_shapes_without_memory(cls, options):
    clf, backbone = almost_fitted(cls, **options)
    real = own_tensors(clf._build_module(backbone, 3))
    clf, backbone = almost_fitted(cls, **options)
    with without_memory():
        module = clf._build_module(backbone.to("meta"), 3)
    assert all(tensor.is_meta for tensor in own_tensors(module).values())
    check_shapes(module, {name: np.empty(t.shape) for name, t in real.items()})


def test_numbers_are_one_and_devices_are_meta():
    weight = torch.arange(6.0).reshape(2, 3)
    with without_memory():
        huge = torch.empty(2**40, device="cpu")
        assert huge.is_meta
        assert (float(weight.norm()), bool(huge.any()), int(huge.long()[0])) == (
            1,
            1,
            1,
        )
        assert weight.new_zeros(2**40).is_meta
        assert huge.to(weight.device).is_meta
        assert (huge[:3] + weight).shape == (2, 3)
    assert weight[1, 2] == 5
    assert not torch.zeros(1).is_meta


def test_shapes_are_those_of_the_module():
    clf, backbone = almost_fitted(ToyClassifier)
    module = clf._build_module(backbone, 3)
    shapes = {name: np.empty(t.shape) for name, t in own_tensors(module).items()}
    check_shapes(module, shapes)
    for wrong in ({}, shapes | {"more": np.zeros(1)}, shapes | {"head.bias": 3.0}):
        with pytest.raises(ValueError, match="names and shapes of the module's"):
            check_shapes(module, wrong)
