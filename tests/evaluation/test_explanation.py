"""The words and regions that an answer is known to come from are found, no others."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes
from evaluation_cases import words
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from toys import QuickClassifier

import robustmm
from robustmm import explain
from robustmm.evaluation import explanation


class Corner(ClassifierMixin, BaseEstimator):
    """0.5, and 0.3 more for the word "snow", 0.2 for a red upper left quarter.

    ``labels`` are (no, yes). Remembers the tables it saw.
    """

    def __init__(self, labels=("no", "yes"), image_root=None, on_bad_image="raise"):
        self.labels = labels
        self.image_root = image_root
        self.on_bad_image = on_bad_image

    def fit(self, X=None, y=None):
        self.classes_ = np.array(self.labels)
        self.seen_ = []
        return self

    def _yes(self, image, text):
        value = 0.4
        if isinstance(text, str) and text.strip():
            value += 0.3 * ("snow" in text.split()) - 0.1 * ("sun" in text.split())
        if isinstance(image, Image.Image):
            box = np.asarray(image)[: image.height // 2, : image.width // 2]
            value += 0.2 * bool((box == [255, 0, 0]).all())
        return value

    def predict_proba(self, X):
        self.seen_.append(X)
        yes = np.array([self._yes(*row) for row in X[["image", "text"]].to_numpy()])
        return np.column_stack([1 - yes, yes])

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]


class Genres(Corner):
    """The same as the second of three independent labels."""

    def predict_proba(self, X):
        yes = super().predict_proba(X)[:, 1]
        return np.column_stack([np.full(len(X), 0.2), yes, 1 - yes])

    def predict(self, X):
        return (self.predict_proba(X) > 0.5).astype(int)


def picture(size=(8, 6)):
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = [255, 0, 0]
    return Image.fromarray(pixels)


ROW = {"image": picture(), "text": "deep snow and sun here"}
MODEL = Corner().fit()


# What speaks for a class ------------------------------------------------------------


def test_what_the_answer_comes_from_is_found_exactly():
    found = explain(MODEL, ROW, grid=2, measure="probability")
    assert (found.label, found.pattern) == ("yes", "complete")
    assert found.probability == pytest.approx(0.8)
    support = found.words.set_index("word")["support"]
    expected = {"deep": 0, "snow": 0.3, "and": 0, "sun": -0.1, "here": 0}
    assert support.to_dict() == pytest.approx(expected)
    assert found.words["probability"].tolist() == pytest.approx(
        [0.8, 0.5, 0.8, 0.9, 0.8]
    )
    assert found.regions["support"].tolist() == pytest.approx([0.2, 0, 0, 0])
    first = found.regions.iloc[0, :6]
    assert first.tolist() == [0, 0, 0, 0, 4, 3]
    modalities = found.modalities
    assert modalities["probability"].to_dict() == pytest.approx(
        {"image": 0.6, "text": 0.6}
    )
    assert modalities["support"].tolist() == pytest.approx([0.2, 0.2])
    assert found.text == ROW["text"]
    assert repr(found) == "<Explanation of 'yes', probability 0.80, complete>"


def test_another_class_has_the_opposite_support():
    yes, no = (explain(MODEL, ROW, grid=2, class_=name) for name in ("yes", "no"))
    assert no.label == "no"
    for name in ("words", "regions", "modalities"):
        tables = getattr(yes, name), getattr(no, name)
        np.testing.assert_allclose(tables[0]["support"], -tables[1]["support"])


def test_support_is_a_difference_of_log_odds():
    found = explain(MODEL, ROW, grid=1)
    assert found.words["support"][1] == pytest.approx(np.log(0.8 / 0.2))
    certain = np.array([[1, 1e-20, 0], [0.5, 0.5, 0]], dtype=np.float32)
    several, one = (explanation._measured(certain, 0, "log_odds", s) for s in (1, 0))
    assert np.isfinite([several, one]).all()
    # Of several classes the rest is added up, where 1 - p would be nothing.
    near = np.array([[1, 1e-9, 1e-9]], dtype=np.float32)
    value = explanation._measured(near, 0, "log_odds", False)
    assert value == pytest.approx(-np.log(2e-9))


@pytest.mark.parametrize("grid", [3, (1, 4), [2, 2]])
def test_the_grid_is_down_and_across(grid):
    down, across = (grid, grid) if isinstance(grid, int) else grid
    regions = explain(MODEL, ROW, grid=grid).regions
    assert regions["row"].max() == down - 1
    assert regions["column"].max() == across - 1
    assert len(regions) == down * across


# Missing cells ----------------------------------------------------------------------


@pytest.mark.parametrize("null", [None, np.nan, pd.NA])
@pytest.mark.parametrize("column", ["image", "text"])
def test_a_missing_cell_is_not_filled_in(column, null):
    model = Corner().fit()
    found = explain(model, ROW | {column: null}, grid=2, measure="probability")
    assert found.pattern == f"{column}_missing"
    assert getattr(found, column) is None
    assert len(found.modalities) == 0
    parts = {"image": found.regions, "text": found.words}
    assert len(parts.pop(column)) == 0
    assert parts.popitem()[1]["support"].max() in (
        pytest.approx(0.2),
        pytest.approx(0.3),
    )
    assert all(X[column].isna().all() for X in model.seen_)
    here = {"image": "text", "text": "image"}[column]
    assert not any(X[here].isna().any() for X in model.seen_)
    for name in ("modalities", "words", "regions"):
        assert {"probability", "support"} <= set(getattr(found, name))


def test_the_only_word_leaves_a_mark_and_no_missing_text():
    model = Corner().fit()
    found = explain(model, {"image": None, "text": "snow"}, measure="probability")
    assert found.words["support"].tolist() == pytest.approx([0.3])
    assert model.seen_[0]["text"].tolist() == ["snow", "."]


def test_a_row_with_neither_is_one_clear_error():
    with pytest.raises(ValueError, match="must have an image or a text, got neither"):
        explain(MODEL, {"image": None, "text": " "})


# Labels -----------------------------------------------------------------------------


def test_several_labels_are_explained_one_at_a_time():
    model = Genres(labels=("war", "snow", "love")).fit()
    found = explain(model, ROW, measure="probability")
    assert found.label == "snow"
    love = explain(model, ROW, class_="love")
    snow = explain(model, ROW, class_="snow")
    np.testing.assert_allclose(love.words["support"], -snow.words["support"])
    war = explain(model, ROW, class_="war")
    assert (war.words["support"] == 0).all()
    # Each on its own: p / (1 - p), whatever the others are.
    assert snow.words["support"][1] == pytest.approx(np.log(0.8 / 0.2))


@pytest.mark.parametrize("labels", [(0, 1), (2.5, 7.5), (False, True)])
def test_labels_may_be_numbers(labels):
    found = explain(Corner(labels=labels).fit(), ROW, class_=labels[0])
    assert found.label == labels[0]
    assert type(found.label) is type(labels[0])


def test_forests_of_several_labels_have_positions():
    def counts(X):
        return X["text"].fillna("").str.count("snow").to_frame()

    X = pd.DataFrame({"image": [None] * 8, "text": ["snow", "sun"] * 4})
    y = np.array([[1, 0, 1], [0, 1, 0]] * 4)
    forest = RandomForestClassifier(3, bootstrap=False, random_state=0)
    model = make_pipeline(FunctionTransformer(counts), forest).fit(X, y)
    found = explain(model, {"image": None, "text": "deep snow"}, class_=2)
    assert (found.label, found.probability) == (2, 1.0)
    assert found.words["support"].round(1).tolist() == [0, 55.3]
    with pytest.raises(ValueError, match=r"class_ must be one of \[0, 1, 2\], got 3"):
        explain(model, X[:1], class_=3)


# Cells and tables -------------------------------------------------------------------


def cells(folder):
    """The same picture in every form that a cell may have."""
    picture().save(folder / "a.png")
    data = (folder / "a.png").read_bytes()
    stream = io.BytesIO()
    picture().convert("RGBA").save(stream, "PNG")
    return {
        "path": "a.png",
        "bytes": data,
        "base64": base64.b64encode(data).decode(),
        "data": "data:image/png;base64," + base64.b64encode(data).decode(),
        "array": np.asarray(picture()),
        "dict": {"bytes": stream.getvalue(), "path": None},
        "PIL": picture().convert("P"),
    }


KINDS = ["path", "bytes", "base64", "data", "array", "dict", "PIL"]


@pytest.mark.parametrize("kind", KINDS)
def test_image_cells_of_all_kinds(kind, tmp_path):
    row = ROW | {"image": cells(tmp_path)[kind]}
    found = explain(Corner(image_root=tmp_path).fit(), row, grid=2)
    assert np.argmax(found.regions["support"]) == 0
    assert found.regions["support"].tolist()[1:] == [0, 0, 0]
    passed = explain(MODEL, row, grid=2, image_root=str(tmp_path))
    pd.testing.assert_frame_equal(found.regions, passed.regions)


def test_the_row_is_left_as_it_is():
    X = pd.DataFrame([ROW | {"price": 3}], index=["x"])
    before, pixels = X.copy(), np.asarray(ROW["image"]).copy()
    explain(MODEL, X)
    pd.testing.assert_frame_equal(X, before)
    assert X["image"]["x"] is ROW["image"]
    np.testing.assert_array_equal(np.asarray(ROW["image"]), pixels)


def test_the_same_again_and_for_every_kind_of_row():
    X = pd.DataFrame([ROW])
    first = explain(MODEL, X)
    for row in (X, X.iloc[0], ROW, [ROW]):
        again = explain(MODEL, row)
        for name in ("words", "regions", "modalities"):
            tables = getattr(first, name), getattr(again, name)
            pd.testing.assert_frame_equal(*tables)


def test_columns_are_those_that_the_estimator_reads():
    def renamed(X):
        return X.rename(columns={"photo": "image", "title": "text"})

    model = make_pipeline(FunctionTransformer(renamed), Corner().fit())
    row = {"photo": ROW["image"], "title": ROW["text"]}
    named = explain(model, row, image_column="photo", text_column="title")
    pd.testing.assert_frame_equal(named.words, explain(MODEL, ROW).words)
    with pytest.raises(ValueError, match="must have a column 'image'"):
        explain(model, row)


def test_few_large_pictures_are_held_at_a_time(monkeypatch):
    monkeypatch.setattr(explanation, "_MOST_PIXELS", 100)
    model = Corner().fit()
    few = explain(model, ROW, grid=3)
    assert max(map(len, model.seen_)) == 2
    monkeypatch.undo()
    model.fit()
    pd.testing.assert_frame_equal(few.regions, explain(model, ROW, grid=3).regions)
    assert [len(X) for X in model.seen_] == [1 + 2 + 5 + 9, 1]


def test_a_long_text_loses_several_words_at_a_time():
    text = "far and wide there was nothing but snow"
    found = explain(MODEL, ROW | {"text": text}, max_words=3)
    assert found.words["word"].tolist()[-1] == "but snow"
    assert found.words["support"].to_numpy().nonzero()[0].tolist() == [2]


def test_a_progress_bar_when_asked(capsys):
    explain(MODEL, ROW)
    assert capsys.readouterr().err == ""
    explain(MODEL, ROW, verbose=1)
    assert "explain: 100%" in capsys.readouterr().err


# Real classifiers -------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(24)


@pytest.mark.parametrize("pattern", ["complete", "text_missing", "image_missing"])
def test_a_fitted_classifier_and_its_saved_copy(table, pattern, tmp_path):
    X, y = table
    clf = QuickClassifier().fit(X, y)
    here = X.notna().to_numpy()
    wanted = {
        "complete": here.all(axis=1),
        "text_missing": ~here[:, list(X).index("text")],
        "image_missing": ~here[:, list(X).index("image")],
    }[pattern]
    row = X[wanted][:1]
    found = explain(clf, row, grid=2)
    assert found.pattern == pattern
    assert found.label == clf.predict(row)[0]
    np.testing.assert_allclose(
        found.probability, clf.predict_proba(row).max(), rtol=1e-5
    )
    robustmm.save(clf, tmp_path / "model")
    opened = robustmm.load(tmp_path / "model", classes=[QuickClassifier])
    again = explain(opened, row, grid=2)
    pd.testing.assert_frame_equal(found.words, again.words)
    pd.testing.assert_frame_equal(found.regions, again.regions)


def test_a_search_over_a_pipeline_of_words(table):
    X, y = table
    search = GridSearchCV(words(), {"logisticregression__C": [1.0]}, cv=2)
    row = X[X.notna().all(axis=1)][:1]
    found = explain(search.fit(X, y), row, grid=2)
    assert (found.regions["support"] == 0).all()
    assert found.words["support"].abs().max() > 0


def test_indicators(table):
    X, _ = table
    indicators = np.stack([np.arange(24) % 2, np.arange(24) % 3 == 0], axis=1)
    clf = QuickClassifier().fit(X, indicators.astype(int))
    found = explain(clf, X[:1], class_=1, grid=1)
    assert found.probability == pytest.approx(clf.predict_proba(X[:1])[0, 1], rel=1e-5)
    best = explain(clf, X[:1], grid=1)
    assert best.label == clf.predict_proba(X[:1])[0].argmax()


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"grid": 0}, ValueError, r"grid must be in \[1, inf\), got 0"),
        (
            {"grid": "4"},
            TypeError,
            "must be an integer or a pair of them, got '4'",
        ),
        ({"grid": (1, 2, 3)}, TypeError, "grid must be an integer or a pair"),
        ({"grid": (1, 2.5)}, TypeError, "grid must be an integer, got 2.5"),
        ({"grid": True}, TypeError, "grid must be an integer, got True"),
        ({"measure": "logits"}, ValueError, "measure must be one of"),
        ({"max_words": 0}, ValueError, "max_words must be in"),
        ({"class_": "maybe"}, ValueError, r"class_ must be one of \['no', 'yes'\]"),
        ({"image_column": "photo"}, ValueError, "must have a column 'photo'"),
    ],
)
def test_a_wrong_parameter_is_one_clear_error(options, error, message):
    with pytest.raises(error, match=message):
        explain(MODEL, ROW, **options)


@pytest.mark.parametrize("n", [0, 2])
def test_only_one_row_at_a_time(n):
    with pytest.raises(ValueError, match=f"row must be one row, got {n}"):
        explain(MODEL, pd.DataFrame([ROW] * 2)[:n])


def test_what_is_no_row_and_what_is_no_classifier():
    with pytest.raises(TypeError, match="X must be a DataFrame"):
        explain(MODEL, 3)
    with pytest.raises(TypeError, match="must have predict_proba, got Fun"):
        explain(FunctionTransformer(), ROW)


def test_a_bad_image_is_what_it_is_to_the_estimator():
    row = ROW | {"image": b"no picture"}
    with pytest.raises(ValueError, match="1 image cells cannot be read: row 0"):
        explain(MODEL, row)
    model = Corner(on_bad_image="missing").fit()
    with pytest.warns(UserWarning, match="taken as missing"):
        found = explain(model, row)
    assert found.pattern == "image_missing"
    assert len(found.regions) == 0
    assert all(X["image"].isna().all() for X in model.seen_)
