"""RAGPT: its equations taken literally, who finds whom, counts, and its switches."""

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F
from torch.utils.data import Subset
from vilt_cases import PRESENT, count, full_size_vilt, perturb, rows_of, vilt_batch

import robustmm
from robustmm import RAGPTClassifier, load_backbone
from robustmm.backbones import Backbone
from robustmm.data import Pictures, Rows
from robustmm.methods.ragpt import RetrievalMemory

SWITCHES = ("use_generator", "use_prompts", "use_label_token")
PLAIN = {**dict.fromkeys(SWITCHES, False), "pool": "cls"}
M, K, C = 9, 2, 3


def build(multilabel=False, **options):
    """A module on tiny encoders, whose memory holds M random rows."""
    clf = small(RAGPTClassifier, **options)
    clf.n_memory_, clf.n_neighbors_, clf._multilabel = M, K, multilabel
    module = clf._build_module(clf._load_backbone(torch.device("cpu")), C)
    memory, draw = module.memory, torch.Generator().manual_seed(3)
    for name in ("image_vectors", "text_vectors"):
        values = torch.randn(getattr(memory, name).shape, generator=draw)
        setattr(memory, name, F.normalize(values, dim=1))
    memory.images = torch.randn(memory.images.shape, generator=draw).half()
    memory.lengths = torch.randint(2, 12, (M,), generator=draw)
    ids = torch.randint(5, 60, memory.texts.shape, generator=draw)
    memory.texts = ids * (torch.arange(ids.shape[1]) < memory.lengths[:, None])
    memory.labels = torch.randint(0, C, (M,), generator=draw)
    if multilabel:
        memory.labels = (torch.rand(M, C, generator=draw) < 0.5).float()
    return module


def batch_of(present=PRESENT):
    batch, draw = vilt_batch(present), torch.Generator().manual_seed(7)
    pixels = torch.randn(len(present), 3, 48, 48, generator=draw)
    ids = torch.randint(5, 60, (len(present), 7), generator=draw)
    ids[:, -1] = load_backbone("robustmm/tiny-clip")["text"].end_token
    return {
        **batch,
        "second_pixel_values": pixels,
        "second_input_ids": ids,
        "second_attention_mask": torch.ones_like(ids),
    }


# The equations, one row after the other ------------------------------------------


def slow_neighbours(module, row):
    """The rows that image, text and labels are from, by scikit-learn."""
    found = {}
    vectors = dict(zip(("image", "text"), module.vectors(**row), strict=True))
    for modality, there in zip(("image", "text"), row["present"][0], strict=True):
        if there:
            index = NearestNeighbors(n_neighbors=K, metric="cosine")
            index.fit(getattr(module.memory, f"{modality}_vectors").numpy())
            found[modality] = index.kneighbors(vectors[modality].numpy())[1][0]
    by_image = found.get("image", found.get("text"))
    by_text = found.get("text", found.get("image"))
    return by_image, by_text


def slow_prompts(part, own, read):
    scores = part.query(own) @ part.key(read).T / own.shape[1] ** 0.5
    weighted = scores.softmax(-1) @ part.value(read)
    return F.adaptive_avg_pool1d(weighted.T, part.length).T


def slow_features(module, row):
    stream, memory = module.backbone["joint"], module.memory
    has_image, has_text = row["present"][0].tolist()
    by_image, by_text = slow_neighbours(module, row)
    length = int(row["attention_mask"].sum())
    cut = {name: row[name][:, :length] for name in ("input_ids", "attention_mask")}
    tokens = stream.embed(**row | cut)
    text, image = tokens["text"][0], tokens["image"][0]
    images = memory.images[by_image].float()
    texts = stream.embed_text(memory.texts[by_text])
    if not has_image:
        image = module.filters["image"](images.mean(dim=0)[None])[0]
    if not has_text:
        text = module.filters["text"](texts.mean(dim=0)[None])[0]
    words = [t[:n] for t, n in zip(texts, memory.lengths[by_text], strict=True)]
    label = module.head.labels[memory.labels[by_image]].mean(dim=0)
    front = [
        label[None],
        slow_prompts(module.prompter, text, torch.cat(words)),
        slow_prompts(module.prompter, image, images.flatten(0, 1)),
    ]
    x = replace(
        tokens,
        values=torch.cat([text, image])[None],
        mask=None,
        spans={"text": (0, len(text)), "image": (len(text), len(text) + len(image))},
    )
    x = stream.run(x, stop=1)
    values = torch.cat([*front, x.values[0]])[None]
    x = replace(x, values=values, spans={"all": (0, values.shape[1])})
    for i in range(1, stream.n_layers):
        x = stream.step(i, x)
    pooled = module.pooler(stream.norm(x.values[:, 0]))
    return torch.cat([pooled, label[None]], dim=1)


