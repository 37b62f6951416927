"""L2P: choices of single rows, who is moved by what, and counts."""

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
from torch.nn import functional as F
from vilt_cases import count, full_size_vilt, perturb, vilt_batch

from robustmm import L2PClassifier, load_backbone
from robustmm.methods.l2p import L2PModule


def test_full_size_counts():
    sizes = {"pool_size": 10, "prompt_length": 5, "top_k": 5}
    module = build(L2PClassifier, 10, backbone=full_size_vilt(), n_outputs=10, **sizes)
    assert count(module, "prompts", "keys") == 46_080
    heads = sum(p.numel() for p in module.stages.parameters())
    assert heads == 76_900
    official = build(
        L2PClassifier, 1, backbone=full_size_vilt(), pool_size=10, prompt_length=10
    )
    assert count(official, "prompts", "keys") == 84_480


def test_rows_choose_for_themselves():
    module = perturb(build(L2PClassifier), scale=0.5)
    assert_rows_stand_alone(module, L2PModule.__call__)
    assert_rows_stand_alone(module, L2PModule.selected)


def test_logits_are_those_of_a_slow_rewrite():
    module = perturb(build(L2PClassifier, pool_size=5, top_k=2), scale=0.5)
    module.order = torch.tensor([2, 0, 3, 1])
    plain, batch = load_backbone("robustmm/tiny-vilt")["joint"], vilt_batch()
    data = {k: v for k, v in batch.items() if k != "present"}
    query = plain.pool(plain.run(plain.embed(**data)))
    cosines = F.cosine_similarity(query[:, None], module.keys[None], dim=-1)
    for row, best in enumerate(cosines.topk(2).indices):
        one = {k: v[[row]] for k, v in data.items()}
        tokens = plain.embed(**one)
        prompt = torch.cat([module.prompts[j] for j in best])
        tokens = plain.run(tokens.insert("p", prompt, before="text"), keep="p")
        feature = plain.norm(tokens["p"])[0].mean(dim=0)
        logits = torch.cat([stage.head(feature) for stage in module.stages])
        got = module(**batch)[row]
        torch.testing.assert_close(got, logits[module.order], atol=1e-5, rtol=1e-5)


def test_only_the_pull_moves_keys_and_only_the_task_prompts():
    module = perturb(build(L2PClassifier)).train()
    logits, penalty = module(learning=1, **vilt_batch())
    gradients = torch.autograd.grad(
        penalty, [module.keys, module.prompts], retain_graph=True, allow_unused=True
    )
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None
    loss = F.cross_entropy(logits, torch.tensor([0, 1, 1, 0]))
    gradients = torch.autograd.grad(
        loss, [module.prompts, module.keys], allow_unused=True
    )
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None


def test_the_pull_is_a_sum_over_the_chosen_and_a_mean_over_rows():
    module = perturb(build(L2PClassifier, lambda_pull=0.5)).train()
    batch = vilt_batch()
    cosines = module.similarity(**batch)
    expected = -0.5 * cosines.topk(2, dim=1).values.sum() / len(cosines)
    torch.testing.assert_close(module(learning=0, **batch)[1], expected)


def test_old_heads_stay_and_the_pool_goes_on():
    clf = assert_earlier_stages_stay(L2PClassifier, pool_size=2)
    pool = clf.net_.module_.prompts.detach().clone()
    clf.partial_fit(*stages_of()[0])
    assert not torch.equal(pool, clf.net_.module_.prompts)


def test_a_stage_may_have_prompts_kept_for_it():
    options = {"selection": "per_stage", "pool_size": 5}
    module = perturb(build(L2PClassifier, 3, **options)).train()
    cosines = module.similarity(**vilt_batch())
    assert module._choose(cosines, 1).tolist() == [[2, 3]] * 4
    # The pool is spent: the nearest, as without the option.
    assert torch.equal(module._choose(cosines, 2), cosines.topk(2, dim=1).indices)
    module.eval()
    assert torch.equal(module._choose(cosines, 0), cosines.topk(2, dim=1).indices)


def test_the_centre_is_the_first_stage_s_for_ever():
    (X, y), (more, z) = stages_of(2)
    clf = small(L2PClassifier, center_queries=True).partial_fit(X, y)
    center = clf.net_.module_.center.clone()
    queries = clf._evaluate(X, L2PModule.query)[0]
    np.testing.assert_allclose(center, queries.mean(axis=0), rtol=1e-4, atol=1e-5)
    clf.partial_fit(more, z)
    assert torch.equal(clf.net_.module_.center, center)


def test_selected_prompts_leave_out_rows_without_anything():
    X, y = stages_of(1)[0]
    clf = small(L2PClassifier, query="mean").fit(X, y)
    X = X.copy()
    X.iloc[3] = None
    with pytest.warns(UserWarning, match="neither"):
        chosen = clf.selected_prompts(X)
    assert chosen[3].tolist() == [-1, -1]
    assert chosen.dtype == np.int64
    assert set(np.delete(chosen, 3, axis=0).ravel()) <= set(range(4))


def test_queries_may_be_kept():
    assert_queries_may_be_kept(L2PClassifier)


def test_a_pickle_goes_on():
    assert_pickle_goes_on(L2PClassifier)


def test_indicators_are_learned():
    assert_learns_indicators(L2PClassifier)


def test_classes_may_come_one_by_one():
    assert_learns_one_class_at_a_time(L2PClassifier)


def test_loss_falls():
    X, y = frame_with_holes(48)
    options = {"max_epochs": 8, "lr": 1e-2, "lambda_pull": 0}
    history = small(L2PClassifier, **options).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top_k": 5}, r"top_k must be in \[1, pool_size=4\], got 5"),
        ({"lambda_pull": -1}, "lambda_pull must be in"),
        ({"selection": "vote"}, "selection must be one of"),
        ({"query": "image"}, "query must be one of"),
        ({"prompt_length": 0}, "prompt_length must be in"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(L2PClassifier, **option).fit(X, y)
