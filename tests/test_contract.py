"""What every public classifier promises; new ones are found by themselves."""

import pickle

import numpy as np
import pytest
from contract import frame_with_holes, public_classifiers, public_tables, small

from robustmm import MoRAClassifier
from robustmm.testing import parametrize_with_checks


@parametrize_with_checks([small(cls) for cls in public_tables()])
def test_promise(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda cls: cls.__name__)
def test_another_backbone_is_refused_when_a_pickle_opens(cls):
    state = small(cls).fit(*frame_with_holes(6)).__getstate__()
    state["_trained"]["fingerprint"] = "0" * 64
    with pytest.raises(ValueError, match="differs from the one"):
        cls.__new__(cls).__setstate__(state)


def test_without_a_cache_the_first_fit_is_like_every_other():
    X, y = frame_with_holes(12)
    first, second = (small(MoRAClassifier, cache=None).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(
        first.decision_function(X), second.decision_function(X)
    )


@pytest.mark.cuda
@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda cls: cls.__name__)
def test_trains_on_cuda_and_opens_on_the_cpu(cls):
    X, y = frame_with_holes(16)
    estimator = small(cls, device="cuda").fit(X, y)
    state = pickle.dumps(estimator.set_params(device="cpu"))
    copy = pickle.loads(state)
    np.testing.assert_allclose(
        copy.predict_proba(X), estimator.predict_proba(X), atol=2e-2
    )
