"""Prompt components: weights row by row, and slices that are orthonormal."""

import torch
from torch.nn import functional as F

from robustmm.adapters import ComponentPool, PromptSlice


def slices(n=3, n_components=2):
    made = [PromptSlice(3, 2, n_components, length=4, width=8) for _ in range(n)]
    for i, piece in enumerate(made):
        piece.begin(made[:i])
    return made


def test_two_products_are_the_cosines_of_every_row_and_component():
    pool = ComponentPool([PromptSlice(3, 2, 4, 4, 8) for _ in range(2)], 1)
    query = torch.randn(5, 8)
    weights = pool.weights(query)
    keys, attention = pool.parts["keys"], pool.parts["attention"]
    for layer in range(2):
        for row in range(5):
            asked = query[row] * attention[layer]  # (K, d)
            expected = F.cosine_similarity(asked, keys[layer], dim=1)
            torch.testing.assert_close(weights[layer, row], expected)


def test_a_prompt_is_the_weighted_sum():
    pool = ComponentPool([PromptSlice(3, 2, 4, 4, 8)], 2)
    weights = torch.randn(2, 5, 4)
    mixed = pool.mix(weights)
    expected = torch.einsum("lbk,lkpd->lbpd", weights, pool.parts["prompts"])
    torch.testing.assert_close(mixed, expected)


def test_slices_are_orthonormal_together():
    made = slices()
    for name in ("prompts", "keys", "attention"):
        every = torch.cat([getattr(p, name).flatten(3) for p in made], dim=2)
        gram = every @ every.mT
        eye = torch.eye(6).expand_as(gram)
        torch.testing.assert_close(gram, eye, atol=1e-5, rtol=0)


def test_a_slice_is_orthogonal_to_what_others_have_become():
    first, second = slices(2)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = first.keys.clone()
    second.begin([first])
    overlap = second.keys @ first.keys.mT
    assert overlap.abs().max() < 1e-5
    assert torch.equal(first.keys, before)
