"""Classes that come in tasks, for any method: a toy with a head per task."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from contract import ToyClassifier, frame_with_holes
from toys import N_FEATURES, QuickModule

import robustmm
from robustmm import MultimodalClassifier
from robustmm.incremental import IncrementalClassifier

X, _ = frame_with_holes(12)
FIRST, SECOND = np.tile(["dog", "cat"], 6), np.tile(["bee", "ant"], 6)
INDICATORS = pd.DataFrame({"war": [0, 1] * 6, "drama": [1, 1, 0] * 4})
# What fitted models of the first release hold: a change here needs a conversion.
KEPT = {"task_classes_", "_task", "_multilabel", "_seen_weights", "classes_"}


class HeadPerTask(QuickModule):
    """Cheap features, and the outputs of each task where its classes are."""

    def __init__(self, backbone, columns, task):
        super().__init__(backbone, 1)
        self.head, self.columns, self.task = None, columns, task
        self.heads = torch.nn.ModuleList(
            torch.nn.Linear(N_FEATURES, len(own)) for own in columns
        )

    def forward(self, **batch):
        features = self.features(**batch)
        if self.training:
            return self.heads[self.task](features)
        logits = features.new_zeros(len(features), sum(map(len, self.columns)))
        for head, own in zip(self.heads, self.columns, strict=True):
            logits[:, own] = head(features)
        return logits


class HeadsClassifier(IncrementalClassifier):
    """Learns each task's head, and keeps the others."""

    backbone: str = "robustmm/tiny-clip"

    def _build_module(self, backbone, n_outputs):
        module = HeadPerTask(backbone, self._labels.columns, self._task)
        if self.__sklearn_is_fitted__():
            learned = self.net_.module_.heads
            for own, earlier in zip(module.heads, learned, strict=False):
                own.load_state_dict(earlier.state_dict())
        for task, head in enumerate(module.heads):
            head.requires_grad_(task == self._task)
        return module


def heads():
    return HeadsClassifier(max_epochs=1, batch_size=4, random_state=0, device="cpu")


def tensors(clf):
    return [h.weight.detach().clone() for h in clf.net_.module_.heads]


@pytest.fixture
def learned():
    return heads().partial_fit(X, FIRST).partial_fit(X, SECOND)


def test_it_is_a_trained_classifier():
    assert issubclass(IncrementalClassifier, MultimodalClassifier)
    assert heads().get_params()["max_epochs"] == 1


def test_a_call_with_new_labels_is_a_task(learned):
    own = [labels.tolist() for labels in learned.task_classes_]
    assert own == [["cat", "dog"], ["ant", "bee"]]
    assert learned.classes_.tolist() == ["ant", "bee", "cat", "dog"]
    assert learned.class_prior_.tolist() == [0.25] * 4
    assert learned.predict_proba(X).shape == (12, 4)


def test_known_labels_train_their_task_only(learned):
    before = tensors(learned)
    learned.partial_fit(X, FIRST)
    pairs = zip(before, tensors(learned), strict=True)
    assert [torch.equal(old, new) for old, new in pairs] == [False, True]


def test_fit_with_tasks_is_stage_by_stage(learned):
    both = pd.concat([X, X], ignore_index=True)
    y = np.concatenate([FIRST, SECOND])
    clf = heads().fit(both, y, tasks=np.repeat([3, 7], 12))
    np.testing.assert_array_equal(clf.predict_proba(X), learned.predict_proba(X))


def test_fit_starts_anew(learned):
    learned.fit(X, SECOND)
    assert [c.tolist() for c in learned.task_classes_] == [["ant", "bee"]]
    assert learned.class_prior_.tolist() == [0.5, 0.5]
    learned.fit(X, INDICATORS)
    learned.fit(X, FIRST)
    assert learned.classes_.tolist() == ["cat", "dog"]


@pytest.mark.parametrize("telling", [False, True])
def test_rows_count_by_their_weights(telling):
    weights = np.where(FIRST == "dog", 3.0, 1.0)
    clf = heads()
    if telling:
        clf.fit(X, FIRST, sample_weight=weights, tasks=np.zeros(12))
    else:
        clf.partial_fit(X, FIRST, sample_weight=weights)
    assert clf.class_prior_.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    "learn",
    [
        lambda clf, bad: clf.partial_fit(bad, FIRST),
        lambda clf, bad: clf.partial_fit(bad, np.tile(["new", "more"], 6)),
        lambda clf, bad: clf.fit(bad, FIRST),
        lambda clf, bad: clf.fit(bad, FIRST, tasks=np.arange(12) // 6),
    ],
    ids=["goes on", "new task", "fit", "several"],
)
def test_a_failure_leaves_what_was_known(learned, learn):
    before, proba = dict(vars(learned)), learned.predict_proba(X)
    bad = X.copy()
    bad.iloc[6:, 0] = b"no picture"  # found when the labels have been taken
    with pytest.raises(ValueError, match="image cells"):
        learn(learned, bad)
    assert vars(learned) == before
    np.testing.assert_array_equal(learned.predict_proba(X), proba)


def test_lengths_and_kinds_are_checked(learned):
    with pytest.raises(ValueError, match="inconsistent numbers"):
        heads().fit(X, FIRST, tasks=[0, 1])
    with pytest.raises(ValueError, match="inconsistent numbers"):
        learned.partial_fit(X, FIRST[:6])
    with pytest.raises(ValueError, match="a label at least"):
        learned.partial_fit(X, [])
    with pytest.raises(ValueError, match="of the kind of the first call"):
        learned.partial_fit(X, INDICATORS)


@pytest.mark.parametrize(
    ("y", "later"),
    [
        (FIRST, SECOND),
        (np.arange(12) % 2, np.arange(12) % 2 + 2),
        (INDICATORS, INDICATORS.add_prefix("late ")),
    ],
    ids=["texts", "numbers", "indicators"],
)
@pytest.mark.parametrize("way", ["pickle", "folder"])
def test_what_is_kept_has_the_names_of_the_first_release(y, later, way, tmp_path):
    clf = heads().partial_fit(X, y)
    assert vars(clf).keys() >= KEPT
    if way == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    else:
        robustmm.save(clf, tmp_path)
        again = robustmm.load(tmp_path, device="cpu", classes=[HeadsClassifier])
    for model in (clf, again):
        model.partial_fit(X, later)
    np.testing.assert_array_equal(again.classes_, clf.classes_)
    np.testing.assert_array_equal(again.class_prior_, clf.class_prior_)
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_a_plain_classifier_has_no_tasks():
    assert not hasattr(ToyClassifier(), "partial_fit")
