"""What scikit-learn builds around estimators works around these, or is known not to."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from contract import frame_with_holes
from sklearn import metrics, set_config
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    LearningCurveDisplay,
    RandomizedSearchCV,
    StratifiedGroupKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import (
    OneVsOneClassifier,
    OneVsRestClassifier,
    OutputCodeClassifier,
)
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import SelfTrainingClassifier
from toys import QuickClassifier

N = 24
X, y = frame_with_holes(N)
THREE = np.array(list("abc") * (N // 3))
INDICATORS = np.random.default_rng(0).integers(0, 2, (N, 2))
GRID = {"batch_size": [6, 12]}
PAGE = Path(__file__).parents[1] / "docs" / "sklearn.rst"
quick = QuickClassifier


def columns():
    parts = [("images", "passthrough", ["image"]), ("texts", "passthrough", ["text"])]
    return ColumnTransformer(parts, verbose_feature_names_out=False)


# Each is fitted and predicts; by the name under which the documentation lists it.
CLASSIFIERS = {
    "Pipeline": lambda: make_pipeline(
        FunctionTransformer(feature_names_out="one-to-one"), quick()
    ),
    "ColumnTransformer": lambda: make_pipeline(columns(), quick()),
    "set_output": lambda: make_pipeline(
        columns().set_output(transform="pandas"), quick()
    ),
    "FeatureUnion": lambda: make_pipeline(
        make_union(quick(), quick(random_state=1)), LogisticRegression()
    ),
    "GridSearchCV": lambda: GridSearchCV(quick(), GRID, cv=2),
    "RandomizedSearchCV": lambda: RandomizedSearchCV(quick(), GRID, n_iter=1, cv=2),
    "HalvingGridSearchCV": lambda: HalvingGridSearchCV(
        quick(), GRID, cv=2, min_resources=8
    ),
    'resource="max_epochs"': lambda: HalvingGridSearchCV(
        quick(), GRID, cv=2, resource="max_epochs", max_resources=2, factor=2
    ),
    "CalibratedClassifierCV": lambda: CalibratedClassifierCV(quick(), cv=2),
    'method="temperature"': lambda: CalibratedClassifierCV(
        quick(), method="temperature", cv=2
    ),
    "FrozenEstimator": lambda: CalibratedClassifierCV(
        FrozenEstimator(quick().fit(X, y)), method="temperature"
    ),
    "TunedThresholdClassifierCV": lambda: TunedThresholdClassifierCV(
        quick(), cv=2, thresholds=5
    ),
    "FixedThresholdClassifier": lambda: FixedThresholdClassifier(
        quick(), threshold=0.4
    ),
    "VotingClassifier": lambda: VotingClassifier(
        [("a", quick()), ("b", quick(random_state=1))], voting="soft"
    ),
    "StackingClassifier": lambda: StackingClassifier(
        [("a", quick()), ("b", quick(random_state=1))], LogisticRegression(), cv=2
    ),
    "BaggingClassifier": lambda: BaggingClassifier(
        quick(), n_estimators=2, random_state=0
    ),
    "AdaBoostClassifier": lambda: AdaBoostClassifier(
        quick(max_epochs=10), n_estimators=2, random_state=0
    ),
}
MULTICLASS = {
    "OneVsRestClassifier": lambda: OneVsRestClassifier(quick()),
    "OutputCodeClassifier": lambda: OutputCodeClassifier(quick(), random_state=0),
}
MULTILABEL = {
    "OneVsRestClassifier": lambda: OneVsRestClassifier(quick()),
    "MultiOutputClassifier": lambda: MultiOutputClassifier(quick()),
}
# These return numbers.
FUNCTIONS = {
    "cross_validate": lambda: cross_validate(
        quick(), X, y, cv=2, scoring=["accuracy", "roc_auc", "neg_log_loss"]
    ).values(),
    "StratifiedGroupKFold": lambda: cross_validate(
        quick(), X, y, groups=np.arange(N) // 2, cv=StratifiedGroupKFold(2)
    ).values(),
    "cross_val_predict": lambda: cross_val_predict(
        quick(), X, y, cv=2, method="predict_proba"
    ),
    "learning_curve": lambda: learning_curve(
        quick(), X, y, cv=2, train_sizes=[0.5, 1.0]
    ),
    "validation_curve": lambda: validation_curve(
        quick(), X, y, param_name="max_epochs", param_range=[1, 2], cv=2
    ),
    "permutation_test_score": lambda: permutation_test_score(
        quick(), X, y, cv=2, n_permutations=2
    )[1:],
}
DISPLAYS = {
    "LearningCurveDisplay": lambda: LearningCurveDisplay.from_estimator(
        quick(), X, y, cv=2, train_sizes=[0.5, 1.0]
    ),
    "CalibrationDisplay": lambda: CalibrationDisplay.from_estimator(
        quick().fit(X, y), X, y
    ),
    "RocCurveDisplay": lambda: metrics.RocCurveDisplay.from_estimator(
        quick().fit(X, y), X, y
    ),
    "ConfusionMatrixDisplay": lambda: metrics.ConfusionMatrixDisplay.from_estimator(
        quick().fit(X, y), X, y
    ),
}
# These convert every cell to a number, whatever the estimator inside could read.
NUMBERS_ONLY = {
    "ClassifierChain": lambda: ClassifierChain(quick()).fit(X, INDICATORS),
    "OneVsOneClassifier": lambda: OneVsOneClassifier(quick()).fit(X, y),
    "SelfTrainingClassifier": lambda: SelfTrainingClassifier(quick()).fit(
        X, np.where(np.arange(N) % 3 == 0, -1, y == y[0])
    ),
    "RFE": lambda: RFE(quick()).fit(X, y),
    "SequentialFeatureSelector": lambda: SequentialFeatureSelector(
        quick(), n_features_to_select=1, cv=2
    ).fit(X, y),
    "partial_dependence": lambda: partial_dependence(quick().fit(X, y), X, ["text"]),
    "passthrough=True": lambda: StackingClassifier(
        [("a", quick())], LogisticRegression(), cv=2, passthrough=True
    ).fit(X, y),
    "final_estimator": lambda: StackingClassifier(
        [("a", quick())], make_pipeline(quick()), cv=2
    ).fit(X, y),
    "max_features": lambda: BaggingClassifier(
        quick(), n_estimators=2, max_features=1, random_state=0
    ).fit(X, y),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_around_ours(name):
    model = CLASSIFIERS[name]().fit(X, y)
    assert model.predict(X).shape == (N,)
    assert set(model.predict(X)) <= set(y)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert 0 <= model.score(X, y) <= 1


@pytest.mark.parametrize("name", MULTICLASS)
def test_three_classes(name):
    predicted = MULTICLASS[name]().fit(X, THREE).predict(X)
    assert set(predicted) <= set(THREE)


@pytest.mark.parametrize("name", MULTILABEL)
def test_several_labels(name):
    predicted = MULTILABEL[name]().fit(X, INDICATORS).predict(X)
    assert predicted.shape == INDICATORS.shape
    assert set(np.unique(predicted)) <= {0, 1}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_evaluates(name):
    for values in FUNCTIONS[name]():
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_display(name):
    figure = DISPLAYS[name]().figure_
    assert figure.axes[0].has_data()
    plt.close(figure)


@pytest.mark.parametrize("name", NUMBERS_ONLY)
def test_what_needs_numbers_says_so(name):
    with pytest.raises((TypeError, ValueError), match=r"float|number|column|2 columns"):
        NUMBERS_ONLY[name]()


def test_importance_of_a_modality_that_is_all_there_is():
    here = X["image"].notna()
    images, labels = X[here].assign(text=None), y[here]
    options = {"scoring": "neg_log_loss", "n_repeats": 3, "random_state": 0}
    result = permutation_importance(
        quick().fit(images, labels), images, labels, **options
    )
    assert (result.importances[0] != 0).all()
    assert (result.importances[1] == 0).all()


def test_a_search_shows_the_progress_of_its_candidates(capsys):
    search = GridSearchCV(quick(), {"batch_size": [12]}, cv=2)
    callback = pytest.importorskip("sklearn.callback")  # from 1.9 on
    search.set_callbacks(callback.ProgressBar()).fit(X, y)
    assert "QuickClassifier" in capsys.readouterr().out


def test_epochs_as_a_resource_are_really_given():
    search = CLASSIFIERS['resource="max_epochs"']().fit(X, y)
    assert search.n_resources_ == [1, 2]
    assert search.best_estimator_.n_iter_ == 2


ALL = [CLASSIFIERS, MULTICLASS, MULTILABEL, FUNCTIONS, DISPLAYS, NUMBERS_ONLY]


@pytest.mark.parametrize("name", sorted({name for table in ALL for name in table}))
def test_the_documentation_lists_the_name(name):
    assert re.search(rf"``\S*{re.escape(name)}\S*``", PAGE.read_text())


# Metadata and configuration --------------------------------------------------------


@pytest.fixture
def routing():
    set_config(enable_metadata_routing=True)
    yield
    set_config(enable_metadata_routing=False)


@pytest.mark.usefixtures("routing")
def test_weights_pass_through_a_search_and_a_pipeline():
    heavy = np.where(y == np.unique(y)[1], 1000.0, 0.001)
    estimator = quick(max_epochs=3).set_fit_request(sample_weight=True)
    estimator.set_score_request(sample_weight=True)
    keep = FunctionTransformer(feature_names_out="one-to-one")
    search = GridSearchCV(make_pipeline(keep, estimator), {}, cv=2)
    weighted = search.fit(X, y, sample_weight=heavy).predict_proba(X)
    direct = quick(max_epochs=3).fit(X, y, sample_weight=heavy).predict_proba(X)
    np.testing.assert_allclose(weighted, direct, atol=1e-6)
    plain = quick(max_epochs=3).fit(X, y).predict_proba(X)
    assert (weighted - plain)[:, 1].mean() > 1e-5


@pytest.mark.usefixtures("routing")
def test_weights_that_nobody_asked_for_are_an_error():
    search = GridSearchCV(quick(), {}, cv=2)
    with pytest.raises(ValueError, match=r"sample_weight.*not explicitly set"):
        search.fit(X, y, sample_weight=np.ones(N))


def test_features_are_a_frame_where_frames_are_wanted():
    features = quick().set_output(transform="pandas").fit_transform(X, y)
    assert features.index.equals(X.index)
    assert list(features)[:2] == ["quickclassifier0", "quickclassifier1"]
    pipeline = make_pipeline(quick(), LogisticRegression())
    pipeline.set_output(transform="pandas").fit(X, y)
    assert list(pipeline[-1].feature_names_in_) == list(features)
