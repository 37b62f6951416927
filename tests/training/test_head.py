"""A head that starts from a probe, and one with a rate of its own."""

import numpy as np
import pytest
import torch
from contract import ToyClassifier, public_classifiers, small
from sklearn.metrics import log_loss
from toys import QuickClassifier

from robustmm import (
    CMPTClassifier,
    DeLoClassifier,
    FineTuneClassifier,
    MAILClassifier,
    MultimodalClassifier,
    RAGPTClassifier,
    drop_modalities,
)
from robustmm.adapters import LinearHead
from robustmm.data import STATES, ByteCache
from robustmm.datasets import make_scenes
from robustmm.training import head as starting
from robustmm.training.head import start_from_probe
from robustmm.training.probe import GRID

METHODS = [
    cls
    for cls in public_classifiers()
    if issubclass(cls, MultimodalClassifier) and cls is not ToyClassifier
]
METHODS.remove(RAGPTClassifier)  # its head is tied to the labels it retrieves
KINDS = [
    *((cls, {}) for cls in METHODS),
    *((FineTuneClassifier, {"tune": tune}) for tune in ("lora", "bitfit", "full")),
    (FineTuneClassifier, {"backbone": "robustmm/tiny-clip", "tune": "dora"}),
]
STILL = {"lr": 1e-12, "head_lr": None, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def table():
    X, y = make_scenes(48, n_classes=3, random_state=0)
    return drop_modalities(X, rate=0.5, scenario="both", random_state=0), np.array(y)


def quick(**params):
    clf = QuickClassifier()
    vars(clf).update(params)
    return clf


@pytest.mark.parametrize(
    ("cls", "params"), KINDS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_the_first_loss_is_that_of_a_probe(cls, params, table):
    X, y = table
    still = STILL | ({"backbone_lr": 1e-12} if "tune" in params else {})
    start = small(cls, head_init="probe", **still, **params).fit(X, y)
    prior = log_loss(y, np.tile(start.class_prior_, (len(y), 1)))
    assert log_loss(y, start.predict_proba(X)) < 0.8 * prior
    random = small(cls, head_init="random", **still, **params).fit(X, y)
    assert log_loss(y, random.predict_proba(X)) > log_loss(y, start.predict_proba(X))


def test_it_is_the_regression_on_what_the_head_reads(table):
    X, y = table
    clf = small(MAILClassifier, head_init="probe", **STILL).fit(X, y)
    features = clf.transform(X)
    logits = clf.decision_function(X)
    weight = clf.net_.module_.head.weight.detach().double().numpy()
    bias = clf.net_.module_.head.bias.detach().double().numpy()
    np.testing.assert_allclose(logits, features @ weight.T + bias, atol=1e-4)
    # At the optimum of a penalised regression the gradient of the data's part is the
    # penalty's: opposite to the coefficients of the standardised features.
    proba = clf.predict_proba(X) - np.eye(3)[np.unique(y, return_inverse=True)[1]]
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    gradient = proba.T @ scaled
    coef = weight * features.std(axis=0)
    ratio = -(gradient * coef).sum() / (coef**2).sum()
    np.testing.assert_allclose(gradient, -ratio * coef, atol=0.05 * abs(gradient).max())
    assert np.isclose(ratio, 1 / np.array(GRID), rtol=0.1).any()


def test_weights_count_and_empty_rows_do_not(table):
    X, y = table
    X = X.astype(object).copy()
    X.iloc[:2] = None
    weights = np.where(y == "beach", 5.0, 1.0)

    def proba(rows=slice(None), **params):
        clf = quick(head_init="probe", **STILL, **params)
        with pytest.warns(UserWarning, match="neither image nor text"):
            clf.fit(X, y, sample_weight=weights)
        return clf.predict_proba(X.iloc[5:])

    by_rows = proba()
    weights = np.ones(len(y))
    by_class = proba(class_weight={"beach": 5.0})
    np.testing.assert_allclose(by_rows, by_class, atol=1e-6)
    assert abs(by_rows - proba()).max() > 0.01


def test_several_labels_start_too(table):
    X, y = table
    labels = np.stack([y == label for label in [*np.unique(y), "none"]], axis=1) * 1
    clf = small(MAILClassifier, head_init="probe", **STILL).fit(X, labels)
    proba = clf.predict_proba(X)
    assert log_loss(labels[:, 0], proba[:, 0]) < 0.8 * log_loss(
        labels[:, 0], np.full(len(y), labels[:, 0].mean())
    )
    np.testing.assert_allclose(proba[:, 3], 0.5 / (len(y) + 1), atol=1e-4)


def test_a_class_of_one_row_is_learned(table):
    X, y = table
    y = y.copy()
    y[7] = "once"
    clf = small(MAILClassifier, head_init="probe", **STILL).fit(X, y)
    assert np.isfinite(clf.predict_proba(X)).all()
    place = clf.classes_.tolist().index("once")
    assert clf.predict_proba(X)[:, place].argmax() == 7


def test_a_class_that_is_held_out_is_unlikely_and_no_more(table):
    X, y = table
    y = y.copy()
    y[3] = "once"
    clf = small(MAILClassifier, head_init="probe", early_stopping=True, **STILL)
    losses = clf.set_params(validation_fraction=0.9).fit(X, y).history_["valid_loss"]
    assert losses.max() < 20


def test_a_new_task_starts_from_a_probe_and_a_known_one_goes_on(table):
    X, y = table
    first, second = np.unique(y)[:2], np.unique(y)[2:]
    early = np.isin(y, first)
    clf = small(DeLoClassifier, head_init="probe", **STILL).fit(X[early], y[early])
    tasks = clf.net_.module_.tasks
    assert clf.score(X[early], y[early]) > 0.8
    y = np.where(y == second[0], np.where(np.arange(len(y)) % 2, "new", "newer"), y)
    clf.partial_fit(X[~early], y[~early])
    told = clf.with_tasks(np.ones((~early).sum(), int))
    assert log_loss(y[~early], told.predict_proba(X[~early])[:, -2:]) < 0.69
    kept = clf.net_.module_.tasks[0].head.weight.clone()
    assert torch.equal(tasks[0].head.weight, kept)
    # Half of the rows would give another head.
    clf.partial_fit(X[early][::2], y[early][::2])
    torch.testing.assert_close(clf.net_.module_.tasks[0].head.weight, kept)


def test_a_head_that_does_not_say_what_it_reads_is_refused(table):
    clf = small(ToyClassifier)
    clf.head_init = "probe"
    message = (
        'head_init="probe" needs a module whose head is .* ToyClassifier, .*Linear'
    )
    with pytest.raises(ValueError, match=message):
        clf.fit(*table)


class Headless(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.output = module.head
        del module.head
        module.forward = lambda **batch: module.output(module.features(**batch))
        return module


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"head_init": "probe"}, "got Headless, whose head is NoneType"),
        ({"head_lr": 1e-3}, "head_lr needs a module with a head, got Headless, whose"),
    ],
)
def test_a_module_without_a_head_is_refused(params, message, table):
    clf = Headless()
    vars(clf).update(params)
    with pytest.raises(ValueError, match=message):
        clf.fit(*table)
    assert Headless().fit(*table).n_iter_ == 1


