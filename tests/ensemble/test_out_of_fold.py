"""Cross-fitted columns: no row is read by who was fitted on it."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, small
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from robustmm import CMPTClassifier, LinearProbeClassifier, OutOfFoldFeatures

X, Y = frame_with_holes()
PROBE = LinearProbeClassifier("robustmm/tiny-clip")
NUMBERS = pd.DataFrame({"a": np.arange(12.0)})
THREE = np.array(["x", "y", "z"])[np.arange(12) % 3]


class Memory(ClassifierMixin, BaseEstimator):
    """Is sure of the label of each row that it was fitted on, and knows no other."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = dict(zip(X.iloc[:, 0], y, strict=True))
        self.weights_ = sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        found = [self.seen_.get(row) for row in X.iloc[:, 0]]
        return np.array([self.classes_ == k for k in found]).astype(float)

    decision_function = predict_proba


def shuffled(frame, labels):
    order = np.random.default_rng(0).permutation(len(frame))
    frame, labels = frame.iloc[order], pd.Series(labels, frame.index).iloc[order]
    return frame, labels


def test_no_row_is_read_by_who_was_fitted_on_it():
    features = OutOfFoldFeatures(Memory(), cv=3, random_state=0)
    frame, labels = shuffled(NUMBERS, THREE)
    assert not features.fit_transform(frame, labels).any()
    inside = features.transform(frame)
    found = features.classes_[inside.argmax(axis=1)]
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(features.fit(frame, labels).transform(frame), inside)


def test_rows_are_in_the_order_of_the_table():
    splitter = StratifiedKFold(2, shuffle=True, random_state=3)
    columns = OutOfFoldFeatures(PROBE, cv=splitter).fit_transform(X, Y)
    for rows, others in splitter.split(X, Y):
        fold = clone(PROBE).fit(X.iloc[rows], np.asarray(Y)[rows])
        expected = fold.predict_proba(X.iloc[others])[:, -columns.shape[1] :]
        np.testing.assert_allclose(columns[others], expected, atol=1e-6)


def test_names_have_the_labels_and_two_classes_one_column():
    three = OutOfFoldFeatures(Memory(), cv=2).fit(NUMBERS, THREE)
    assert list(three.get_feature_names_out()) == ["memory_x", "memory_y", "memory_z"]
    two = OutOfFoldFeatures(Memory(), cv=2)
    assert two.fit_transform(NUMBERS, THREE == "x").shape == (12, 1)
    assert list(two.get_feature_names_out()) == ["memory_True"]
    with pytest.raises(ValueError, match="input_features"):
        OutOfFoldFeatures(PROBE).fit(X, Y).get_feature_names_out(["other"])


def test_set_output_gives_a_frame_with_the_table_s_index():
    features = OutOfFoldFeatures(Memory(), cv=2).set_output(transform="pandas")
    frame, labels = shuffled(NUMBERS, THREE)
    for found in (features.fit_transform(frame, labels), features.transform(frame)):
        assert list(found.columns) == ["memory_x", "memory_y", "memory_z"]
        assert found.index.equals(frame.index)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_class_that_a_fold_lacks_has_probability_zero_there():
    labels = np.array(["rare"] + ["x", "y"] * 5 + ["x"])
    features = OutOfFoldFeatures(Memory(), cv=3, random_state=0)
    columns = features.fit_transform(NUMBERS, labels)
    assert columns.shape == (12, 3)
    assert columns[0, 0] == 0
    features.set_params(method="decision_function")
    with pytest.raises(
        ValueError, match=r"every class .* none of 'rare': pass method="
    ):
        features.fit_transform(NUMBERS, labels)
    assert features.method == "decision_function"


def test_decision_functions_are_columns_too():
    labels = np.asarray(Y)
    features = OutOfFoldFeatures(PROBE, cv=2, method="decision_function")
    two = features.fit_transform(X, labels == labels[0])
    assert two.shape == (len(X), 1)
    assert two.min() < 0


@pytest.mark.parametrize(
    ("estimator", "frame"),
    [(PROBE, X[:12]), (RandomForestClassifier(3, random_state=0), NUMBERS)],
    ids=["probe", "forest"],
)
def test_indicators_give_a_column_per_label(estimator, frame):
    # The last label is constant, and a forest then has one probability only.
    labels = pd.DataFrame({"drama": [0, 1] * 6, "war": [1, 1, 0] * 4, "all": [1] * 12})
    features = OutOfFoldFeatures(estimator, cv=2, random_state=0)
    columns = features.fit_transform(frame, labels)
    assert columns.shape == (12, 3)
    assert ((columns >= 0) & (columns <= 1)).all()
    assert columns[:, 2].min() > 0.9
    if estimator is PROBE:
        names = features.get_feature_names_out()
        assert names[0] == "linearprobeclassifier_drama"


def test_frozen_features_are_the_same_in_every_fold(recwarn):
    features = OutOfFoldFeatures(PROBE, cv=2, method="transform", random_state=0)
    columns = features.fit_transform(X, Y)
    np.testing.assert_allclose(columns, features.transform(X), atol=1e-4)
    names = features.get_feature_names_out()
    assert names[0] == "linearprobeclassifier0"
    assert len(names) == columns.shape[1]
    assert not [w for w in recwarn if "axes" in str(w.message)]


