"""MAIL: identity at the start, counts, routing tables and errors of its settings."""

import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from sklearn.model_selection import GridSearchCV
from vilt_cases import full_size_vilt, perturb

from robustmm import MAILClassifier, load_backbone
from robustmm.methods.mail import MAILModule, _expert_counts

JOINT = ("query", "key", "value")
DEFAULTS = {
    "n_experts": [3, 3, 3, 3],
    "linears": (JOINT, "up"),
    "router_level": "token",
    "balance_weight": 0.0,
    "rank": 2,
    "alpha": 4.0,
    "dropout": 0.0,
    "top_k": 2,
}


def build(n_outputs=3, **options):
    backbone = load_backbone("robustmm/tiny-vilt")
    return MAILModule(backbone, n_outputs, **DEFAULTS | options)


def batch_of(lengths=(7, 7, 4, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, longest = len(lengths), max(lengths)
    ids = torch.randint(5, 60, (n, longest), generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return {
        "pixel_values": torch.randn(n, 3, 48, 48, generator=generator),
        "input_ids": ids,
        "attention_mask": mask.long(),
        "present": torch.tensor([[True, True], [True, False], [False, True]])[
            torch.arange(n) % 3
        ],
    }


ALL_LINEARS = (JOINT, "out", "up", "down")


@pytest.mark.parametrize("level", ["token", "instance"])
@pytest.mark.parametrize("linears", [(JOINT,), ("up",), ALL_LINEARS], ids=str)
def test_starts_as_the_frozen_backbone(level, linears):
    module = build(router_level=level, linears=linears).eval()
    plain = load_backbone("robustmm/tiny-vilt")["joint"]
    batch = batch_of()
    pooled = plain.pooler(plain.pool(plain.run(plain.embed(**batch))))
    torch.testing.assert_close(module.features(**batch), pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", ["token", "instance"])
def test_padding_and_batch_mates_change_nothing(level):
    module = perturb(build(router_level=level, linears=ALL_LINEARS))
    batch = batch_of()
    logits = module(**batch)
    for i, length in enumerate((7, 7, 4, 2)):
        alone = {k: v[i : i + 1] for k, v in batch.items()}
        for name in ("input_ids", "attention_mask"):
            alone[name] = alone[name][:, :length]
        torch.testing.assert_close(module(**alone), logits[i : i + 1])


@pytest.mark.parametrize("level", ["token", "instance"])
def test_watching_changes_no_output(level):
    module = perturb(build(router_level=level, linears=ALL_LINEARS))
    batch = batch_of()
    pooled, _ = module._run_and_watch({k: batch[k] for k in batch if k != "present"})
    expected = module.features(**batch)
    torch.testing.assert_close(module.pooler(pooled), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        again = module.features(**batch)
    torch.testing.assert_close(again, expected, atol=0, rtol=0)


def test_only_decisions_that_reach_the_prediction_count():
    module = perturb(build())
    batch = batch_of()
    sums = module.usage(**batch)[:, 2:].unflatten(1, (-1, 3))
    counted = dict(zip(module.places(), sums[..., 0].T, strict=True))
    for (layer, linear, _), count in counted.items():
        last = layer == 3 and linear in ("query", "up")
        tokens = torch.tensor([7.0, 7, 4, 2]) + 37
        assert torch.equal(count, torch.ones(4) if last else tokens)


def test_trained_are_experts_routers_pooler_and_head():
    module = build(linears=(JOINT,))
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    others = {n for n in trained if ".experts." not in n}
    assert others == {"pooler.0.weight", "pooler.0.bias", "head.weight", "head.bias"}
    assert len(trained - others) == 4 * 3
    pooler = module.backbone["joint"].pooler[0].weight
    assert not pooler.requires_grad
    assert torch.equal(pooler, module.pooler[0].weight)


def test_a_checkpoint_without_pooler_gets_one():
    backbone = load_backbone("robustmm/tiny-vilt")
    backbone["joint"].pooler = None
    module = MAILModule(backbone, 3, **DEFAULTS)
    assert module.features(**batch_of()).shape == (4, 128)


def test_balance_penalty_is_one_where_the_load_is_even():
    module = build(balance_weight=0.5).train()
    with torch.no_grad():
        for *_, router in module.routers:
            router.weight.zero_()
    batch = batch_of()
    logits, penalty = module(**batch)
    assert penalty.item() == pytest.approx(0.5)
    torch.testing.assert_close(logits, module.eval()(**batch), atol=1e-5, rtol=0)


def test_balance_penalty_trains_the_routers():
    module = perturb(build(balance_weight=0.5)).train()
    module(**batch_of())[1].backward()
    for *_, router in module.routers:
        assert router.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("n_experts", "shape", "expected"),
    [
        (5, "square", [5] * 12),
        (5, "triangle", [8] * 3 + [6] * 3 + [4] * 3 + [2] * 3),
        (5, "inverted_triangle", [2] * 3 + [4] * 3 + [6] * 3 + [8] * 3),
        (3, "triangle", [5] * 3 + [4] * 3 + [2] * 3 + [1] * 3),
        (1, "inverted_triangle", [1] * 6 + [1] * 3 + [2] * 3),
        (range(1, 13), "square", list(range(1, 13))),
        (np.full(12, 4), "square", [4] * 12),
    ],
)
def test_shapes_spread_the_experts(n_experts, shape, expected):
    assert _expert_counts(n_experts, shape, 12) == expected


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"top_k": 6}, "top_k must be at most .* of a layer, 5, got 6"),
        ({"top_k": 9, "expert_shape": "triangle"}, "of a layer, 8, got 9"),
        ({"n_experts": [2, 2, 1, 2], "top_k": 3}, "of a layer, 2, got 3"),
        ({"n_experts": [2, 2, 2]}, "each of the 4 layers, got 3"),
        ({"n_experts": [2, 2, 2, 0]}, "each of n_experts must be .* got 0"),
        ({"n_experts": 0}, "n_experts must be .* got 0"),
        ({"n_experts": "5"}, "one integer per layer, got '5'"),
        ({"n_experts": [4] * 4, "expert_shape": "triangle"}, "must be 'square' where"),
        ({"expert_shape": "round"}, "expert_shape must be one of .*got 'round'"),
        ({"targets": "ffn"}, "targets must be one of .*got 'ffn'"),
        ({"linear_targets": ("fc1",)}, "each of linear_targets .*got 'fc1'"),
        ({"linear_targets": "up"}, "linear_targets must be a sequence .*got 'up'"),
        ({"linear_targets": ()}, r"linear_targets must be a sequence .*got \(\)"),
        ({"linear_targets": ("up", "up")}, "each once, got"),
        ({"routing": "soft"}, "routing must be one of .*got 'soft'"),
        ({"router_level": "row"}, "router_level must be one of .*got 'row'"),
        ({"routing": "soft_merge", "balance_weight": 0.1}, "must be 0 with .*got 0.1"),
        ({"backbone": "robustmm/tiny-clip"}, r"tiny-clip.*offers \['image', 'text'\]"),
        ({"backbone": "robustmm/tiny-bert"}, r"tiny-bert.*offers \['text'\]"),
    ],
    ids=str,
)
def test_unusable_settings_are_named(params, message):
    X, y = frame_with_holes(6)
    with pytest.raises((ValueError, TypeError), match=message):
        small(MAILClassifier, **params).fit(X, y)


