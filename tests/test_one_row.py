"""A row costs a forward: nothing is built anew for it, and no loader started."""

import copy

import numpy as np
import pytest
import torch
from contract import frame_with_holes
from toys import QuickClassifier

from robustmm.data import text
from robustmm.training import net

X, Y = frame_with_holes(70)


@pytest.fixture(scope="module")
def fitted():
    return QuickClassifier().fit(X, Y)


@pytest.fixture
def loaders(monkeypatch):
    """How many rows each loader was made for."""
    seen = []

    class Watched(torch.utils.data.DataLoader):
        def __init__(self, dataset, *args, **options):
            seen.append(len(dataset))
            super().__init__(dataset, *args, **options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", Watched)
    return Watched, seen


def test_no_tokenizer_is_copied_for_a_row(fitted, monkeypatch):
    copied = []
    monkeypatch.setattr(text.copy, "deepcopy", lambda v, *m: copied.append(v) or v)
    fitted.predict(X.iloc[[0]])
    assert not copied


def test_no_tokenizer_is_copied_for_a_second_fit(monkeypatch):
    copied, original = [], copy.deepcopy
    QuickClassifier().fit(X, Y)

    class Spy:
        @staticmethod
        def deepcopy(value, *memo):
            copied.append(value)
            return original(value, *memo)

    monkeypatch.setattr(text, "copy", Spy)
    QuickClassifier().fit(X, Y)
    assert not copied


def test_a_batch_needs_no_loader(fitted, monkeypatch):
    monkeypatch.setattr(net, "DataLoader", None)
    # What the net was given is not what the module knows by now: the loader's way.
    through = [fitted.predict_proba(X.iloc[:n]) for n in (1, 30)]
    monkeypatch.undo()
    monkeypatch.setattr(fitted.net_, "get_iterator", None)
    for n, expected in zip((1, 30), through, strict=True):
        np.testing.assert_array_equal(fitted.predict_proba(X.iloc[:n]), expected)


def test_more_rows_than_a_batch_have_a_loader(fitted, monkeypatch):
    made = []
    original = fitted.net_.get_iterator
    monkeypatch.setattr(
        fitted.net_, "get_iterator", lambda *a, **k: made.append(a) or original(*a, **k)
    )
    fitted.predict(X)
    assert len(made) == 1


def test_a_loader_of_the_users_own_is_used(loaders):
    kind, seen = loaders
    clf = QuickClassifier(net_params={"iterator_valid": kind}).fit(X, Y)
    clf.predict(X.iloc[[0]])
    assert seen[-1] == 1


def test_every_size_around_a_batch(fitted):
    whole = fitted.predict_proba(X)
    for n in (1, 2, 63, 64, 65):
        np.testing.assert_allclose(fitted.predict_proba(X[:n]), whole[:n], atol=1e-6)