@pytest.mark.filterwarnings("ignore:.*without any modality")
def test_features_of_encoders_that_are_trained_are_warned_of():
    clf = small(CMPTClassifier, lr=0.05, max_epochs=2)
    features = OutOfFoldFeatures(clf, cv=2, method="transform", random_state=0)
    with pytest.warns(UserWarning, match="axes of their own.*method='predict_proba'"):
        features.fit_transform(X, Y)


def columns_of(estimator, **options):
    return ColumnTransformer(
        [
            ("seen", OutOfFoldFeatures(estimator, cv=2, **options), ["image", "text"]),
            ("number", StandardScaler(), ["price"]),
            ("kind", OneHotEncoder(handle_unknown="ignore"), ["shop"]),
        ]
    )


def wide():
    rows = np.arange(len(X))
    return X.assign(price=rows * 1.5, shop=np.array(["a", "b", "c"])[rows % 3])


def test_beside_numbers_and_categories_in_a_search():
    model = make_pipeline(columns_of(PROBE, random_state=0), LogisticRegression())
    grid = {
        "columntransformer__seen__estimator__C": [0.1, 1.0],
        "columntransformer__seen__method": ["predict_proba", "decision_function"],
    }
    search = GridSearchCV(model, grid, cv=2).fit(wide(), Y)
    assert search.predict(wide()).shape == (len(X),)
    names = search.best_estimator_[:-1].get_feature_names_out()
    assert list(names[-4:]) == ["number__price", *(f"kind__shop_{k}" for k in "abc")]
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_allclose(
        again.predict_proba(wide()), search.predict_proba(wide()), atol=1e-6
    )


def test_weights_and_groups_go_where_they_are_asked_for():
    weights, groups = np.arange(1.0, 13), np.arange(12) // 4
    features = OutOfFoldFeatures(Memory(), cv=GroupKFold(3))
    features.fit_transform(NUMBERS, THREE, sample_weight=weights, groups=groups)
    assert list(features.estimator_.weights_) == list(weights)
    with pytest.raises(TypeError, match=r"fit of Memory takes.*\['prior'\]"):
        features.fit(NUMBERS, THREE, prior=3)
    with config_context(enable_metadata_routing=True):
        asking = Memory().set_fit_request(sample_weight=True)
        table = ColumnTransformer(
            [("seen", OutOfFoldFeatures(asking, cv=GroupKFold(3)), ["a"])]
        )
        table.fit_transform(NUMBERS, THREE, sample_weight=weights, groups=groups)
        (inner,) = (step for _, step, _ in table.transformers_)
        assert list(inner.estimator_.weights_) == list(weights)


def test_the_same_seed_gives_the_same_columns_in_any_number_of_threads():
    one = OutOfFoldFeatures(PROBE, cv=2, random_state=0).fit_transform(X, Y)
    two = OutOfFoldFeatures(PROBE, cv=2, random_state=0, n_jobs=2)
    with joblib.parallel_backend("threading"):
        found = two.fit_transform(X, Y)
    np.testing.assert_allclose(found, one, atol=1e-6)
    other = OutOfFoldFeatures(PROBE, cv=2, random_state=1).fit_transform(X, Y)
    assert not np.allclose(other, one, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ({"method": "predict"}, ValueError, "method must be one of .* got 'predict'"),
        ({"method": "transform"}, TypeError, "must have transform, got Memory"),
        ({"cv": [([0, 1], [2, 3])]}, ValueError, "exactly one fold, got 0 for row 0"),
        ({"cv": 1}, ValueError, "n_splits=1"),
    ],
)
def test_what_is_refused(options, error, rule):
    with pytest.raises(error, match=rule):
        OutOfFoldFeatures(Memory(), **options).fit_transform(NUMBERS, THREE)


def test_labels_are_needed():
    with pytest.raises(ValueError, match=r"requires to be passed, got None"):
        OutOfFoldFeatures(Memory()).fit_transform(NUMBERS, None)
    with pytest.raises(ValueError, match="must not have missing labels"):
        OutOfFoldFeatures(Memory()).fit_transform(NUMBERS, [np.nan, *THREE[1:]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        OutOfFoldFeatures(Memory()).fit(NUMBERS, THREE[:5])


def test_a_classifier_of_other_classes_is_named():
    features = OutOfFoldFeatures(Memory(), cv=2).fit(NUMBERS, THREE)
    features.estimator_.classes_ = np.array(["x", "y", "other"])
    with pytest.raises(ValueError, match="classes of the fit only, got 'other'"):
        features.transform(NUMBERS)


def test_a_failed_fit_changes_nothing():
    features = OutOfFoldFeatures(Memory(), cv=2).fit(NUMBERS, THREE)
    before = dict(vars(features))
    with pytest.raises(ValueError, match="exactly one fold"):
        features.set_params(cv=[([0], [1])]).fit_transform(NUMBERS, THREE)
    assert {k: v for k, v in vars(features).items() if k != "cv"} == {
        k: v for k, v in before.items() if k != "cv"
    }
