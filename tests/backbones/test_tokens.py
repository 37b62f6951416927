from typing import NamedTuple

import pytest
import torch

from robustmm.backbones import Tokens


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


@pytest.fixture
def tokens():
    values = torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1]], dtype=torch.bool)
    spans = {"text": (0, 3), "image": (3, 5)}
    return Tokens(values, mask, spans, torch.tensor([0, 2]))


def test_segments_are_views(tokens):
    assert torch.equal(tokens["image"], tokens.values[:, 3:])
    assert tokens["text"].data_ptr() == tokens.values.data_ptr()
    assert (len(tokens), tokens.length, tokens.width) == (2, 5, 4)
    assert tokens.names == ("text", "image")
    assert "text" in tokens
    assert "prompt" not in tokens


def test_insert_before_a_segment(tokens):
    prompt = torch.randn(2, 4)
    longer = tokens.insert("prompt", prompt, before="image")
    assert longer.names == ("text", "prompt", "image")
    assert torch.equal(longer["prompt"], prompt.expand(2, 2, 4))
    assert torch.equal(longer["image"], tokens["image"])
    assert longer.mask_of("prompt").all()
    assert torch.equal(longer.mask_of("text"), tokens.mask_of("text"))
    assert tokens.length == 5


def test_insert_at_the_start_and_at_the_end(tokens):
    both = tokens.insert("first", torch.zeros(1, 4), before="text")
    both = both.insert("last", torch.ones(2, 3, 4), mask=torch.eye(2, 3).bool())
    assert both.names == ("first", "text", "image", "last")
    assert torch.equal(both.mask_of("last"), torch.eye(2, 3).bool())
    assert both.span("last") == (6, 9)


def test_insert_without_masks_needs_none(tokens):
    plain = Tokens(tokens.values, None, tokens.spans)
    assert plain.insert("prompt", torch.zeros(1, 4)).mask is None
    masked = plain.insert("prompt", torch.zeros(1, 4), mask=torch.zeros(2, 1).bool())
    assert masked.mask.sum() == 10


def test_drop_undoes_insert(tokens):
    back = tokens.insert("prompt", torch.zeros(3, 4), before="image").drop("prompt")
    assert back.spans == tokens.spans
    assert torch.equal(back.values, tokens.values)
    assert torch.equal(back.mask, tokens.mask)
    assert Tokens(tokens.values, None, tokens.spans).drop("text").mask is None


@pytest.mark.parametrize("name", ["text", "image"])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_put_exchanges_a_segment_where_it_stands(tokens, name, size):
    value = torch.randn(2, size, 4)
    put = tokens.put(name, value)
    other = {"text": "image", "image": "text"}[name]
    before = {"text": "image", "image": None}[name]
    expected = tokens.drop(name).insert(name, value, before=before)
    assert put.spans == expected.spans
    assert torch.equal(put.values, expected.values)
    assert torch.equal(put.mask, expected.mask)
    assert torch.equal(put[other], tokens[other])
    assert torch.equal(tokens.values[:, :3], tokens["text"])
    hidden = torch.zeros(2, size).bool()
    assert torch.equal(put.put(name, value, hidden).mask_of(name), hidden)


def test_put_inserts_what_is_not_there(tokens):
    prompt = torch.randn(3, 4)
    put, inserted = (
        method("prompt", prompt, before="image")
        for method in (tokens.put, tokens.insert)
    )
    assert put.spans == inserted.spans
    assert torch.equal(put.values, inserted.values)
    assert torch.equal(put.mask, inserted.mask)
    assert tokens.put("prompt", prompt).names == ("text", "image", "prompt")
    plain = Tokens(tokens.values, None, tokens.spans)
    assert plain.put("text", prompt).mask is None
    seen = plain.put("text", prompt, torch.tensor([[1, 0, 1]] * 2)).mask
    assert seen.tolist() == [[True, False, True, True, True]] * 2


def test_put_copies_once(tokens, monkeypatch):
    copies, cat = [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda *a, **k: copies.append(a) or cat(*a, **k))
    Tokens(tokens.values, None, tokens.spans).put("text", torch.zeros(3, 4))
    assert len(copies) == 1


