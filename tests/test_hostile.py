"""Hostile cells end in a result or in an error that names the row; others are safe."""

import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from contract import ToyClassifier, frame_with_holes, small
from hostile import TEXTS, bad_cells, good_cells, outcome, tables
from hypothesis import HealthCheck, given, settings
from sklearn.model_selection import cross_val_predict

from robustmm import MAPClassifier

X, Y = frame_with_holes()
TOY = small(ToyClassifier).fit(X, Y)
# On streams with and without an aspect ratio of their own.
CLASSES = [ToyClassifier, MAPClassifier]


@pytest.fixture(scope="module", params=CLASSES, ids=lambda cls: cls.__name__)
def fitted(request):
    return small(request.param).fit(X, Y)


class Hanging(Exception):
    """Of a class of its own: an assertion inside a codec is a bad image."""


@pytest.fixture(autouse=True)
def no_hang_and_no_network(monkeypatch):
    """End a test that waits for ever; let nobody connect anywhere."""

    def expired(*args):
        raise Hanging("a hostile cell took too long")

    def connect(*args):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def table_of(images, texts=None):
    """A frame with an object column of image cells."""
    column = np.empty(len(images), dtype=object)
    for i, cell in enumerate(images):
        column[i] = cell
    texts = ["a hill"] * len(images) if texts is None else texts
    texts = pd.Series(texts, dtype=object)
    return pd.DataFrame({"image": pd.Series(column), "text": texts})


def test_every_readable_picture_is_read(fitted, tmp_path):
    cells = good_cells(tmp_path)
    table = table_of([*cells.values()])
    table.index = list(cells)
    proba = fitted.predict_proba(table)
    assert np.isfinite(proba).all()
    text_only = fitted.predict_proba(table_of([None]))[0]
    ignored = np.isclose(proba, text_only, atol=1e-7).all(axis=1)
    assert [name for name, same in zip(cells, ignored, strict=True) if same] == []


def test_every_bad_picture_is_named(fitted, tmp_path):
    cells = bad_cells(tmp_path)
    table = table_of([*cells.values()])
    table.index = list(cells)
    for name, row in table.groupby(level=0):
        with pytest.raises(ValueError, match="1 image cells cannot be read") as error:
            fitted.set_params(on_bad_image="raise").predict(row)
        assert f"row {name!r}: " in str(error.value)
        assert len(str(error.value)) < 600
    with pytest.warns(UserWarning, match=f"{len(cells)} image cells cannot be read"):
        proba = fitted.set_params(on_bad_image="missing").predict_proba(table)
    text_only = fitted.predict_proba(table_of([None]))
    np.testing.assert_allclose(proba, np.repeat(text_only, len(cells), 0), atol=1e-5)


def test_fit_reads_the_good_and_records_the_bad(tmp_path):
    bad, good = bad_cells(tmp_path), good_cells(tmp_path)
    table = table_of([*bad.values(), *good.values()])
    table.index = [*bad, *good]
    y = np.arange(len(table)) % 2
    with pytest.raises(ValueError, match=f"{len(bad)} image cells cannot be read"):
        small(ToyClassifier).fit(table, y)
    clf = small(ToyClassifier, on_bad_image="missing")
    with pytest.warns(UserWarning, match=f"{len(bad)} image cells"):
        clf.fit(table, y)
    assert list(clf.missing_report_["bad_images"]) == list(bad)
    assert clf.missing_report_["complete"] == len(good)


@pytest.mark.parametrize("name", TEXTS)
def test_any_text(fitted, name):
    start = time.perf_counter()
    proba = fitted.predict_proba(table_of([None, None], [TEXTS[name], "a hill"]))
    assert time.perf_counter() - start < 30
    assert np.isfinite(proba).all()
    alone = fitted.predict_proba(table_of([None], ["a hill"]))
    np.testing.assert_allclose(proba[1], alone[0], atol=1e-5)


def test_fit_takes_any_text():
    texts = [text[-20_000:] for text in TEXTS.values()] + ["a hill", "a hall"]
    y = np.arange(len(texts)) % 2
    clf = small(ToyClassifier).fit(table_of([None] * len(texts), texts), y)
    assert clf.missing_report_["image_missing"] == len(texts)


