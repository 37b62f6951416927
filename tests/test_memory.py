"""What is used is given back: fits, searches and long predictions."""

import gc
import multiprocessing
import os
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from contract import ToyClassifier, frame_with_holes, public_classifiers, small
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, cross_validate

from robustmm.training.net import Net

X, Y = frame_with_holes()


@pytest.fixture
def modules(monkeypatch):
    """Weak references to the modules of all nets that are made."""
    references = []
    initialize = Net.initialize

    def remember(net):
        initialize(net)
        references.append(weakref.ref(net.module_))
        return net

    monkeypatch.setattr(Net, "initialize", remember)
    return references


def alive(references):
    return len({id(r()) for r in references if r() is not None})


def resident():
    """Bytes of memory that the process has."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_twenty_fits_keep_one_module(modules):
    clf = small(ToyClassifier)
    gc.collect()
    for i in range(20):
        clf.fit(X[:8], Y[:8]).predict(X[:8])
        if i == 4:
            before = resident()
    gc.collect()
    assert len(modules) >= 20
    assert alive(modules) == 1
    assert resident() - before < 10e6


@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda cls: cls.__name__)
def test_a_forgotten_estimator_is_freed(cls, modules):
    small(cls).fit(X[:12], Y[:12])
    gc.collect()
    assert alive(modules) == 0


def test_a_search_keeps_the_best_module_only(modules):
    grid = {"batch_size": [6, 8]}
    search = GridSearchCV(small(ToyClassifier), grid, cv=3).fit(X[:18], Y[:18])
    gc.collect()
    assert alive(modules) == 1
    assert search.best_estimator_.net_.module_ is modules[-1]()


class Picture(np.ndarray):
    """An array that can be weakly referenced, as some can not."""


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_fitted_estimator_keeps_no_data(early_stopping):
    table = X.copy()
    pictures = [None if v is None else np.asarray(v).view(Picture) for v in X["image"]]
    table["image"] = pd.Series(pictures, index=X.index, dtype=object)
    references = [weakref.ref(v) for v in pictures if v is not None]
    clf = small(ToyClassifier, early_stopping=early_stopping).fit(table, Y)
    clf.predict(table)
    del table, pictures
    gc.collect()
    assert [r for r in references if r() is not None] == []


def test_a_long_prediction_needs_one_batch_and_the_results(monkeypatch):
    clf = small(ToyClassifier).fit(X, Y)
    sizes = []

    def evaluate(net, batch, output="forward"):
        sizes.append(resident())
        return torch.zeros(len(batch["row"]), 2)

    monkeypatch.setattr(Net, "evaluate", evaluate)
    n = 3000
    table = pd.DataFrame({"image": pd.Series([None] * n, dtype=object)})
    table["text"] = [f"a hill and {i} trees" for i in range(n)]
    assert clf.predict_proba(table).shape == (n, 2)
    # A batch's pixels alone are 12 kB a row; the rest of the run needs next to nothing.
    assert sizes[-1] - sizes[len(sizes) // 3] < 5e6


def test_workers_are_not_started_inside_workers():
    # Children of joblib's processes may have none of their own.
    params = {f"iterator_{part}__num_workers": 2 for part in ("train", "valid")}
    clf = small(ToyClassifier, net_params=params)
    plain = cross_validate(small(ToyClassifier), X, Y, cv=2, return_estimator=True)
    with parallel_config("multiprocessing", n_jobs=2):
        other = cross_validate(clf, X, Y, cv=2, return_estimator=True)
    np.testing.assert_array_equal(plain["test_score"], other["test_score"])
    for one, two in zip(plain["estimator"], other["estimator"], strict=True):
        for name, value in one.net_.module_.head.named_parameters():
            again = two.net_.module_.head.get_parameter(name)
            torch.testing.assert_close(again, value)


def test_workers_are_not_started_in_workers_of_loky(monkeypatch):
    # What joblib's own backend sets in its processes, which are no daemons.
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda **kwargs: "loky")
    clf = small(ToyClassifier, net_params={"iterator_train__num_workers": 2})
    assert clf.fit(X, Y).net_.iterator_train__num_workers == 0


@pytest.mark.cuda
def test_gpu_memory_does_not_grow():
    sizes = []
    for _ in range(10):
        clf = small(ToyClassifier, device="cuda").fit(X, Y)
        clf.predict(X)
        del clf
        gc.collect()
        sizes.append(torch.cuda.memory_allocated())
    assert sizes[-1] == sizes[1]
    cross_validate(small(ToyClassifier, device="cuda"), X, Y, cv=3)
    gc.collect()
    assert torch.cuda.memory_allocated() == sizes[-1]
