"""DeLo: guidance, penalties, tasks that stay as they were learned, and counts."""

import pickle
import subprocess
import sys
from copy import copy
from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from contract import frame_with_holes, small
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from torch.nn import functional as F

import robustmm
from robustmm import DeLoClassifier, continual_matrix, load_backbone
from robustmm.backbones import HostBatch
from robustmm.datasets import make_scenes
from robustmm.methods.delo import DeLoModule

PRESENT = [[True, True], [False, True], [True, False], [True, True]]


def tasks_of(n_tasks=3, n=16):
    """Tables of two classes each, a third without image and a third without text."""
    X, y = make_scenes(16 * n, n_classes=2 * n_tasks, random_state=0)
    y, labels, tables = np.asarray(y), np.unique(y), []
    for task in range(n_tasks):
        rows = np.flatnonzero(np.isin(y, labels[2 * task : 2 * task + 2]))[:n]
        table = X.iloc[rows].astype(object).reset_index(drop=True)
        table.iloc[::3, 0] = None
        table.iloc[1::3, 1] = None
        tables.append((table, y[rows]))
    return tables


@pytest.fixture(scope="module")
def learned():
    """A classifier after three tasks; tests must not change it."""
    clf = small(DeLoClassifier, lr=1e-2)
    for X, y in tasks_of():
        clf.partial_fit(X, y)
    return clf


def build(n_tasks=1, multilabel=False, **options):
    """An untrained module of two outputs per task, away from its initial point."""
    clf = small(DeLoClassifier, **options)
    clf.task_classes_ = [np.array([2 * t, 2 * t + 1]) for t in range(n_tasks)]
    clf.classes_, clf._multilabel = np.arange(2 * n_tasks), multilabel
    clf._task = n_tasks - 1
    module = clf._build_module(load_backbone("robustmm/tiny-vilt"), 2 * n_tasks)
    with torch.no_grad():
        for task in module.tasks:
            for parameter in task.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            task.key.mean.normal_()
    return module.eval()


def batch_of(present=PRESENT):
    n, size = len(present), load_backbone("robustmm/tiny-vilt").image_config["size"]
    ids = torch.randint(5, 60, (n, 7))
    return {
        "pixel_values": torch.randn(n, 3, size["height"], size["width"]),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "present": torch.tensor(present),
    }


def encode(module, batch, source, task=0):
    data = {k: v for k, v in batch.items() if k != "present"}
    return module._encode(module.stream.embed(**data), torch.tensor(source), task)


# The adapters take part -----------------------------------------------------------


def test_starts_as_the_frozen_model():
    clf = small(DeLoClassifier)
    clf.task_classes_, clf.classes_ = [np.arange(2)], np.arange(2)
    clf._task, clf._multilabel = 0, False
    for options in ({}, {"static": True}, {"single_pool": True}, {"factor_rank": 2}):
        clf.set_params(**options)
        module = clf._build_module(load_backbone("robustmm/tiny-vilt"), 2).eval()
        plain = load_backbone("robustmm/tiny-vilt")["joint"]
        batch = batch_of()
        data = {k: v for k, v in batch.items() if k != "present"}
        expected = plain.pooler(plain.pool(plain.run(plain.embed(**data))))
        torch.testing.assert_close(module.features(**batch), expected)


@pytest.mark.parametrize("options", [{}, {"static": True}, {"single_pool": True}])
def test_every_adapted_layer_computes_what_its_factors_say(options):
    """The released code returns the frozen output from every adapter; ours must not."""
    module, batch = build(**options), batch_of()
    seen = {}
    for layer, adapter in module.stream.joint_adapters.items():
        adapter.register_forward_hook(
            lambda m, args, out, layer=layer: seen.update({layer: (m, args[0], out)})
        )
    encoded = encode(module, batch, [[0, 1], [1, 1], [0, 0], [0, 1]])
    assert len(seen) == module.stream.n_layers == len(encoded.selections)
    for layer, (adapter, x, outputs) in seen.items():
        pools = module.tasks[0].pools[int(layer)]
        update = 2.0 * pools(x, encoded.selections[int(layer)])
        for frozen, output, part in zip(adapter.frozen, outputs, update, strict=True):
            torch.testing.assert_close(output - frozen(x), part, atol=1e-4, rtol=1e-4)
            assert part.abs().mean() > 1e-2


