"""From candidates to members, step by step."""

import numpy as np
import pytest
from ensemble_cases import First, texts

from robustmm import AutoMultimodalClassifier
from robustmm.data.targets import encode_targets
from robustmm.ensemble.candidates import Candidate
from robustmm.ensemble.search import search
from robustmm.ensemble.trials import Bench, Clock


class FailsOn(First):
    """Cannot be fitted on so many rows."""

    def __init__(self, n_rows=0, strength=0.8):
        super().__init__(strength=strength)
        self.n_rows = n_rows

    @classmethod
    def _get_param_names(cls):
        return ["n_rows", "strength"]

    def fit(self, X, y, sample_weight=None):
        if len(X) == self.n_rows:
            raise MemoryError("too many")
        return super().fit(X, y)


def found(estimator, limit=None, seconds=0.0, **options):
    X, y = texts(50)
    bench = Bench(X, encode_targets(y), np.full(50, "complete"), None, None, seed=0)
    bench.split(0.2, None)
    told = []
    result = search(
        bench,
        [Candidate("one", estimator, "one")],
        AutoMultimodalClassifier(**options),
        Clock(limit),
        lambda *step: told.append(step[0]),
    )
    return result, told


def test_members_are_fitted_again():
    result, told = found(First())
    assert result.members[0][1].n_rows_ == 50
    assert told == ["one (1 epochs)", "one (all rows)"]
    assert result.weights.tolist() == [1.0]


def test_the_first_fit_is_kept_where_the_last_one_fails():
    result, _ = found(FailsOn(50))
    assert result.members[0][1].n_rows_ == 40
    record = next(r for r in result.records if r["name"] == "one")
    assert record["reason"] == "first fit kept: MemoryError: too many"


def test_the_first_fit_is_kept_where_there_is_no_time():
    result, _ = found(First(seconds=0.4), limit=0.6)
    assert result.members[0][1].n_rows_ == 40
    record = next(r for r in result.records if r["name"] == "one")
    assert record["reason"] == "first fit kept: time"


def test_without_calibration_temperatures_are_one():
    assert set(found(First(), calibrate=False)[0].temperatures.values()) == {1.0}
    assert found(First())[0].temperatures["complete"] != 1.0


def test_nothing_but_failures_is_an_error():
    with pytest.raises(ValueError, match="one: MemoryError: too many"):
        found(FailsOn(40))
