"""What a user's table may look like: only two of its columns matter."""

import pickle

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from toys import QuickClassifier

import robustmm

X, Y = frame_with_holes(12)


def products():
    """A table as it comes out of a shop: thirteen columns, in any order."""
    others = {f"column {i}": np.arange(12.0) for i in range(10)}
    return X.assign(**others, tags=[["a"]] * 12)[[*others, "text", "tags", "image"]]


@pytest.fixture(scope="module")
def fitted():
    return QuickClassifier().fit(products(), Y)


@pytest.fixture(scope="module")
def expected():
    return QuickClassifier().fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("names", [["image", "text"], ["text", "image"]])
def test_two_columns_suffice_in_any_order(fitted, expected, names):
    np.testing.assert_array_equal(fitted.predict_proba(X[names]), expected)


def test_columns_that_fit_never_saw_do_no_harm(fitted, expected):
    wider = products().assign(new=1).drop(columns="column 3")
    np.testing.assert_array_equal(fitted.predict_proba(wider), expected)
    narrow = QuickClassifier().fit(X, Y)
    np.testing.assert_array_equal(narrow.predict_proba(products()), expected)


def test_the_two_columns_are_the_features(fitted):
    assert list(fitted.feature_names_in_) == ["image", "text"]
    assert fitted.n_features_in_ == 2


def test_an_array_is_read_by_position(fitted, expected):
    array = X.to_numpy(dtype=object)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(fitted.predict_proba(array), expected)
    by_position = QuickClassifier().fit(array, Y)
    np.testing.assert_array_equal(by_position.predict_proba(array), expected)
    with pytest.raises(ValueError, match="must have 2 columns"):
        by_position.predict(array[:, [0, 1, 1]])


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_a_column_that_is_not_there_is_named_with_those_like_it(fitted, method):
    table = products().rename(columns={"image": "Images"})
    arguments = (table, Y) if method == "fit" else (table,)
    clf = QuickClassifier() if method == "fit" else fitted
    with pytest.raises(ValueError, match="must have a column 'image'") as caught:
        getattr(clf, method)(*arguments)
    assert "Close to it: ['Images']; rename it, or pass image_column='Images'" in str(
        caught.value
    )


def test_a_thousand_columns_make_a_short_message():
    wide = pd.DataFrame(np.zeros((2, 1000)), columns=[f"c{i}" for i in range(1000)])
    with pytest.raises(ValueError, match=r"1000 columns.*'c0'") as caught:
        QuickClassifier().fit(wide, [0, 1])
    assert len(str(caught.value)) < 500


def with_names(names):
    """A model as earlier versions wrote it: all columns of the table in its names."""
    clf = QuickClassifier().fit(X, Y)
    clf.feature_names_in_ = np.array(names, dtype=object)
    clf.n_features_in_ = len(names)
    return clf


def reopened(clf, way, folder):
    if way == "pickle":
        return pickle.loads(pickle.dumps(clf))
    robustmm.save(clf, folder / "model")
    return robustmm.load(folder / "model", classes=[QuickClassifier])


@pytest.mark.parametrize("way", ["pickle", "save"])
def test_models_that_know_all_columns_still_open(expected, way, tmp_path):
    old = with_names(list(products()))
    again = reopened(old, way, tmp_path)
    assert list(again.feature_names_in_) == ["image", "text"]
    assert again.n_features_in_ == 2
    for table in (X, X[["text", "image"]], products()):
        np.testing.assert_array_equal(again.predict_proba(table), expected)
    with pytest.warns(UserWarning, match="valid feature names"):
        again.predict_proba(X.to_numpy(dtype=object))


def test_searches_and_pipelines_keep_the_rule(expected):
    keep = FunctionTransformer(lambda table: table.assign(text=table["text"]))
    search = GridSearchCV(make_pipeline(keep, QuickClassifier()), {}, cv=2)
    search.fit(products(), Y)
    np.testing.assert_array_equal(search.predict_proba(X[["text", "image"]]), expected)
