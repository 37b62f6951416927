"""Random features and streamed ridge regression, which is scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from robustmm.adapters import RandomFeatures, RidgeSums


def rows(n=40, width=6, n_outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, width)), rng.integers(0, 2, (n, n_outputs))
    return torch.tensor(x), torch.tensor(y).double(), torch.tensor(rng.uniform(0, 2, n))


@pytest.mark.parametrize("penalty", [1e-6, 0.1, 3.0])
def test_it_is_scikit_learns_ridge(penalty):
    x, y, w = rows()
    sums = RidgeSums(6, 3)
    sums.update(x, y, w)
    scale = float(sums.gram.diagonal().mean())
    reference = Ridge(alpha=penalty * scale, fit_intercept=False)
    reference.fit(x.numpy(), y.numpy(), sample_weight=w.numpy())
    np.testing.assert_allclose(sums.solve(penalty), reference.coef_, atol=1e-8)


def test_chunks_and_outputs_that_come_later_are_one_batch():
    x, y, w = rows()
    y[:25, 1] = 0
    whole, streamed = RidgeSums(6, 3), RidgeSums(6, 2)
    whole.update(x, y, w)
    for part in (slice(0, 10), slice(10, 25)):
        streamed.update(x[part], y[part][:, [0, 2]], w[part])
    streamed = streamed.grown(np.array([0, 2]), 3)
    streamed.update(x[25:], y[25:], w[25:])
    torch.testing.assert_close(streamed.gram, whole.gram)
    torch.testing.assert_close(streamed.cross, whole.cross)


def test_a_missing_modality_has_zeros_and_is_told():
    lift = RandomFeatures((4, 3), n_features=5)
    present = torch.tensor([[True, False], [False, True]])
    image, text = torch.randn(2, 4), torch.randn(2, 3)
    features = lift([image, text], present)
    assert not features[0, 5:10].any()
    assert not features[1, :5].any()
    assert torch.equal(features[:, 10:], present.float())
    expected = (image[0] / image[0].norm() @ lift.projection_0).relu()
    torch.testing.assert_close(features[0, :5], expected)
    other = [image.where(present[:, :1], torch.nan), text]
    assert torch.equal(lift(other, present), features)


def test_without_random_features_they_are_the_vectors():
    lift = RandomFeatures((4,), n_features=0)
    vectors = torch.randn(3, 4)
    features = lift([vectors], torch.ones(3, 1).bool())
    torch.testing.assert_close(features[:, :4], torch.nn.functional.normalize(vectors))
    assert not list(lift.buffers())


def test_sums_stay_in_64_bits():
    sums = RidgeSums(2, 1).half().to("meta")
    assert {(b.dtype, b.device.type) for b in sums.buffers()} == {
        (torch.float64, "cpu")
    }
