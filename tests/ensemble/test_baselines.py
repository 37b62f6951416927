"""Frequencies, and words: with holes, weights, classes without a text."""

import pickle

import numpy as np
import pandas as pd
import pytest
from ensemble_cases import texts

from robustmm.ensemble.baselines import PriorClassifier, TfidfClassifier, check_array
from robustmm.testing.battery import checks_for

# Those that are not about images, encoders or the callbacks of a training.
NAMES = [
    *("clone", "constructor_only_assigns", "constructor_has_defaults"),
    *("parameters_are_documented", "fit_takes_any_null", "text_of_any_dtype"),
    *(
        "array_is_read_by_position",
        "other_columns_are_ignored",
        "inputs_are_not_changed",
    ),
    *("wrong_columns_are_named", "empty_table_is_refused", "labels_come_back"),
    *("bad_targets_are_refused", "three_classes", "multilabel"),
    *("weight_of_zero_is_removal", "equal_weights_are_none", "bad_weights_are_refused"),
    *("weights_change_the_model", "weight_on_nothing_is_refused"),
    *("bad_class_weights_are_refused", "class_weight_changes_the_model"),
    *("unfitted_says_so", "predictions_agree", "rows_are_predicted_one_by_one"),
    *("predicting_is_repeatable", "fit_is_repeatable", "refit_starts_anew"),
    *("grid_search_over_a_pipeline", "sample_weight_is_routed", "representations"),
    *("pickle_predicts_the_same", "global_generators_are_left_alone"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cls", [PriorClassifier, TfidfClassifier])
def test_promise(cls, name):
    (check,) = [c for c in checks_for(cls()) if repr(c) == f"check_{name}"]
    check(cls())


def test_words_say_the_label_and_their_absence_the_prior():
    X, y = texts(90, wrong=0.0)
    X.loc[::10, "text"] = None
    clf = TfidfClassifier(C=100.0).fit(X, y)
    said = X["text"].notna()
    assert (clf.predict(X[said]) == y[said]).all()
    empty = pd.DataFrame({"image": [None], "text": [" "], "price": [0.0]})
    np.testing.assert_allclose(clf.predict_proba(empty)[0], clf.class_prior_)


def test_a_class_without_a_text_is_never_predicted_from_one():
    X, y = texts(30, wrong=0.0)
    X.loc[y == "c", "text"] = None
    clf = TfidfClassifier().fit(X, y)
    assert set(clf.predict(X[y != "c"])) == {"a", "b"}
    np.testing.assert_allclose(clf.predict_proba(X)[y == "c"].mean(axis=0), 1 / 3)


def test_several_labels_of_which_one_never_varies():
    X, y = texts(60, wrong=0.0)
    Y = pd.DataFrame({"a": y == "a", "always": True, "never": False}).astype(int)
    clf = TfidfClassifier(C=100.0).fit(X, Y)
    assert (clf.predict(X) == Y.to_numpy()).all()


def test_nothing_to_read_is_an_error():
    X, y = texts(9)
    X["text"] = "?!"
    with pytest.raises(ValueError, match=r"must have a word.*9 texts of 9 rows"):
        TfidfClassifier().fit(X, y)


def test_the_state_is_words_and_arrays():
    X, y = texts(60)
    clf = TfidfClassifier(max_features=4).fit(X, y)
    assert len(clf.vocabulary_) == 4
    assert len(pickle.dumps(clf)) < 5000
    state = clf.__getstate__()
    TfidfClassifier._check_saved(state)
    for name, value in (
        ("idf_", np.zeros(3)),
        ("vocabulary_", ["a", "a", "b", "c"]),
        ("coef_", np.full((3, 4), np.nan)),
        ("_log_prior", [0.1]),
    ):
        with pytest.raises(ValueError, match=name):
            TfidfClassifier._check_saved(state | {name: value})


def test_an_array_is_of_its_shape_and_finite():
    check_array({"a": np.zeros(2)}, "a", (2,))
    with pytest.raises(ValueError, match="a must be finite numbers"):
        check_array({"a": np.zeros(2)}, "a", (3,))
