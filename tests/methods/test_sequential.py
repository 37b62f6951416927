"""Sequential fine-tuning: which heads learn, and a memory that is what it says."""

import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from stage_cases import (
    assert_learns_indicators,
    assert_learns_one_class_at_a_time,
    assert_pickle_goes_on,
    assert_queries_may_be_kept,
    build,
    indicators,
    stages_of,
    state_of,
)
from torch.nn import functional as F
from vilt_cases import perturb, vilt_batch

from robustmm import SequentialClassifier
from robustmm.backbones import Tokens
from robustmm.methods.sequential import SequentialModule

TUNES = ("lora", "head")


def learned(n_stages=2, **options):
    clf = small(SequentialClassifier, **{"lr": 1e-2} | options)
    for X, y in stages_of(3)[:n_stages]:
        clf.partial_fit(X, y)
    return clf


def heads(clf):
    return [v for n, v in sorted(state_of(clf).items()) if n.endswith("head.weight")]


@pytest.mark.parametrize(
    ("options", "moves"),
    [
        ({}, True),
        ({"masked": True, "weight_decay": 0.5}, False),
        ({"masked": True, "memory_size": 4}, True),
    ],
    ids=str,
)
def test_old_heads_move_where_a_loss_reaches_them(options, moves):
    clf = small(SequentialClassifier, lr=1e-2, **options)
    (X, y), (more, z) = stages_of(2)
    before = heads(clf.partial_fit(X, y))[0]
    after = heads(clf.partial_fit(more, z))[0]
    assert torch.equal(before, after) is not moves


def test_the_adapters_go_on():
    X, y = stages_of(3)[2]
    clf = learned(masked=True)
    before = state_of(clf)
    after = state_of(clf.partial_fit(X, y))
    adapters = [name for name in before if name.startswith("backbone.")]
    assert len(adapters) == 2 * 3 * 4
    assert not any(torch.equal(before[n], after[n]) for n in adapters)


@pytest.mark.parametrize("tune", TUNES)
def test_the_loss_is_among_all_classes_or_those_of_the_stage(tune):
    module = perturb(build(SequentialClassifier, 3, tune=tune)).train()
    batch, y = vilt_batch(), torch.tensor([0, 1, 1, 0])
    every = module.classify(module.features(**batch))
    logits, _ = module(learning=1, **batch)
    expected = F.cross_entropy(every, y + 2)
    torch.testing.assert_close(F.cross_entropy(logits, y), expected)
    module.masked = True
    logits, _ = module(learning=1, **batch)
    torch.testing.assert_close(logits, every[:, 2:4])


@pytest.mark.parametrize("tune", TUNES)
def test_the_memory_holds_rows_with_their_patterns(tune):
    clf = learned(3, tune=tune, memory_size=5)
    memory = clf.net_.module_.memory
    assert len(memory) == 5
    assert int(memory.seen) == 48
    states, mask, where, targets = memory.take(torch.arange(5))
    rows = {}
    for number, (X, y) in enumerate(stages_of(3)):
        for place in range(len(X)):
            one = pack(clf, X.iloc[[place]])
            rows[number, place] = one, np.unique(y).tolist().index(y[place])
    for i in range(5):
        found = [
            label
            for (stage, _), (row, label) in rows.items()
            if stage == where[i]
            and row.shape == states[i][mask[i]].shape
            # Behind layers that were trained later, features are others by now.
            and torch.allclose(row, states[i][mask[i]], atol=1e-5)
        ]
        assert int(targets[i, 0]) in found


def pack(clf, X):
    """What a memory would keep of one row."""
    dataset = clf._dataset(clf.net_.module_.backbone, clf._check_X(X, reset=False))
    batch, _ = clf._collate(clf.net_.module_.backbone)([dataset[0]])
    packed = clf.net_.evaluate(batch, SequentialModule.states)[0]
    return packed[packed[:, -1] > 0][:, :-1]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("tune", TUNES)
def test_replayed_rows_are_learned_as_new_ones_are(tune, masked):
    clf = learned(2, tune=tune, memory_size=6, masked=masked)
    module = clf.net_.module_.train()
    memory = module.memory
    positions = torch.tensor([4, 0])
    _, _, where, targets = memory.take(positions)
    expected = []
    for i in range(2):
        one = memory.take(positions[i : i + 1])
        feature = one.states[:, 0]
        if tune == "lora":
            stream = module.stream
            values = one.states
            for layer in range(stream.n_layers):
                values = step(stream, layer, values)
            feature = stream.pooler(stream.norm(values[:, 0]))
        heads = [s.head(feature) for s in module.stages]
        logits = heads[where[i]] if masked else torch.cat(heads, dim=1)
        label = int(targets[i, 0]) + (0 if masked else 2 * int(where[i]))
        expected.append(F.cross_entropy(logits, torch.tensor([label])))
    got = module._replay(positions)
    torch.testing.assert_close(got, torch.stack(expected).mean(), atol=1e-5, rtol=1e-4)


def step(stream, layer, values):
    tokens = Tokens(values, None, {"text": (0, values.shape[1])})
    return stream.step(layer, tokens).values


def test_a_memory_that_is_replayed_keeps_what_is_forgotten_without():
    options = {"max_epochs": 6, "tune": "head", "lr": 3e-2}
    X, y = stages_of(3)[0]
    plain, replayed = learned(**options), learned(**options, memory_size=16)
    kept, left = ((clf.predict(X) == y).mean() for clf in (replayed, plain))
    assert kept > left + 0.25


@pytest.mark.parametrize("tune", TUNES)
def test_the_memory_is_seeded_and_pickled(tune):
    one, other = (learned(2, tune=tune, memory_size=4) for _ in range(2))
    twin = pickle.loads(pickle.dumps(one))
    for name, tensor in state_of(one).items():
        assert torch.equal(tensor, state_of(other)[name]), name
        assert torch.equal(tensor, state_of(twin)[name]), name
    assert len(twin.net_.module_.memory) == 4


def test_a_new_fit_forgets_the_memory():
    X, y = stages_of(1)[0]
    clf = learned(2, memory_size=30)
    assert len(clf.net_.module_.memory) == 30
    assert len(clf.fit(X, y).net_.module_.memory) == 16


def test_a_pickle_goes_on():
    assert_pickle_goes_on(SequentialClassifier, memory_size=4)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("memory_size", [0, 6])
def test_indicators_are_learned(memory_size, masked):
    options = {"memory_size": memory_size, "masked": masked}
    clf = assert_learns_indicators(SequentialClassifier, **options)
    X, y = stages_of(3)[2]
    clf.partial_fit(X, indicators(y, 2).iloc[:, :1].assign(**{"a": 1, "b": 0}))
    assert clf.predict_proba(X).shape == (16, 7)


def test_features_may_be_kept():
    assert_queries_may_be_kept(SequentialClassifier, tune="head")


def test_classes_may_come_one_by_one():
    assert_learns_one_class_at_a_time(SequentialClassifier, memory_size=3)


def test_loss_falls():
    X, y = frame_with_holes(48)
    clf = small(SequentialClassifier, max_epochs=8, lr=1e-2).fit(X, y)
    losses = clf.history_["train_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"tune": "full"}, "tune must be one of"),
        ({"memory_size": -1}, "memory_size must be in"),
        ({"masked": "yes"}, "masked must be one of"),
        ({"rank": 0}, "rank must be in"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(SequentialClassifier, **option).fit(X, y)
