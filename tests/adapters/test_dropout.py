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
