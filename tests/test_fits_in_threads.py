"""Fits in threads of one process give what they give alone."""

import threading

import numpy as np
import pytest
import torch
from contract import ToyClassifier, frame_with_holes, public_classifiers, small
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from robustmm import FineTuneClassifier, MAILClassifier

METHODS = public_classifiers()


def fit_together(estimators, X, y):
    """Fit all at once, each in a thread of its own."""
    start = threading.Barrier(len(estimators))

    def fit(estimator):
        start.wait()
        estimator.fit(X, y)

    threads = [threading.Thread(target=fit, args=(e,)) for e in estimators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [e.decision_function(X) for e in estimators]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_two_fits_at_once_are_as_two_fits(method):
    X, y = frame_with_holes(16)

    def make():
        seeds = [{"random_state": seed} for seed in (0, 1)]
        return [small(method, **seed) for seed in seeds]

    alone = [e.fit(X, y).decision_function(X) for e in make()]
    before = torch.get_rng_state()
    for one, other in zip(alone, fit_together(make(), X, y), strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_fits_with_dropout_of_several_kinds_do_not_mix():
    X, y = frame_with_holes(24)

    def make():
        return [
            small(MAILClassifier, dropout=0.5, max_epochs=2),
            small(FineTuneClassifier, tune="lora", dropout=0.5, modality_dropout=0.5),
            small(ToyClassifier, max_epochs=3, early_stopping=True),
        ]

    alone = [e.fit(X, y).decision_function(X) for e in make()]
    for _ in range(2):
        for one, other in zip(alone, fit_together(make(), X, y), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_search_in_threads_is_as_a_serial_one():
    X, y = frame_with_holes(24)
    grid = {"rank": [1, 2], "dropout": [0.0, 0.5]}
    search = GridSearchCV(small(MAILClassifier), grid, cv=2, scoring="neg_log_loss")
    serial = search.fit(X, y).cv_results_["mean_test_score"]
    with parallel_config("threading", n_jobs=4):
        threaded = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(serial, threaded)
