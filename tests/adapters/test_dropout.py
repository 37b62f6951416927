"""Complete rows lose one modality, each with half of the probability."""

import pytest
import torch

from robustmm.adapters import draw_hidden


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_frequencies(probability):
    hidden = draw_hidden(torch.ones(20_000, 2, dtype=torch.bool), probability)
    assert not hidden.all(dim=1).any()
    share = hidden.float().mean(dim=0)
    torch.testing.assert_close(
        share, torch.full((2,), probability / 2), atol=0.01, rtol=0
    )


def test_an_only_modality_is_never_taken():
    present = torch.tensor([[True, False], [False, True], [False, False]] * 50)
    assert not draw_hidden(present, 1.0).any()


def test_a_batch_may_draw_once():
    present = torch.tensor([[True, True], [False, True], [True, True]])
    drawn = [draw_hidden(present, 0.6, per="batch") for _ in range(300)]
    assert all(torch.equal(hidden[0], hidden[2]) for hidden in drawn)
    assert not any(hidden[1].any() for hidden in drawn)
    share = torch.stack([hidden[0] for hidden in drawn]).float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((2,), 0.3), atol=0.1, rtol=0)


def test_of_three_each_is_lost_equally_often():
    hidden = draw_hidden(torch.ones(3000, 3, dtype=torch.bool), 0.9)
    assert hidden.sum(dim=1).max() == 1
    share = hidden.float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((3,), 0.3), atol=0.04, rtol=0)
    assert not draw_hidden(torch.ones(9, 1, dtype=torch.bool), 1.0).any()