def test_features_and_logits_are_those_of_the_equations():
    module, batch = perturb(build()), batch_of()
    with torch.no_grad():
        features = module.features(**batch)
        expected = [slow_features(module, rows_of(batch, [i])) for i in range(4)]
        torch.testing.assert_close(features, torch.cat(expected), atol=1e-4, rtol=1e-4)
        logits = module.head.layers(features) @ module.head.labels.T
        torch.testing.assert_close(module(**batch), logits)
    assert features.std(dim=0).min() > 0
    assert logits.shape == (4, C)


def test_without_prompts_and_labels_a_complete_row_is_the_frozen_stream_s():
    module, batch = build(**PLAIN).eval(), batch_of()
    stream = load_backbone("robustmm/tiny-vilt")["joint"]
    with torch.no_grad():
        pooled = stream.pooler(stream.pool(stream.run(stream.embed(**batch))))
        features = module.features(**batch)
    torch.testing.assert_close(features[[0, 3]], pooled[[0, 3]], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(features[[1, 2]], pooled[[1, 2]], atol=1e-2)


def test_several_labels_of_a_row_are_summed():
    module, batch = build(multilabel=True).eval(), batch_of()
    found = module.retrieve(**batch)
    rows = module.memory.labels[found.labels] @ module.head.labels  # (B, K, d)
    label = module.features(**batch)[:, -rows.shape[-1] :]
    torch.testing.assert_close(label, rows.mean(dim=1))


# What is found ---------------------------------------------------------------------


def test_a_missing_cell_is_replaced_by_what_the_other_finds():
    module, batch = build(), batch_of()
    by_image, by_text = ([] for _ in range(2))
    for i in range(4):
        both = slow_neighbours(module, rows_of(batch, [i]))
        by_image.append(both[0])
        by_text.append(both[1])
    found = module.retrieve(**batch)
    np.testing.assert_array_equal(found.image, by_image)
    np.testing.assert_array_equal(found.text, by_text)
    np.testing.assert_array_equal(found.labels, by_image)
    assert (found.image[[1, 2]] == found.text[[1, 2]]).all()
    assert (found.image[[0, 3]] != found.text[[0, 3]]).any()


@pytest.mark.parametrize("channel", ["image", "text", "mean"])
def test_labels_are_taken_from_the_chosen_channel(channel):
    module, batch = build(label_channel=channel).eval(), batch_of()
    with torch.no_grad():
        found = module.retrieve(**batch)
        width = module.head.labels.shape[1]
        label = module.features(**batch)[:, -width:]
        means = {
            m: module.head.labels[module.memory.labels[getattr(found, m)]].mean(dim=1)
            for m in ("image", "text")
        }
    means["mean"] = (means["image"] + means["text"]) / 2
    torch.testing.assert_close(label, means[channel])


def test_the_order_of_the_memory_and_rows_that_nobody_finds_change_nothing():
    module, batch = perturb(build()), batch_of()
    with torch.no_grad():
        expected, found = module(**batch), module.retrieve(**batch)
        used = torch.cat([found.image, found.text]).unique()
        assert len(used) < M
        shuffled = used[torch.randperm(len(used))]
        for name, value in list(module.memory.named_buffers()):
            setattr(module.memory, name, value[shuffled])
        torch.testing.assert_close(module(**batch), expected, atol=1e-5, rtol=0)


def test_in_a_fit_no_row_of_the_own_group_is_found():
    module, batch = build(), batch_of()
    module.memory.groups = torch.arange(M) // 2
    free = module.retrieve(**batch)
    group = module.memory.groups[free.image[:, 0]]
    bound = module.retrieve(group=group, **batch)
    for index in (bound.image, bound.text, bound.labels):
        assert (module.memory.groups[index] != group[:, None]).all()
    nobody = module.retrieve(group=torch.full((4,), -1), **batch)
    assert torch.equal(nobody.image, free.image)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_a_training_row_never_finds_itself(dropout, monkeypatch):
    X, y = frame_with_holes(30)
    complete = np.flatnonzero(X.notna().all(axis=1))
    X.iloc[complete[1], 0] = X.iloc[complete[0], 0]  # two texts of one picture
    seen = []

    def watched(self, modality, vectors, k, group):
        index = nearest(self, modality, vectors, k, group)
        if group is not None and (group >= 0).all():
            seen.append((group, self.groups[index]))
        return index

    nearest = RetrievalMemory.nearest
    monkeypatch.setattr(RetrievalMemory, "nearest", watched)
    clf = small(RAGPTClassifier, modality_dropout=dropout, n_neighbors=3).fit(X, y)
    assert len(seen) == 2 * -(-30 // 8)
    assert not any((group[:, None] == found).any() for group, found in seen)
    assert clf.net_.module_.memory.groups is None


def test_the_memory_is_what_was_complete_and_not_held_out():
    X, y = frame_with_holes(30)
    clf = small(RAGPTClassifier, early_stopping=True, validation_fraction=0.3)
    kept = {}
    split = clf._split

    def remember(rows, targets, seed):
        kept["train"], kept["held_out"] = split(rows, targets, seed)
        return kept["train"], kept["held_out"]

    clf._split = remember
    clf.fit(X, y)
    complete = X.notna().all(axis=1).to_numpy()
    inside = kept["train"][complete[kept["train"]]]
    assert clf.n_memory_ == len(inside) < complete.sum()
    memory = clf.net_.module_.memory
    counts = np.bincount(clf.classes_.searchsorted(np.asarray(y)[inside]))
    assert np.bincount(memory.labels).tolist() == counts.tolist()


def test_memory_size_limits_it_and_the_seed_chooses():
    X, y = frame_with_holes(30)
    fits = [
        small(RAGPTClassifier, memory_size=4, random_state=seed).fit(X, y)
        for seed in (0, 0, 1)
    ]
    texts = [clf.net_.module_.memory.texts for clf in fits]
    assert [clf.n_memory_ for clf in fits] == [4, 4, 4]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_fewer_rows_than_neighbours_are_told_of(caplog):
    X, y = frame_with_holes(12)
    with caplog.at_level(logging.WARNING, "robustmm"):
        clf = small(RAGPTClassifier, n_neighbors=9).fit(X, y)
    assert clf.n_neighbors_ == 3
    assert "n_neighbors=9 is lowered to 3, as there are 4 complete" in caplog.text


def test_with_no_complete_row_nothing_is_found(caplog):
    X, y = frame_with_holes(24)
    alone = X.notna().sum(axis=1) == 1
    with caplog.at_level(logging.WARNING, "robustmm"):
        clf = small(RAGPTClassifier).fit(X[alone], y[alone.to_numpy()])
    assert clf.n_memory_ == clf.n_neighbors_ == 0
    assert "is lowered to 0" in caplog.text
    assert np.isfinite(clf.predict_proba(X)).all()


# Missing cells and batches -------------------------------------------------------


def test_a_missing_cell_s_content_changes_nothing():
    module, batch = perturb(build()), batch_of()
    other = {name: value.clone() for name, value in batch.items()}
    other["pixel_values"][2] = 7.0
    other["second_pixel_values"][2] = -3.0
    other["input_ids"][1, :2] = torch.tensor([9, 3])
    other["second_input_ids"][1, 0] = 9
    with torch.no_grad():
        assert torch.equal(module(**batch), module(**other))


@pytest.mark.parametrize("mask_padding", [True, False])
def test_a_row_alone_has_the_logits_it_has_in_a_batch(mask_padding):
    module, batch = perturb(build(mask_padding=mask_padding)), batch_of()
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        together = module(**batch)
        shuffled = module(**rows_of(batch, order))
        torch.testing.assert_close(shuffled, together[order], atol=1e-4, rtol=0)
        for i in range(4):
            length = int(batch["attention_mask"][i].sum())
            alone = module(**rows_of(batch, [i], length))
            torch.testing.assert_close(alone, together[[i]], atol=1e-4, rtol=0)


def test_padding_is_read_where_it_is_not_masked():
    options = [perturb(build(mask_padding=masked)) for masked in (True, False)]
    with torch.no_grad():
        first, second = (module(**batch_of()) for module in options)
    assert not torch.allclose(first, second, atol=1e-3)


def test_two_predictions_agree_to_the_bit():
    X, y = frame_with_holes(18)
    clf = small(RAGPTClassifier).fit(X, y)
    assert np.array_equal(clf.decision_function(X), clf.decision_function(X))


# Switches, counts, saving --------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({switch: False} for switch in SWITCHES),
        PLAIN,
        {"pool": "cls"},
        {"label_channel": "mean"},
        {"prompt_layer": 0},
    ],
    ids=str,
)
def test_every_trained_parameter_gets_a_gradient(options):
    module = build(**options).train()
    module(**batch_of()).square().sum().backward()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []
    assert not any(name.startswith("backbone") for name in trained)


