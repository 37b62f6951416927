"""Values as JSON and arrays: what goes in comes out, and nothing else comes out."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robustmm.storage.values import TAG, pack, unpack


def there_and_back(value):
    arrays = {}
    text = json.dumps(pack(value, arrays, "value"), allow_nan=False)
    return unpack(json.loads(text), arrays)


VALUES = [
    None,
    True,
    3,
    2**70,
    0.1,
    math.inf,
    -math.inf,
    "a \udc80 text",
    [1, [2.5, None]],
    (1, ("a",)),
    {"a": (1,), "b": {}},
    {1: "a", None: 2.0, (1, "b"): [], "c": True},
    {TAG: "float"},
    np.float32(0.1),
    np.float64(math.inf),
    np.int64(-4),
    np.bool_(True),
    np.str_("text"),
    np.datetime64("2026-01-02T03:04:05"),
    pd.NA,
    pd.NaT,
    pd.Timestamp("2026-01-02 03:04", tz="UTC"),
    Path("some") / "where",
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_values_round_trip_with_their_type(value):
    again = there_and_back(value)
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_nan_round_trips():
    assert math.isnan(there_and_back(math.nan))
    assert np.isnan(there_and_back(np.float32("nan")))


ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.zeros((0, 3), dtype=np.float16),
    np.array(7, dtype=np.uint8),
    np.array([True, False]),
    np.arange(6.0).reshape(2, 3).T,
    np.arange(4, dtype=">i4").astype(">i4"),
    np.array(["a", "längerer"]),
    np.array([b"a\xff", b"b"]),
    np.array(["a", 3, None, 2.5, ("t", 1)], dtype=object),
    np.array([["a", None]], dtype=object),
    np.array(["2026-01-02", "NaT"], dtype="M8[D]"),
    np.array([1, 2], dtype="m8[s]"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}")
def test_arrays_round_trip_with_shape_and_type(array):
    again = there_and_back(array)
    assert again.dtype == array.dtype.newbyteorder("=")
    assert again.shape == array.shape
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        print,
        np.random.RandomState(0),
        torch.nn.ReLU(),
        {1, 2},
        b"bytes",
        np.longdouble(1),
        np.array([object()], dtype=object),
        np.zeros(2, dtype=complex),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_refused_by_name(value):
    with pytest.raises(TypeError, match=r"net_params\.callbacks"):
        pack({"callbacks": value}, {}, "net_params")


@pytest.mark.parametrize(
    "value",
    [
        {TAG: "function", "name": "print"},
        {TAG: ["tuple"]},
        {TAG: "tuple"},
        {TAG: "tuple", "items": 3},
        {TAG: "dict", "items": [[1, 2, 3]]},
        {TAG: "dict", "items": [[[], 2]]},
        {TAG: "float", "value": "1e999"},
        {TAG: "timestamp", "value": "yesterday or so"},
        {TAG: "array", "name": "elsewhere"},
        {TAG: "array", "name": []},
        {TAG: "list", "dtype": "V8", "shape": [1], "items": [1]},
        {TAG: "list", "dtype": "O,O", "shape": [1], "items": [1]},
        {TAG: "list", "dtype": "O", "shape": [3], "items": [1]},
        {TAG: "list", "dtype": 3, "shape": [1], "items": [1]},
        {TAG: "list", "dtype": "M8[x]", "shape": [1], "items": [1]},
        {TAG: "scalar", "dtype": "O", "value": 1},
        {TAG: "scalar", "dtype": "i8", "value": "many"},
        {TAG: "timestamp", "value": "2026-01-02 " * 100_000},
        {TAG: "timestamp", "value": "now"},
        {TAG: "timestamp", "value": 3},
        {TAG: "list", "dtype": "<U1000000000", "shape": [1], "items": ["a"]},
        {TAG: "list", "dtype": "S99999999999999", "shape": [1], "items": ["a"]},
        {TAG: "scalar", "dtype": "<U1000000000", "value": "a"},
        {TAG: "dict", "items": [[i * (2**61 - 1), 0] for i in range(9)]},
        {TAG: "list", "dtype": "O", "shape": [-1, 0], "items": []},
        float("nan"),
        float("inf"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_was_never_packed_is_refused(value):
    with pytest.raises(ValueError, match=r"\w"):
        unpack([value], {})
