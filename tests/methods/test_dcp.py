"""DCP: its equations taken literally, counts, what is missing, and its switches."""

import math
import pickle

import numpy as np
import pytest
import torch
from clip_cases import (
    PRESENT,
    clip_batch,
    count,
    full_size_clip,
    perturb,
    row_of,
    watch,
)
from contract import frame_with_holes, small
from torch.nn import functional as F

import robustmm
from robustmm import DCPClassifier, load_backbone
from robustmm.backbones import projected

MODALITIES = ("image", "text")
KINDS = ("use_correlated", "use_common", "use_dynamic")
NONE_OF_THEM = dict.fromkeys(KINDS, False)


def build(n_outputs=3, backbone=None, **options):
    backbone = backbone or load_backbone("robustmm/tiny-clip")
    return small(DCPClassifier, **options)._build_module(backbone, n_outputs)


# The equations, one row after the other ------------------------------------------


def slow_bottleneck(parts, x, norm):
    if norm == "after":
        first, _, second, layer_norm = parts
        return layer_norm(second(F.gelu(first(x))))
    layer_norm, first, _, second = parts
    return second(F.gelu(first(layer_norm(x))))


def slow_correlated(prompts, has, norm):
    """The prompts of every layer, by modality, of a row that has these modalities."""
    x = {m: prompts.sources[m][0 if has[m] else 1] for m in MODALITIES}
    layers = []
    for generators in prompts.layers:
        both = torch.cat([x["image"], x["text"]], dim=1)
        x = {m: slow_bottleneck(generators[m], both, norm) for m in MODALITIES}
        layers.append(x)
    return layers