def test_full_size_counts():
    vilt = full_size_vilt()
    clip = load_backbone("robustmm/tiny-clip")

    def built(**options):
        clf = RAGPTClassifier(**RAGPTClassifier.PAPER | options)
        shared = Backbone(
            vilt.copy().streams, sources={}, identities={}, max_text_length=128
        ).with_second(clip)
        with torch.device("meta"):
            return clf._build_module(shared, 23)

    module = built()
    parts = {
        "filters.text": 788_736,
        "filters.image": 814_848,
        # The authors' keys have a bias, which cancels.
        "prompter": 1_771_776 - 768,
        "head.layers": 3_544_320,
        "head.labels": 768 * 23,
        "pooler": 590_592,
    }
    assert {name: count(module, name) for name in parts} == parts
    assert count(module, "") == 7_527_936 - 768
    assert count(built(use_generator=False), "") == 7_527_168 - 788_736 - 814_848
    assert count(built(use_prompts=False), "") == 7_527_168 - 1_771_008


def test_the_recipe_is_one_that_the_constructor_takes():
    clf = RAGPTClassifier(**RAGPTClassifier.PAPER)
    assert {n: getattr(clf, n) for n in clf.PAPER} == clf.PAPER


@pytest.mark.slow
def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(RAGPTClassifier, max_epochs=6, lr=3e-3).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"].iloc[0]