@pytest.mark.parametrize(
    "params",
    [
        {"routing": "soft_merge", "top_k": 9},
        {"top_k": 1, "targets": "linear"},
        {"router_level": "instance", "targets": "attention"},
        {"expert_shape": "inverted_triangle", "linear_targets": ["down", "out"]},
        {"n_experts": (2, 3, 4, 5), "balance_weight": 0.01},
    ],
    ids=str,
)
def test_variants_train_pickle_and_show_their_usage(params):
    X, y = frame_with_holes()
    fitted = small(MAILClassifier, lr=1e-2, **params).fit(X, y)
    assert np.isfinite(fitted.history_["train_loss"]).all()
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copy.predict_proba(X), fitted.predict_proba(X))
    usage = fitted.expert_usage(X)
    total = usage.groupby(["pattern", "layer", "linear"])["weight"].sum()
    if fitted.top_k == 1:
        assert (total < 1).all()
    else:
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_layer_of_few_experts_asks_all_of_them():
    X, y = frame_with_holes()
    fitted = small(MAILClassifier, expert_shape="triangle", top_k=3).fit(X, y)
    asked = {layer: router.top_k for layer, _, router in fitted.net_.module_.routers}
    assert asked == {0: 3, 1: 3, 2: 3, 3: 2}  # of 8, 6, 4 and 2 experts
    usage = fitted.expert_usage(X)
    last = usage[usage["layer"] == usage["layer"].max()]
    assert (last["frequency"] == 1).all()


