"""Class Gaussians of rows with holes: the sum of each modality's LDA, and priors."""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from robustmm.adapters import (
    ClassGaussians,
    ClassMoments,
    group_parts,
    log_odds_of_pairs,
)

N, WIDTHS = 80, (4, 3)


def table(seed=0):
    """Vectors of two modalities, what is there, and labels of four classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(N) % 4)
    vectors = [
        torch.tensor(rng.normal(size=(N, width)) + rng.normal(size=(4, width))[labels])
        for width in WIDTHS
    ]
    pattern = rng.integers(0, 3, N)
    return vectors, torch.tensor(np.c_[pattern != 1, pattern != 2]), labels


def moments_of(vectors, present, parts):
    moments = ClassMoments(parts.shape[1], WIDTHS)
    moments.update(vectors, present, parts)
    return moments


def test_logits_are_the_sum_of_two_ldas_and_one_prior():
    vectors, present, labels = table()
    moments = moments_of(vectors, present, group_parts(labels, 4))
    logits = ClassGaussians.of([moments], 0.2)(vectors, present).numpy()
    expected = np.log(np.bincount(labels) / N) * np.ones((N, 1))
    for place, rows in enumerate(vectors):
        here = present[:, place].numpy()
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
        lda.fit(rows[here], labels[here])
        own = lda.decision_function(rows[here]) - np.log(lda.priors_)
        expected[here] += own
    gaps = [values - values[:, :1] for values in (logits, expected)]
    np.testing.assert_allclose(*gaps, atol=1e-8)


def test_what_a_missing_modality_holds_is_never_read():
    vectors, present, labels = table()
    parts = group_parts(labels, 4)
    holes = [v.where(present[:, i, None], torch.nan) for i, v in enumerate(vectors)]
    moments, other = (moments_of(v, present, parts) for v in (vectors, holes))
    for one, two in zip(moments.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)
    gaussians = ClassGaussians.of([moments], 0.2)
    assert torch.equal(gaussians(holes, present), gaussians(vectors, present))


def test_rows_without_any_modality_do_not_count():
    vectors, present, labels = table()
    present[:10] = False
    moments = moments_of(vectors, present, group_parts(labels, 4))
    assert moments.rows.tolist() == np.bincount(labels[10:]).tolist()


def test_groups_that_come_later_leave_the_others_as_they_were():
    vectors, present, labels = table()
    early = torch.tensor(labels < 3)
    parts = group_parts(np.minimum(labels, 2), 3)[early]
    moments = moments_of([v[early] for v in vectors], present[early], parts)
    grown = moments.grown([3, 0, 1], 4)
    for old, new in zip(moments.kinds, grown.kinds, strict=True):
        assert torch.equal(new.means[[3, 0, 1]], old.means)
        assert not new.means[2].any()
    assert grown.rows.tolist()[2] == 0
    grown.update(
        [v[~early] for v in vectors],
        present[~early],
        group_parts(np.array([1, 2, 0, 3])[labels[~early] - 1], 4),
    )
    assert grown.rows.sum() == N


def test_several_labels_have_log_odds_of_their_own():
    vectors, present, _ = table()
    Y = np.random.default_rng(1).integers(0, 2, (N, 3))
    moments = moments_of(vectors, present, group_parts(Y, 3))
    odds = log_odds_of_pairs(ClassGaussians.of([moments], 0.2)(vectors, present, 3))
    assert odds.shape == (N, 3)
    nothing = torch.zeros_like(present)
    prior = log_odds_of_pairs(ClassGaussians.of([moments], 0.2)(vectors, nothing, 3))
    share = Y.mean(axis=0)
    np.testing.assert_allclose(prior[0], np.log(share / (1 - share)))


def test_it_is_a_part_of_a_module_that_stays_in_64_bits():
    moments = moments_of(*table()[:2], group_parts(table()[2], 4))
    torch.nn.ModuleList([moments]).to("meta").half()
    assert {b.dtype for b in moments.buffers()} == {torch.float64}
    assert {b.device.type for b in moments.buffers()} == {"cpu"}
    assert not list(moments.parameters())