def test_the_context_is_read_only_and_carried_along(tokens):
    assert dict(tokens.context) == {}
    mine = {"task": 1}
    given = Tokens(tokens.values, tokens.mask, tokens.spans, context=mine)
    mine["task"] = 2
    assert given.context["task"] == 1
    with pytest.raises(TypeError):
        given.context["task"] = 3
    keys = torch.randn(1, 2, 4)
    later = given.with_context(seen=[], task=4)
    assert dict(given.context) == {"task": 1}
    for changed in (
        later.insert("prompt", torch.zeros(1, 4)),
        later.put("text", torch.zeros(1, 4)),
        later.drop("text"),
        later.replace(later.values + 1),
        later.with_prefix(keys, keys),
        later.select(torch.tensor([0])),
    ):
        assert dict(changed.context) == {"task": 4, "seen": []}
        assert changed.context["seen"] is later.context["seen"]


def test_select_takes_the_samples_of_the_context(tokens):
    rows, table = torch.arange(4).view(2, 2), torch.nn.Linear(2, 2)
    shared = torch.randn(1, 2)
    tokens = tokens.with_context(
        rows=rows, pair=(table, Pair(rows, (rows, None))), one=shared, names=["a", "b"]
    )
    for index in (torch.tensor([1]), torch.tensor([False, True])):
        one = tokens.select(index).context
        assert one["rows"].tolist() == [[2, 3]]
        module, pair = one["pair"]
        assert module is table
        assert isinstance(pair, Pair)
        assert pair.first.tolist() == pair.second[0].tolist() == [[2, 3]]
        assert pair.second[1] is None
        assert one["one"] is shared
        assert one["names"] == ["a", "b"]
    thrice = tokens.select(torch.tensor([1])).select(torch.tensor([0, 0, 0])).context
    assert thrice["rows"].tolist() == [[2, 3]] * 3


@pytest.mark.parametrize(
    "value", [torch.zeros(3, 2), torch.tensor(1.0), (1, (torch.zeros(3),))], ids=str
)
def test_a_tensor_in_the_context_must_have_rows_of_samples(tokens, value):
    with pytest.raises(ValueError, match=r"must have 2 rows or 1, got .* for 'factor'"):
        tokens.with_context(factor=value)


def test_replace_and_select(tokens):
    assert torch.equal(tokens.replace(tokens.values + 1).values, tokens.values + 1)
    keys = torch.randn(2, 1, 4)
    for index in (torch.tensor([1]), torch.tensor([False, True])):
        one = tokens.with_prefix(keys, keys).select(index)
        assert torch.equal(one.values, tokens.values[1:])
        assert torch.equal(one.mask, tokens.mask[1:])
        assert one.anchor.tolist() == [2]
        assert torch.equal(one.prefix[0], keys[1:])
    shared = tokens.with_prefix(keys[:1], keys[:1]).select(torch.tensor([1]))
    assert torch.equal(shared.prefix[0], keys[:1])


def test_pooling_ignores_what_is_masked(tokens):
    mean, highest = tokens.mean("text"), tokens.max("text")
    assert torch.allclose(mean[0], tokens.values[0, :2].mean(0))
    assert torch.allclose(mean[1], tokens.values[1, 0])
    assert torch.equal(highest[0], tokens.values[0, :2].amax(0))
    nothing = tokens.insert("void", torch.ones(2, 4), mask=torch.zeros(2, 2))
    assert torch.equal(nothing.mean("void"), torch.zeros(2, 4))
    assert torch.equal(nothing.max("void"), torch.zeros(2, 4))


def test_errors_state_the_rule_and_the_value(tokens):
    with pytest.raises(ValueError, match=r"\['text', 'image'\], got 'audio'"):
        tokens["audio"]
    with pytest.raises(ValueError, match=r"must not be one of .* got 'text'"):
        tokens.insert("text", torch.zeros(1, 4))
    with pytest.raises(ValueError, match="got 'pooled'"):
        tokens.insert("pooled", torch.zeros(1, 4))
    with pytest.raises(ValueError, match="got 'audio'"):
        tokens.insert("prompt", torch.zeros(1, 4), before="audio")
    with pytest.raises(ValueError, match=r"got \(1, 5\)"):
        tokens.insert("prompt", torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"got \(3, 1, 4\)"):
        tokens.insert("prompt", torch.zeros(3, 1, 4))
    with pytest.raises(ValueError, match=r"\(2, 1\), got \(2, 2\)"):
        tokens.insert("prompt", torch.zeros(1, 4), mask=torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"got \(3, 1, 4\)"):
        tokens.put("text", torch.zeros(3, 1, 4))
    with pytest.raises(ValueError, match="got 'pooled'"):
        tokens.put("pooled", torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"\(2, 5\), got \(2, 4\)"):
        tokens.replace(tokens.values[:, 1:])
    with pytest.raises(ValueError, match="both have shape"):
        tokens.with_prefix(torch.zeros(3, 1, 4), torch.zeros(3, 1, 4))