def test_a_layer_whose_pools_were_not_set_raises():
    module = build()
    data = {k: v for k, v in batch_of().items() if k != "present"}
    with pytest.raises(RuntimeError, match=r"must have factor pools .* 'factors_0'"):
        module.stream.run(module.stream.embed(**data))


# Guidance -------------------------------------------------------------------------


def test_a_missing_modality_is_routed_by_the_other():
    module, batch = build(), batch_of()
    source = [[0, 1], [1, 1], [0, 0], [0, 1]]
    assert module._source(batch["present"]).tolist() == source
    module.cross_modal_guide = False
    assert module._source(batch["present"]).tolist() == [[0, 1]] * 4


def test_guided_pools_select_by_the_query_of_the_other_modality():
    module, batch = build(), batch_of()
    data = {k: v for k, v in batch.items() if k != "present"}
    tokens = module.stream.embed(**data)
    image, text = tokens.mean("image"), tokens.mean("text")
    first = encode(module, batch, [[0, 1], [1, 1], [0, 0], [0, 1]]).selections[0]
    asked = torch.stack([image, text], dim=1)
    asked[1], asked[2] = text[1], image[2]
    expected = module.tasks[0].pools[0].route(asked)
    assert torch.equal(first.down, expected.down)
    assert torch.equal(first.up, expected.up)


def test_padding_and_batch_mates_change_nothing():
    module, batch = build(n_tasks=3), batch_of()
    logits = module(**batch)
    padded = dict(batch)
    padded["input_ids"] = F.pad(batch["input_ids"], (0, 5))
    padded["attention_mask"] = F.pad(batch["attention_mask"], (0, 5))
    torch.testing.assert_close(module(**padded), logits, atol=1e-4, rtol=1e-4)
    for i in range(4):
        alone = module(**{k: v[i : i + 1] for k, v in batch.items()})
        torch.testing.assert_close(alone, logits[i : i + 1], atol=1e-4, rtol=1e-4)


# Penalties ------------------------------------------------------------------------


def learn(module, batch, align=0.0, consistency=0.0):
    module.lambda_align, module.lambda_consistency = align, consistency
    logits, penalty = module.train()(learning=0, **batch)
    return logits, penalty


def test_alignment_is_equation_9_over_complete_rows():
    module, batch = build(), batch_of()
    encoded = encode(module, batch, [[0, 1], [1, 1], [0, 0], [0, 1]])
    image, text = encoded.queries[[0, 3]].unbind(dim=1)
    expected = 0.5 * (1 - F.cosine_similarity(image, text, dim=-1)).mean()
    torch.testing.assert_close(learn(module, batch, align=0.5)[1], expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_consistency_compares_complete_rows_with_both_proxies(multilabel):
    module, batch = build(multilabel=multilabel), batch_of()
    head = module.tasks[0].head
    true = head(encode(module, batch, [[0, 1]] * 4).features)[[0, 3]]
    terms = []
    for modality in (0, 1):
        proxy = encode(module, batch, [[modality, modality]] * 4).features[[0, 3]]
        proxy = head(proxy)
        if multilabel:
            p, q = torch.sigmoid(true), torch.sigmoid(proxy)
            kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        else:
            p, q = true.softmax(1), proxy.softmax(1)
            kl = (p * (p / q).log()).sum(dim=1)
        terms.append(kl.mean())
    logits, penalty = learn(module, batch, consistency=0.5)
    expected = 0.5 * torch.stack(terms).mean()
    assert expected > 1e-4
    torch.testing.assert_close(penalty, expected, atol=1e-6, rtol=1e-2)
    assert logits.shape == (4, 2)


def test_the_true_prediction_is_held_constant():
    module, batch = build(), batch_of([[True, True]])
    head = module.tasks[0].head
    penalty = learn(module, batch, consistency=1.0)[1]
    (grad,) = torch.autograd.grad(penalty, head.weight)
    true = head(encode(module, batch, [[0, 1]]).features).detach().softmax(1)
    proxies = [head(encode(module, batch, [[m, m]]).features) for m in (0, 1)]
    terms = [-(true * proxy.log_softmax(1)).sum() for proxy in proxies]
    (expected,) = torch.autograd.grad(sum(terms) / 2, head.weight)
    torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-3)


