"""The frozen prefix: same tokens stored or not, and each cell run once."""

import numpy as np
import pytest
import torch

from robustmm import load_backbone
from robustmm.backbones.prefix import (
    FrozenPrefix,
    FrozenResults,
    text_keys,
)
from robustmm.data import ByteCache


class Store(dict):
    """What a cache does, without a budget."""

    def put(self, key, array):
        self[key] = array


@pytest.fixture
def clip():
    return load_backbone("robustmm/tiny-clip")


def texts():
    ids = torch.tensor([[2, 9, 8, 7, 3], [2, 3, 0, 0, 0], [2, 9, 3, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def count(stream):
    """Record how many cells every run is given."""
    sizes, run = [], stream.run

    def counted(tokens, *args, **kwargs):
        if "stop" in kwargs:
            sizes.append(len(tokens))
        return run(tokens, *args, **kwargs)

    stream.run = counted
    return sizes


def pooled(stream, tokens, start):
    return stream.pool(stream.run(tokens, start=start))


@pytest.mark.parametrize("stop", [0, 2])
def test_texts_are_those_of_the_full_run(clip, stop):
    stream = clip["text"]
    batch = texts()
    expected = stream.pool(stream.run(stream.embed(**batch)))
    sizes = count(stream)
    store = Store()
    prefix = FrozenPrefix(stream, stop, store)
    keys = text_keys(**batch)
    for given in (None, keys, keys):
        tokens = prefix(batch, given)
        torch.testing.assert_close(
            pooled(stream, tokens, stop), expected, atol=1e-5, rtol=0
        )
    assert sizes == [3, 3]
    assert sorted(len(state) for state in store.values()) == [2, 3, 5]


def test_padding_is_not_part_of_a_cell(clip):
    store = Store()
    prefix = FrozenPrefix(clip["text"], 2, store)
    sizes = count(clip["text"])
    batch = texts()
    prefix(batch, text_keys(**batch))
    short = {name: value[1:, :3] for name, value in batch.items()}
    tokens = prefix(short, text_keys(**short))
    assert tokens.values.shape == (2, 3, 128)
    assert tokens.anchor.tolist() == [1, 2]
    assert sizes == [3]


def test_images_are_those_of_the_full_run_and_equal_cells_run_once(clip):
    stream = clip["image"]
    images = torch.randn(4, 3, 48, 48)
    images[3] = images[0]
    expected = stream.pool(stream.run(stream.embed(pixel_values=images)))
    sizes = count(stream)
    prefix = FrozenPrefix(stream, 2, Store())
    for keys in ([b"a", b"b", b"c", b"a"], [b"a", b"b", b"c", b"a"]):
        tokens = prefix({"pixel_values": images}, keys)
        torch.testing.assert_close(
            pooled(stream, tokens, 2), expected, atol=1e-5, rtol=0
        )
    assert sizes == [3]


def test_a_bidirectional_encoder_gets_its_mask():
    stream = load_backbone("robustmm/tiny-bert")["text"]
    batch = texts()
    expected = stream.pool(stream.run(stream.embed(**batch)))
    prefix = FrozenPrefix(stream, 1, Store())
    for _ in range(2):
        tokens = prefix(batch, text_keys(**batch))
        torch.testing.assert_close(
            pooled(stream, tokens, 1), expected, atol=1e-5, rtol=0
        )


def test_keys_tell_apart_what_changes_the_states(clip):
    store = Store()
    batch, keys = texts(), [b"a", b"b", b"c"]
    for stop, identity in ((1, "x"), (2, "x"), (2, "y")):
        FrozenPrefix(clip["text"], stop, store, identity)(batch, keys)
    longer = load_backbone("robustmm/tiny-clip", max_text_length=40)
    FrozenPrefix(longer["text"], 2, store, "x")(batch, keys)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FrozenPrefix(clip["text"], 2, store, "x")(batch, keys)
    assert len(store) == 15


# ------------------------------------------------------------------ results of any kind

CPU = torch.device("cpu")


class Counted:
    """Squares of the numbers of a batch, and which rows were asked for."""

    def __init__(self, *values):
        self.values, self.asked = values, []

    def __call__(self, rows):
        self.asked.append(rows)
        return [np.array([self.values[row] ** 2]) for row in rows]


def contents(*values):
    return [bytes([value]) for value in values]


def test_results_are_computed_once_per_content_in_order():
    store, compute = Store(), Counted(3, 4, 3, 5)
    recall = FrozenResults(store, "squares")
    found = recall(contents(3, 4, 3, 5), CPU, compute)
    assert np.concatenate(found).tolist() == [9, 16, 9, 25]
    assert compute.asked == [[0, 1, 3]]
    more = Counted(5, 6, 4)
    found = FrozenResults(store, "squares")(contents(5, 6, 4), CPU, more)
    assert np.concatenate(found).tolist() == [25, 36, 16]
    assert more.asked == [[1]]
    assert len(store) == 4


def test_nothing_is_computed_where_all_is_known():
    recall = FrozenResults(Store(), "squares")
    recall(contents(3), CPU, Counted(3))
    recall(contents(3, 3), CPU, None)
    assert recall([], CPU, None) == []


def test_a_store_that_keeps_nothing_changes_no_result():
    recall = FrozenResults(ByteCache(0), "squares")
    for _ in range(2):
        compute = Counted(3, 4, 3)
        found = recall(contents(3, 4, 3), CPU, compute)
        assert np.concatenate(found).tolist() == [9, 16, 9]
        assert compute.asked == [[0, 1]]


def test_names_follow_identity_device_and_precision():
    store = Store()
    for identity in (["x"], ["y"], ["x", 1], [{"size": [3]}]):
        FrozenResults(store, *identity)(contents(3), CPU, Counted(3))
    FrozenResults(store, "x")(contents(3), torch.device("cuda", 1), Counted(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FrozenResults(store, "x")(contents(3), CPU, Counted(3))
    assert len(store) == 6
    assert {len(name) for name in store} == {20}


@pytest.mark.parametrize("shape", [(3,), (0, 128), (3, 64), (1, 3, 128)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_states_that_cannot_be_are_computed_anew(clip, shape, dtype):
    batch, store = texts(), Store()
    prefix = FrozenPrefix(clip["text"], 2, store)
    keys = text_keys(**batch)
    expected = prefix(batch, keys).values
    for name in list(store):
        store[name] = np.zeros(shape, dtype)
    assert torch.equal(prefix(batch, keys).values, expected)


def test_states_of_another_type_are_computed_anew(clip):
    batch, store = texts(), Store()
    prefix = FrozenPrefix(clip["text"], 2, store)
    keys = text_keys(**batch)
    expected = prefix(batch, keys).values
    for name in list(store):
        store[name] = store[name].astype(np.float64)
    assert torch.equal(prefix(batch, keys).values, expected)
