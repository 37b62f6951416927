"""Compiled blocks: the same numbers, one graph for all sizes, shared by all fits."""

import copy
import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes
from torch._dynamo.utils import counters

from robustmm import CMPTClassifier, DeLoClassifier, MAILClassifier, MAPClassifier
from robustmm.backbones import compiled as module

X, Y = frame_with_holes(35, n_classes=3)
# Torch looks at the gradients of whatever it is given, and hides its warning.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")
original = torch.compile


@pytest.fixture(autouse=True)
def _traced_alone(monkeypatch):
    """Trace as always, but run what was traced without a C++ compiler: in seconds."""

    def trace(function, dynamic=None, options=None):
        return original(function, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(module.torch, "compile", trace)
    for cached in (module.compiled, module.why_not):
        cached.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield
    for cached in (module.compiled, module.why_not):
        cached.cache_clear()


def graphs():
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "cls",
    [
        pytest.param(cls, marks=pytest.mark.slow)
        for cls in (MAPClassifier, CMPTClassifier, DeLoClassifier, MAILClassifier)
    ],
)
def test_fit_and_predictions_are_the_same(cls):
    plain = cls._small().fit(X, Y)
    clf = cls._small(compile=True).fit(X, Y)
    np.testing.assert_allclose(
        clf.predict_proba(X), plain.predict_proba(X), rtol=0, atol=1e-3
    )
    assert graphs()
    assert counters["graph_break"] == {}


@pytest.mark.slow
def test_batches_of_any_size_and_other_fits_need_no_new_graph():
    clf = MAPClassifier._small(compile=True).fit(X, Y)
    clf.predict(X)
    known = graphs()
    for rows in (range(3, 30), range(20), range(5)):
        clf.predict(X.iloc[list(rows)])
    MAPClassifier._small(compile=True, random_state=1).fit(X[:27], Y[:27]).predict(X)
    assert graphs() == known


@pytest.mark.slow
def test_it_survives_pickling_and_copies():
    clf = MAPClassifier._small(compile=True).fit(X, Y)
    expected = clf.predict_proba(X)
    known = graphs()
    for twin in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert twin.compile
        assert (twin.predict_proba(X) == expected).all()
        assert twin.net_.module_.backbone["joint"].compile_blocks
    assert graphs() == known
    names = clf.net_.module_.state_dict()
    assert not [name for name in names if "_orig_mod" in name]


@pytest.mark.slow
def test_the_shared_backbone_is_not_changed():
    MAPClassifier._small(compile=True).fit(X, Y)
    plain = MAPClassifier._small().fit(X, Y)
    assert not plain.net_.module_.backbone["joint"].compile_blocks


def fail(*_, **__):
    raise RuntimeError("no g++\nanywhere")


def test_without_a_compiler_a_fit_says_what_to_do(monkeypatch):
    monkeypatch.setattr(module.torch, "compile", fail)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler.*no g\+\+$"):
        MAPClassifier._small(compile=True).fit(X, Y)


@pytest.mark.slow
def test_without_a_compiler_a_model_opens(monkeypatch):
    stored = pickle.dumps(MAPClassifier._small(compile=True).fit(X, Y))
    module.why_not.cache_clear()
    monkeypatch.setattr(module.torch, "compile", fail)
    with pytest.warns(UserWarning, match="cannot compile here"):
        clf = pickle.loads(stored)
    assert not clf.compile
    clf.predict(X)


def test_what_it_may_be():
    with pytest.raises(ValueError, match="compile must be one of"):
        MAPClassifier._small(compile="yes").fit(X, Y)


@pytest.mark.slow
def test_with_the_compiler_itself(monkeypatch):
    monkeypatch.setattr(module.torch, "compile", original)
    plain = MAPClassifier._small().fit(X, Y)
    clf = MAPClassifier._small(compile=True).fit(X, Y)
    np.testing.assert_allclose(
        clf.predict_proba(X), plain.predict_proba(X), rtol=0, atol=1e-3
    )