def test_no_complete_row_no_penalty():
    batch = batch_of([[True, False], [False, True]])
    assert learn(build(), batch, align=1.0, consistency=1.0)[1] == 0


# Tasks ----------------------------------------------------------------------------


def test_earlier_tasks_do_not_change_by_a_bit():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier, lr=1e-2, weight_decay=0.5).partial_fit(X, y)
    before = {k: v.clone() for k, v in clf.net_.module_.tasks[0].state_dict().items()}
    first = clf.net_.module_
    clf.partial_fit(X_2, y_2)
    after = clf.net_.module_.tasks[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert clf.net_.module_ is not first
    trained = {id(p) for _, p in clf.net_.get_all_learnable_params()}
    assert trained == {id(p) for p in clf.net_.module_.tasks[1].parameters()}
    kept = {id(p) for g in clf.net_.optimizer_.param_groups for p in g["params"]}
    assert kept == trained


def test_every_parameter_of_a_later_task_moves():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier, lr=1e-2, weight_decay=0.0, max_epochs=3)
    clf.partial_fit(X, y)
    build_module, before = clf._build_module, {}

    def remember(backbone, n_outputs):
        module = build_module(backbone, n_outputs)
        named = module.tasks[1].named_parameters()
        before.update({k: p.detach().clone() for k, p in named})
        return module

    clf._build_module = remember
    clf.partial_fit(X_2, y_2)
    moved = {
        name: not torch.equal(before[name], p)
        for name, p in clf.net_.module_.tasks[1].named_parameters()
    }
    assert len(moved) == 4 * 5 + 2
    assert all(moved.values())


def test_classes_grow_and_are_sorted(learned):
    labels = [np.unique(y) for _, y in tasks_of()]
    assert [list(c) for c in learned.task_classes_] == [list(c) for c in labels]
    np.testing.assert_array_equal(learned.classes_, np.unique(labels))
    X = pd.concat([X for X, _ in tasks_of()], ignore_index=True)
    proba = learned.predict_proba(X)
    assert proba.shape == (len(X), 6)
    found = learned.predict_task(X)
    assert set(found) <= {0, 1, 2}
    place = {c: t for t, classes in enumerate(labels) for c in classes}
    assert [place[c] for c in learned.predict(X)] == found.tolist()
    owners = np.array([place[c] for c in learned.classes_])
    # Other tasks are unlikely, and not impossible.
    assert (proba > 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    scores, _ = learned._find(X, DeLoModule.task_scores)
    for task in range(3):
        expected = np.exp(scores[:, task])
        own = proba[:, owners == task].sum(axis=1)
        np.testing.assert_allclose(own, expected, atol=1e-5)


def test_the_likeliest_task_s_head_and_gaussians_decide_together(learned):
    X = pd.concat([X for X, _ in tasks_of()], ignore_index=True)
    found, logits = learned.predict_task(X), learned.decision_function(X)
    heads = learned.with_tasks(found).decision_function(X)
    gaussians, _ = learned._find(X, _class_scores)
    for row, task in enumerate(found):
        own = [list(learned.classes_).index(c) for c in learned.task_classes_[task]]
        both = heads[row, own] + gaussians[row, 2 * task : 2 * task + 2]
        gaps = [v - v[0] for v in (logits[row, own], both)]
        np.testing.assert_allclose(*gaps, atol=1e-3)


def _class_scores(module, present, nearest=False, **batch):
    tokens, host = module.stream.embed(**batch), HostBatch.of(present, batch)
    found = module.finder(module._key_vectors(tokens, host), present)
    return torch.cat(list(found.classes), dim=1)


def test_with_closest_keys_other_tasks_are_impossible():
    clf = small(DeLoClassifier, task_inference="nearest", lr=1e-2)
    tables = tasks_of()
    for X, y in tables:
        clf.partial_fit(X, y)
    X = pd.concat([X for X, _ in tables], ignore_index=True)
    proba, found = clf.predict_proba(X), clf.predict_task(X)
    place = {c: t for t, (_, y) in enumerate(tables) for c in np.unique(y)}
    owners = np.array([place[c] for c in clf.classes_])
    assert (proba[owners[None] != found[:, None]] == 0).all()
    assert not hasattr(clf.net_.module_, "finder")


def test_all_in_one_fit_is_the_same_as_stage_by_stage(learned):
    tables = tasks_of()
    X = pd.concat([X for X, _ in tables], ignore_index=True)
    y = np.concatenate([y for _, y in tables])
    tasks = np.repeat(["a", "b", "c"], [len(y) for _, y in tables])
    clf = small(DeLoClassifier, lr=1e-2).fit(X, y, tasks=tasks)
    np.testing.assert_array_equal(clf.predict_proba(X), learned.predict_proba(X))


def test_fit_forgets_earlier_tasks():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier).fit(X, y).fit(X_2, y_2)
    np.testing.assert_array_equal(clf.classes_, np.unique(y_2))
    assert len(clf.task_classes_) == 1


