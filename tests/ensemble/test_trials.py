"""One candidate on held-out rows: seeds, weights, limits, and what is left of it."""

import time
import warnings

import numpy as np
import pytest
from ensemble_cases import First, texts
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from toys import QuickClassifier

from robustmm.data.targets import encode_targets
from robustmm.ensemble.candidates import Candidate
from robustmm.ensemble.trials import Bench, Clock, Deadline, Trial, varied
from robustmm.testing.subject import table
from robustmm.training.net import EarlyStop


def bench(X, y, weights=None):
    patterns = np.full(len(X), "complete")
    made = Bench(X, encode_targets(y), patterns, weights, weights, seed=3)
    made.split(0.25, None)
    return made


def candidate(estimator, name="one"):
    return Candidate(name, estimator, name)


def test_a_trial_keeps_what_was_said_of_the_held_out_rows():
    X, y = texts(40)
    made, trial = bench(X, y), Trial(candidate(First()))
    made.run(trial, None, np.inf)
    assert trial.outputs.shape == (10, 3)
    assert trial.fitted[0].n_rows_ == 30
    assert trial.seconds > 0
    trial.end("dropped", "why")
    assert (trial.fitted, trial.outputs, trial.reason) == ([], None, "why")
    trial.note("more")
    assert trial.reason == "why; more"


def test_all_that_have_none_get_the_seed():
    X, y = texts(20)
    forest = make_pipeline("passthrough", RandomForestClassifier(2))
    fitted = bench(X[["price"]], y).fit(candidate(forest), np.arange(20), None, np.inf)
    assert fitted[-1].random_state == 3
    assert forest[-1].random_state is None


def test_weights_go_where_they_are_taken():
    X, y = texts(20)
    weights = varied(np.arange(1.0, 21.0))
    made = bench(X[["price"]], y, weights)
    dummy = make_pipeline("passthrough", DummyClassifier(strategy="prior"))
    at = np.arange(20)
    fitted = made.fit(candidate(dummy), at, None, np.inf)
    expected = np.bincount(np.unique(y, return_inverse=True)[1], weights) / 20
    np.testing.assert_allclose(fitted[-1].class_prior_, expected)
    with pytest.warns(UserWarning, match="KNeighborsClassifier takes no sample_weight"):
        made.fit(candidate(KNeighborsClassifier(2)), at, None, np.inf)


def test_equal_weights_are_none():
    assert varied(np.full(3, 2.0)) is None
    assert varied(np.array([1.0, 3.0])).tolist() == [0.5, 1.5]


def test_warnings_are_recorded_once_and_those_for_authors_dropped():
    made = bench(*texts(20))
    with warnings.catch_warnings(), made.recorded():
        for _ in range(3):
            warnings.warn("mind", UserWarning, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert list(made.messages) == ["mind"]


def test_a_training_with_a_limit_ends_and_forgets_it():
    X, y = table(12)
    made = bench(X, y)
    own = {"iterator_train__num_workers": 0}
    quick = candidate(QuickClassifier(max_epochs=10_000, net_params=own))
    start = time.perf_counter()
    fitted = made.fit(quick, np.arange(12), 10_000, 0.5)
    assert time.perf_counter() - start < 20
    assert 0 < fitted.n_iter_ < 10_000
    assert fitted.net_params == own


def test_a_limit_of_its_own_is_kept_if_it_is_shorter():
    class Timed(First):
        def __init__(self, time_limit=None):
            super().__init__()
            self.time_limit = time_limit

        def fit(self, X, y):
            self.given_ = self.time_limit
            return super().fit(X, y)

        def get_params(self, deep=True):
            return {"time_limit": self.time_limit}

        def set_params(self, **params):
            vars(self).update(params)
            return self

    X, y = texts(20)
    given = [
        bench(X, y).fit(candidate(Timed(own)), np.arange(20), None, 9.0)
        for own in (None, 2.0, 60.0)
    ]
    assert [each.given_ for each in given] == [9.0, 2.0, 9.0]
    assert [each.time_limit for each in given] == [None, 2.0, 60.0]


def test_a_deadline_lets_batches_through_until_it_is_over():
    late, early = Deadline(-1.0), Deadline(60.0)
    for deadline in (late, early):
        deadline.on_train_begin(None)
    early.on_batch_end(None, training=True)
    late.on_batch_end(None, training=False)
    with pytest.raises(EarlyStop):
        late.on_batch_end(None, training=True)


def test_a_clock_without_a_limit_never_ends():
    assert Clock(None).left == np.inf
    assert 9 < Clock(10.0).left <= 10
