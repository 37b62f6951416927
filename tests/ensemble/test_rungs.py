"""Who is trained how long: rungs, families, floors and the clock."""

import numpy as np
import pytest
from ensemble_cases import First, prior, texts

from robustmm.data.targets import encode_targets
from robustmm.ensemble.candidates import Candidate
from robustmm.ensemble.rungs import Race, shown
from robustmm.ensemble.trials import Bench, Clock


class Learns(First):
    """Says more with each epoch; ``fails_at`` so many."""

    def __init__(self, gain=0.05, fails_at=None, **params):
        super().__init__(**params)
        self.gain = gain
        self.fails_at = fails_at

    @classmethod
    def _get_param_names(cls):
        return sorted({*First._get_param_names(), "gain", "fails_at"})

    def fit(self, X, y, sample_weight=None):
        if self.max_epochs == self.fails_at:
            raise RuntimeError("diverged")
        super().fit(X, y, sample_weight)
        rng = np.random.default_rng(0)
        self.right_ = rng.random(10_000) < self.gain * self.max_epochs
        return self

    def predict_proba(self, X):
        proba = super().predict_proba(X)
        flat = np.full_like(proba, 0.1)
        flat[:, 1] = 0.8
        return np.where(self.right_[: len(X), None], proba, flat)


def race(candidates, limit=None, refit=False, n=200):
    X, y = texts(n, wrong=0.0)
    bench = Bench(X, encode_targets(y), np.full(n, "complete"), None, None, seed=0)
    bench.split(0.5, None)
    told = []
    made = Race(
        bench,
        candidates,
        bench.scored(None),
        1 / 3,
        Clock(limit),
        refit,
        lambda *step: told.append(step),
    )
    return {trial.name: trial for trial in made.run()}, told


def learner(name, family=None, **params):
    estimator = Learns(**{"max_epochs": 12, "strength": 0.9} | params)
    return Candidate(name, estimator, family or name, cost=1.0)


def test_the_best_rate_of_a_family_is_trained_to_the_end():
    trials, told = race(
        [learner("slow", "f", gain=0.08), learner("fast", "f", gain=0.2)]
    )
    assert trials["slow"].status == "dropped"
    assert trials["slow"].reason == "fast is ahead after 3 epochs"
    assert (trials["fast"].status, trials["fast"].epochs) == ("fitted", 12)
    assert [step for step, *_ in told] == [
        "slow (3 epochs)",
        "fast (3 epochs)",
        "fast (12 epochs)",
    ]


def test_a_family_far_behind_is_dropped_and_others_stay():
    trials, _ = race(
        [
            learner("best", gain=0.3),
            learner("near", gain=0.25),
            learner("far", gain=0.01),
        ]
    )
    assert trials["far"].reason == "far behind best after 3 epochs"
    assert trials["near"].status == trials["best"].status == "fitted"


def test_what_has_no_epochs_is_fitted_once_and_never_dropped():
    trials, told = race([Candidate("prior", prior(), "prior"), learner("one")])
    assert trials["prior"].status == "fitted"
    assert [step for step, *_ in told].count("prior") == 1


def test_what_fails_later_keeps_its_short_training():
    trials, _ = race([learner("one", fails_at=12)])
    assert (trials["one"].status, trials["one"].epochs) == ("fitted", 3)
    assert trials["one"].reason == "stays at 3 epochs, RuntimeError: diverged"
    assert trials["one"].outputs is not None


def test_little_time_means_fewer_epochs_for_each():
    slow = [learner(f"c{i}", seconds=0.02, gain=0.25) for i in range(3)]
    trials, _ = race([learner("first", seconds=0.02, gain=0.3), *slow], limit=1.0)
    assert trials["first"].status == "fitted"
    assert all(t.epochs is None or t.epochs <= 12 for t in trials.values())


def test_time_for_fitting_again_is_left():
    candidates = [learner(f"c{i}", seconds=0.01, gain=0.2) for i in range(4)]
    clock_limit = 1.5
    trials, _ = race(candidates, limit=clock_limit, refit=True)
    spent = sum(t.seconds for t in trials.values())
    assert spent < clock_limit


def test_a_bar_counts_what_is_over(capsys):
    with shown(Clock(9.0), True, "title") as tell:
        tell("one", None, 2)
        tell("two", None, 1)
    assert "title: 100%" in capsys.readouterr().err
    with shown(Clock(None), False, "title") as tell:
        tell("one", None, 1)
    assert capsys.readouterr().err == ""


def test_an_interrupt_is_not_held_back():
    with pytest.raises(KeyboardInterrupt):
        race([Candidate("one", First(fault=KeyboardInterrupt()), "one")])
