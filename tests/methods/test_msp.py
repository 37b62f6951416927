"""MSP: sums of prompts, the penalty, and the hidden dummy."""

import pickle

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from torch.nn import functional as F
from vilt_cases import (
    assert_independent_of_batch,
    count,
    full_size_vilt,
    perturb,
    rows_of,
    vilt_batch,
)

from robustmm import MSPClassifier, load_backbone
from robustmm.methods.map import MAPModule
from robustmm.methods.msp import MSPModule

DEFAULTS = {
    "prompt_type": "attention",
    "prompt_length": 4,
    "prompt_layers": 2,
    "ortho_weight": 1.0,
    "mask_missing_image": False,
}
TYPES = ("input", "attention")


def build(n_outputs=3, **options):
    backbone = load_backbone("robustmm/tiny-vilt")
    return MSPModule(backbone, n_outputs, **DEFAULTS | options)


def test_full_size_count():
    options = DEFAULTS | {"prompt_length": 16, "prompt_layers": 6}
    module = MSPModule(full_size_vilt(), 23, **options)
    assert count(module, "prompts") == 147_456


@pytest.mark.parametrize("prompt_type", TYPES)
def test_it_is_map_with_prompts_that_are_sums(prompt_type):
    module = perturb(build(prompt_type=prompt_type))
    kept = ("prompt_type", "prompt_length", "prompt_layers")
    options = {k: (DEFAULTS | {"prompt_type": prompt_type})[k] for k in kept}
    twin = MAPModule(module.backbone, 3, **options).eval()
    state = module.state_dict()
    image, text = state["prompts"]
    state["prompts"] = torch.stack([image + text, image, text])
    twin.load_state_dict(state)
    batch = vilt_batch()
    torch.testing.assert_close(module(**batch), twin(**batch))


@pytest.mark.parametrize("prompt_type", TYPES)
@pytest.mark.parametrize("mask_missing_image", [True, False])
def test_logits_do_not_depend_on_the_batch(prompt_type, mask_missing_image):
    options = {"prompt_type": prompt_type, "mask_missing_image": mask_missing_image}
    assert_independent_of_batch(perturb(build(**options)))


def test_penalty_is_the_cosine_of_all_prompts():
    module = perturb(build(ortho_weight=0.5)).train()
    image, text = (p.flatten() for p in module.prompts)
    cosine = (image @ text) / (image.norm() * text.norm())
    _, penalty = module(**vilt_batch())
    torch.testing.assert_close(penalty, 0.5 * cosine.abs())


def test_the_penalty_makes_prompts_orthogonal():
    module = build(prompt_length=2, prompt_layers=1)
    with torch.no_grad():
        module.prompts[1] += module.prompts[0]
    optimizer = torch.optim.SGD([module.prompts], lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        module(**vilt_batch())[1].backward()
        optimizer.step()
    # It starts at 0.7; the slope of |cos| does not vanish at 0, so it ends near 0.
    assert F.cosine_similarity(*module.prompts.flatten(1), dim=0).abs() < 0.2


@pytest.mark.parametrize("mask_missing_image", [True, False])
def test_a_hidden_dummy_has_no_influence(mask_missing_image):
    module = perturb(build(mask_missing_image=mask_missing_image))
    batch = vilt_batch()
    changed = batch | {"pixel_values": torch.randn_like(batch["pixel_values"])}
    before, after = (module(**rows_of(b, [2])) for b in (batch, changed))
    assert torch.equal(before, after) == mask_missing_image


def test_both_prompts_are_trained_where_no_image_is_missing():
    X, y = frame_with_holes()
    there = X["image"].notna().to_numpy()
    clf = small(MSPClassifier, weight_decay=0, ortho_weight=0)
    first = clf.set_params(max_epochs=1).fit(X[there], y[there]).net_.module_
    second = clf.set_params(max_epochs=2).fit(X[there], y[there]).net_.module_
    moved = (first.prompts != second.prompts).flatten(1).any(dim=1)
    assert moved.tolist() == [True, True]


@pytest.mark.parametrize(
    "option",
    [{"prompt_type": "input"}, {"mask_missing_image": True}, {"ortho_weight": 0}],
    ids=str,
)
def test_options_train_and_pickle(option):
    X, y = frame_with_holes()
    fitted = small(MSPClassifier, **option).fit(X, y)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copy.predict_proba(X), fitted.predict_proba(X))


def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(MSPClassifier, max_epochs=8, lr=5e-3).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"prompt_length": 3}, "even .* got 3"),
        ({"prompt_type": "both"}, "prompt_type must be one of"),
        ({"ortho_weight": -1}, "ortho_weight must be in"),
        ({"prompt_layers": (0, 7)}, r"prompt_layers must list layers in \[0, 3\]"),
        ({"backbone": "robustmm/tiny-clip"}, "reads image and text together"),
    ],
    ids=str,
)
def test_unusable_parameters_are_refused(option, message):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=message):
        small(MSPClassifier, **option).fit(X, y)