def test_usage_is_a_row_per_pattern_layer_linear_and_expert():
    X, y = frame_with_holes()
    fitted = small(MAILClassifier, expert_shape="triangle").fit(X, y)
    usage = fitted.expert_usage(X)
    assert list(usage["pattern"].unique()) == [
        "complete",
        "text_missing",
        "image_missing",
    ]
    assert len(usage) == 3 * 4 * (8 + 6 + 4 + 2)
    counts = usage.groupby(["pattern", "layer", "linear"])["frequency"]
    np.testing.assert_allclose(counts.sum(), 2, atol=1e-6)
    assert usage["frequency"].between(0, 1).all()
    some = fitted.expert_usage(X[X["image"].isna()])
    alone = usage[usage["pattern"] == "image_missing"].reset_index(drop=True)
    np.testing.assert_allclose(some["weight"], alone["weight"], atol=1e-5)
    before = fitted.predict_proba(X)
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


def test_usage_without_any_modality_is_an_error():
    X, y = frame_with_holes()
    fitted = small(MAILClassifier).fit(X, y)
    X.iloc[:] = None
    with (
        pytest.warns(UserWarning, match="24 of 24 rows"),
        pytest.raises(ValueError, match=r"At least one row must have .* got 24 rows"),
    ):
        fitted.expert_usage(X)


@pytest.fixture(scope="module")
def trained():
    X, y = frame_with_holes(48)
    return small(MAILClassifier, max_epochs=8, lr=5e-3).fit(X, y)


def test_loss_falls(trained):
    loss = trained.history_["train_loss"]
    assert loss.iloc[-1] < 0.8 * loss.iloc[0]


def test_routing_tells_rows_apart_by_what_is_missing(trained):
    X, _ = frame_with_holes(48)
    usage = trained.expert_usage(X).pivot_table(
        index=["layer", "linear", "expert"], columns="pattern", values="frequency"
    )
    apart = (usage["image_missing"] - usage["complete"]).abs()
    assert apart.max() > 0.1


def test_grid_over_rank_and_experts_shares_one_backbone():
    seen = []

    class Watched(MAILClassifier):
        def _build_module(self, backbone, n_outputs):
            module = super()._build_module(backbone, n_outputs)
            frozen = [p for p in module.parameters() if not p.requires_grad]
            seen.append({p.data_ptr() for p in frozen})
            return module

    X, y = frame_with_holes(24)
    grid = {"rank": [2, 4], "n_experts": [2, 3]}
    search = GridSearchCV(small(MAILClassifier), grid, cv=2)
    search.estimator.__class__ = Watched
    search.fit(X, y)
    assert set(search.best_params_) == {"rank", "n_experts"}
    assert set(search.predict(X)) <= set(y)
    assert len(seen) == 2 * 4 + 1
    assert all(pointers == seen[0] for pointers in seen)
    assert len(seen[0]) > 60


@pytest.mark.parametrize(
    ("linears", "expected"),
    [((JOINT,), 1_244_160), (("up",), 967_680), ((JOINT, "up"), 2_211_840)],
    ids=str,
)
def test_full_size_counts(linears, expected):
    options = {"n_experts": [5] * 12, "rank": 4, "linears": linears}
    module = MAILModule(full_size_vilt(), 23, **DEFAULTS | options)
    trained = {n: p.numel() for n, p in module.named_parameters() if p.requires_grad}
    experts = sum(count for name, count in trained.items() if ".experts." in name)
    assert experts == expected
    assert sum(trained.values()) == expected + 768 * 769 + 23 * 769


def test_targets_choose_the_linears():
    backbone = load_backbone("robustmm/tiny-vilt")
    for targets, expected in (
        ("linear", {"up", "down"}),
        ("attention", set(JOINT)),
        ("both", {"up", "down", *JOINT}),
    ):
        classifier = MAILClassifier(targets=targets, linear_targets=("up", "down"))
        module = classifier._build_module(backbone.copy(), 2)
        assert {linear for _, linear, _ in module.places()} == expected
