"""Prompts: patterns, the memory and shared prompts against loops over samples."""

import math

import pytest
import torch

from robustmm.adapters import (
    PromptMemory,
    SharedPrompts,
    add_prompt,
    layer_indices,
    pattern_index,
    sum_present,
)
from robustmm.backbones import Tokens, load_backbone


def test_patterns_of_rows():
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=torch.bool)
    assert pattern_index(present).tolist() == [0, 1, 2, 2]


def test_prompts_of_what_is_there_are_added():
    image, text = torch.randn(2, 3, 4)
    expected = torch.stack([image + text, image, text])
    torch.testing.assert_close(sum_present(torch.stack([image, text])), expected)


def read_one_by_one(memory, queries, over_all):
    """Equations 5 and 6 for one sample after the other."""
    results = []
    for query in queries:
        cosines = [query @ key / (query.norm() * key.norm()) for key in memory.keys]
        order = sorted(range(len(cosines)), key=lambda k: -cosines[k].item())
        chosen = order[: memory.top_k]
        pool = range(len(cosines)) if over_all else chosen
        total = sum(torch.exp(cosines[k] / memory.temperature) for k in pool)
        results.append(
            sum(
                torch.exp(cosines[k] / memory.temperature) / total * memory.prompts[k]
                for k in chosen
            )
        )
    return torch.stack(results)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_memory_agrees_with_a_loop_over_samples(renormalize, temperature):
    memory = PromptMemory(6, 3, 8, 4, renormalize, temperature)
    queries = torch.randn(5, 8, requires_grad=True)
    weight = torch.randn(5, 3, 8)
    expected = read_one_by_one(memory, queries, over_all=not renormalize)
    result = memory(queries)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)
    leaves = (queries, memory.keys, memory.prompts)
    gradients = torch.autograd.grad((result * weight).sum(), leaves)
    for got, wanted in zip(
        gradients, torch.autograd.grad((expected * weight).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)


def test_entries_that_are_not_read_get_no_gradient():
    memory = PromptMemory(6, 3, 8, top_k=2)
    query = torch.randn(1, 8)
    memory(query).square().sum().backward()
    read = memory.weights(query)[0] > 0
    assert read.sum() == 2
    for tensor in (memory.prompts, memory.keys):
        touched = tensor.grad.flatten(1).abs().sum(dim=1) > 0
        assert torch.equal(touched, read)


def test_memory_starts_as_the_authors_do():
    memory = PromptMemory(size=16, length=16, width=768, top_k=5)
    gain = math.sqrt(2 / (1 + 5))
    assert memory.prompts.std().item() == pytest.approx(
        gain / math.sqrt(16 * 768), 0.02
    )
    assert memory.keys.std().item() == pytest.approx(gain / math.sqrt(768), 0.05)


def test_cosines_stay_in_full_precision_under_autocast():
    memory, query = PromptMemory(6, 3, 8, 2), torch.randn(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = memory.weights(query)
    torch.testing.assert_close(weights, memory.weights(query), atol=0, rtol=0)


@pytest.mark.parametrize("by_pattern", [True, False])
def test_shared_prompts_agree_with_a_loop_over_samples(by_pattern):
    shared = SharedPrompts(length=3, width=32, by_pattern=by_pattern)
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)
    result = shared(pattern_index(present))
    for modality, to_modality in shared.maps.items():
        for i, row in enumerate(present):
            there = [s for s, here in zip(shared.sources, row, strict=False) if here]
            source = sum(there) if by_pattern else shared.sources[0]
            torch.testing.assert_close(result[modality][i], to_modality(source))


def test_layers_are_the_first_ones_or_those_listed():
    assert layer_indices("layers", 0, 4) == []
    assert layer_indices("layers", 4, 4) == [0, 1, 2, 3]
    assert layer_indices("layers", 6, 4) == [0, 1, 2, 3]
    assert layer_indices("layers", [3, 1], 4) == [1, 3]


@pytest.mark.parametrize(
    ("layers", "kind", "message"),
    [
        ([5], ValueError, r"list layers in \[0, 3\] of the backbone, got \[5\]"),
        (-1, ValueError, "layers must not be negative, got -1"),
        ([0, 4], ValueError, r"list layers in \[0, 3\] of the backbone, got \[0, 4\]"),
        ([0.5], ValueError, "list layers"),
        ([1, 1], ValueError, r"each layer once, got \[1, 1\]"),
        (True, TypeError, "integer or a sequence of layers, got True"),
        (2.0, TypeError, "integer or a sequence of layers, got 2.0"),
        ("01", TypeError, "integer or a sequence of layers, got '01'"),
    ],
    ids=str,
)
def test_other_layers_are_refused(layers, kind, message):
    with pytest.raises(kind, match=message):
        layer_indices("layers", layers, 4)


def test_input_prompts_stand_in_front():
    tokens = Tokens(torch.randn(2, 3, 4), None, {"text": (0, 1), "image": (1, 3)})
    prompt = torch.randn(2, 2, 4)
    longer = add_prompt(tokens, "prompt", prompt, "input")
    assert longer.names == ("prompt", "text", "image")
    assert torch.equal(longer["prompt"], prompt)


def test_attention_prompts_are_raw_keys_and_values():
    stream = load_backbone("robustmm/tiny-vilt")["joint"]
    values = torch.randn(2, 5, stream.width)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1]], dtype=torch.bool)
    tokens = Tokens(values, mask, {"text": (0, 3), "image": (3, 5)})
    prompt = torch.randn(2, 4, stream.width)
    result = stream.step(0, add_prompt(tokens, "prompt", prompt, "attention"))

    layer, heads = stream.layers[0], stream.n_heads
    normed = layer.layernorm_before(values)
    parts = [stream.linear(0, name)(normed) for name in ("query", "key", "value")]
    query = parts[0]
    key = torch.cat([prompt[:, :2], parts[1]], dim=1)
    value = torch.cat([prompt[:, 2:], parts[2]], dim=1)
    mixed = []
    for q, k, v in zip(
        *(t.chunk(heads, dim=-1) for t in (query, key, value)), strict=True
    ):
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        seen = torch.cat([torch.ones(2, 2, dtype=torch.bool), mask], dim=1)
        mixed.append(scores.masked_fill(~seen[:, None], -1e9).softmax(-1) @ v)
    hidden = values + stream.linear(0, "out")(torch.cat(mixed, dim=-1))
    again = layer.layernorm_after(hidden)
    expected = hidden + stream._feed_forward(stream._block(0), again, tokens)
    torch.testing.assert_close(result.values, expected, atol=1e-5, rtol=1e-5)
    assert result.prefix is None
