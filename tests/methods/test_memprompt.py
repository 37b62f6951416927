"""MemPrompt: counts, a reference one sample at a time, layers of any set, memories."""

import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from torch.nn import functional as F
from vilt_cases import (
    LENGTHS,
    assert_independent_of_batch,
    count,
    full_size_vilt,
    lengths_at_layers,
    perturb,
    rows_of,
    vilt_batch,
)

from robustmm import MAPClassifier, MemPromptClassifier, load_backbone
from robustmm.adapters import PromptMemory, SharedPrompts
from robustmm.backbones import Tokens
from robustmm.methods.memprompt import MODALITIES, MemPromptModule

DEFAULTS = {
    "prompt_length": 3,
    "memory_size": 5,
    "top_k": 2,
    "generative_layers": 3,
    "shared_layers": 3,
    "location": "distributed",
    "accumulate": True,
    "shared": "by_pattern",
    "query_pool": "max",
    "renormalize": True,
    "temperature": 1.0,
}
PAPER = {
    "prompt_length": 16,
    "memory_size": 16,
    "top_k": 5,
    "generative_layers": 6,
    "shared_layers": 6,
}


def build(n_outputs=3, **options):
    backbone = load_backbone("robustmm/tiny-vilt")
    return MemPromptModule(backbone, n_outputs, **DEFAULTS | options)


def test_full_size_counts():
    module = MemPromptModule(full_size_vilt(), 23, **DEFAULTS | PAPER)
    assert count(module, "memories") == 2_506_752
    assert count(module, "shared") == 147_456 + 894_528
    assert count(module, "memories", "shared") == 3_548_736
    assert count(module, "pooler") == 590_592
    head = (768 * 1536 + 3 * 1536) + (1536 * 23 + 23)
    assert count(module, "") == 3_548_736 + 590_592 + head


# One sample at a time ---------------------------------------------------------------


def query_of(parts, modality, how):
    rows = parts[modality]
    pooled = {"max": rows.amax(0), "mean": rows.mean(0), "cls": rows[0]}
    return pooled[how]


def read(memory, query):
    """Equations 5 and 6 for one query."""
    cosines = torch.stack([F.cosine_similarity(query, key, 0) for key in memory.keys])
    cosines = cosines / memory.temperature
    best = cosines.argsort(descending=True)[: memory.top_k]
    weights = (
        cosines[best].softmax(0) if memory.renormalize else cosines.softmax(0)[best]
    )
    return sum(w * memory.prompts[k] for w, k in zip(weights, best, strict=True))


def shared_prompt(shared, modality, has_image, has_text):
    """Equation 7 for one sample."""
    source = shared.sources[0]
    if shared.by_pattern and has_text:
        source = source + shared.sources[1] if has_image else shared.sources[1]
    return shared.maps[modality](source)


def features_of_one(module, row):
    """The whole forward pass of one row: lists of parts and one layer at a time."""
    stream = module.backbone["joint"]
    has_image, has_text = row.pop("present")[0].tolist()
    tokens = stream.embed(**row)
    parts = {m: tokens[m][0] for m in MODALITIES}
    prompts = {m: [] for m in MODALITIES}
    for i in range(stream.n_layers):
        new = {m: [] for m in MODALITIES}
        for m in MODALITIES:
            if str(i) in module.shared:
                shared = module.shared[str(i)]
                new[m].append(shared_prompt(shared, m, has_image, has_text))
            if f"{m}_{i}" in module.memories:
                query = query_of(parts, m, module.query_pool)
                new[m].append(read(module.memories[f"{m}_{i}"], query))
        for m in MODALITIES:
            kept = prompts[m] if module.accumulate or not new[m] else []
            prompts[m] = new[m] + kept
        pieces = [*prompts["text"], parts["text"], *prompts["image"], parts["image"]]
        joined = torch.cat(pieces)[None]
        joined = stream.step(i, Tokens(joined, None, {"text": (0, joined.shape[1])}))
        done = iter(joined.values[0].split([len(piece) for piece in pieces]))
        for m in MODALITIES:
            prompts[m] = [next(done) for _ in prompts[m]]
            parts[m] = next(done)
    return module.pooler(stream.norm(parts["text"][:1]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate": False},
        {"shared": "single"},
        {"renormalize": False},
        {"temperature": 0.1},
        {"query_pool": "mean"},
        {"query_pool": "cls"},
        {"location": "pre_append"},
        {"generative_layers": 0},
        {"shared_layers": 0},
        {"generative_layers": (0, 3), "shared_layers": [1, 2, 3]},
        {"generative_layers": 0, "shared_layers": 0},
    ],
    ids=str,
)
def test_features_agree_with_one_sample_at_a_time(options):
    module = perturb(build(**options))
    batch = vilt_batch()
    with torch.inference_mode():
        features = module.features(**batch)
        expected = [
            features_of_one(module, rows_of(batch, [i], length))
            for i, length in enumerate(LENGTHS)
        ]
    torch.testing.assert_close(features, torch.cat(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("query_pool", ["max", "mean", "cls"])
def test_logits_do_not_depend_on_the_batch(query_pool):
    assert_independent_of_batch(perturb(build(query_pool=query_pool)))


# Segments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"generative_layers": 0, "shared_layers": 0}, [0, 0, 0, 0]),
        ({"generative_layers": 2, "shared_layers": 0}, [6, 12, 12, 12]),
        ({"generative_layers": 0, "shared_layers": 2}, [6, 12, 12, 12]),
        ({"generative_layers": 1, "shared_layers": 3}, [12, 18, 24, 24]),
        ({"generative_layers": (1, 3), "shared_layers": (0, 1)}, [6, 18, 18, 24]),
        ({"accumulate": False}, [12, 12, 12, 12]),
        (
            {"accumulate": False, "generative_layers": (1, 3), "shared_layers": 1},
            [6, 12, 12, 12],
        ),
    ],
    ids=str,
)
def test_layers_get_the_prompts_they_are_given(options, more):
    batch = vilt_batch()
    plain = lengths_at_layers(build(generative_layers=0, shared_layers=0), batch)
    longer = lengths_at_layers(build(**options), batch)
    assert [b - a for a, b in zip(plain, longer, strict=True)] == more


