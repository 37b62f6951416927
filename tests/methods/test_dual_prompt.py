"""DualPrompt: whose prompts a row gets, keys in closed form, and counts."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from contract import frame_with_holes, small
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from stage_cases import (
    assert_earlier_stages_stay,
    assert_learns_indicators,
    assert_learns_one_class_at_a_time,
    assert_pickle_goes_on,
    assert_queries_may_be_kept,
    assert_rows_stand_alone,
    build,
    stages_of,
    state_of,
)
from torch.nn import functional as F
from vilt_cases import count, full_size_vilt, perturb, vilt_batch

from robustmm import DualPromptClassifier, load_backbone
from robustmm.methods.dual_prompt import DualPromptModule

PAPER = {
    name: DualPromptClassifier.PAPER[name]
    for name in ("shared_layers", "shared_length", "stage_layers", "stage_length")
}


def with_keys(module, seed=2):
    generator = torch.Generator().manual_seed(seed)
    for stage in module.stages:
        stage.key.copy_(torch.randn(stage.key.shape, generator=generator))
    return module


def test_full_size_counts():
    vilt = full_size_vilt()
    module = build(DualPromptClassifier, 10, backbone=vilt, n_outputs=10, **PAPER)
    keys = sum(stage.key.numel() for stage in module.stages)
    assert count(module, "shared") == 15_360
    # What is trained in the last of ten stages.
    assert count(module, "shared", "stages") + 768 == 39_168 + 769 * 10
    everything = sum(p.numel() for p in module.stages.parameters()) + keys
    assert everything + count(module, "shared") == 330_340


def test_defaults_are_the_layers_of_the_paper():
    clf = DualPromptClassifier()
    assert clf._layers(12) == ([0, 1], [2, 3, 4])
    assert clf._layers(4) == ([0, 1], [2, 3])


def test_rows_have_prompts_of_their_own():
    module = with_keys(perturb(build(DualPromptClassifier, 3), scale=0.5))
    found = module.stage_scores(**vilt_batch()).argmax(dim=1)
    assert len(found.unique()) > 1
    assert_rows_stand_alone(module, DualPromptModule.__call__)


@pytest.mark.parametrize("multilabel", [False, True])
def test_logits_are_those_of_a_slow_rewrite(multilabel):
    module = build(DualPromptClassifier, 3, multilabel, shared_layers=2)
    module = with_keys(perturb(module, scale=0.5))
    plain, batch = load_backbone("robustmm/tiny-vilt")["joint"], vilt_batch()
    data = {k: v for k, v in batch.items() if k != "present"}
    query = plain.pool(plain.run(plain.embed(**data)))
    got = module(**batch)
    for row in range(len(query)):
        one = {k: v[[row]] for k, v in data.items()}
        similarity = [F.cosine_similarity(query[row], s.key, 0) for s in module.stages]
        best = module.stages[int(torch.stack(similarity).argmax())]
        parts = [
            stage.head(run_with(plain, one, module, stage if multilabel else best))
            for stage in module.stages
        ]
        torch.testing.assert_close(got[row], torch.cat(parts), atol=1e-5, rtol=1e-5)


def run_with(stream, data, module, stage):
    """One row through one layer after another, with keys and values by name."""
    tokens = stream.embed(**data)
    for i in range(stream.n_layers):
        source = module.shared if i < 2 else stage.prompts
        keys, values = source[i % 2][0], source[i % 2][1]
        tokens = stream.step(i, tokens.with_prefix(keys[None], values[None]))
    return stream.norm(tokens["text"])[0, 0]


def test_the_key_is_what_its_loss_would_lead_to():
    X, y = stages_of(1)[0]
    clf = small(DualPromptClassifier).fit(X, y)
    queries = torch.from_numpy(clf._evaluate(X, DualPromptModule.query)[0]).float()
    key = torch.randn(queries.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([key], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-F.cosine_similarity(queries, key[None]).mean()).backward()
        optimizer.step()
    closed = clf.net_.module_.stages[0].key
    assert F.cosine_similarity(key, closed, dim=0) > 0.9999


def test_the_key_of_a_stage_goes_on_with_it():
    X, y = stages_of(1)[0]
    once = small(DualPromptClassifier).fit(X, y)
    halves = small(DualPromptClassifier).partial_fit(X[:8], y[:8])
    halves.partial_fit(X[8:], y[8:])
    keys = [clf.net_.module_.stages[0].key for clf in (once, halves)]
    torch.testing.assert_close(*keys)


def test_stages_stay_and_what_they_share_goes_on():
    clf = assert_earlier_stages_stay(DualPromptClassifier)
    X, y = stages_of(4)[3]
    before = state_of(clf)["shared"]
    assert not torch.equal(before, state_of(clf.partial_fit(X, y))["shared"])


def test_prompts_of_a_stage_start_from_those_before():
    (X, y), (more, z) = stages_of(2)
    clf = small(DualPromptClassifier, lr=1e-9).partial_fit(X, y).partial_fit(more, z)
    first, second = (stage.prompts for stage in clf.net_.module_.stages)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_without_prompts_it_is_a_probe_of_the_frozen_token():
    X, y = stages_of(1)[0]
    options = {"shared_length": 0, "stage_length": 0, "max_epochs": 300, "lr": 1e-2}
    clf = small(DualPromptClassifier, lr_schedule="constant", **options)
    clf = clf.set_params(batch_size=16, weight_decay=0.0).fit(X, y)
    frozen = clf._evaluate(X, DualPromptModule.query)[0]
    np.testing.assert_allclose(clf.transform(X), frozen, atol=1e-5)
    probe = LogisticRegression(C=1e6, max_iter=5000).fit(frozen, y)
    assert (clf.predict(X) == probe.predict(frozen)).all()


def test_the_stage_is_told_by_nothing_and_empty_rows_have_none():
    stages = stages_of(2)
    clf = small(DualPromptClassifier)
    for X, y in stages:
        clf.partial_fit(X, y)
    X = X.copy()
    X.iloc[3] = None
    with pytest.warns(UserWarning, match="neither"):
        found = clf.predict_task(X)
    assert found[3] == -1
    assert set(np.delete(found, 3)) <= {0, 1}


def test_the_likeliest_classes_may_tell_the_stage():
    options = {"task_inference": "gaussian", "shrinkage": 0.2, "lr": 1e-9}
    clf, stages = small(DualPromptClassifier, **options), stages_of(3)
    for X, y in stages:
        clf.partial_fit(X, y)
    X, y = pd.concat(X for X, _ in stages), np.concatenate([y for _, y in stages])
    stage = np.repeat(range(3), len(stages[0][1]))
    queries = clf._evaluate(X, DualPromptModule.query)[0]
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(queries, y)
    owner = {c: i for i, (_, labels) in enumerate(stages) for c in labels}
    proba = np.stack(
        [
            lda.predict_proba(queries)[:, [owner[c] == i for c in lda.classes_]].sum(1)
            for i in range(3)
        ],
        axis=1,
    )
    assert (clf.predict_task(X) == proba.argmax(axis=1)).all()
    assert (clf.predict_task(X) == stage).mean() > 0.8
    twin = pickle.loads(pickle.dumps(clf))
    assert (clf.predict_task(X) == twin.predict_task(X)).all()


def test_the_gaussians_of_earlier_stages_stay_and_labels_may_be_several():
    assert_earlier_stages_stay(DualPromptClassifier, task_inference="gaussian")
    clf = assert_learns_indicators(DualPromptClassifier, task_inference="gaussian")
    assert set(clf.predict_task(stages_of(1)[0][0])) <= {0, 1}


def test_queries_may_be_kept():
    assert_queries_may_be_kept(DualPromptClassifier)


def test_a_pickle_goes_on():
    assert_pickle_goes_on(DualPromptClassifier)


def test_indicators_are_learned():
    assert_learns_indicators(DualPromptClassifier)


def test_classes_may_come_one_by_one():
    assert_learns_one_class_at_a_time(DualPromptClassifier, task_inference="gaussian")


def test_loss_falls():
    X, y = frame_with_holes(48)
    options = {"max_epochs": 8, "lr": 1e-2}
    history = small(DualPromptClassifier, **options).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"stage_layers": (2, 9)}, r"stage_layers must list layers in \[0, 3\]"),
        ({"shared_layers": -1}, "shared_layers must not be negative"),
        ({"stage_length": -1}, "stage_length must be in"),
        ({"task_inference": "told"}, "task_inference must be one of"),
        ({"shrinkage": 2}, "shrinkage must be in"),
        ({"query": "image"}, "query must be one of"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(DualPromptClassifier, **option).fit(X, y)
