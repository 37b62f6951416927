"""Temperatures: they undo what was multiplied, per pattern, and shrink where rare."""

import numpy as np
import pytest

from robustmm.data.targets import Targets
from robustmm.ensemble.calibration import at_temperature, fit_temperatures
from robustmm.ensemble.scores import HeldOut


def honest(n=3000, seed=0, multilabel=False):
    """Logits, and labels that are drawn from what they say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 1.5
    if multilabel:
        encoded = (rng.random((n, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    else:
        encoded = (logits + rng.gumbel(size=(n, 3))).argmax(axis=1)
    return logits, encoded


def held(encoded, weights=None):
    targets = Targets(np.arange(3), encoded, encoded.astype(int))
    return HeldOut(np.zeros((len(encoded), 1)), targets, weights, None)


@pytest.mark.parametrize("multilabel", [False, True])
def test_each_pattern_gets_back_what_its_logits_were_multiplied_with(multilabel):
    logits, encoded = honest(multilabel=multilabel)
    patterns = np.where(np.arange(3000) % 2, "complete", "text_missing")
    factors = {"complete": 4.0, "text_missing": 0.5}
    factor = np.array([factors[name] for name in patterns])
    found = fit_temperatures(logits * factor[:, None], held(encoded), patterns)
    assert found["complete"] == pytest.approx(4.0, rel=0.15)
    assert found["text_missing"] == pytest.approx(0.5, rel=0.15)


def test_a_pattern_with_few_rows_stays_near_all_rows():
    logits, encoded = honest(600)
    patterns = np.array(["complete"] * 597 + ["image_missing"] * 3)
    logits[597:] *= 10
    found = fit_temperatures(logits, held(encoded), patterns)
    assert abs(np.log(found["image_missing"] / found["all"])) < 0.6  # of log(10)
    assert found["text_missing"] == found["all"]  # without a row, the same


def test_weights_count():
    logits, encoded = honest(1000)
    logits[:500] *= 5
    patterns = np.full(1000, "complete")
    weights = np.where(np.arange(1000) < 500, 1.998, 0.002)
    found = fit_temperatures(logits, held(encoded, weights), patterns)
    assert found["all"] == pytest.approx(5.0, rel=0.2)


def test_rows_are_divided_by_the_temperature_of_their_pattern():
    found = at_temperature(
        np.ones((2, 2)), np.array(["a", "b"]), {"a": 2.0, "b": 0.5, "all": 9.0}
    )
    assert found.tolist() == [[0.5, 0.5], [2.0, 2.0]]
