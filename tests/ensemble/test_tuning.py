"""The best thresholds, found label by label or together."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import f1_score, get_scorer, make_scorer

from robustmm.ensemble.tuning import (
    candidates,
    score_labels,
    score_of_counts,
    score_per_label,
    tune_each,
    tune_together,
)


def drawn(n=30, n_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, n_labels)) < [0.5, 0.3, 0.1]).astype(int)
    return truth, np.clip(truth * 0.2 + rng.random((n, n_labels)) * 0.6, 0, 1)


def test_candidates_lie_between_scores_and_keep_the_usual_one():
    found = candidates(np.array([0.2, 0.4, 0.2]), 100, 0.5)
    np.testing.assert_allclose(found, [0.2, 0.3, np.nextafter(0.4, 1), 0.5])
    assert len(candidates(np.arange(1000.0), 10, 0.5)) == 11


@pytest.mark.parametrize("name", ["f1_macro", "recall_weighted", "jaccard_macro"])
def test_averages_are_tuned_label_by_label_as_by_trying_all(name):
    truth, scores = drawn()
    scorer = get_scorer(name)
    cuts = [candidates(column, 8, 0.5) for column in scores.T]
    thresholds, values = tune_each(score_per_label(scorer), truth, scores, cuts, 0.5)
    found = score_labels(scorer, None, truth, (scores >= thresholds).astype(int), {})
    tried = [
        score_labels(scorer, None, truth, (scores >= np.array(t)).astype(int), {})
        for t in product(*cuts)
    ]
    np.testing.assert_allclose(found, max(tried))
    assert (values >= 0).all()


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "f1_samples", "accuracy"])
def test_others_are_tuned_together_and_end_where_no_single_change_is_better(name):
    truth, scores = drawn()
    score = partial(score_labels, get_scorer(name), None, truth, params={})
    cuts = [candidates(column, 20, 0.5) for column in scores.T]
    thresholds, values = tune_together(score, truth, scores, cuts, 0.5)
    best = score((scores >= thresholds).astype(int))
    np.testing.assert_allclose(values, best)
    assert best > score((scores >= 0.5).astype(int))
    for j, tried in enumerate(cuts):
        for cut in tried:
            other = thresholds.copy()
            other[j] = cut
            assert score((scores >= other).astype(int)) <= best + 1e-9


def test_of_equal_thresholds_the_usual_one_stays():
    truth, scores = drawn()
    truth[:, 0], truth[:, 1] = 0, 1
    cuts = [candidates(column, 20, 0.5) for column in scores.T]
    per_label = score_per_label(get_scorer("accuracy"))
    assert per_label is None
    per_label = score_per_label(get_scorer("f1_macro"))
    thresholds, values = tune_each(per_label, truth, scores, cuts, 0.5)
    assert (thresholds[0], values[0]) == (0.5, 0)
    assert (thresholds[1] <= scores[:, 1].min(), values[1]) == (True, 1)


def test_weights_of_rows_count():
    truth, scores = drawn()
    weights = np.random.default_rng(1).random(30)
    per_label = score_per_label(get_scorer("f1_macro"))
    labels = (scores >= 0.4).astype(int)
    found = per_label(truth, labels, sample_weight=weights)
    expected = f1_score(truth, labels, average=None, sample_weight=weights)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("name", ["f1_micro", "precision_micro", "jaccard_micro"])
def test_micro_averages_are_scores_of_counts(name):
    truth, scores = drawn()
    weights = np.random.default_rng(1).random(30)
    scorer, labels = get_scorer(name), (scores >= 0.4).astype(int)
    for given in ({}, {"sample_weight": weights}):
        found = score_of_counts(scorer)(truth, labels, **given)
        np.testing.assert_allclose(
            found, score_labels(scorer, None, truth, labels, given)
        )
    assert score_of_counts(scorer)(truth, 0 * labels) == 0
    assert score_of_counts(get_scorer("f1_macro")) is None


def test_losses_are_scores_with_the_sign_turned():
    loss = make_scorer(f1_score, average="macro", greater_is_better=False)
    truth, scores = drawn()
    labels = (scores >= 0.4).astype(int)
    assert (score_per_label(loss)(truth, labels) <= 0).all()


def test_a_score_of_probabilities_or_none_is_refused():
    truth, _ = drawn()
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        score_labels(lambda *_: np.nan, None, truth, truth, {})
    with pytest.raises(ValueError, match="must be a score of predicted labels"):
        score_labels(get_scorer("roc_auc"), None, truth, truth, {})