class ReadsOther(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.forward = lambda **batch: module.head(module.features(**batch).cos())
        return module


def test_features_that_are_not_what_the_head_reads_are_refused(table):
    clf = ReadsOther()
    clf.head_init = "probe"
    message = "got others from ReadsOther: features must return what the head reads"
    with pytest.raises(ValueError, match=message):
        clf.fit(*table)


def test_features_that_are_not_finite_are_refused(table):
    class Infinite(QuickClassifier):
        def _build_module(self, backbone, n_outputs):
            module = super()._build_module(backbone, n_outputs)
            features = module.features
            module.features = lambda **batch: features(**batch) / 0.0
            return module

    clf = Infinite()
    clf.head_init = "probe"
    with pytest.raises(ValueError, match=r"Infinite must .* finite"):
        clf.fit(*table)


@pytest.mark.parametrize(
    ("cls", "params"), KINDS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_the_head_has_its_own_rate(cls, params, table):
    X, y = table
    options = {"head_lr": 0.125, "warmup": 0.0, "lr_schedule": "constant"}
    clf = small(cls, **options, **params).fit(X, y)
    head = clf._head_of(clf.net_.module_)[0]
    groups = clf.net_.optimizer_.param_groups
    (own,) = [g for g in groups if g.get("name") == "head"]
    assert {id(p) for p in own["params"]} == {id(p) for p in head.parameters()}
    assert (own["lr"], own["weight_decay"]) == (0.125, 0.0)
    total = sum(len(g["params"]) for g in groups)
    assert total == sum(1 for _ in clf.net_.get_all_learnable_params())
    # The table of the training tells the rate of all else.
    rate = clf.backbone_lr if params.get("tune") == "full" else clf.lr
    only_head = total == len(own["params"])
    assert clf.history_["lr"].tolist() == [own["lr"] if only_head else rate]


def test_the_schedule_scales_both_rates(table):
    options = {"lr": 1e-2, "head_lr": 1e-4, "max_epochs": 3}
    clf = small(MAILClassifier, **options).fit(*table)
    head, other = clf.net_.optimizer_.param_groups
    assert head["lr"] / head["initial_lr"] == other["lr"] / other["initial_lr"]
    assert head["lr"] < 1e-4


def test_groups_of_the_user_stay_behind_the_head(table):
    groups = [("*bias", {"weight_decay": 0.5}), ("head.*", {"lr": 7.0})]
    params = {"optimizer__param_groups": groups, "optimizer": torch.optim.SGD}
    clf = small(MAILClassifier, head_lr=0.125, net_params=params).fit(*table)
    found = [
        (g["initial_lr"], g["weight_decay"]) for g in clf.net_.optimizer_.param_groups
    ]
    assert found == [(0.125, 0.0), (clf.lr, 0.5), (clf.lr, clf.weight_decay)]


def test_a_fit_that_was_killed_goes_on(table, tmp_path):
    class Kill(Exception):
        pass

    X, y = table
    options = {"head_init": "probe", "head_lr": 1e-3, "modality_dropout": 0.5}
    options |= {"checkpoint_dir": tmp_path, "max_epochs": 3}
    expected = small(MAILClassifier, **options).fit(X, y).decision_function(X)
    epochs, keep = [], MAILClassifier._callbacks

    from skorch.callbacks import Callback

    class Killer(Callback):
        def on_epoch_begin(self, net, **kwargs):
            epochs.append(len(net.history))
            if len(epochs) == 3:
                raise Kill

    def with_killer(self, *args):
        return [*keep(self, *args), Killer()]

    clf = small(MAILClassifier, **options)
    clf._callbacks = with_killer.__get__(clf)
    with pytest.raises(Kill):
        clf.fit(X, y)
    assert len(list(tmp_path.iterdir())) == 1
    again = small(MAILClassifier, **options)
    again._callbacks = with_killer.__get__(again)
    again.fit(X, y)
    assert epochs == [1, 2, 3, 3]
    np.testing.assert_array_equal(again.decision_function(X), expected)


@pytest.mark.parametrize("start", [None, "zero"])
def test_another_start_is_refused(start, table):
    with pytest.raises(ValueError, match="head_init must be one of"):
        quick(head_init=start).fit(*table)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate, table):
    with pytest.raises(ValueError, match="head_lr must be in"):
        quick(head_lr=rate).fit(*table)


def test_a_regression_is_solved_once(table, monkeypatch):
    X, y = table
    solved = []

    def counted(*known):
        solved.append(known)
        return solve(*known)

    solve = starting._solve
    monkeypatch.setattr(starting, "_solve", counted)
    STATES.clear()
    started = {"head_init": "probe", "cache": "memory"}
    fits = [small(CMPTClassifier, **started, rank=r).fit(X, y) for r in (1, 2)]
    assert len(solved) == 1  # a rank has no effect before the first step
    small(CMPTClassifier, **started | {"cache": None}).fit(X, y)
    small(CMPTClassifier, **started).fit(X[::-1], y[::-1])
    assert len(solved) == 3
    weights = [clf.net_.module_.head.last.weight for clf in fits]
    assert not torch.equal(*weights)  # trained on since


def test_a_regression_that_is_known_is_the_same():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 5)).astype(np.float32)
    known = inputs, np.arange(40) % 3, np.ones(40, dtype=np.float32)
    store, heads = ByteCache(10**4), [LinearHead(5, 3) for _ in range(4)]
    start_from_probe(heads[0], *known)
    for head in heads[1:3]:
        start_from_probe(head, *known, store=store)
        assert torch.equal(head.last.weight, heads[0].last.weight)
        assert torch.equal(head.last.bias, heads[0].last.bias)
    assert len(store) == 1
    others = inputs, known[1][::-1].copy(), known[2]
    start_from_probe(heads[3], *others, store=store)
    assert not torch.equal(heads[3].last.weight, heads[0].last.weight)
    assert len(store) == 2
