"""Tables of any kind give the same two columns, or say in one line what to pass."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from robustmm.data.tables import as_frame, column_position, read_columns

IMAGES, TEXTS = ["a.png", None, b"x"], ["a cat", "a dog", None]
RECORDS = [
    {"image": "a.png", "text": "a cat", "price": 3},
    {"text": "a dog", "price": 4},
    {"image": b"x", "text": None},
]


def read(X):
    return read_columns(X, "image", "text")


def polars_table():
    images = pl.Series("image", IMAGES, dtype=pl.Object)
    return pl.DataFrame({"price": [3, 4, None], "text": TEXTS}).with_columns(images)


def cells_of_pyarrow(table):
    return [[cell.as_py() for cell in table[name]] for name in ("image", "text")]


# ------------------------------------------------------------------------- many rows


@pytest.mark.parametrize("table", [RECORDS, tuple(RECORDS), polars_table()])
def test_tables_with_names(table):
    assert read(table) == (IMAGES, TEXTS, [0, 1, 2])


@pytest.mark.parametrize("kind", [pl.DataFrame, pa.Table.from_pylist])
def test_dicts_and_bytes_of_other_tables(kind):
    held = {"bytes": b"x", "path": None}
    table = kind([{"text": "a cat", "image": held}, {"text": None, "image": None}])
    assert read(table) == ([held, None], ["a cat", None], [0, 1])


def test_a_table_of_pyarrow():
    table = pa.table({"text": TEXTS, "n": [1, 2, 3], "image": ["a", None, "c"]})
    assert read(table) == (*cells_of_pyarrow(table), [0, 1, 2])


def test_no_other_column_of_a_table_is_converted():
    table = pl.DataFrame({"image": ["a"], "text": ["b"], "odd": pl.Series([object()])})
    assert read(table) == (["a"], ["b"], [0])


@pytest.mark.slow
def test_no_library_of_tables_is_imported():
    code = (
        "import sys; from robustmm.data.tables import read_columns;"
        "read_columns([{'image': None, 'text': 'a'}], 'image', 'text');"
        "sys.exit('polars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --------------------------------------------------------------------------- one row


def test_an_empty_list_is_a_table_without_rows():
    assert read([]) == read(()) == ([], [], [])


def test_a_dict_is_one_row():
    for image in ("a.png", b"x", {"path": "a.png"}):
        assert read({"image": image, "text": None, "n": [1]}) == ([image], [None], [0])
    picture = np.zeros((2, 2), dtype=np.uint8)
    assert read({"image": picture, "text": "a"})[0][0] is picture


def test_a_series_is_one_row_with_its_label():
    frame = pd.DataFrame({"text": ["a", "b"], "n": 1, "image": IMAGES[:2]}, ["r", "s"])
    assert read(frame.loc["r"]) == (["a.png"], ["a"], ["r"])
    (image,), texts, labels = read(pd.Series({"text": "a", "image": None}))
    assert (pd.isna(image), texts, labels) == (True, ["a"], [0])


# --------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("X", "advice"),
    [
        ({"image": IMAGES, "text": TEXTS}, r"dict of columns; pass pd.DataFrame\(X\)"),
        ({"image": np.array(["a"]), "text": None}, r"pass pd.DataFrame\(X\)"),
        ({"image": {0: "a"}, "text": {0: "b"}}, r"pass pd.DataFrame\(X\)"),
        (pd.Series(TEXTS), "Series without 'image' and 'text'; pass the frame, not a"),
        ([["a.png", "a cat"]], r"pd.DataFrame\(X, columns=\['image', 'text'\]\)"),
        (["a cat", "a dog"], "list of str; pass a dict for each row"),
        ([RECORDS[0], None], "list of NoneType; pass a dict for each row"),
        (polars_table().lazy(), r"LazyFrame; pass X.collect\(\)"),
        (pl.Series(["a"]), r"Series; pass X.to_pandas\(\)"),
        (pa.RecordBatch.from_pylist(RECORDS[:1]), r"RecordBatch; pass X.to_pandas\(\)"),
        ("a.png", "str.$"),
        (None, "NoneType.$"),
    ],
)
def test_what_to_pass_instead(X, advice):
    with pytest.raises(TypeError, match=f"X must be a DataFrame .*, got .*{advice}"):
        read(X)


@pytest.mark.parametrize(
    "X",
    [
        {"text": "a cat"},
        [{"text": "a cat"}],
        pd.Series({"text": "a cat"}),
        pl.DataFrame({"text": ["a cat"]}),
        pa.table({"text": ["a cat"]}),
    ],
)
def test_an_absent_column_of_any_table(X):
    with pytest.raises(ValueError, match=r"must have a column 'image'.*\['text'\]"):
        read(X)


@pytest.mark.parametrize(
    ("names", "like"),
    [
        (["Image", "text"], ["Image"]),
        ([" image ", "text"], [" image "]),
        (["image_path", "text", "img"], ["img", "image_path"]),
        (["imgae", "images", "text"], ["images", "imgae"]),
        (["poster", "plot"], []),
        ([0, 1], []),
    ],
)
def test_names_like_it(names, like):
    with pytest.raises(ValueError, match="'image'") as caught:
        column_position(pd.DataFrame(columns=names), "image")
    assert (f"Close to it: {like}" if like else "columns are") in str(caught.value)
    assert ("Close" in str(caught.value)) == bool(like)


def test_a_name_twice():
    twice = pa.table([["a"], ["b"], ["c"]], names=["image", "text", "text"])
    with pytest.raises(ValueError, match="X has 2 columns named 'text'"):
        read(twice)


# ------------------------------------------------------------------------ whole table


def test_whole_tables():
    frame = pd.DataFrame({"text": ["a"], "n": [1]})
    assert as_frame(frame) is frame
    records, table = frame.to_dict("records"), pa.Table.from_pandas(frame)
    for X in (records, table, pl.DataFrame(records)):
        found = as_frame(X)
        assert (found["text"].tolist(), found["n"].tolist()) == (["a"], [1])
    with pytest.raises(TypeError, match=r"X must be a DataFrame .* got ndarray"):
        as_frame(frame.to_numpy())
