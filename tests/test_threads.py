"""One fitted estimator serves many threads, with the numbers that it gives alone."""

import functools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, public_classifiers, small

from robustmm import (
    CMPTClassifier,
    DeLoClassifier,
    FineTuneClassifier,
    MAILClassifier,
    MemPromptClassifier,
    MoRAClassifier,
)

N_THREADS = 8
N_CALLS = 5
X, Y = frame_with_holes()
# Parts of the table that differ in length, in longest text and in what is missing.
PARTS = [X.iloc[i::3].iloc[: 8 - i] for i in range(3)]
PARTS += [X[X["image"].isna()], X.iloc[4:15]]

VARIANTS = [
    (MAILClassifier, {"router_level": "instance"}),
    (MAILClassifier, {"router_level": "instance", "balance_weight": 0.1}),
    (MAILClassifier, {"balance_weight": 0.1, "linear_targets": ("down", "out")}),
    (DeLoClassifier, {"static": True}),
    (DeLoClassifier, {"task_inference": "oracle"}),
    (MemPromptClassifier, {"accumulate": False}),
    (FineTuneClassifier, {"backbone": "robustmm/tiny-clip", "tune": "lora"}),
    (MoRAClassifier, {"position": "front"}),
]
EVERY = [(cls, {}) for cls in public_classifiers()] + VARIANTS
LOOKS = [
    (CMPTClassifier, {}, "attention_maps"),
    (MAILClassifier, {}, "expert_usage"),
    (MAILClassifier, {"router_level": "instance"}, "expert_usage"),
    (DeLoClassifier, {}, "factor_usage"),
    (DeLoClassifier, {}, "predict_task"),
    (DeLoClassifier, {}, "query_vectors"),
    (MemPromptClassifier, {}, "memory_usage"),
    (MoRAClassifier, {}, "modality_gap"),
]


def cases(found):
    """Parameters of a test, with settings that can be hashed, under readable names."""
    return [
        pytest.param(
            cls,
            tuple(params.items()),
            *rest,
            id="-".join([cls.__name__, *map(str, [*params.values(), *rest])]),
        )
        for cls, params, *rest in found
    ]


@functools.cache
def fitted(cls, params):
    """A trained instance; DeLo after two tasks with half of the rows each."""
    estimator = small(cls, **dict(params))
    if not issubclass(cls, DeLoClassifier):
        return estimator.fit(X, Y)
    late = np.arange(len(Y)) % 2 == 1
    estimator.partial_fit(X[~late], np.char.add(Y[~late].astype(str), " early"))
    return estimator.partial_fit(X[late], Y[late])


def scores(estimator, part):
    """Decisions; where tasks are told, those of the later task or of the earlier."""
    if getattr(estimator, "task_inference", None) != "oracle":
        return estimator.decision_function(part)
    tasks = np.arange(len(part)) % 2
    return estimator.with_tasks(tasks).decision_function(part)


@pytest.fixture
def hurried():
    """Let Python switch between threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def together(*calls):
    """Results of functions that start at the same moment, a thread for each."""
    start = threading.Barrier(len(calls))

    def run(call):
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(run, c) for c in calls]]


@pytest.mark.parametrize(("cls", "params"), cases(EVERY))
def test_threads_predict_what_one_predicts_alone(cls, params, hurried):
    estimator = fitted(cls, params)

    def predict_all(first):
        order = [(first + call) % len(PARTS) for call in range(N_CALLS)]
        return [(i, scores(estimator, PARTS[i])) for i in order]

    # First of all: the module is as the training left it, with dropout on.
    results = together(*(lambda n=n: predict_all(n) for n in range(N_THREADS)))
    alone = [scores(estimator, part) for part in PARTS]
    for i, found in [pair for result in results for pair in result]:
        np.testing.assert_array_equal(found, alone[i])


def state_of(module):
    """Everything that hangs on a module and its parts, one level deep."""
    found = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            held = value.values() if isinstance(value, dict) else value
            several = isinstance(value, (dict, list, tuple, set))
            found[name, key] = [value, *held] if several else [value]
    return found


@pytest.mark.parametrize(("cls", "params"), cases(EVERY))
def test_a_prediction_leaves_nothing_on_the_module(cls, params):
    estimator = fitted(cls, params)
    scores(estimator, X)  # the first one after a training switches its mode
    before = state_of(estimator.net_.module_)
    scores(estimator, X)
    for _, look in [case[1:] for case in LOOKS if case[:2] == (cls, dict(params))]:
        getattr(estimator, look)(X)
    after = state_of(estimator.net_.module_)
    assert before.keys() == after.keys()
    for place, values in before.items():
        assert list(map(id, after[place])) == list(map(id, values)), place


@pytest.mark.parametrize(("cls", "params", "look"), cases(LOOKS))
def test_looking_inside_does_not_disturb_predictions(cls, params, look, hurried):
    estimator = fitted(cls, params)
    looks = [getattr(estimator, look)] * 2
    predictions = [estimator.decision_function, estimator.transform] * 3
    alone = [call(X) for call in (*looks, *predictions)]
    calls = [lambda call=call: call(X) for call in (*looks, *predictions)]
    for _ in range(2):
        for found, expected in zip(together(*calls), alone, strict=True):
            if isinstance(expected, pd.DataFrame):
                pd.testing.assert_frame_equal(found, expected)
            else:
                np.testing.assert_array_equal(found, expected)
