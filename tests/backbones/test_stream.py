import copy

import pytest
import torch
from torch import nn

from robustmm.backbones import load_backbone

PLACES = ["query", "key", "value", "out", "up", "down"]


class Scaled(nn.Module):
    """A linear times a trainable number, with dropout to show the mode."""

    def __init__(self, frozen):
        super().__init__()
        self.frozen, self.dropout = frozen, nn.Dropout(0.5)
        self.number = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.frozen(x) * self.number


class Joint(nn.Module):
    """Query, key and value in one, remembering how many rows came in."""

    def __init__(self, *frozen):
        super().__init__()
        self.frozen = nn.ModuleList(frozen)
        self.number = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        self.rows = x.shape[1]
        return tuple(linear(x) + self.number for linear in self.frozen)


class Reading(nn.Module):
    """One or three linears, remembering what they were called with."""

    reads_tokens = True

    def __init__(self, *frozen):
        super().__init__()
        self.frozen = nn.ModuleList(frozen)

    def forward(self, x, tokens):
        tokens.context["seen"].append((self, x.shape[1], tokens))
        outputs = tuple(linear(x) for linear in self.frozen)
        return outputs if len(outputs) > 1 else outputs[0]


@pytest.fixture(params=["vilt", "clip", "bert", "distilbert", "dinov2"])
def stream(request, folders):
    backbone = load_backbone(folders(request.param))
    return backbone.streams[list(backbone.streams)[-1]]


def pooled(stream, batch, **options):
    return stream.pool(stream.run(stream.embed(**batch), **options))


@pytest.mark.parametrize("name", PLACES)
def test_wrap_is_used_in_every_layer(stream, batch, name):
    before = pooled(stream, batch)
    adapters = []
    for i in range(stream.n_layers):
        adapters.append(Scaled(stream.linear(i, name)))
        stream.wrap(i, name, adapters[-1])
        assert stream.linear(i, name) is adapters[-1]
    assert list(stream.adapters()) == adapters
    after = pooled(stream, batch)
    whole = pooled(stream, batch, keep="all")
    torch.testing.assert_close(after, whole, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, after, atol=1e-4)
    after[:, 0].sum().backward()
    assert all(adapter.number.grad != 0 for adapter in adapters)


def test_joint_adapter_replaces_the_three(stream, batch):
    before = pooled(stream, batch)
    for i in range(stream.n_layers):
        joint = Joint(*(stream.linear(i, name) for name in PLACES[:3]))
        stream.wrap(i, ("query", "key", "value"), joint)
    torch.testing.assert_close(pooled(stream, batch), before, atol=1e-5, rtol=1e-5)
    assert joint.rows == stream.embed(**batch).length
    joint.number.data.fill_(1.0)
    assert not torch.allclose(pooled(stream, batch), before, atol=1e-4)
    assert len(list(stream.adapters())) == stream.n_layers


def test_three_alike_may_map_their_input_together(stream, batch):
    class Together(Scaled):
        lengths = []  # noqa: RUF012

        @staticmethod
        def together(adapters, x):
            Together.lengths.append(x.shape[1])
            return tuple(adapter(x) for adapter in adapters)

    for i in range(stream.n_layers):
        for name in PLACES[:3]:
            stream.wrap(i, name, Together(stream.linear(i, name)))
    whole = pooled(stream, batch, keep="all")
    assert Together.lengths == [stream.embed(**batch).length] * stream.n_layers
    # Where the last layer asks with fewer rows, each maps its own.
    Together.lengths.clear()
    torch.testing.assert_close(pooled(stream, batch), whole, atol=1e-5, rtol=1e-5)
    assert len(Together.lengths) == stream.n_layers - 1
    stream.wrap(0, "key", Scaled(stream.linear(0, "key")))
    Together.lengths.clear()
    pooled(stream, batch)
    assert len(Together.lengths) == stream.n_layers - 2


@pytest.mark.parametrize("name", [*PLACES, ("query", "key", "value")], ids=str)
def test_adapters_read_the_tokens_of_their_layer(stream, batch, name):
    before = pooled(stream, batch)
    for i in range(stream.n_layers):
        parts = name if isinstance(name, tuple) else (name,)
        stream.wrap(i, name, Reading(*(stream.linear(i, part) for part in parts)))
    entered, seen = [], []

    def before_layer(i, tokens):
        tokens = tokens.with_context(layer=i)
        entered.append(tokens)
        return tokens

    tokens = stream.embed(**batch).with_context(seen=seen)
    after = stream.run(tokens, before_layer)
    torch.testing.assert_close(stream.pool(after), before, atol=1e-5, rtol=1e-5)
    assert after.context["layer"] == stream.n_layers - 1
    assert [adapter for adapter, _, _ in seen] == list(stream.adapters())
    for expected, (_, length, given) in zip(entered, seen, strict=True):
        assert given is expected
        if given.context["layer"] < stream.n_layers - 1:
            assert length == tokens.length
    assert length == (1 if name in ("query", "out", "up", "down") else tokens.length)


