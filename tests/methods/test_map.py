"""MAP: a prompt per pattern, as tokens or as keys and values."""

import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
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

from robustmm import MAPClassifier, load_backbone
from robustmm.backbones import Tokens
from robustmm.methods.map import MAPModule

TYPES = ("input", "attention")


def build(prompt_type="input", prompt_length=4, prompt_layers=2, n_outputs=3):
    return MAPModule(
        load_backbone("robustmm/tiny-vilt"),
        n_outputs,
        prompt_type=prompt_type,
        prompt_length=prompt_length,
        prompt_layers=prompt_layers,
    )


@pytest.mark.parametrize("prompt_type", TYPES)
def test_full_size_counts(prompt_type):
    module = MAPModule(
        full_size_vilt(), 23, prompt_type=prompt_type, prompt_length=16, prompt_layers=6
    )
    assert count(module, "prompts") == 221_184
    assert count(module, "pooler") == 590_592
    total = 221_184 + 590_592 + (768 * 1536 + 3 * 1536) + (1536 * 23 + 23)
    assert count(module, "") == total


@pytest.mark.parametrize("prompt_type", TYPES)
@pytest.mark.parametrize("prompt_layers", [2, (1, 3)])
def test_prompts_agree_with_a_loop_over_samples(prompt_type, prompt_layers):
    module = perturb(build(prompt_type, prompt_layers=prompt_layers))
    stream, batch = module.backbone["joint"], vilt_batch()
    features = module.features(**batch)
    for i, pattern in enumerate([0, 1, 2, 0]):
        row = rows_of(batch, [i], LENGTHS[i])
        del row["present"]
        values = stream.embed(**row).values
        n_prompts = 0
        for layer in range(stream.n_layers):
            prefix = None
            if layer in module.layers:
                prompt = module.prompts[pattern, module.layers.index(layer)][None]
                if prompt_type == "input":
                    values = torch.cat([prompt, values], dim=1)
                    n_prompts += 4
                else:
                    prefix = prompt[:, :2], prompt[:, 2:]
            spans = {"text": (0, values.shape[1])}
            values = stream.step(
                layer, Tokens(values, None, spans, None, prefix)
            ).values
        pooled = module.pooler(stream.norm(values[:, n_prompts]))
        torch.testing.assert_close(features[[i]], pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prompt_type", TYPES)
def test_logits_do_not_depend_on_the_batch(prompt_type):
    assert_independent_of_batch(perturb(build(prompt_type)))


def test_input_prompts_accumulate_and_attention_prompts_do_not():
    batch = vilt_batch()
    plain = lengths_at_layers(build(prompt_layers=0), batch)
    grown = lengths_at_layers(build(prompt_layers=(0, 2)), batch)
    assert [b - a for a, b in zip(plain, grown, strict=True)] == [4, 4, 8, 8]
    assert lengths_at_layers(build("attention"), batch) == plain


@pytest.mark.parametrize("prompt_type", TYPES)
def test_a_pattern_that_training_lacks_keeps_its_prompts(prompt_type):
    X, y = frame_with_holes()
    there = X["image"].notna().to_numpy()
    clf = small(MAPClassifier, prompt_type=prompt_type, lr=1e-2, weight_decay=0)
    first = clf.set_params(max_epochs=1).fit(X[there], y[there]).net_.module_
    second = clf.set_params(max_epochs=3).fit(X[there], y[there]).net_.module_
    moved = (first.prompts != second.prompts).flatten(1).any(dim=1)
    assert moved.tolist() == [True, True, False]


@pytest.mark.parametrize("prompt_type", TYPES)
def test_loss_falls_and_a_pickle_predicts_the_same(prompt_type):
    X, y = frame_with_holes(48)
    clf = small(MAPClassifier, prompt_type=prompt_type, max_epochs=8, lr=5e-3)
    losses = clf.fit(X, y).history_["train_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]
    copy = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(copy.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("prompt_type", TYPES)
def test_half_precision_trains(prompt_type):
    X, y = frame_with_holes()
    clf = small(MAPClassifier, prompt_type=prompt_type, precision="bfloat16")
    assert np.isfinite(clf.fit(X, y).history_["train_loss"]).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"prompt_type": "attention", "prompt_length": 3}, "even .* got 3"),
        ({"prompt_type": "prefix"}, "prompt_type must be one of"),
        ({"prompt_layers": (0, 5)}, r"prompt_layers must list layers in \[0, 3\]"),
        ({"prompt_layers": -1}, "prompt_layers must not be negative, got -1"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(MAPClassifier, **option).fit(X, y)