def slow_layer(stream, i, x):
    """One of CLIP's layers, (L, d)."""
    layer = stream.layers[i]
    attention, h = layer.self_attn, layer.layer_norm1(x)
    query, key, value = (
        linear(h).unflatten(1, (stream.n_heads, -1)).transpose(0, 1)
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if stream.modality == "text":
        future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    x = x + attention.out_proj((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
    return x + layer.mlp(layer.layer_norm2(x))


def slow_feature(module, modality, row, norm):
    """The embedding of one modality of one row, (d,)."""
    stream = module.backbone[modality]
    has = dict(zip(MODALITIES, row["present"][0].tolist(), strict=True))
    if not has[modality]:
        return torch.zeros(stream.projection.out_features)
    own = stream.enter(stream.embed(**row)).values[0]  # (T, d)
    correlated = slow_correlated(module.correlated, has, norm)
    pattern = 0 if all(has.values()) else 1 if has["image"] else 2
    first, _, second = module.common.maps[modality]
    common = second(F.gelu(first(module.common.source[pattern])))
    dynamic = module.dynamic[modality]
    queries = dynamic.queries[1 if all(has.values()) else 0]
    read, _ = dynamic.attention(queries, own, own)
    x = torch.cat([correlated[0][modality], common, read, own])
    for i in range(stream.n_layers):
        if i < len(correlated):
            prompts = correlated[i][modality]
            x = torch.cat([prompts, x[len(prompts) :]])
        x = slow_layer(stream, i, x)
    pooled = x[-1] if modality == "text" else x[-len(own)]  # end of text, class token
    return stream.projection(stream.final_norm(pooled))


@pytest.mark.parametrize("norm", ["before", "after"])
def test_features_and_logits_are_those_of_the_equations(norm):
    module, batch = perturb(build(prompt_norm=norm)), clip_batch()
    with torch.no_grad():
        features = module.features(**batch)
        rows = [row_of(batch, i) for i in range(len(PRESENT))]
        expected = torch.stack(
            [
                torch.cat([slow_feature(module, m, row, norm) for m in MODALITIES])
                for row in rows
            ]
        )
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
        logits = features @ module.head.weight.T + module.head.bias
        torch.testing.assert_close(module(**batch), logits)
    assert logits.shape == (4, 3)
    half = features.shape[1] // 2
    assert not features[2, :half].any()
    assert not features[1, half:].any()
    assert features[[0, 3]].all()


def test_the_folded_attention_is_plain_attention():
    dynamic = perturb(build().dynamic["text"], size=0.2).double()
    x = torch.randn(3, 6, dynamic.queries.shape[-1], dtype=torch.double)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 4:] = False
    complete = torch.tensor([True, False, True])
    queries = dynamic.queries[[1, 0, 1]]
    plain, weights = dynamic.attention(queries, x, x, key_padding_mask=~mask)
    torch.testing.assert_close(dynamic(x, mask, complete), plain)
    assert weights[0].std() > 0.05  # which words are read does matter here


def test_a_layer_reads_its_own_correlated_prompts_and_the_others_go_on():
    module, batch = perturb(build(prompt_depth=2)), clip_batch()
    seen = {m: watch(module, m) for m in MODALITIES}
    with torch.no_grad():
        layers, common = module.correlated(), module.common()
        module(**batch)
    for modality, pattern in (("image", [0, 1, 0]), ("text", [0, 2, 0])):
        entered = seen[modality]
        assert [t.names for t in entered] == [
            ("correlated", "common", "dynamic", modality)
        ] * 4
        for i in range(2):
            prompts = layers[i][modality][pattern]
            assert torch.equal(entered[i]["correlated"], prompts)
        # Behind the norm in front of the first layer: as they are.
        assert torch.equal(entered[0]["common"], common[modality][pattern])
        assert not torch.allclose(entered[1]["common"], common[modality][pattern])
        assert not torch.allclose(entered[2]["correlated"], prompts)


def test_each_text_prompt_sees_those_before_it_only():
    module, batch = perturb(build()), clip_batch()
    seen = watch(module, "text")
    with torch.no_grad():
        module(**batch)
        module.dynamic["text"].queries.add_(1.0)
        module(**batch)
    before, after = seen[3], seen[7]
    assert torch.equal(before["correlated"], after["correlated"])
    assert torch.equal(before["common"], after["common"])
    assert not torch.allclose(before["dynamic"], after["dynamic"])
    assert not torch.allclose(before["text"], after["text"])


# Missing cells and batches -------------------------------------------------------


def test_a_missing_cell_s_content_changes_nothing_and_is_not_encoded():
    module, batch = perturb(build()), clip_batch()
    seen = {m: watch(module, m) for m in MODALITIES}
    other = {name: value.clone() for name, value in batch.items()}
    other["pixel_values"][2] = 7.0
    other["input_ids"][1, :2] = torch.tensor([9, 3])
    with torch.no_grad():
        assert torch.equal(module(**batch), module(**other))
    assert {len(t) for t in seen["image"]} == {len(t) for t in seen["text"]} == {3}


def test_a_row_alone_has_the_logits_it_has_in_a_batch():
    module, batch = perturb(build()), clip_batch()
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        together = module(**batch)
        shuffled = module(**{name: value[order] for name, value in batch.items()})
        torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
        for i in range(len(PRESENT)):
            alone = module(**row_of(batch, i))
            torch.testing.assert_close(alone, together[[i]], atol=1e-5, rtol=0)


def test_an_image_s_feature_depends_on_whether_there_is_a_text():
    module, batch = perturb(build()), clip_batch()
    without_text = batch | {"present": torch.tensor([[True, False]] * 4)}
    with torch.no_grad():
        complete, alone = (module.features(**b)[0] for b in (batch, without_text))
    image, text = slice(None, len(alone) // 2), slice(len(alone) // 2, None)
    assert not alone[text].any()
    assert not torch.allclose(alone[image], complete[image], atol=1e-3)


# Switches ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({kind: False} for kind in KINDS),
        NONE_OF_THEM,
        {"cross_modal": False},
        {"train_queries": False},
        {"train_output": False},
        {"prompt_norm": "after"},
        {"prompt_depth": 4},
    ],
    ids=str,
)
def test_every_trained_parameter_gets_a_gradient(options):
    module = perturb(build(**options)).train()
    module(**clip_batch()).square().sum().backward()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    still = [n for n, p in trained.items() if p.grad is None or not p.grad.any()]
    assert still == []
    output = sum(n.startswith("backbone") for n in trained)
    assert output == (0 if options.get("train_output") is False else 5)


@pytest.mark.parametrize("left_out", KINDS)
def test_a_kind_of_prompts_can_be_left_out(left_out):
    module = build(**{left_out: False}).eval()
    seen = watch(module, "text")
    module(**clip_batch())
    name = left_out.removeprefix("use_")
    kinds = [k for k in ("correlated", "common", "dynamic") if k != name]
    assert seen[-1].names == (*kinds, "text")
    assert getattr(module, name) is None


def test_without_prompts_the_features_are_clip_s():
    module, batch = build(**NONE_OF_THEM).eval(), clip_batch()
    backbone = load_backbone("robustmm/tiny-clip")
    with torch.no_grad():
        features = module.features(**batch)
        parts = []
        for column, modality in enumerate(MODALITIES):
            stream = backbone[modality]
            pooled = stream.pool(stream.run(stream.embed(**batch)))
            parts.append(projected(stream, pooled) * batch["present"][:, [column]])
    torch.testing.assert_close(features, torch.cat(parts, 1), atol=1e-5, rtol=1e-5)


def test_prompts_that_are_not_cross_modal_do_not_depend_on_the_other_encoder():
    for cross_modal in (True, False):
        correlated = perturb(build(cross_modal=cross_modal).correlated)
        with torch.no_grad():
            before = correlated()[1]["image"]
            correlated.sources["text"].add_(1.0)
            after = correlated()[1]["image"]
        assert torch.equal(before, after) is not cross_modal
        patterns_differ = not torch.equal(before[0], before[1])
        assert patterns_differ is cross_modal


def test_queries_start_as_wide_as_asked_for():
    narrow, wide = (build(query_std=std).dynamic["image"].queries for std in (0.02, 1))
    assert 0.01 < narrow.std() < 0.03
    assert 0.8 < wide.std() < 1.2


@pytest.mark.parametrize("keep", ["pickle", "folder"])
def test_untrained_queries_are_part_of_a_saved_model(keep, tmp_path):
    X, y = frame_with_holes(12)
    clf = small(DCPClassifier, train_queries=False, query_std=1.0, random_state=None)
    clf.fit(X, y)
    torch.manual_seed(5)
    if keep == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    else:
        robustmm.save(clf, tmp_path / "model")
        again = robustmm.load(tmp_path / "model")
    modules = clf.net_.module_, again.net_.module_
    assert torch.equal(*(m.dynamic["image"].queries for m in modules))
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), rtol=1e-6)


