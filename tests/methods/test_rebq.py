"""RebQ: what asks which pool, what is rebuilt, slices that stay, and counts."""

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from stage_cases import (
    assert_earlier_stages_stay,
    assert_learns_indicators,
    assert_learns_one_class_at_a_time,
    assert_pickle_goes_on,
    assert_queries_may_be_kept,
    assert_rows_stand_alone,
    build,
    stages_of,
)
from vilt_cases import count, full_size_vilt, perturb, rows_of, vilt_batch

from robustmm import RebQClassifier, load_backbone
from robustmm.backbones import hide_modality
from robustmm.methods.rebq import RebQModule


def full_size(n_stages, n_components, **options):
    columns = [[2 * t, 2 * t + 1] for t in range(n_stages)]
    sizes = {"n_components": n_components, "prompt_length": 8}
    sizes |= {"prompt_layers": range(8), "lambda_reconstruction": 0.01}
    sizes |= {"reconstruction_target": "memory", "fresh_components": True, "blank": {}}
    module = RebQModule(full_size_vilt(), columns, **sizes | options)
    module.train_only(n_stages - 1)
    return module


def test_full_size_counts():
    assert count(full_size(1, 128), "stages.0.components") == 23_592_960
    assert count(full_size(2, 12), "stages.1.components") == 2_211_840
    assert count(full_size(2, 25), "stages.1.components") == 4_608_000
    assert count(full_size(2, 12), "stages.0") == 0
    heads = [[*range(10 * t, 10 * t + 10)] for t in range(10)]
    options = {"n_components": 1, "prompt_length": 2, "prompt_layers": [0]}
    options |= {"lambda_reconstruction": 0, "reconstruction_target": "frozen"}
    options |= {"fresh_components": False, "blank": {}}
    stages = RebQModule(full_size_vilt(), heads, **options).stages
    assert sum(p.numel() for s in stages for p in s.head.parameters()) == 76_900


@pytest.fixture
def module():
    return perturb(build(RebQClassifier, 2), scale=0.3)


def data_of(batch):
    return {k: v for k, v in batch.items() if k != "present"}


def test_rows_stand_alone(module):
    assert_rows_stand_alone(module, RebQModule.__call__)
    assert_rows_stand_alone(module, RebQModule.queries)


def test_logits_are_those_of_a_slow_rewrite(module):
    plain, batch = load_backbone("robustmm/tiny-vilt")["joint"], vilt_batch()
    got = module(**batch)
    for row in range(4):
        one = rows_of(data_of(batch), [row])
        has = dict(zip(("image", "text"), batch["present"][row].tolist(), strict=True))
        first = classes_of(plain, one)
        memory = [
            sum(prompt(module, 2, i, first[m]) for m in first if has[m])
            for i in range(2)
        ]
        second = classes_of(plain, one, memory)
        asked = {m: first[m] if has[m] else second[m] for m in first}
        tokens = plain.embed(**one)
        for i in range(plain.n_layers):
            if i < 2:
                image = prompt(module, 0, i, asked["image"])
                text = prompt(module, 1, i, asked["text"])
                keys = torch.cat([image[:1], text[:1]])
                values = torch.cat([image[1:], text[1:]])
                tokens = tokens.with_prefix(keys[None], values[None])
            tokens = plain.step(i, tokens)
        feature = plain.norm(tokens["text"])[0, 0]
        logits = torch.cat([stage.head(feature) for stage in module.stages])
        torch.testing.assert_close(got[row], logits, atol=1e-4, rtol=1e-4)


def classes_of(stream, data, memory=()):
    """Class tokens of one row; memory prompts are exchanged in the first layers."""
    tokens = stream.embed(**data)
    for i in range(stream.n_layers):
        if i < len(memory):
            tokens = tokens.put("memory", memory[i], before="image")
        tokens = stream.step(i, tokens)
    values = {m: stream.norm(tokens[m])[0, 0] for m in ("image", "text")}
    return values


def prompt(module, pool, layer, query):
    """The prompt of one query, component after component."""
    total = 0
    for stage in module.stages:
        own = stage.components
        for k in range(own.keys.shape[2]):
            key = own.keys[pool, layer, k]
            asked = query * own.attention[pool, layer, k]
            cosine = torch.nn.functional.cosine_similarity(asked, key, dim=0)
            total = total + cosine * own.prompts[pool, layer, k]
    return total