def test_known_labels_go_on_with_their_task():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier, lr=1e-2).partial_fit(X, y).partial_fit(X_2, y_2)
    before = [
        {k: v.clone() for k, v in task.state_dict().items()}
        for task in clf.net_.module_.tasks
    ]
    one = y == y[0]  # a single class is enough to go on
    clf.partial_fit(X[one], y[one])
    same = [
        all(torch.equal(old[k], v) for k, v in task.state_dict().items())
        for old, task in zip(before, clf.net_.module_.tasks, strict=True)
    ]
    assert same == [False, True]
    assert len(clf.classes_) == 4
    seen = np.concatenate([y, y_2, y[one]])
    np.testing.assert_allclose(
        clf.class_prior_, np.unique(seen, return_counts=True)[1] / len(seen)
    )


def test_labels_of_several_tasks_are_refused(learned):
    (X, y), (_, y_2), _ = tasks_of()
    clf = pickle.loads(pickle.dumps(learned))
    labels = y.copy().astype(object)
    labels[:3] = "new"
    with pytest.raises(ValueError, match=r"all new, or all of one.*new \['new'\] and"):
        clf.partial_fit(X, labels)
    with pytest.raises(ValueError, match=r"must belong to one task.*\[0, 1\]"):
        clf.partial_fit(X, np.r_[y[:8], y_2[:8]])
    with pytest.raises(ValueError, match="of the kind of the first call"):
        clf.partial_fit(X, np.arange(len(X)) % 2)
    with pytest.raises(ValueError, match="must have a column 'text'"):
        clf.partial_fit(X.rename(columns={"text": "words"}), y)
    assert len(clf.task_classes_) == 3


def test_announced_classes_belong_to_the_task():
    (X, y), _, _ = tasks_of()
    clf = small(DeLoClassifier).partial_fit(X, y, classes=[*np.unique(y), "later"])
    assert "later" in clf.classes_
    assert clf.class_prior_[list(clf.classes_).index("later")] == 0
    clf.partial_fit(X, np.where(y == y[0], "later", y))
    assert len(clf.task_classes_) == 1


def test_rows_without_any_modality_get_the_prior_of_all_rows():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier).partial_fit(X, y).partial_fit(X_2[:8], y_2[:8])
    empty = X[:2].copy()
    empty[:] = None
    with pytest.warns(UserWarning, match="neither image nor text"):
        proba = clf.predict_proba(empty)
    counts = np.unique(np.r_[y, y_2[:8]], return_counts=True)[1]
    np.testing.assert_allclose(proba, np.tile(counts / 24, (2, 1)))
    with pytest.warns(UserWarning, match="neither image nor text"):
        assert clf.predict_task(empty).tolist() == [-1, -1]


def test_indicators_bring_new_columns():
    (X, _), (X_2, _), _ = tasks_of()
    rng = np.random.default_rng(0)
    Y = pd.DataFrame(rng.integers(0, 2, (len(X), 2)), columns=["war", "drama"])
    late = pd.DataFrame(rng.integers(0, 2, (len(X_2), 1)), columns=["comedy"])
    clf = small(DeLoClassifier).partial_fit(X, Y).partial_fit(X_2, late)
    assert list(clf.classes_) == ["war", "drama", "comedy"]
    proba = clf.predict_proba(X)
    assert ((proba > 0) & (proba < 1)).all()
    assert clf.predict(X).shape == (len(X), 3)
    clf.partial_fit(X, Y[["drama", "war"]])
    assert len(clf.task_classes_) == 2
    with pytest.raises(ValueError, match="must have all of its columns"):
        clf.partial_fit(X, Y[["drama"]])
    n = len(X) + len(X_2) + len(X)
    expected = [
        2 * Y["war"].sum() / n,
        2 * Y["drama"].sum() / n,
        late["comedy"].sum() / n,
    ]
    np.testing.assert_allclose(clf.class_prior_, expected)


