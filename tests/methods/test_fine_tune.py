"""Fine-tuning trains what it says, starts from the checkpoint and spares the others."""

import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes
from sklearn.base import clone

from robustmm import FineTuneClassifier, load_backbone
from robustmm.data import (
    IMAGES,
    STATES,
    Collate,
    ImageTransform,
    MultimodalDataset,
    TextTokenizer,
)
from robustmm.data.frame import read_rows

VILT, CLIP, BERT = "robustmm/tiny-vilt", "robustmm/tiny-clip", "robustmm/tiny-bert"
TUNES = ("head", "bitfit", "lora", "dora", "full")
ENCODERS = {
    "vilt": {"backbone": VILT},
    "clip": {"backbone": CLIP},
    "clip and bert": {"backbone": CLIP, "text_backbone": BERT},
}


def untrained(tune, **params):
    """The module before its first step."""
    params = ENCODERS["vilt"] | params
    clf = FineTuneClassifier(tune=tune, device="cpu", **params)
    torch.manual_seed(0)
    return clf._build_module(clf._load_backbone(torch.device("cpu")), 3).eval()


@pytest.mark.parametrize("encoders", ["vilt", "clip"])
def test_a_head_gets_pictures_for_rows_whose_text_is_hidden(encoders):
    # Of the whole row the features are known, and of what is left of it they are not.
    X, y = frame_with_holes(16)
    STATES.clear()
    options = {"tune": "head", "max_epochs": 2, "random_state": 0, "device": "cpu"}
    clf = FineTuneClassifier(**ENCODERS[encoders], **options).fit(X, y)
    IMAGES.clear()
    clf.set_params(modality_dropout=0.7)
    known = clone(clf).fit(X, y).decision_function(X)
    without = clone(clf).set_params(cache=None).fit(X, y).decision_function(X)
    np.testing.assert_allclose(known, without, atol=1e-4)


def batch_of(backbone, X):
    transform = ImageTransform.from_config(backbone.image_config)
    tokenizer = TextTokenizer(backbone.tokenizer, backbone.max_text_length)
    data = MultimodalDataset(read_rows(X), transform, tokenizer)
    batch, _ = Collate(transform, tokenizer)([data[i] for i in range(len(X))])
    batch |= batch["pictures"].pixels()
    return {k: batch[k] for k in ("pixel_values", "input_ids", "attention_mask")} | {
        "present": batch["present"]
    }


def backbone_parameters(module):
    return {
        name: p
        for name, p in module.named_parameters()
        if name.startswith("backbone.") and p.requires_grad
    }


@pytest.mark.parametrize("encoders", ENCODERS)
@pytest.mark.parametrize("tune", TUNES)
def test_starts_from_the_checkpoint(tune, encoders):
    X, _ = frame_with_holes(6)
    module = untrained(tune, **ENCODERS[encoders])
    batch = batch_of(module.backbone, X)
    with torch.no_grad():
        plain = untrained("head", **ENCODERS[encoders]).features(**batch)
        torch.testing.assert_close(
            module.features(**batch), plain, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("encoders", ENCODERS)
@pytest.mark.parametrize("tune", TUNES[1:])
def test_every_trained_parameter_gets_a_gradient(tune, encoders):
    X, y = frame_with_holes(12)
    module = untrained(tune, **ENCODERS[encoders]).train()
    with torch.no_grad():
        for p in module.parameters():  # LoRA starts at zero, where A has no gradient
            if p.requires_grad:
                p.add_(0.01 * torch.randn_like(p))
    target = torch.from_numpy((y == y[0]).astype(np.int64))
    logits = module(**batch_of(module.backbone, X))
    torch.nn.functional.cross_entropy(logits, target).backward()
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    assert [n for n, p in trained if p.grad is None or not p.grad.abs().max() > 0] == []


def test_what_is_trained():
    names = {tune: set(backbone_parameters(untrained(tune))) for tune in TUNES}
    assert names["head"] == set()
    assert names["bitfit"]
    assert all(name.endswith("bias") for name in names["bitfit"])
    assert names["bitfit"] < names["full"]
    stream = load_backbone(VILT)["joint"]
    assert len(names["lora"]) == stream.n_layers * 2 * 2
    assert len(names["dora"]) == stream.n_layers * 2 * 3


def test_number_of_parameters():
    d, n_layers, rank = 128, 4, 4
    sizes = {
        tune: sum(p.numel() for p in backbone_parameters(untrained(tune)).values())
        for tune in TUNES
    }
    assert sizes["lora"] == n_layers * 2 * 2 * d * rank
    assert sizes["dora"] == sizes["lora"] + n_layers * 2 * d
    stream = load_backbone(VILT)["joint"]
    unused = sum(p.numel() for p in stream.pooler.parameters())
    assert sizes["full"] == sum(p.numel() for p in stream.parameters()) - unused


@pytest.mark.parametrize("tune", ["bitfit", "full"])
def test_other_estimators_keep_their_encoder(tune):
    X, y = frame_with_holes(12)
    before = load_backbone(VILT)
    kept = {name: p.clone() for name, p in before.named_parameters()}
    params = {"tune": tune, "max_epochs": 1, "batch_size": 4, "random_state": 0}
    clf = FineTuneClassifier(VILT, backbone_lr=1e-2, **params).fit(X, y)
    again = load_backbone(VILT)
    assert all(torch.equal(p, kept[name]) for name, p in again.named_parameters())
    trained = backbone_parameters(clf.net_.module_)
    moved = [n for n, p in trained.items() if not torch.equal(p, kept[n[9:]])]
    assert set(moved) == set(trained)
    copy = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(
        copy.decision_function(X), clf.decision_function(X), atol=1e-5
    )


def test_encoders_have_their_own_rate():
    X, y = frame_with_holes(8)
    params = {"max_epochs": 1, "batch_size": 8, "lr_schedule": "constant"}
    clf = FineTuneClassifier(
        VILT, tune="full", lr=1e-9, backbone_lr=1e-3, warmup=0, random_state=0, **params
    ).fit(X, y)
    frozen = load_backbone(VILT)
    original = dict(frozen.named_parameters())
    now = dict(clf.net_.module_.backbone.named_parameters())
    name = next(name for name in original if name.endswith("query.weight"))
    assert (now[name] - original[name]).abs().max() > 5e-4
    start = untrained("full")
    pooler = dict(start.pooler.named_parameters())
    for name, value in clf.net_.module_.pooler.named_parameters():
        torch.testing.assert_close(value, pooler[name], atol=1e-7, rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.8])
def test_cached_features_train_the_same_head(dropout):
    X, y = frame_with_holes(16)
    params = {"max_epochs": 2, "batch_size": 8, "random_state": 0}
    params["modality_dropout"] = dropout
    kept = FineTuneClassifier(CLIP, **params).fit(X, y)
    fresh = FineTuneClassifier(CLIP, cache=None, **params).fit(X, y)
    np.testing.assert_allclose(
        kept.decision_function(X), fresh.decision_function(X), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tune", "some"),
        ("rank", 0),
        ("backbone_lr", 0.0),
        ("modality_dropout", 1.5),
        ("projections", ("query", "query")),
        ("projections", ()),
    ],
)
def test_bad_parameters_are_named(name, value):
    clf = FineTuneClassifier(CLIP).set_params(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be"):
        clf.fit(*frame_with_holes(8))
