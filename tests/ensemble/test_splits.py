"""What is held out: a share of each class and pattern, and never a class as a whole."""

import numpy as np
import pytest
from sklearn.model_selection import KFold

from robustmm.data.targets import encode_targets
from robustmm.ensemble.splits import held_out_parts


def parts(y, patterns=None, fraction=0.25, cv=None, seed=0):
    targets = encode_targets(y)
    patterns = np.zeros(len(y)) if patterns is None else patterns
    rng = np.random.RandomState(seed)
    return held_out_parts(targets, patterns, fraction, cv, rng)


@pytest.mark.parametrize("seed", range(5))
def test_each_class_and_pattern_gives_its_share(seed):
    y = np.repeat(["a", "b"], [80, 40])
    patterns = np.tile(["complete", "text_missing", "text_missing", "x"], 30)
    ((train, test),) = parts(y, patterns, seed=seed)
    assert sorted([*train, *test]) == list(range(120))
    for label, of_class in (("a", 20), ("b", 10)):
        at = test[y[test] == label]
        assert abs(len(at) - of_class) <= 1
        share = (patterns[at] == "text_missing").sum()
        assert abs(share - of_class / 2) <= 1


def test_a_class_of_one_row_is_never_held_out():
    y = ["a"] * 10 + ["b"] * 10 + ["rare"]
    for seed in range(10):
        ((train, _),) = parts(y, fraction=0.5, seed=seed)
        assert 20 in train


def test_a_class_never_loses_all_its_rows():
    y = ["a"] * 20 + ["b"] * 2
    for seed in range(10):
        ((train, test),) = parts(y, fraction=0.9, seed=seed)
        assert {"a", "b"} == {y[i] for i in train}
        assert len(test)


def test_parts_of_cv_are_disjoint_and_stratified():
    y = np.repeat([0, 1, 2], 8)
    found = parts(y, cv=4)
    assert sorted(np.concatenate([test for _, test in found])) == list(range(24))
    assert all(np.bincount(y[test]).tolist() == [2, 2, 2] for _, test in found)


def test_a_splitter_is_taken_as_it_is():
    found = parts(np.tile([0, 1], 6), cv=KFold(3))
    assert [test.tolist() for _, test in found] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


def test_rows_of_several_labels_go_by_the_rarest():
    Y = np.zeros((40, 2), dtype=int)
    Y[:, 0] = 1
    Y[:8, 1] = 1
    ((_, test),) = parts(Y)
    assert Y[test, 1].sum() == 2


def test_there_must_be_something_to_hold_out():
    with pytest.raises(ValueError, match=r"two rows.*got 2 rows of 2 classes"):
        parts(["a", "b"])
