"""Stages with tensors of their own: order, decay, copies, and what asks."""

import numpy as np
import torch
from contract import small
from stage_cases import assert_earlier_stages_stay, build, stages_of, state_of
from vilt_cases import vilt_batch

from robustmm.stagewise import StagewiseClassifier, StagewiseModule


class HeadsClassifier(StagewiseClassifier):
    """Nothing but a head per stage, on the frozen class token of the text."""

    def _build_stages(self, backbone, columns):
        return HeadsModule(backbone, columns)


class HeadsModule(StagewiseModule):
    def forward(self, learning=None, **batch):
        features = self.features(**batch)
        if learning is None:
            return self.classify(features)
        return self.stages[learning].head(features)

    def features(self, present, learning=None, **batch):
        return self.query(present, **batch)


def test_earlier_stages_stay_as_they_were_under_any_decay():
    assert_earlier_stages_stay(HeadsClassifier)


def test_outputs_follow_the_sorted_classes():
    clf = small(HeadsClassifier)
    for X, y in reversed(stages_of(2)):
        clf.partial_fit(X, y)
    module = clf.net_.module_
    features = torch.from_numpy(clf.transform(X)).float()
    parts = [stage.head(features) for stage in module.stages]
    logits = torch.cat(parts[::-1], dim=1).detach().numpy()
    found = clf._evaluate(X)[0]
    np.testing.assert_allclose(found, logits, atol=1e-5)
    assert clf.classes_.tolist() == sorted(clf.classes_)


def test_a_failed_call_leaves_what_was_learned():
    (X, y), (more, z) = stages_of(2)
    clf = small(HeadsClassifier).partial_fit(X, y)
    before = state_of(clf)
    bad = clf.net_.module_
    clf.set_params(lr=1e30, max_epochs=3)
    try:
        clf.partial_fit(more, z)
    except ValueError:
        assert clf.net_.module_ is bad
    after = state_of(clf)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_the_mean_query_is_of_what_a_row_has():
    module, batch = build(HeadsClassifier), vilt_batch()
    module.asks_with = "mean"
    data = {k: v for k, v in batch.items() if k != "present"}
    classes = module.frozen.tokens(batch["present"], data)
    expected = classes.mean(dim=1)
    expected[1], expected[2] = classes[1, 0], classes[2, 1]
    torch.testing.assert_close(module.query(**batch), expected)


def test_a_probe_starts_new_stages_and_not_known_ones():
    (X, y), (more, z) = stages_of(2)
    clf = small(HeadsClassifier, head_init="probe", lr=1e-9).partial_fit(X, y)
    plain = small(HeadsClassifier, lr=1e-9).partial_fit(X, y)
    for model in (clf, plain):
        model.partial_fit(more, z)
    first, second = (m.history_["train_loss"].iloc[0] for m in (clf, plain))
    assert first < second - 0.01
    before = state_of(clf)["stages.0.head.weight"]
    clf.partial_fit(X.iloc[:6], y[:6])
    after = state_of(clf)["stages.0.head.weight"]
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