def test_indicators_in_one_fit_are_split_by_task():
    (X, _), (X_2, _), _ = tasks_of(n=8)
    both = pd.concat([X, X_2], ignore_index=True)
    Y = pd.DataFrame(0, index=range(16), columns=["a", "b", "c"])
    Y.iloc[:8:2, 0], Y.iloc[1:8:2, 1], Y.iloc[8::2, 2], Y.iloc[9, 0] = 1, 1, 1, 1
    tasks = [0] * 8 + [1] * 8
    clf = small(DeLoClassifier).fit(both, Y, tasks=tasks)
    assert [list(c) for c in clf.task_classes_] == [["a", "b"], ["c"]]
    clf.fit(both, sparse.csr_matrix(Y.to_numpy()), tasks=tasks)
    assert [list(c) for c in clf.task_classes_] == [[0, 1], [2]]


# Inference ------------------------------------------------------------------------


def owner(clf):
    """The task of each label."""
    return {c: t for t, labels in enumerate(clf.task_classes_) for c in labels}


def rows_of_all_tasks(n=8):
    X = pd.concat([X for X, _ in tasks_of(n=n)], ignore_index=True)
    return X, np.repeat([0, 1, 2], n)


def test_a_told_task_is_taken(learned):
    X, tasks = rows_of_all_tasks()
    place = owner(learned)
    shuffled = np.random.default_rng(0).permutation(len(X))
    predicted = learned.with_tasks(tasks[shuffled]).predict(X.iloc[shuffled])
    assert [place[c] for c in predicted] == tasks[shuffled].tolist()
    told = learned.with_tasks(list(tasks))
    labels = predicted[shuffled.argsort()]
    np.testing.assert_array_equal(told.predict(X), labels)
    assert told.score(X, labels) == 1
    assert told.transform(X).shape == (len(X), 128)
    proba = told.predict_proba(X)
    owners = np.array([place[c] for c in learned.classes_])
    assert (proba[owners[None] != tasks[:, None]] == 0).all()
    assert told.decision_function(X).shape == (len(X), 6)


def test_the_found_tasks_when_told_change_nothing(learned):
    X, _ = rows_of_all_tasks()
    nearest = copy(learned).set_params(task_inference="nearest")
    found = nearest.predict_task(X)
    told = nearest.with_tasks(found)
    expected = nearest.decision_function(X)
    np.testing.assert_allclose(told.decision_function(X), expected, atol=1e-4)
    np.testing.assert_array_equal(told.predict_task(X), found)


def test_telling_leaves_the_classifier_as_it_is(learned):
    X, tasks = rows_of_all_tasks()
    before, attributes = learned.decision_function(X), dict(vars(learned))
    told = learned.with_tasks(tasks[::-1])
    assert told.net_ is learned.net_
    told.predict(X)
    assert vars(learned) == attributes
    np.testing.assert_array_equal(learned.decision_function(X), before)


def test_a_twin_that_learns_is_told_no_more(learned):
    _, tasks = rows_of_all_tasks(4)
    told, (X_4, y_4) = learned.with_tasks(tasks), tasks_of(4, n=8)[3]
    told.partial_fit(X_4, y_4)
    assert len(told.task_classes_) == 4
    assert len(learned.task_classes_) == 3
    assert told.predict(X_4).shape == (8,)


def test_told_tasks_are_pickled_and_saved_and_not_cloned(learned, tmp_path):
    X, tasks = rows_of_all_tasks(4)
    told = learned.with_tasks(tasks[::-1])
    robustmm.save(told, tmp_path)
    opened = robustmm.load(tmp_path, device="cpu")
    for again in (pickle.loads(pickle.dumps(told)), opened):
        np.testing.assert_array_equal(again.predict(X), told.predict(X))
    assert vars(clone(told)).keys() == vars(clone(learned)).keys()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([3] * 24, r"tasks must be in \[0, 2\], got \[3\]"),
        ([0, -1], r"tasks must be in \[0, 2\], got \[-1, 0\]"),
        ([0.5, 1.0], r"tasks must be in \[0, 2\], got \[0.5, 1.0\]"),
        (["a", "b"], "tasks must be in"),
        ([[0, 1], [1, 2]], "1d array"),
    ],
    ids=str,
)
def test_a_task_that_was_not_learned_is_refused(learned, tasks, message):
    with pytest.raises(ValueError, match=message):
        learned.with_tasks(tasks)