def test_complete_rows_do_not_read_the_memory(module):
    batch = vilt_batch()
    before = module(**batch)
    with torch.no_grad():
        for stage in module.stages:
            stage.components.prompts[2] += 1
    after = module(**batch)
    moved = (before != after).any(dim=1)
    assert moved.tolist() == [False, True, True, False]


def test_the_error_is_that_of_copies_without_a_modality(module):
    batch = vilt_batch()
    module.train()
    error = module._reconstruction_error(batch["present"], data_of(batch))
    rows = rows_of(batch, [0, 3])
    with torch.no_grad():
        target = module._target(rows)
    expected = []
    for place, modality in enumerate(("image", "text")):
        copies = hide_modality(rows, module.blank, modality)
        queries = module.queries(**copies).unflatten(1, (2, -1))
        expected.append((queries[:, place] - target[:, place]).square().mean())
    torch.testing.assert_close(error, torch.stack(expected).mean())
    module.reconstruction_target = "frozen"
    frozen = module._target(rows)
    assert torch.equal(frozen, module.frozen.tokens(rows["present"], data_of(rows)))


def test_the_task_reaches_the_memory_and_the_target_is_constant(module):
    batch = vilt_batch()
    logits, penalty = module.train()(learning=1, **batch)
    module.zero_grad()
    logits.sum().backward()
    assert module.stages[1].components.prompts.grad[2].abs().sum() > 0
    module.zero_grad()
    _, penalty = module(learning=1, **batch)
    penalty.backward()
    gradient = module.stages[1].components.prompts.grad
    assert gradient[2].abs().sum() > 0
    assert gradient[:2].abs().sum() == 0


def test_every_slice_moves_in_its_stage_and_stays_after():
    assert_earlier_stages_stay(RebQClassifier)


def test_the_release_learns_no_prompt_after_the_first_stage():
    clf = small(RebQClassifier, fresh_components=False)
    for X, y in stages_of(2):
        clf.partial_fit(X, y)
    first, second = clf.net_.module_.stages
    assert first.components is not None
    assert second.components is None
    assert clf.n_trainable_parameters_ == 2 * 129


@pytest.mark.parametrize("column", [0, 1])
def test_a_stage_without_complete_rows_trains(column):
    X, y = stages_of(1)[0]
    X = X.copy()
    X.iloc[:, column] = None
    there = X.notna().any(axis=1).to_numpy()
    clf = small(RebQClassifier, lr=1e-2, max_epochs=3).fit(X[there], y[there])
    assert np.isfinite(clf.predict_proba(X[there])).all()


def test_queries_may_be_kept():
    assert_queries_may_be_kept(RebQClassifier)


def test_a_pickle_goes_on():
    assert_pickle_goes_on(RebQClassifier)


def test_indicators_are_learned():
    assert_learns_indicators(RebQClassifier)


def test_classes_may_come_one_by_one():
    assert_learns_one_class_at_a_time(RebQClassifier)


@pytest.mark.slow
def test_loss_falls():
    X, y = frame_with_holes(48)
    options = {"max_epochs": 8, "lr": 1e-2, "lambda_reconstruction": 0}
    history = small(RebQClassifier, **options).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_components_of_all_stages_must_fit_into_the_width():
    (X, y), (more, z) = stages_of(2)
    clf = small(RebQClassifier, n_components=65).partial_fit(X, y)
    with pytest.raises(ValueError, match="at most the encoder's width, 128, got 65 in"):
        clf.partial_fit(more, z)
    assert len(clf.classes_) == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"prompt_length": 3}, "prompt_length must be even"),
        ({"n_components": 0}, "n_components must be in"),
        ({"lambda_reconstruction": -1}, "lambda_reconstruction must be in"),
        ({"reconstruction_target": "text"}, "reconstruction_target must be one of"),
        ({"prompt_layers": (0, 7)}, r"prompt_layers must list layers in \[0, 3\]"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(RebQClassifier, **option).fit(X, y)
