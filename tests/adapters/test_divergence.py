"""Divergence of logits against torch's distributions."""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from robustmm.adapters import divergence


@pytest.mark.parametrize(
    ("multilabel", "kind"), [(False, Categorical), (True, Bernoulli)]
)
def test_it_is_the_kullback_leibler_divergence(multilabel, kind):
    true, other = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    expected = kl_divergence(kind(logits=true), kind(logits=other)).mean()
    torch.testing.assert_close(divergence(true, other, multilabel), expected)
    assert divergence(true, other, multilabel) != divergence(other, true, multilabel)


@pytest.mark.parametrize("multilabel", [False, True])
def test_it_is_zero_for_the_same_and_finite_for_the_extreme(multilabel):
    logits = torch.tensor([[1e3, -1e3, 0.0]])
    assert divergence(logits, logits, multilabel).abs() < 1e-6
    assert divergence(logits, -logits, multilabel).isfinite()