@pytest.mark.parametrize("location", ["distributed", "pre_append"])
def test_prompts_stand_where_they_should(location):
    module = build(location=location)
    tokens = module.backbone["joint"].embed(**rows_of(vilt_batch(), [0]))
    names = module._add_prompts(torch.tensor([0]), 0, tokens).names
    kinds = [name.rsplit("_", 1)[0] for name in names]
    text, image = (
        ["shared_text", "generative_text"],
        ["shared_image", "generative_image"],
    )
    if location == "distributed":
        assert kinds == [*text, "text", *image, "image"]
    else:
        assert kinds[-2:] == ["text", "image"]
        assert set(kinds[:-2]) == {*text, *image}


def test_location_changes_nothing():
    """Attention has no order and prompts no position."""
    module = perturb(build())
    batch = vilt_batch()
    distributed = module(**batch)
    module.location = "pre_append"
    torch.testing.assert_close(module(**batch), distributed, atol=1e-5, rtol=0)


def test_the_query_leaves_padding_and_prompts_out():
    module = build()
    stream, batch = module.backbone["joint"], vilt_batch()
    tokens = stream.embed(**batch)
    before = module._query(tokens, "text")
    prompted = module._add_prompts(torch.tensor([0, 1, 2, 0]), 0, tokens)
    torch.testing.assert_close(module._query(prompted, "text"), before)
    expected = tokens["text"][3, : LENGTHS[3]].amax(dim=0)
    torch.testing.assert_close(before[3], expected)


# The estimator ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        {"generative_layers": 0},
        {"shared_layers": 0},
        {"generative_layers": (0, 2), "shared_layers": [1]},
        {"accumulate": False},
        {"shared": "single"},
        {"top_k": 1, "renormalize": False},
        {"query_pool": "cls"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_ablations_train_and_pickle(option):
    X, y = frame_with_holes(16)
    fitted = small(MemPromptClassifier, **option).fit(X, y)
    assert np.isfinite(fitted.history_["train_loss"]).all()
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(
        copy.predict_proba(X), fitted.predict_proba(X), rtol=1e-5
    )


def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(MemPromptClassifier, max_epochs=6).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]


