"""Stages of scenes, and what every method that learns them has to keep."""

import pickle

import numpy as np
import torch
from contract import small
from vilt_cases import LENGTHS, rows_of, vilt_batch

from robustmm import load_backbone
from robustmm.datasets import make_scenes


def stages_of(n_stages=3, n=16):
    """Tables of two classes each, a third without image and a third without text."""
    X, y = make_scenes(16 * n, n_classes=2 * n_stages, random_state=0)
    y, labels, tables = np.asarray(y), np.unique(y), []
    for stage in range(n_stages):
        rows = np.flatnonzero(np.isin(y, labels[2 * stage : 2 * stage + 2]))[:n]
        table = X.iloc[rows].astype(object).reset_index(drop=True)
        table.iloc[::3, 0] = None
        table.iloc[1::3, 1] = None
        tables.append((table, y[rows]))
    return tables


def indicators(y, stage):
    """The two labels of a stage as columns, of which some rows have both."""
    import pandas as pd

    table = pd.get_dummies(pd.Series(y)).astype(int)
    table.iloc[::5] = 1
    return table.rename(columns=lambda name: f"{name} {stage}")


def build(cls, n_stages=2, multilabel=False, backbone=None, n_outputs=2, **options):
    """An untrained module of two outputs per stage, after the last stage began."""
    clf = small(cls, **options)
    labels = np.arange(n_stages * n_outputs)
    clf.task_classes_ = np.split(labels, n_stages)
    clf.classes_, clf._multilabel, clf._task = labels, multilabel, n_stages - 1
    backbone = backbone or load_backbone("robustmm/tiny-vilt")
    return clf._build_module(backbone, len(labels))


def state_of(clf):
    """Copies of all tensors that are the estimator's own, by name."""
    module = clf.net_.module_
    return {
        name: tensor.detach().clone()
        for name, tensor in module.state_dict(keep_vars=True).items()
        if not module.backbone.is_shared(tensor)
    }


def assert_earlier_stages_stay(cls, **options):
    """What a stage learned is the same to the bit later; the stage at hand moves."""
    clf = small(cls, lr=1e-2, weight_decay=0.5, **options)
    before = {}
    for number, (X, y) in enumerate(stages_of()):
        clf.partial_fit(X, y)
        after = state_of(clf)
        for name, tensor in before.items():
            if name.startswith("stages."):
                assert torch.equal(tensor, after[name]), name
        assert_stage_moved(clf, number, X, y, cls, **options)
        before = after
    return clf


def assert_stage_moved(clf, number, X, y, cls, **options):
    """Every tensor of a stage is trained, in later stages as in the first."""
    names = [n for n, _ in clf.net_.get_all_learnable_params()]
    assert any(name.startswith(f"stages.{number}.") for name in names)
    twin = pickle.loads(pickle.dumps(clf)).partial_fit(X, y)
    one, other = state_of(clf), state_of(twin)
    still = [name for name in names if torch.equal(one[name], other[name])]
    assert still == []


def assert_rows_stand_alone(module, read):
    """A row alone, padded and shuffled gives the same (kills votes and reshapes)."""
    batch, close = vilt_batch(), {"atol": 1e-5, "rtol": 1e-5}
    with torch.inference_mode():
        together = read(module, **batch)
        order = torch.tensor([2, 0, 3, 1])
        shuffled = read(module, **rows_of(batch, order))
        torch.testing.assert_close(shuffled, together[order], **close)
        for i, length in enumerate(LENGTHS):
            alone = read(module, **rows_of(batch, [i], length))
            torch.testing.assert_close(alone, together[[i]], **close)


def assert_queries_may_be_kept(cls, **options):
    """A classifier with a cache learns what one without learns."""
    X, y = stages_of(1)[0]
    kept, computed = (
        small(cls, lr=1e-2, max_epochs=2, cache=cache, **options).fit(X, y)
        for cache in ("memory", None)
    )
    for name, tensor in state_of(kept).items():
        torch.testing.assert_close(tensor, state_of(computed)[name])


def assert_pickle_goes_on(cls, **options):
    """A pickle after two stages learns the third as the original does."""
    clf = small(cls, lr=1e-2, **options)
    stages = stages_of()
    for X, y in stages[:2]:
        clf.partial_fit(X, y)
    twin = pickle.loads(pickle.dumps(clf))
    for model in (clf, twin):
        model.partial_fit(*stages[2])
    X = stages[0][0]
    np.testing.assert_allclose(clf.predict_proba(X), twin.predict_proba(X), rtol=1e-6)


def assert_learns_indicators(cls, **options):
    """Stages of several labels give every label of every stage a probability."""
    clf = small(cls, **options)
    for number, (X, y) in enumerate(stages_of(2)):
        clf.partial_fit(X, indicators(y, number))
    proba = clf.predict_proba(X)
    assert proba.shape == (len(X), 4)
    assert clf.predict(X).shape == (len(X), 4)
    return clf


def assert_learns_one_class_at_a_time(cls, **options):
    """Stages of a single class are stages, too."""
    clf = small(cls, **options)
    for X, y in stages_of(2):
        for label in np.unique(y):
            clf.partial_fit(X[y == label], y[y == label])
    proba = clf.predict_proba(X)
    assert proba.shape == (len(X), 4)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert len(clf.task_classes_) == 4