@given(table=tables())
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_table(table):
    outcome(TOY, table)


# Tables -------------------------------------------------------------------------------

INDICES = {
    "duplicates": pd.Index([7] * 24),
    "levels": pd.MultiIndex.from_product([range(6), list("abcd")]),
    "nulls": pd.Index([None] * 23 + [1], dtype=object),
    "dates": pd.date_range("2026-01-01", periods=24),
    "categories": pd.CategoricalIndex(list("ab") * 12),
    "intervals": pd.interval_range(0, 24),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=list(INDICES))
def test_any_index(index):
    table = X.set_axis(index)
    np.testing.assert_array_equal(TOY.predict_proba(table), TOY.predict_proba(X))
    clf = small(ToyClassifier).fit(table, Y)
    np.testing.assert_array_equal(clf.predict_proba(X), TOY.predict_proba(X))
    table.iloc[0, 0] = table.iloc[1, 0] = b"no picture"
    label = index[1] if isinstance(index, pd.MultiIndex) else index.tolist()[1]
    with pytest.raises(ValueError, match="2 image cells") as error:
        TOY.set_params(on_bad_image="raise").predict(table)
    assert f"row {label!r}: " in str(error.value)


# PyArrow is no requirement: where it is installed, its types are tested too.
ARROW = find_spec("pyarrow") is not None
TEXT_DTYPES = ["category", "str", "string", "object"]
IMAGE_DTYPES = ["category", "str", "string"]
if ARROW:
    TEXT_DTYPES += ["string[pyarrow]", "large_string[pyarrow]"]
    IMAGE_DTYPES += ["string[pyarrow]", "binary[pyarrow]"]


@pytest.mark.parametrize("dtype", TEXT_DTYPES)
def test_any_text_column(dtype):
    table = X.assign(text=X["text"].astype(dtype))
    np.testing.assert_array_equal(TOY.predict_proba(table), TOY.predict_proba(X))
    clf = small(ToyClassifier).fit(table, Y)
    np.testing.assert_array_equal(clf.predict_proba(X), TOY.predict_proba(X))


@pytest.mark.parametrize("dtype", IMAGE_DTYPES)
def test_any_image_column(dtype, tmp_path):
    table = X[X["image"].notna()].reset_index(drop=True)
    for i, image in enumerate(table["image"]):
        image.save(tmp_path / f"{i}.png")
    paths = pd.Series([str(tmp_path / f"{i}.png") for i in range(len(table))])
    if dtype == "binary[pyarrow]":
        paths = pd.Series([Path(path).read_bytes() for path in paths])
    images = paths.astype(dtype)
    proba = TOY.predict_proba(table.assign(image=images))
    np.testing.assert_allclose(proba, TOY.predict_proba(table), atol=1e-5)


def test_tables_that_are_too_small():
    with pytest.raises(ValueError, match=r"0 sample.* minimum of 1"):
        TOY.predict(X[:0])
    with pytest.raises(ValueError, match=r"0 sample.* minimum of 1"):
        small(ToyClassifier).fit(X[:0], Y[:0])
    with pytest.raises(ValueError, match="only one class"):
        small(ToyClassifier).fit(X[:1], Y[:1])
    assert TOY.predict(X[:1]).shape == (1,)
    two = small(ToyClassifier).fit(X[:2], ["a", "b"])
    assert two.predict_proba(X).shape == (24, 2)


def test_a_class_that_a_fold_lacks():
    y = np.where(np.arange(24) < 2, "rare", Y)
    clf = small(ToyClassifier)
    folds = [(np.arange(2, 24), np.arange(2)), (np.arange(20), np.arange(20, 24))]
    for train, test in folds:
        fitted = clf.fit(X.iloc[train], y[train])
        assert set(fitted.predict(X.iloc[test])) <= set(y[train])
        assert 0 <= fitted.score(X.iloc[test], y[test]) <= 1
    with pytest.warns(UserWarning, match="least populated class"):
        predicted = cross_val_predict(clf, X, y, cv=3)
    assert predicted.shape == (24,)