def test_a_prefix_is_seen_by_the_adapters_of_its_layer_alone(stream, batch):
    for i in range(2):
        stream.wrap(i, "up", Reading(stream.linear(i, "up")))
    seen, extra = [], torch.randn(1, 2, stream.width)
    tokens = stream.enter(stream.embed(**batch)).with_context(seen=seen)
    tokens = stream.step(0, tokens.with_prefix(extra, extra))
    stream.step(1, tokens)
    assert [given.prefix is None for *_, given in seen] == [False, True]


def test_an_adapter_is_never_bypassed(stream):
    joint = Joint(*(stream.linear(0, name) for name in PLACES[:3]))
    stream.wrap(0, ("query", "key", "value"), joint)
    with pytest.raises(ValueError, match="'query' would be bypassed"):
        stream.wrap(0, "query", Scaled(stream.linear(0, "query")))
    stream.wrap(1, "value", Scaled(stream.linear(1, "value")))
    with pytest.raises(ValueError, match=r"bypass the adapters of \['value'\]"):
        stream.wrap(1, ("query", "key", "value"), joint)
    stream.wrap(0, "up", Scaled(stream.linear(0, "up")))


def test_wrap_names_the_choices(stream):
    with pytest.raises(ValueError, match=r"'query', .*, got 'qkv'"):
        stream.linear(0, "qkv")
    with pytest.raises(ValueError, match=r"got \('query', 'key'\)"):
        stream.wrap(0, ("query", "key"), nn.Identity())
    with pytest.raises(ValueError, match=r"in \[0, 3\), got 3"):
        stream.wrap(3, "query", nn.Identity())


def test_only_adapters_follow_the_mode(stream):
    adapter = Scaled(stream.linear(0, "out"))
    stream.wrap(0, "out", adapter)
    stream.train()
    assert stream.training
    assert adapter.dropout.training
    assert not stream.layers[1].training
    stream.eval()
    assert not adapter.dropout.training


def test_only_what_is_read_is_computed(stream, batch):
    tokens = stream.embed(**batch).insert("proxy", torch.randn(2, stream.width))
    whole = stream.run(tokens, keep="all")
    reduced = stream.run(tokens, keep=("proxy",))
    assert whole.names == tokens.names
    assert reduced.names == ("pooled", "proxy")
    assert reduced.length == 3
    expected = whole["proxy"]
    torch.testing.assert_close(reduced["proxy"], expected, atol=1e-5, rtol=1e-5)
    pools = stream.pool(reduced), stream.pool(whole)
    torch.testing.assert_close(*pools, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="got 'prompt'"):
        stream.run(tokens, keep=("prompt",))
    with pytest.raises(ValueError, match="start=2, stop=9"):
        stream.run(tokens, start=2, stop=9)


def test_prompts_change_the_pooled_row_wherever_they_stand(stream, batch):
    plain = pooled(stream, batch)
    tokens, prompt = stream.embed(**batch), torch.randn(2, stream.width)
    last = stream.pool(stream.run(tokens.insert("prompt", prompt)))
    tokens = tokens.insert("prompt", prompt, before=tokens.names[0])
    first = stream.pool(stream.run(tokens))
    assert not torch.allclose(first, plain, atol=1e-4)
    if stream.causal:
        torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-5)
    else:
        torch.testing.assert_close(last, first, atol=1e-5, rtol=1e-5)


def test_masked_rows_are_not_seen(stream, batch):
    plain = pooled(stream, batch)
    tokens = stream.embed(**batch)
    hidden = torch.zeros(3, 2, dtype=torch.bool)
    tokens = tokens.insert(
        "void", torch.randn(2, stream.width), hidden, tokens.names[0]
    )
    seen = stream.pool(stream.run(tokens))
    torch.testing.assert_close(seen, plain, atol=1e-5, rtol=1e-5)


