import pytest
import torch

from robustmm.backbones import Tokens


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
    with pytest.raises(ValueError, match=r"\(2, 5\), got \(2, 4\)"):
        tokens.replace(tokens.values[:, 1:])
    with pytest.raises(ValueError, match="both have shape"):
        tokens.with_prefix(torch.zeros(3, 1, 4), torch.zeros(3, 1, 4))
