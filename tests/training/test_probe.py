"""A linear layer from logistic regression, and the penalty that is chosen for it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from robustmm.training.probe import (
    GRID,
    _deal,
    _first_near_best,
    choose_penalty,
    rare,
    row_losses,
    solve_probe,
)


def blobs(n=60, n_classes=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, 5)) * spread + 3 * np.eye(5)[y], y


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_layer_says_what_scikit_learn_says(n_classes):
    x, y = blobs(n_classes=n_classes)
    x, weights = 100 * x + 7, np.linspace(0.5, 2, len(x))
    coef, intercept = solve_probe(x, y, weights, n_classes, C=0.1)
    scaler = StandardScaler().fit(x, sample_weight=weights)
    model = LogisticRegression(C=0.1, max_iter=1000)
    expected = model.fit(scaler.transform(x), y, sample_weight=weights)
    logits = x @ coef.T + intercept
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        proba, expected.predict_proba(scaler.transform(x)), atol=1e-6
    )


def test_a_row_of_weight_two_is_a_row_that_stands_twice():
    x, y = blobs(20)
    weights = 1.0 + (np.arange(20) < 7)
    rows = np.repeat(np.arange(20), weights.astype(int))
    weighted = solve_probe(x, y, weights, 3, C=0.1)
    repeated = solve_probe(x[rows], y[rows], np.ones(len(rows)), 3, C=0.1)
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_class_without_a_row_has_the_intercept_asked_for():
    x, y = blobs(30, n_classes=2)
    coef, intercept = solve_probe(x, 2 * y, np.ones(30), 4, C=1.0, absent=-5.0)
    assert intercept[1] == intercept[3] == -5.0
    assert not coef[[1, 3]].any()
    assert (x @ coef.T + intercept).argmax(axis=1).tolist() == (2 * y).tolist()
    coef, intercept = solve_probe(x, np.ones(30, int), np.ones(30), 2, C=1.0)
    assert intercept.tolist() == [-1e3, 0.0]


def test_labels_are_solved_one_by_one():
    x, y = blobs(30, n_classes=2)
    labels = np.stack([y, 1 - y, np.ones(30)], axis=1).astype(float)
    coef, intercept = solve_probe(x, labels, np.ones(30), 3, C=1.0)
    np.testing.assert_allclose(coef[0], -coef[1], atol=1e-3)
    assert intercept[2] == np.log(30.5 / 0.5)


def test_losses_are_those_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4)) * 300
    y, labels = rng.integers(0, 4, 6), rng.integers(0, 2, (6, 4)).astype(float)
    given = torch.from_numpy(logits)
    expected = torch.nn.functional.cross_entropy(
        given, torch.from_numpy(y), reduction="none"
    )
    np.testing.assert_allclose(row_losses(logits, y), expected)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    expected = loss(given, torch.from_numpy(labels), reduction="none").mean(dim=1)
    np.testing.assert_allclose(row_losses(logits, labels), expected)


def test_what_is_learned_decides_the_penalty():
    x, y = blobs(300, spread=0.3)
    noise = np.random.default_rng(1).permutation(y)
    n = np.ones(300)
    assert choose_penalty(x, noise, n, 3) == min(GRID)
    assert choose_penalty(x, y, n, 3) > 1e-2
    # The same for labels.
    labels = np.eye(3)[y]
    assert choose_penalty(x, labels, n, 3) > 1e-2


def test_the_smaller_of_two_that_are_alike_is_taken():
    weights = np.ones(4)
    assert _first_near_best(np.array([[1.0] * 4, [0.995] * 4]), weights) == 0
    assert _first_near_best(np.array([[1.0] * 4, [0.9] * 4]), weights) == 1
    # A gap that differs from row to row is no gap.
    ragged = np.array([[1.0] * 4, [2.0, 2.0, -0.1, -0.1]])
    assert _first_near_best(ragged, weights) == 0
    # Those who count decide.
    assert _first_near_best(ragged, np.array([0.0, 0.0, 1.0, 1.0])) == 1


def test_each_fold_has_its_share_of_every_class():
    y = np.array([0] * 9 + [1] * 6 + [2])
    folds = _deal(y, np.random.default_rng(0))
    for label, share in ((0, 3), (1, 2)):
        assert np.bincount(folds[y == label]).tolist() == [share] * 3
    assert folds[-1] == -1


@pytest.mark.parametrize("y", [[0], [0, 0], [0, 1], [0, 1, 2, 3], [0, 0, 1, 2]])
def test_few_rows_have_a_penalty_too(y):
    x = np.random.default_rng(0).normal(size=(len(y), 5))
    assert choose_penalty(x, np.array(y), np.ones(len(y)), 4) in GRID


def test_the_choice_is_made_on_some_of_many_rows(monkeypatch):
    seen = []

    def count(features, *rest, **options):
        seen.append(len(features))
        return np.zeros((2, 1)), np.zeros(2)

    monkeypatch.setattr("robustmm.training.probe.solve_probe", count)
    n = 10_000
    choose_penalty(np.zeros((n, 1)), np.arange(n) % 2, np.ones(n), 2)
    assert seen == [2000] * len(GRID) * 3


def test_a_class_that_no_row_has_is_as_rare_as_one_row():
    logits = np.array([0.0, rare(99)])
    assert (np.exp(logits) / np.exp(logits).sum())[1] == pytest.approx(1 / 101)
