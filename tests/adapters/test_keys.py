"""Task keys: the running mean, and which task a row resembles."""

import torch
from torch.nn import functional as F

from robustmm.adapters import TaskKey, key_similarity


def test_key_is_the_running_mean_of_present_modalities():
    key = TaskKey(3, momentum=0.9)
    query = torch.randn(4, 2, 3)
    present = torch.tensor([[1, 0], [1, 0], [0, 0], [1, 0]]).bool()
    key.update(query, present)
    first = query[[0, 1, 3], 0].mean(dim=0)
    torch.testing.assert_close(key.mean[0], 0.1 * first)
    assert (key.mean[1] == 0).all()
    key.update(query, torch.ones(4, 2).bool())
    expected = 0.9 * 0.1 * first + 0.1 * query[:, 0].mean(dim=0)
    torch.testing.assert_close(key.mean[0], expected)
    assert not key.mean.requires_grad


def test_similarity_is_the_mean_cosine_of_what_a_row_has():
    query, keys = torch.randn(3, 2, 5), torch.randn(4, 2, 5)
    present = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
    scores = key_similarity(query, present, keys)
    image = F.cosine_similarity(query[:, None, 0], keys[None, :, 0], dim=-1)
    text = F.cosine_similarity(query[:, None, 1], keys[None, :, 1], dim=-1)
    expected = torch.stack([(image[0] + text[0]) / 2, image[1], text[2]])
    torch.testing.assert_close(scores, expected)


def test_centering_removes_what_all_keys_share():
    shared = 100 * torch.ones(2, 4)
    own = torch.eye(4)[:3]
    keys = shared + own[:, None]
    query = shared + 0.5 * own[:, None]
    present = torch.ones(3, 2).bool()
    plain = key_similarity(query, present, keys)
    centered = key_similarity(query, present, keys, center=True)
    assert (plain > 0.999).all()
    assert torch.equal(centered.argmax(dim=1), torch.arange(3))
    assert centered.diagonal().min() - (centered - 9 * torch.eye(3)).max() > 0.5


def test_a_modality_that_a_task_never_had_does_not_count():
    query, keys = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    keys[1, 0] = 0
    present = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
    scores = key_similarity(query, present, keys)
    text = F.cosine_similarity(query[:, 1], keys[1, 1].expand(3, -1), dim=-1)
    torch.testing.assert_close(scores[[0, 2], 1], text[[0, 2]])
    # With no modality in common, a row is as near as to the other tasks on average.
    torch.testing.assert_close(scores[1, 1], scores[1, [0, 2]].mean())