@pytest.mark.parametrize("keep", ["pickle", "folder", "folder with backbones"])
def test_a_saved_model_has_its_memory_and_both_encoders(keep, tmp_path):
    X, y = frame_with_holes(18)
    clf = small(RAGPTClassifier, random_state=None).fit(X, y)
    torch.manual_seed(5)
    if keep == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    else:
        inside = keep != "folder"
        robustmm.save(clf, tmp_path / "model", include_backbone=inside)
        again = robustmm.load(tmp_path / "model", device="cpu")
        assert ("retriever_backbone-" in str(again.retriever_backbone)) is inside
        assert not list((tmp_path / "model").rglob("*.p*k*l*"))
    modules = clf.net_.module_, again.net_.module_
    for name, value in modules[0].memory.named_buffers():
        assert torch.equal(value, getattr(modules[1].memory, name))
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))


def test_a_forged_memory_is_refused():
    X, y = frame_with_holes(12)
    clf = small(RAGPTClassifier).fit(X, y)
    for name, wrong in (("texts", 10**6), ("labels", 9), ("lengths", -1)):
        state = clf.__getstate__()
        state["_trained"]["tensors"][f"memory.{name}"][0] = wrong
        with pytest.raises(ValueError, match=f"memory's {name} must be in"):
            RAGPTClassifier.__new__(RAGPTClassifier).__setstate__(state)


def test_another_retriever_is_refused():
    X, y = frame_with_holes(12)
    state = small(RAGPTClassifier).fit(X, y).__getstate__()
    second = load_backbone("robustmm/tiny-clip")
    first = load_backbone("robustmm/tiny-vilt")
    assert state["_trained"]["fingerprint"] != first.fingerprint
    assert state["_trained"]["fingerprint"] == first.with_second(second).fingerprint


def test_pictures_are_squeezed_into_a_square():
    clf = small(RAGPTClassifier)
    backbone = clf._load_backbone(torch.device("cpu"))
    config = {**backbone.image_config, "size": {"shortest_edge": 48}}
    backbone.image_config = config
    data = clf._dataset(backbone, Rows([np.zeros((20, 60, 3), np.uint8)], ["a"], [0]))
    (item, _) = Subset(data, [0])[0]
    assert item["image"].shape == item["second"]["image"].shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_neighbors": 0}, ValueError, r"n_neighbors must be in \[1"),
        ({"memory_size": 0}, ValueError, r"memory_size must be in \[1"),
        ({"prompt_length": 1.5}, TypeError, "prompt_length must be an integer"),
        ({"prompt_layer": 4}, ValueError, "one of the encoder's 4 layers, got 4"),
        ({"pool": "mean"}, ValueError, "pool must be one of"),
        ({"label_channel": "both"}, ValueError, "label_channel must be one of"),
        ({"label_std": 0.0}, ValueError, r"label_std must be in \(0"),
        ({"dropout": 1.5}, ValueError, r"dropout must be in \[0"),
        ({"backbone": "robustmm/tiny-clip"}, ValueError, "such as ViLT"),
        (
            {"retriever_backbone": "robustmm/tiny-bert"},
            ValueError,
            "retriever_backbone must have an image and a text encoder.*tiny-bert",
        ),
        ({"revision": {"lr": "v1"}}, ValueError, "retriever_backbone"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_fit(options, error, message):
    X, y = frame_with_holes(8)
    with pytest.raises(error, match=message):
        small(RAGPTClassifier, **options).fit(X, y)


def test_pictures_of_known_vectors_are_not_made_for_the_retriever(monkeypatch):
    X, y = frame_with_holes(12)
    clf = small(RAGPTClassifier, cache="memory").fit(X, y)
    expected, made, pixels = clf.predict_proba(X), [], Pictures.pixels

    def counted(self, *args):
        made.append(len(self))
        return pixels(self, *args)

    monkeypatch.setattr(Pictures, "pixels", counted)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    assert made == [12]  # one batch, for ViLT alone
