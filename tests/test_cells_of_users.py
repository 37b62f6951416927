"""Cells and tables that people have, from the user's code to the prediction."""

import base64
import io
import socket
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from contract import frame_with_holes
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from toys import QuickClassifier

from robustmm import CMPTClassifier, drop_modalities

X, Y = frame_with_holes(12)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def text(data):
    return base64.b64encode(data).decode()


SPELLINGS = {
    "Hugging Face bytes": lambda data, path: {"bytes": data, "path": None},
    "Hugging Face bytes and path": lambda data, path: {"bytes": data, "path": "no.png"},
    "Hugging Face path": lambda data, path: {"bytes": None, "path": str(path)},
    "base64": lambda data, path: text(data),
    "data URI": lambda data, path: f"data:image/png;base64,{text(data)}",
}


def written(spell, folder):
    """The table with each picture spelled in another way."""
    cells = []
    for i, image in enumerate(X["image"]):
        path = folder / f"{i}.png"
        if image is not None:
            path.write_bytes(png(image))
            image = spell(path.read_bytes(), path)
        cells.append(image)
    return X.assign(image=pd.Series(cells, index=X.index, dtype=object))


@pytest.fixture(scope="module")
def fitted():
    return QuickClassifier().fit(X, Y)


@pytest.fixture(scope="module")
def expected(fitted):
    return fitted.predict_proba(X)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_pictures_in_every_spelling(spell, fitted, expected, tmp_path):
    table = written(spell, tmp_path)
    np.testing.assert_array_equal(fitted.predict_proba(table), expected)
    again = QuickClassifier().fit(table, Y)
    np.testing.assert_array_equal(again.predict_proba(X), expected)


TABLES = {
    "polars": lambda table: pl.from_pandas(table),
    "pyarrow": lambda table: pa.Table.from_pandas(table),
    "dicts": lambda table: table.to_dict("records"),
}


def as_bytes():
    cells = [None if image is None else png(image) for image in X["image"]]
    cells = pd.Series(cells, index=X.index, dtype=object)
    return X.assign(image=cells, price=np.arange(12.0))


@pytest.mark.parametrize("convert", TABLES.values(), ids=TABLES)
def test_tables_of_every_kind(convert, fitted, expected):
    table = convert(as_bytes())
    np.testing.assert_array_equal(fitted.predict_proba(table), expected)
    again = QuickClassifier().fit(table, Y)
    np.testing.assert_array_equal(again.predict_proba(table), expected)


@pytest.mark.parametrize("convert", TABLES.values(), ids=TABLES)
def test_searches_and_pipelines_take_them(convert):
    table, labels = convert(as_bytes()), np.asarray(Y)
    search = GridSearchCV(QuickClassifier(), {"batch_size": [4, 8]}, cv=2)
    assert search.fit(table, labels).predict(table).shape == (12,)
    pipeline = make_pipeline(FunctionTransformer(), QuickClassifier())
    assert cross_val_score(pipeline, table, labels, cv=2).shape == (2,)


def test_one_row(fitted, expected):
    records, table = as_bytes().to_dict("records"), as_bytes()
    for i in range(3):
        for row in (records[i], table.iloc[i], table.iloc[[i]], records[i : i + 1]):
            assert fitted.predict(row).shape == (1,)
            found = fitted.predict_proba(row)
            np.testing.assert_allclose(found, expected[[i]], rtol=1e-5)


def test_a_form_without_a_picture(fitted):
    assert fitted.predict({"image": None, "text": "a red circle"}).shape == (1,)
    with pytest.raises(ValueError, match=r"must have a column 'image'.*'text'"):
        fitted.predict({"text": "a red circle"})


def test_other_names(expected):
    named = as_bytes().rename(columns={"image": "poster", "text": "plot"})
    clf = CMPTClassifier._small(image_column="poster", text_column="plot")
    clf.fit(pl.from_pandas(named), Y)
    assert list(clf.feature_names_in_) == ["poster", "plot"]
    rows = named.to_dict("records")
    found = clf.predict_proba(rows)
    np.testing.assert_allclose(clf.predict_proba(rows[0]), found[:1], atol=1e-6)


class Blank(QuickClassifier):
    """Takes a blank cell for no image."""

    def __init__(self):
        super().__init__()
        self.blank_image = "missing"


def test_a_csv_with_empty_strings(fitted, expected):
    table = X.assign(image=X["image"].where(X["image"].notna(), ""))
    said = 'the path is an empty string; blank_image="missing" takes it as missing'
    with pytest.raises(ValueError, match=said):
        QuickClassifier().fit(table, Y)
    with pytest.raises(ValueError, match=said):
        fitted.predict(table)
    clf = Blank().fit(table, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(clf.predict_proba(table), expected)
    assert clf.missing_report_["image_missing"] == 4
    clf = CMPTClassifier._small(blank_image="missing").fit(table, Y)
    assert clf.missing_report_["bad_images"] == {}
    with pytest.raises(ValueError, match=r"blank_image must be one of .*got 'skip'"):
        CMPTClassifier._small(blank_image="skip").fit(table, Y)


def test_no_cell_opens_a_connection(fitted, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    for cell in (
        {"bytes": None, "path": "http://127.0.0.1:9/a.png"},
        "data:text/html;base64,PGI+",
        "data:image/png;base64,AAAA",
    ):
        with pytest.raises(ValueError, match="image cells cannot be read"):
            fitted.predict([{"image": cell, "text": "a"}])


def test_what_is_no_image_is_listed_by_row(fitted):
    rows = [{"image": {"url": "a.png"}, "text": "a"}, {"image": None, "text": "b"}]
    with pytest.raises(ValueError, match=r"image cell must .*row 0: dict"):
        fitted.predict(rows)


def test_cells_of_other_tables_can_be_dropped():
    for convert in TABLES.values():
        names = ["image", "text", "price"]
        left = drop_modalities(convert(as_bytes()[names]), 1.0, "text", random_state=0)
        assert list(left) == names
        assert left["text"].isna().sum() == 8
