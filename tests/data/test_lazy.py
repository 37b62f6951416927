"""Cells in a table of pyarrow are what they would be as a list, and stay there."""

import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from robustmm.data.frame import digest_rows, read_rows
from robustmm.data.lazy import LazyCells
from robustmm.data.screening import without_images

TEXTS = ["a cat", None, "  ", "", "a dog\n", " "]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = {
    "paths": pa.array(["a.png", None, "", " ", "b.png", "c.png"]),
    "bytes": pa.array([b"x", None, b"", b"y", b"z", b"u"], pa.large_binary()),
    "both": pa.array(
        [
            {"bytes": b"x", "path": None},
            None,
            {"bytes": None, "path": "a.png"},
            {"bytes": None, "path": None},
            {"bytes": b"y", "path": "b.png"},
            {"bytes": None, "path": ""},
        ],
        STRUCT,
    ),
    "kept once": pa.array(["a.png", None, "a.png", "b.png", "", "a.png"]),
    "nothing": pa.nulls(6),
}
IMAGES["kept once"] = IMAGES["kept once"].dictionary_encode()
WAYS = ("bad", "missing")


def table(images, pieces=(2, 0, 3, 1)):
    """In several chunks, one of them empty, of which the last starts in the middle."""
    whole = pa.table({"image": images, "text": TEXTS})
    ends = np.cumsum([0, *pieces])
    parts = [whole.slice(a, n) for a, n in zip(ends, pieces, strict=False)]
    return pa.concat_tables(parts)


@pytest.mark.parametrize("blank_image", WAYS)
@pytest.mark.parametrize("kind", IMAGES)
def test_as_a_list(kind, blank_image):
    lazy = read_rows(table(IMAGES[kind]), blank_image=blank_image)
    frame = pd.DataFrame({"image": IMAGES[kind].to_pylist(), "text": TEXTS})
    rows = read_rows(frame.astype(object), blank_image=blank_image)
    assert isinstance(lazy.images, LazyCells)
    assert list(lazy.images) == rows.images
    assert list(lazy.texts) == rows.texts
    assert list(lazy.index) == rows.index
    np.testing.assert_array_equal(lazy.present, rows.present)
    assert [lazy.images[np.int64(i)] for i in range(6)] == rows.images
    some = lazy.take([4, 0, 2])
    assert list(some.images) == rows.take([4, 0, 2]).images
    assert list(some.take([2, 1]).texts) == [rows.texts[2], rows.texts[0]]
    assert list(without_images(lazy, {0: "bad"}).images) == [None, *rows.images[1:]]
    assert list(pickle.loads(pickle.dumps(lazy.images))) == rows.images


def test_outside():
    cells = read_rows(table(IMAGES["bytes"])).images
    assert cells[-1] == b"u"
    for place in (6, -7):
        with pytest.raises(IndexError):
            cells[place]


def test_what_has_no_such_type_is_read_as_before():
    numbers = pa.table({"image": [1, 2], "text": ["a", "b"]})
    with pytest.raises(ValueError, match="An image cell must be a path"):
        read_rows(numbers)
    with pytest.raises(ValueError, match="A text cell must be a str"):
        read_rows(pa.table({"image": ["a.png"], "text": [3]}))
    with pytest.raises(ValueError, match="must have a column 'text'"):
        read_rows(pa.table({"image": ["a.png"]}))


def test_other_tables_have_another_digest():
    one, same = (digest_rows(read_rows(table(IMAGES["bytes"]))) for _ in range(2))
    assert one == same
    assert one != digest_rows(read_rows(table(IMAGES["bytes"]).slice(0, 5)))
