"""Gaussians with one covariance: streamed as one batch, and scikit-learn's LDA."""

import copy
import io

import numpy as np
import pytest
import torch
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from robustmm.adapters import (
    GroupMoments,
    SharedGaussian,
    group_parts,
    oracle_shrinkage,
    sum_log_likelihoods,
)

N, WIDTH, CLASSES = 60, 5, 3


def draw(seed=0, offset=0.0):
    """Rows about three means, far from zero if ``offset`` is large."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(N) % CLASSES)
    mix = rng.normal(size=(WIDTH, WIDTH))
    rows = rng.normal(size=(N, WIDTH)) @ mix + 2 * rng.normal(size=(3, WIDTH))[labels]
    return rows + offset, labels


def moments_of(rows, labels, weights=None, n_groups=CLASSES):
    moments = GroupMoments(n_groups, rows.shape[1])
    given = None if weights is None else torch.tensor(weights)
    moments.update(torch.tensor(rows), torch.tensor(labels), given)
    return moments


def assert_alike(one, other, rtol=1e-9):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            other.state_dict()[name], tensor, rtol=rtol, atol=1e-9
        )


def test_moments_are_those_of_numpy():
    rows, labels = draw()
    moments = moments_of(rows, labels)
    scatter = np.zeros((WIDTH, WIDTH))
    for group in range(CLASSES):
        own = rows[labels == group]
        assert moments.counts[group] == len(own)
        np.testing.assert_allclose(moments.means[group], own.mean(axis=0))
        scatter += len(own) * np.cov(own.T, bias=True)
    np.testing.assert_allclose(moments.scatter, scatter)


@pytest.mark.parametrize("order", ["rows", "stages", "single rows", "shuffled"])
def test_chunks_in_any_order_are_one_batch(order):
    rows, labels = draw(offset=1e3)
    chunks = {
        "rows": np.array_split(np.arange(N), 7),
        "stages": [np.flatnonzero(labels == c) for c in (2, 0, 1)],
        "single rows": np.arange(N)[:, None],
        "shuffled": np.array_split(np.random.default_rng(1).permutation(N), 4),
    }[order]
    streamed = GroupMoments(CLASSES, WIDTH)
    for chunk in chunks:
        streamed.update(torch.tensor(rows[chunk]), torch.tensor(labels[chunk]))
    assert_alike(moments_of(rows, labels), streamed)


def test_merged_moments_are_one_batch():
    rows, labels = draw()
    merged = moments_of(rows[:20], labels[:20])
    merged.merge(moments_of(rows[20:], labels[20:]))
    assert_alike(moments_of(rows, labels), merged)


def test_a_weight_of_two_is_a_row_twice():
    rows, labels = draw()
    weights = np.random.default_rng(2).integers(0, 3, N)
    again = np.repeat(np.arange(N), weights)
    weighted = moments_of(rows, labels, weights.astype(float))
    assert weighted.squares == (weights**2).sum()
    # But for Kish's number of rows, which is one of different ones.
    weighted.squares.copy_(weighted.counts.sum())
    assert_alike(moments_of(rows[again], labels[again]), weighted)


def test_rows_may_be_in_several_groups():
    rows, _ = draw()
    Y = np.random.default_rng(3).integers(0, 2, (N, 2))
    moments = GroupMoments(4, WIDTH)
    moments.update(torch.tensor(rows), group_parts(Y, 2))
    scatter = np.zeros((WIDTH, WIDTH))
    for label in range(2):
        for value in range(2):
            own = rows[Y[:, label] == value]
            np.testing.assert_allclose(
                moments.means[2 * label + value], own.mean(axis=0)
            )
            scatter += len(own) * np.cov(own.T, bias=True)
    np.testing.assert_allclose(moments.scatter, scatter)


def test_rows_of_no_group_and_no_rows_change_nothing():
    rows, labels = draw()
    moments = moments_of(rows, labels)
    before = copy.deepcopy(moments)
    moments.update(torch.tensor(rows), torch.zeros(N, CLASSES))
    moments.update(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.long))
    assert all(
        torch.equal(a, b)
        for a, b in zip(moments.buffers(), before.buffers(), strict=True)
    )


def test_groups_may_come_later():
    rows, labels = draw()
    early = labels < 2
    moments = moments_of(rows[early], labels[early], n_groups=2)
    grown = moments.grown([2, 0], n_groups=3)
    places = np.array([2, 0, 1])
    grown.update(torch.tensor(rows[~early]), torch.tensor(places[labels[~early]]))
    assert_alike(moments_of(rows, places[labels]), grown)
    assert len(moments.counts) == 2


def test_moments_stay_in_64_bits_where_they_are():
    moments = moments_of(*draw())
    module = torch.nn.ModuleList([moments]).to("meta").half()
    assert module[0].scatter.dtype == torch.float64
    assert module[0].scatter.device.type == "cpu"
    file = io.BytesIO()
    torch.save(moments.state_dict(), file)
    again = GroupMoments(CLASSES, WIDTH)
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
    assert all(
        torch.equal(a, b)
        for a, b in zip(moments.buffers(), again.buffers(), strict=True)
    )


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7, 1.0])
def test_it_is_scikit_learns_lda(shrinkage):
    rows, labels = draw(offset=100.0)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    expected = reference.fit(rows, labels).decision_function(rows)
    gaussian = SharedGaussian.of([moments_of(rows, labels)], shrinkage)
    scores = (gaussian(torch.tensor(rows)) + gaussian.shares).numpy()
    # Up to what all classes of a row have in common.
    gaps = [values - values[:, :1] for values in (scores, expected)]
    np.testing.assert_allclose(*gaps, rtol=1e-6, atol=1e-6)


def test_stages_are_pooled_in_any_order():
    rows, labels = draw()
    stages = [labels == 0, labels > 0]
    parts = [moments_of(rows[stages[0]], labels[stages[0]], n_groups=1)]
    parts.append(moments_of(rows[stages[1]], labels[stages[1]] - 1, n_groups=2))
    whole = SharedGaussian.of([moments_of(rows, labels)], 0.1)
    x = torch.tensor(rows)
    scores = SharedGaussian.of(parts, 0.1)(x)
    torch.testing.assert_close(scores, whole(x))
    turned = SharedGaussian.of(parts[::-1], 0.1)(x)
    torch.testing.assert_close(turned[:, [2, 0, 1]], scores)


def test_in_32_bits_it_keeps_what_matters():
    rows, labels = draw(offset=1e3)
    gaussian = SharedGaussian.of([moments_of(rows, labels)], 0.1)
    x = torch.tensor(rows)
    single = gaussian.to("cpu")(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), gaussian(x), atol=5e-3, rtol=1e-3)


def test_likelihoods_are_summed_over_what_a_row_has():
    (one, labels), (two, _) = draw(0), draw(1)
    gaussians = [SharedGaussian.of([moments_of(x, labels)], 0.1) for x in (one, two)]
    rows = [torch.tensor(one), torch.tensor(two)]
    present = torch.tensor([[1, 1], [1, 0], [0, 1]] * (N // 3)).bool()
    summed = sum_log_likelihoods(gaussians, rows, present)
    first, second = (g(x) for g, x in zip(gaussians, rows, strict=True))
    torch.testing.assert_close(summed[0::3], (first + second)[0::3])
    torch.testing.assert_close(summed[1::3], first[1::3])
    torch.testing.assert_close(summed[2::3], second[2::3])
    other = [rows[0], rows[1].where(present[:, 1:], 9e9)]
    assert torch.equal(sum_log_likelihoods(gaussians, other, present), summed)


def test_a_vector_is_no_evidence_of_a_group_without_rows():
    rows, labels = draw()
    moments = moments_of(rows, labels).grown([0, 1, 3], n_groups=4)
    gaussian = SharedGaussian.of([moments], 0.1)
    prior = torch.tensor([0.3, 0.2, 0.1, 0.4]).double()
    logits = gaussian(torch.tensor(rows))
    shares = gaussian.shares.exp()
    known = torch.tensor([True, True, False, True])
    posterior = (logits + shares.where(known, 0.25).log()).softmax(dim=1)
    # A quarter for it, before and behind the vector; the others share what is left.
    torch.testing.assert_close(posterior[:, 2], torch.full((N,), 0.2).double())
    assert (logits + prior.log()).isfinite().all()


def test_each_label_of_several_decides_between_its_two_groups():
    rows, _ = draw()
    Y = np.random.default_rng(3).integers(0, 2, (N, 2))
    Y[:, 1] = 0
    moments = GroupMoments(4, WIDTH)
    moments.update(torch.tensor(rows), group_parts(Y, 2))
    scores = SharedGaussian.of([moments], 0.1)(torch.tensor(rows), n_sets=2)
    ratio = scores[:, 1::2] - scores[:, 0::2]
    assert (ratio[:, 0] != 0).all()
    torch.testing.assert_close(ratio[:, 1], torch.zeros(N).double())


def test_without_rows_or_spread_the_answers_are_finite():
    empty = SharedGaussian.of([GroupMoments(3, WIDTH)], 0.1)
    x = torch.randn(4, WIDTH).double()
    assert (empty(x) == 0).all()
    single = moments_of(np.eye(WIDTH)[:CLASSES], np.arange(CLASSES))
    scores = SharedGaussian.of([single], 0.1)(torch.eye(WIDTH).double()[:CLASSES])
    assert scores.argmax(dim=1).tolist() == [0, 1, 2]


def test_the_oracle_shrinkage_is_scikit_learns():
    rows = np.random.default_rng(0).normal(size=(30, WIDTH)) * np.arange(1, WIDTH + 1)
    expected = oas(rows, assume_centered=False)[1]
    covariance = torch.tensor(np.cov(rows.T, bias=True))
    assert oracle_shrinkage(covariance, 30) == pytest.approx(expected)
    assert oracle_shrinkage(torch.zeros(3, 3), 0.0) == 1.0
    x, labels = draw()
    pooled = SharedGaussian.of([moments_of(x, labels)], "oas")
    within = moments_of(x, labels).scatter / N
    same = SharedGaussian.of([moments_of(x, labels)], oracle_shrinkage(within, N))
    torch.testing.assert_close(pooled.weight, same.weight)