def test_tasks_are_told_of_every_row(learned):
    X, tasks = rows_of_all_tasks(4)
    with pytest.raises(
        ValueError, match=r"inconsistent numbers of samples: \[12, 11\]"
    ):
        learned.with_tasks(tasks[1:]).predict(X)
    with pytest.raises(NotFittedError):
        small(DeLoClassifier).with_tasks(tasks)


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "decision_function", "transform"]
)
def test_an_oracle_must_be_told(learned, method):
    X, tasks = rows_of_all_tasks(4)
    oracle = copy(learned).set_params(task_inference="oracle")
    with pytest.raises(ValueError, match=r"call with_tasks\(tasks\)\.predict\(X\)"):
        getattr(oracle, method)(X)
    with pytest.raises(ValueError, match="must be told"):
        oracle.score(X, tasks)
    values = [getattr(c.with_tasks(tasks), method)(X) for c in (oracle, learned)]
    np.testing.assert_array_equal(*values)


def test_tasks_are_routed_as_metadata():
    tables = tasks_of(2)
    X = pd.concat([X for X, _ in tables], ignore_index=True)
    y = np.concatenate([y for _, y in tables])
    tasks = np.repeat([0, 1], [len(y) for _, y in tables])
    with sklearn.config_context(enable_metadata_routing=True):
        clf = small(DeLoClassifier).set_fit_request(tasks=True)
        search = GridSearchCV(clf, {"rank": [1]}, cv=2).fit(X, y, tasks=tasks)
    assert len(search.best_estimator_.task_classes_) == 2


def test_factor_usage_counts_selections(learned):
    X = pd.concat([X for X, _ in tasks_of(n=6)], ignore_index=True)
    usage = learned.factor_usage(X)
    assert usage.index.names == ["task", "factor"]
    assert list(usage.columns) == [
        (m, s) for m in ("image", "text") for s in ("a", "b")
    ]
    assert usage.shape == (3 * 6, 4)
    sums = usage.groupby("task").sum(min_count=1)
    found = np.unique(learned.predict_task(X))
    np.testing.assert_allclose(sums.loc[found], 4)  # the rank
    assert usage.min().min() >= 0
    assert usage.max().max() <= 1


def test_query_vectors_are_means_of_what_enters_the_last_layer(learned):
    X = tasks_of(n=6)[0][0]
    X = pd.concat([X.assign(text=None), X.assign(image=None), X], ignore_index=True)
    X = X[X["image"].notna() | X["text"].notna()]
    vectors = learned.query_vectors(X)
    here = np.isfinite(vectors)
    np.testing.assert_array_equal(here[..., 0], here[..., -1])
    np.testing.assert_array_equal(here[:, 0, 0], X["image"].notna())
    np.testing.assert_array_equal(here[:, 1, 0], X["text"].notna())
    # By hand, for a complete row.
    row = X[X["image"].notna() & X["text"].notna()][:1]
    entered = {}

    def read(module, present, **batch):
        stream = module.stream
        last = stream.n_layers - 1
        tokens = stream.embed(**batch).with_context(source=module._source(present))
        task = torch.tensor(learned.predict_task(row))
        route = partial(module._route, {int(task[0]): None})

        def before(i, tokens):
            if i == last:
                entered["means"] = [tokens.mean(name) for name in ("image", "text")]
            return route(i, tokens)

        stream.run(tokens, before)
        return present.float()

    learned._evaluate(row, read)
    expected = torch.stack(entered["means"], dim=1)
    np.testing.assert_allclose(learned.query_vectors(row), expected, atol=1e-5)


def test_static_adapters_have_no_usage():
    X, y = frame_with_holes(12)
    clf = small(DeLoClassifier, static=True).fit(X, y)
    for look in (clf.factor_usage, clf.query_vectors):
        with pytest.raises(ValueError, match="no factors"):
            look(X)


