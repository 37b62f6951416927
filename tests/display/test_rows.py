"""Rows in a notebook: thumbnails, everything escaped and of a bounded size."""

import base64
import io
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hostile import bomb
from PIL import Image
from sklearn.model_selection import GridSearchCV

from robustmm import LinearProbeClassifier, show_rows

RED = Image.new("RGB", (300, 200), "red")


def page(*args, **options):
    return show_rows(*args, **options)._repr_html_()


def thumbnails(text):
    found = re.findall(r'<img src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)" ', text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def table(images, texts, **others):
    images = pd.Series(images, dtype=object)
    return pd.DataFrame({**others, "text": texts, "image": images})


def test_pictures_texts_and_the_rest():
    X = table([RED, None], ["a red thing", " "], label=["yes", "no"], price=[1.5, 2])
    shown = show_rows(X)
    assert shown.header == ["", "image", "text", "label", "price"]
    assert repr(shown) == "<RowsDisplay: 2 of 2 rows>"
    text = shown._repr_html_()
    (picture,) = thumbnails(text)
    assert picture.size == (96, 64)
    assert picture.getpixel((9, 9))[0] > 240
    assert shown.cells[0][2:] == ["a red thing", "yes", "1.5"]
    assert shown.cells[1][1:3] == ["<i>missing</i>"] * 2
    assert text.count("<tr>") == 3


def test_nothing_of_a_table_is_markup():
    evil = "<script>alert(1)</script>\"'&"
    X = table(["<img>.png"], [evil], **{evil: [evil]}).set_axis([evil])
    text = page(X)
    assert "<script" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") == 4
    text.encode()


def test_what_cannot_be_read_says_why(tmp_path):
    cells = ["none.png", b"", bomb(), "http://127.0.0.1:9/a.png", "data:text/html,<b>"]
    text = page(table(cells, ["a"] * 5), image_root=tmp_path)
    for reason in ("no such file", "zero bytes", "must have 1 to", "URLs are never"):
        assert reason in text
    assert text.count("cannot be read:") == 5
    assert not thumbnails(text)


def test_everything_is_bounded():
    many = {f"c{i}": ["x" * 10**5] for i in range(300)}
    X = pd.concat([table([RED], ["y" * 10**6], **many)] * 40)
    shown = show_rows(X, 30, size=32)
    assert len(shown._repr_html_()) < 300_000
    assert shown.caption == "30 of 40 rows, 20 of 302 columns"
    odd = show_rows(table([RED], ["a"], b=[b"z" * 10**7], a=[np.zeros(10**6)]))
    assert len(odd._repr_html_()) < 10_000
    surrogate = pd.Series(["\ud800"], dtype=object)
    page(table([None], surrogate)).encode()


def test_columns_root_and_cap_of_an_estimator(tmp_path):
    RED.save(tmp_path / "a.png")
    X = table(["a.png"], ["a"]).set_axis(["plot", "poster"], axis=1)
    names = {"image_column": "poster", "text_column": "plot", "image_root": tmp_path}
    clf = LinearProbeClassifier("robustmm/tiny-clip", **names)
    for estimator in (clf, GridSearchCV(clf, {"C": [1.0]})):
        assert len(thumbnails(page(X, estimator=estimator))) == 1
    assert "must have 1 to 9 pixels" in page(X, estimator=clf.set_params(max_pixels=9))
    assert len(thumbnails(page(X, **names))) == 1
    with pytest.raises(ValueError, match="must have a column 'image'"):
        show_rows(X)


def test_other_tables_and_cells():
    stream = io.BytesIO()
    RED.save(stream, "PNG")
    data = stream.getvalue()
    records = [
        {"image": {"bytes": data, "path": None}, "text": "a"},
        {"image": base64.b64encode(data).decode(), "text": "b"},
    ]
    for X in (records, pl.DataFrame({"image": [data] * 2, "text": ["a", "b"]})):
        assert len(thumbnails(page(X))) == 2


def test_names_twice_and_the_table_stays():
    X = pd.concat([table([RED], ["a"], n=[1]), pd.DataFrame({"n": [2]})], axis=1)
    before = X.copy()
    assert show_rows(X).cells[0][3:] == ["1", "2"]
    pd.testing.assert_frame_equal(X, before)
    assert show_rows(X[:0]).caption == "0 of 0 rows"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"n": 0}, r"n must be in \[1, 200\], got 0"),
        ({"n": 201}, r"n must be in \[1, 200\], got 201"),
        ({"size": 1000}, r"size must be in \[1, 512\], got 1000"),
    ],
)
def test_bounds(options, rule):
    with pytest.raises(ValueError, match=rule):
        show_rows(table([RED], ["a"]), **options)


def test_what_has_no_names():
    with pytest.raises(TypeError, match="X must be a DataFrame"):
        show_rows(np.empty((2, 2), dtype=object))