def test_a_bad_image_beside_a_missing_text_is_predicted_as_empty():
    X, y = frame_with_holes(16)
    fitted = small(MemPromptClassifier, on_bad_image="missing").fit(X, y)
    X.iloc[1, 0] = b"no image"
    with (
        pytest.warns(UserWarning, match="taken as missing"),
        pytest.warns(UserWarning, match="neither image nor text"),
    ):
        proba = fitted.predict_proba(X)
    np.testing.assert_allclose(proba[1], fitted.class_prior_)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top_k": 5}, "top_k must be at most memory_size, 4, got 5"),
        ({"top_k": 1}, "renormalize must be False with top_k=1"),
        ({"memory_size": 1}, r"memory_size must be in \[2, inf\), got 1"),
        ({"generative_layers": (4,)}, r"generative_layers must list layers in \[0, 3"),
        ({"generative_layers": -1}, "generative_layers must not be negative, got -1"),
        ({"shared_layers": (1, 4)}, r"shared_layers must list layers in \[0, 3\]"),
        ({"location": "front"}, "location must be one of"),
        ({"shared": "none"}, "shared must be one of"),
        ({"query_pool": "sum"}, "query_pool must be one of"),
        ({"temperature": 0}, "temperature must be in"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(MemPromptClassifier, **option).fit(X, y)


def test_recipe_of_the_optimizer():
    X, y = frame_with_holes(8)
    for cls in (MemPromptClassifier, MAPClassifier):
        groups = small(cls).fit(X, y).net_.optimizer_.param_groups
        decayed = {g["weight_decay"]: [p.ndim for p in g["params"]] for g in groups}
        assert set(decayed) == {0.0, 0.02}
        assert set(decayed[0.0]) == {1}
        assert all(g["betas"] == (0.9, 0.98) for g in groups)


# The memory from outside ------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    X, y = frame_with_holes()
    return small(MemPromptClassifier, generative_layers=(0, 2)).fit(X, y)


def test_memory_usage_has_a_row_per_pattern_layer_and_modality(fitted):
    X, _ = frame_with_holes()
    usage = fitted.memory_usage(X)
    assert usage.index.names == ["pattern", "layer", "modality"]
    patterns = ["complete", "text_missing", "image_missing"]
    expected = [(p, i, m) for p in patterns for i in (0, 2) for m in MODALITIES]
    assert usage.index.tolist() == expected
    assert usage.columns.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(usage.sum(axis=1), 1, rtol=1e-5)
    complete = fitted.memory_usage(X.dropna())
    assert set(complete.index.get_level_values("pattern")) == {"complete"}
    np.testing.assert_allclose(complete, usage.loc[["complete"]], atol=1e-6)


def test_memory_usage_is_what_the_module_reads(fitted):
    X, _ = frame_with_holes()
    module = fitted.net_.module_
    seen = {}
    for name, memory in module.memories.items():
        memory.register_forward_hook(
            lambda memory, inputs, _, name=name: seen.__setitem__(
                name, memory.weights(inputs[0]).mean(dim=0)
            )
        )
    fitted.predict(X.iloc[[1]])
    usage = fitted.memory_usage(X.iloc[[1]])
    for name, weights in seen.items():
        modality, layer = name.split("_")
        row = usage.loc[("text_missing", int(layer), modality)]
        np.testing.assert_allclose(row, weights.numpy(), atol=1e-6)
        assert (row > 0).sum() == 2


def test_rows_of_one_dummy_read_the_same_entries(fitted):
    X, _ = frame_with_holes()
    usage = fitted.memory_usage(X).loc["image_missing"]
    assert (usage.loc[(0, "image")] > 0).sum() == 2


def test_memory_usage_needs_a_memory_and_rows(fitted):
    X, y = frame_with_holes(8)
    without = small(MemPromptClassifier, generative_layers=0).fit(X, y)
    with pytest.raises(ValueError, match="needs a memory, got generative_layers=0"):
        without.memory_usage(X)
    empty = X.iloc[:2].assign(image=None, text=None).astype(object)
    with (
        pytest.warns(UserWarning, match="neither image nor text"),
        pytest.raises(ValueError, match="image or a text, got none"),
    ):
        fitted.memory_usage(empty)


# Options that the authors' program has not ----------------------------------------


def test_centred_queries_tell_rows_apart():
    torch.manual_seed(0)
    common, own = 5 * torch.randn(1, 32), torch.randn(40, 32)
    queries = common + own  # nearly parallel, as pooled hidden states are
    plain, centred = (
        PromptMemory(8, 2, 32, top_k=3, temperature=0.1, center=center)
        for center in (False, True)
    )
    centred.load_state_dict(plain.state_dict(), strict=False)
    centred.train()
    for _ in range(30):
        centred.weights(queries)
    centred.eval()
    sets = [
        len({tuple(row.nonzero()[:, 0].tolist()) for row in memory.weights(queries)})
        for memory in (plain, centred)
    ]
    assert sets[1] > 3 * sets[0]
    mean = queries.mean(dim=0)
    torch.testing.assert_close(centred.mean, mean, atol=1e-3, rtol=0)
    centred.weights(queries + 9)
    torch.testing.assert_close(centred.mean, mean, atol=1e-3, rtol=0)


def test_a_centred_model_is_saved_with_its_mean():
    X, y = frame_with_holes(18)
    clf = small(MemPromptClassifier, center_queries=True, max_epochs=2).fit(X, y)
    memory = clf.net_.module_.memories["text_0"]
    assert memory.mean.any()
    again = pickle.loads(pickle.dumps(clf))
    assert torch.equal(again.net_.module_.memories["text_0"].mean, memory.mean)
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), rtol=1e-6)


def test_scaled_maps_have_no_last_bias_and_keep_patterns_apart():
    torch.manual_seed(0)
    patterns = torch.tensor([0, 1, 2])
    spread = {}
    for init in ("normal", "scaled"):
        shared = SharedPrompts(2, 128, init=init)
        assert (shared.maps["text"][2].bias is None) is (init == "scaled")
        spread[init] = shared(patterns)["text"].std().item()
    assert spread["scaled"] > 10 * spread["normal"]


def test_dropout_of_the_frozen_layers_is_the_model_s_own():
    X, y = frame_with_holes(18)
    with_it = small(MemPromptClassifier, backbone_dropout=0.1).fit(X, y)
    without = small(MemPromptClassifier).fit(X, y)
    assert not np.allclose(with_it.predict_proba(X), without.predict_proba(X))
    assert with_it.net_.module_.backbone["joint"].dropout == 0.1
    again = pickle.loads(pickle.dumps(with_it))
    np.testing.assert_allclose(
        again.predict_proba(X), with_it.predict_proba(X), rtol=1e-6
    )
    for name, wrong in (("shared_init", "zero"), ("backbone_dropout", 2)):
        with pytest.raises(ValueError, match=name):
            small(MemPromptClassifier, **{name: wrong}).fit(X, y)