@pytest.mark.parametrize(
    "option",
    [
        {"static": True},
        {"single_pool": True},
        {"cross_modal_guide": False},
        {"router_gradient": "score"},
        {"factor_rank": 2, "center_keys": True},
        {"early_stopping": True, "validation_fraction": 0.3},
    ],
    ids=str,
)
def test_variants_train_and_pickle(option):
    clf = small(DeLoClassifier, **option)
    for X, y in tasks_of(2, n=12):
        clf.partial_fit(X, y)
    copy = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(copy.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rank": 7}, r"rank must be in \[1, pool_size=6\], got 7"),
        ({"router_gradient": "soft"}, "router_gradient must be one of"),
        ({"task_inference": "told"}, "task_inference must be one of"),
        ({"key_momentum": 1.0}, "key_momentum must be below 1"),
    ],
)
def test_bad_parameters(params, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(DeLoClassifier, **params).fit(X, y)


def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(DeLoClassifier, max_epochs=8, lr=5e-3).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


@pytest.mark.slow
def test_a_pickle_learns_on_in_another_process(learned, tmp_path):
    tables = tasks_of(4)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps((learned, tables[3])))
    code = (
        "import sys, pickle, numpy, torch; torch.set_num_threads(1);"
        "clf, (X, y) = pickle.load(open(sys.argv[1], 'rb'));"
        "clf.partial_fit(X, y);"
        "pickle.dump((clf, clf.predict_proba(X)), open(sys.argv[2], 'wb'))"
    )
    paths = [str(tmp_path / "model.pkl"), str(tmp_path / "more.pkl")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    clf, proba = pickle.loads((tmp_path / "more.pkl").read_bytes())
    assert len(clf.task_classes_) == 4
    here = pickle.loads(pickle.dumps(learned)).partial_fit(*tables[3])
    np.testing.assert_allclose(here.predict_proba(tables[3][0]), proba, atol=1e-6)
    for old, new in zip(
        learned.net_.module_.tasks, clf.net_.module_.tasks, strict=False
    ):
        own, kept = old.state_dict(), new.state_dict()
        assert all(torch.equal(own[name], kept[name]) for name in own)


# Size -----------------------------------------------------------------------------


@pytest.mark.parametrize(("factor_rank", "count"), [(1, 7_080_192), (4, 12_388_608)])
def test_full_size_counts(full_size, factor_rank, count):
    clf = DeLoClassifier(full_size, factor_rank=factor_rank)
    clf.task_classes_, clf.classes_ = [np.arange(10)], np.arange(10)
    clf._task, clf._multilabel = 0, False
    module = clf._build_module(load_backbone(full_size), 10)
    pools = module.tasks[0].pools
    assert sum(p.numel() for p in pools.parameters()) == count
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert trained == count + 769 * 10


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """ViLT-B/32 with random weights, saved as a local folder."""
    from transformers import ViltConfig, ViltModel

    folder = tmp_path_factory.mktemp("vilt")
    ViltModel(ViltConfig()).save_pretrained(folder)
    load_backbone("robustmm/tiny-vilt").tokenizer.save_pretrained(folder)
    return str(folder)


# Gaussians ------------------------------------------------------------------------


def test_moments_are_those_of_the_frozen_encoder_and_stay_to_the_bit():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier, lr=1e-2).partial_fit(X, y)
    before = {k: v.clone() for k, v in clf.net_.module_.tasks[0].state_dict().items()}
    clf.partial_fit(X_2, y_2)
    after = clf.net_.module_.tasks[0].state_dict()
    assert any(name.startswith("moments") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    plain = robustmm.GaussianPrototypeClassifier(
        "robustmm/tiny-vilt", layers=(1, 0), shrinkage=0.5, device="cpu"
    ).partial_fit(X, y)
    for own, other in zip(
        clf.net_.module_.tasks[0].moments.kinds,
        plain.net_.module_.sums.kinds,
        strict=True,
    ):
        torch.testing.assert_close(own.means, other.means, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(own.scatter, other.scatter, atol=1e-3, rtol=1e-3)


def test_a_task_that_goes_on_adds_its_rows():
    (X, y), _, _ = tasks_of()
    clf = small(DeLoClassifier).partial_fit(X, y)
    one = y == y[0]
    clf.partial_fit(X[one], y[one])
    expected = [(1 + (c == y[0])) * (y == c).sum() for c in clf.classes_]
    assert clf.net_.module_.tasks[0].moments.rows.tolist() == expected


def test_the_order_of_equal_stages_hardly_matters():
    tables = tasks_of(n=24)
    stages = [(X[:16], y[:16], X[16:], y[16:]) for X, y in tables]
    scores = []
    for order in (stages, stages[::-1]):
        matrix = continual_matrix(small(DeLoClassifier, lr=1e-2), order)
        scores.append(matrix.iloc[:, -1].mean())
    error = np.sqrt(0.25 / 24)
    assert abs(scores[0] - scores[1]) < error


def test_one_class_per_call_is_learned():
    (X, y), (X_2, y_2), _ = tasks_of()
    clf = small(DeLoClassifier)
    labels = [*np.unique(y), *np.unique(y_2)]
    tables = [(X[y == c], y[y == c]) for c in labels[:2]]
    tables += [(X_2[y_2 == c], y_2[y_2 == c]) for c in labels[2:]]
    for part in tables:
        clf.partial_fit(*part)
    assert [list(c) for c in clf.task_classes_] == [[c] for c in labels]
    both = pd.concat([X, X_2], ignore_index=True)
    assert (clf.predict(both) == np.r_[y, y_2]).mean() > 0.7
    np.testing.assert_allclose(clf.predict_proba(both).sum(axis=1), 1)


@pytest.mark.parametrize("inference", ["gaussian", "nearest"])
def test_a_modality_that_a_task_never_had_does_not_hide_it(inference):
    (X, y), (X_2, y_2), _ = tasks_of(n=24)
    clf = small(DeLoClassifier, task_inference=inference)
    clf.partial_fit(X, y)
    texts = X_2["text"].notna().to_numpy()
    clf.partial_fit(X_2[texts].assign(image=None), y_2[texts])
    complete = X_2[X_2.notna().all(axis=1)]
    assert (clf.predict_task(complete) == 1).mean() > 0.5


def test_each_label_of_several_is_read_from_its_own_experts():
    (X, _), (X_2, _), _ = tasks_of()
    rng = np.random.default_rng(0)
    Y = pd.DataFrame(rng.integers(0, 2, (len(X), 2)), columns=["war", "drama"])
    late = pd.DataFrame(rng.integers(0, 2, (len(X_2), 2)), columns=["comedy", "sport"])
    clf = small(DeLoClassifier, lr=1e-2).partial_fit(X, Y).partial_fit(X_2, late)
    logits = clf.decision_function(X)
    for task, columns in enumerate(([0, 1], [2, 3])):
        told = clf.with_tasks(np.full(len(X), task)).decision_function(X)
        np.testing.assert_allclose(logits[:, columns], told[:, columns], atol=1e-4)


def test_indicators_have_a_matrix_of_scores():
    tables, rng = tasks_of(2), np.random.default_rng(0)
    stages = []
    for (X, _), names in zip(tables, (["war", "drama"], ["comedy"]), strict=True):
        Y = pd.DataFrame(rng.integers(0, 2, (len(X), len(names))), columns=names)
        stages.append((X, Y, X, Y))
    matrix = continual_matrix(small(DeLoClassifier), stages)
    assert matrix.notna().to_numpy().tolist() == [[True, True], [False, True]]


def test_keys_must_stay_those_of_the_first_call(learned):
    X, y = tasks_of(4)[3]
    for params in ({"keys_per": "task"}, {"key_layers": (2, 0)}):
        with pytest.raises(ValueError, match="must stay those of the first call"):
            copy(learned).set_params(**params).partial_fit(X, y)
    paper = small(DeLoClassifier, task_inference="nearest").partial_fit(X, y)
    with pytest.raises(ValueError, match='must be "nearest" for a model'):
        copy(paper).set_params(task_inference="gaussian").predict(X)


@pytest.mark.parametrize(
    "option", [{"keys_per": "task"}, {"key_layers": (-1, 0)}, {"key_layers": (0, 0)}]
)
def test_kinds_of_keys_train_and_pickle(option):
    clf = small(DeLoClassifier, **option)
    for X, y in tasks_of(2, n=12):
        clf.partial_fit(X, y)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)
