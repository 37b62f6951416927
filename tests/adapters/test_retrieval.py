import pytest
import torch
from torch.nn import functional as F

from robustmm.adapters import RetrievedPrompts, TokenFilter
from robustmm.adapters.retrieval import average_bins


def test_a_filter_is_a_circular_convolution():
    part = TokenFilter(7, 4, dropout=0.0)
    mean = torch.randn(2, 7, 4)
    kernel = torch.fft.ifft(torch.view_as_complex(part.weight), dim=0).real  # (n, d)
    filtered = torch.zeros_like(mean)
    for at in range(7):
        for back in range(7):
            filtered[:, at] += kernel[back] * mean[:, (at - back) % 7]
    with torch.no_grad():
        expected = part.linear(part.norm(mean + filtered))
        torch.testing.assert_close(part(mean), expected, atol=1e-4, rtol=1e-4)


def test_a_filter_drops_what_is_filtered_and_not_the_mean():
    part = TokenFilter(5, 4, dropout=0.9).train()
    part.linear = torch.nn.Identity()
    mean = 100 * torch.randn(1, 5, 4)
    with torch.no_grad():
        part.weight.mul_(1e-6)
        torch.testing.assert_close(part(mean), part.norm(mean), atol=1e-3, rtol=0)


@pytest.mark.parametrize("masked", [True, False])
def test_prompts_are_plain_attention_then_a_mean_of_positions(masked):
    read = RetrievedPrompts(8, length=3)
    own, retrieved = torch.randn(2, 7, 8), torch.randn(2, 11, 8)
    lengths, mask = torch.tensor([7, 4]), torch.rand(2, 11) < 0.5
    mask[:, 0] = True
    with torch.no_grad():
        found = read(own, lengths, retrieved, mask if masked else None)
        for i, n in enumerate(lengths):
            keys = retrieved[i][mask[i]] if masked else retrieved[i]
            # A bias of the keys changes nothing.
            scores = read.query(own[i, :n]) @ (read.key(keys) + torch.randn(8)).T
            plain = (scores / 8**0.5).softmax(-1) @ read.value(keys)  # (n, d)
            expected = F.adaptive_avg_pool1d(plain.T, 3).T
            torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("n", "n_bins"), [(6, 3), (7, 3), (2, 6), (145, 6)])
def test_bins_are_those_of_adaptive_pooling(n, n_bins):
    weights = average_bins(torch.tensor([n]), n_bins, n + 2)[0]
    x = torch.randn(n, 4)
    expected = F.adaptive_avg_pool1d(x.T, n_bins).T
    torch.testing.assert_close(weights[:, :n] @ x, expected)
    assert not weights[:, n:].any()