def test_before_layer_may_insert_and_drop(stream, batch):
    seen = []

    def before_layer(i, tokens):
        seen.append((i, tokens.names))
        if "prompt" in tokens:
            tokens = tokens.drop("prompt")
        return tokens.insert("prompt", torch.zeros(1, stream.width), None, names[0])

    names = stream.embed(**batch).names
    whole = stream.run(stream.embed(**batch), before_layer, keep="all")
    assert whole.names == ("prompt", *names)
    assert seen == [(0, names), (1, ("prompt", *names)), (2, ("prompt", *names))]
    reduced = stream.run(stream.embed(**batch), before_layer)
    pools = stream.pool(reduced), stream.pool(whole)
    torch.testing.assert_close(*pools, atol=1e-5, rtol=1e-5)


def test_a_prefix_is_more_keys_and_values_for_one_step(stream, batch):
    tokens = stream.enter(stream.embed(**batch))
    keys, values = torch.randn(2, 1, 2, stream.width)
    stepped = stream.step(0, tokens.with_prefix(keys, values))
    assert stepped.prefix is None
    assert stepped.spans == tokens.spans
    assert not torch.allclose(stepped.values, stream.step(0, tokens).values, atol=1e-4)
    rows = torch.zeros(3, 1, dtype=torch.long)
    some = stream.step(0, tokens.with_prefix(keys, values), rows)
    expected = stepped.values[:, :1]
    torch.testing.assert_close(some.values, expected, atol=1e-5, rtol=1e-5)


def test_a_prefix_of_a_tokens_own_key_and_value_is_that_token(folders, batch):
    stream = load_backbone(folders("bert"))["text"]
    tokens = stream.embed(batch["input_ids"][:1, :3])
    extra = torch.randn(1, 1, stream.width)
    with_prefix = tokens.with_prefix(
        stream.linear(0, "key")(extra), stream.linear(0, "value")(extra)
    )
    expected = stream.step(0, tokens.insert("extra", extra)).drop("extra")
    got = stream.step(0, with_prefix)
    torch.testing.assert_close(got.values, expected.values, atol=1e-5, rtol=1e-5)


def test_copies_share_frozen_parameters_and_nothing_else(folders):
    first = load_backbone(folders("clip"))
    first["text"].wrap(0, "query", Scaled(first["text"].linear(0, "query")))
    twin = copy.deepcopy(first)
    mine, theirs = dict(first.named_parameters()), dict(twin.named_parameters())
    assert list(mine) == list(theirs)
    for name, parameter in mine.items():
        trainable = name.endswith("number")
        assert (parameter is theirs[name]) is not trainable
        assert first.is_shared(parameter) is not trainable
        assert parameter.requires_grad is trainable
    assert twin.tokenizer is first.tokenizer
    modules = set(map(id, first.modules())) & set(map(id, twin.modules()))
    assert not modules


def test_moving_one_copy_leaves_the_others(folders, batch):
    one, other = (load_backbone(folders("bert"))["text"] for _ in range(2))
    expected = pooled(other, batch)
    adapter = Scaled(one.linear(0, "value"))
    one.wrap(0, "value", adapter)
    number = adapter.number
    one.to("cpu")
    assert one.final_norm is None
    shared = one.layers[1].output.dense.weight
    assert shared.data_ptr() == other.layers[1].output.dense.weight.data_ptr()
    one.double()
    assert {p.dtype for p in one.parameters()} == {torch.float64}
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    assert all(one.is_shared(p) for p in one.parameters() if p is not number)
    assert adapter.number is number
    assert torch.equal(pooled(other, batch), expected)


@pytest.mark.cuda
def test_agrees_on_a_gpu(folders, batch):
    expected = pooled(load_backbone(folders("vilt"))["joint"], batch)
    there = load_backbone(folders("vilt"), device="cuda")["joint"]
    there_batch = {name: value.cuda() for name, value in batch.items()}
    got = pooled(there, there_batch).cpu()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_dropout_of_a_stream_is_its_own_and_of_training_alone():
    backbone = load_backbone("robustmm/tiny-vilt")
    stream, other = backbone["joint"], backbone.copy()["joint"]
    stream.dropout = 0.3
    ids = torch.tensor([[2, 7, 3]])
    batch = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 48, 48)}
    plain = other.pool(other.run(other.embed(**batch)))
    torch.testing.assert_close(stream.pool(stream.run(stream.embed(**batch))), plain)
    stream.train()
    first, second = (stream.pool(stream.run(stream.embed(**batch))) for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-2)
    other.train()
    torch.testing.assert_close(other.pool(other.run(other.embed(**batch))), plain)