# Recipe, counts, errors ----------------------------------------------------------


def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(DCPClassifier, max_epochs=8, lr=5e-3).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_training_norms_and_projection_leaves_the_shared_encoder_alone():
    X, y = frame_with_holes(12)
    state = load_backbone("robustmm/tiny-clip").state_dict()
    before = {name: value.clone() for name, value in state.items()}
    clf = small(DCPClassifier, lr=1e-2).fit(X, y)
    after = load_backbone("robustmm/tiny-clip").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    own = clf.net_.module_.backbone.state_dict()
    changed = {
        name for name, value in own.items() if not torch.equal(value, before[name])
    }
    assert changed == {
        "streams.image.final_norm.weight",
        "streams.image.final_norm.bias",
        "streams.image.projection.weight",
        "streams.text.final_norm.weight",
        "streams.text.final_norm.bias",
    }


def test_biases_do_not_decay_and_norms_do():
    X, y = frame_with_holes(12)
    net = small(DCPClassifier, weight_decay=0.3, head_lr=None).fit(X, y).net_
    names = {id(p): name for name, p in net.module_.named_parameters()}
    groups = net.optimizer_.param_groups
    decays = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
    assert {d for n, d in decays.items() if n.endswith("bias")} == {0.0}
    assert {d for n, d in decays.items() if not n.endswith("bias")} == {0.3}
    assert decays["backbone.streams.image.final_norm.weight"] == 0.3
    assert {group["betas"] for group in groups} == {(0.9, 0.98)}


def test_the_recipe_is_one_that_the_constructor_takes():
    clf = DCPClassifier(**DCPClassifier.PAPER)
    assert {n: getattr(clf, n) for n in DCPClassifier.PAPER} == DCPClassifier.PAPER
    # Where defaults depart from it.
    defaults = DCPClassifier().get_params()
    departs = {n for n, v in DCPClassifier.PAPER.items() if defaults[n] != v}
    recipe = {"max_epochs", "batch_size", "head_init", "head_lr"}
    assert departs == {"early_stopping", "train_queries"} | recipe


def test_full_size_counts():
    shared = full_size_clip()
    total = sum(p.numel() for p in shared.parameters())

    def built(**options):
        with torch.device("meta"):
            clf = DCPClassifier(**DCPClassifier.PAPER | options)
            return clf._build_module(shared.copy(), 23)

    module = built()
    parts = {
        "correlated.sources": 30_720,
        "correlated.layers": 1_882_560,
        "common.source": 18_432,
        "common.maps": 75_072,
        "dynamic.image": 2_362_368,
        "dynamic.text": 1_050_624,
        "backbone": 2_560 + 393_216,
        "head": 23_575,
    }
    assert {name: count(module, name) for name in parts} == parts
    assert count(module) - parts["head"] == 5_815_552
    assert round(100 * 5_815_552 / total, 1) == 3.9
    head = parts["head"]
    assert count(built(train_queries=True)) - head == 5_815_552 + 30_720
    assert count(built(train_output=False)) - head == 5_419_776


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt_length": 8}, ValueError, "must be a multiple of 3, got 8"),
        ({"prompt_length": 0}, ValueError, r"prompt_length must be in \[1"),
        ({"prompt_depth": 0}, ValueError, r"prompt_depth must be in \[1"),
        ({"reduction": 0.5}, TypeError, "reduction must be an integer"),
        ({"prompt_norm": "none"}, ValueError, "prompt_norm must be one of"),
        ({"query_std": -1.0}, ValueError, r"query_std must be in \[0"),
        ({"backbone": "robustmm/tiny-vilt"}, ValueError, "DCPClassifier"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_fit(options, error, message):
    X, y = frame_with_holes(8)
    with pytest.raises(error, match=message):
        small(DCPClassifier, **options).fit(X, y)
