"""The automatic classifier: what comes in, what it keeps, and how it ends."""

import pickle
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from ensemble_cases import First, prior, texts
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from toys import QuickClassifier

from robustmm import (
    AutoMultimodalClassifier,
    LinearProbeClassifier,
    load,
    load_backbone,
    save,
)
from robustmm.datasets import make_scenes
from robustmm.ensemble.baselines import TfidfClassifier
from robustmm.testing.subject import table


def automatic(*candidates, **params):
    """Return one with candidates of those names and a fixed seed."""
    options = {"random_state": 0, "device": "cpu"} | params
    return AutoMultimodalClassifier(candidates=list(candidates), **options)


def of_price(classifier=None):
    """A pipeline that reads a column that is neither image nor text."""
    columns = ColumnTransformer([("price", StandardScaler(), ["price"])])
    if classifier is None:  # a forest that is not fitted has no length
        classifier = LogisticRegression()
    return make_pipeline(columns, classifier)


def test_members_are_averaged_and_beat_each_of_them():
    X, y = texts(240, wrong=0.4)
    clf = automatic(("words", TfidfClassifier()), ("price", of_price()))
    clf.fit(X[:160], y[:160])
    assert dict(clf.members_).keys() == {"words", "price"}
    assert clf.weights_.sum() == pytest.approx(1)
    single = [(m.predict(X[160:]) == y[160:]).mean() for _, m in clf.members_]
    assert clf.score(X[160:], y[160:]) > max(single)


def test_a_candidate_that_raises_is_listed_and_the_rest_goes_on():
    X, y = texts()
    bad = First(fault=RuntimeError("no luck"))
    clf = automatic(("bad", bad), ("good", First())).fit(X, y)
    row = clf.leaderboard_.loc["bad"]
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: no luck")
    assert [name for name, _ in clf.members_] == ["good"]


def test_if_all_fail_the_error_has_each_reason():
    X, y = texts()
    faults = [ValueError("one"), OSError("two")]
    clf = automatic(*[(f"c{i}", First(fault=f)) for i, f in enumerate(faults)])
    with pytest.raises(ValueError, match="c0: ValueError: one; c1: OSError: two"):
        clf.fit(X, y)
    assert not hasattr(clf, "members_")


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), SystemExit()])
def test_an_interrupt_reaches_the_caller_and_changes_nothing(fault):
    X, y = texts()
    clf = automatic(("good", First())).fit(X, y)
    clf.set_params(candidates=[("good", First()), ("bad", First(fault=fault))])
    before = dict(vars(clf))
    with pytest.raises(type(fault)):
        clf.fit(X, y)
    assert vars(clf) == before


def test_members_are_fitted_again_on_all_rows_or_kept():
    X, y = texts(50)
    rows = {}
    for refit in (True, False):
        clf = automatic(("first", First()), refit=refit).fit(X, y)
        rows[refit] = clf.members_[0][1].n_rows_
    assert rows == {True: 50, False: 40}


def test_every_row_is_held_out_with_cv_and_parts_are_averaged():
    X, y = texts(45)
    clf = automatic(("first", First()), cv=3, refit=False).fit(X, y)
    assert [m.n_rows_ for _, m in clf.members_] == [30, 30, 30]
    assert clf.weights_.tolist() == pytest.approx([1 / 3] * 3)
    again = automatic(("first", First()), cv=3).fit(X, y)
    assert [m.n_rows_ for _, m in again.members_] == [45]


def test_a_class_that_a_part_has_not_seen_breaks_nothing():
    X, y = texts(60)
    order = np.argsort(y, kind="stable")  # a fold for each class
    clf = automatic(("words", TfidfClassifier()), ("prior", prior()), cv=KFold(3))
    clf.fit(X.iloc[order], y[order])
    assert clf.predict_proba(X).shape == (60, 3)
    assert set(clf.predict(X)) <= {"a", "b", "c"}


def test_the_time_limit_holds_and_says_who_had_none_left():
    X, y = texts()
    slow = [(f"slow {i}", First(seconds=0.5)) for i in range(20)]
    start = time.perf_counter()
    clf = automatic(("quick", First()), *slow, time_limit=2.0).fit(X, y)
    assert time.perf_counter() - start < 2.2
    reasons = clf.leaderboard_.query("status == 'skipped'")["reason"]
    assert len(reasons)
    assert reasons.str.startswith("time").all()


def test_at_least_one_candidate_is_fitted_whatever_the_limit():
    X, y = texts()
    bad = First(fault=ValueError("no"))
    clf = automatic(("bad", bad), ("slow", First(seconds=0.1)), time_limit=1e-3)
    clf.fit(X, y)
    assert clf.members_[0][1].n_rows_ == 48
    assert "time" in clf.leaderboard_.loc["slow", "reason"]


def test_a_long_training_is_ended_in_time_and_leaves_no_callback():
    X, y = table(60)
    load_backbone("robustmm/tiny-clip")  # the first time takes any time
    endless = QuickClassifier(max_epochs=100_000)
    start = time.perf_counter()
    clf = automatic(("endless", endless), time_limit=3.0).fit(X, y)
    assert time.perf_counter() - start < 3.6
    assert clf.members_[0][1].net_params is None
    assert clf.score(X, y) >= 0


def test_warnings_of_candidates_are_told_once():
    X, y = texts()
    few = LogisticRegression(max_iter=1)
    pairs = [(f"c{i}", of_price(few)) for i in range(4)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        automatic(*pairs).fit(X, y)
    told = [str(w.message) for w in caught if "converge" in str(w.message)]
    assert len(told) == 1


def test_one_bar_shows_the_step_the_best_and_the_time(capsys):
    X, y = texts()
    pairs = [("one", First()), ("two", First(strength=0.7))]
    automatic(*pairs, verbose=1, time_limit=50).fit(X, y)
    shown = capsys.readouterr().err
    for part in ("two", "best=", "left=", "one (all rows)"):
        assert part in shown
    assert automatic(*pairs).fit(X, y)
    assert capsys.readouterr() == ("", "")


def test_several_labels_with_forests_and_frequencies():
    X, y = texts(80)
    Y = pd.DataFrame({"a": y == "a", "bc": y != "a", "never": False}).astype(int)
    forest = of_price(RandomForestClassifier(10, random_state=0))
    pairs = [("words", TfidfClassifier()), ("forest", forest), ("prior", prior())]
    clf = automatic(*pairs).fit(X, Y)
    proba = clf.predict_proba(X)
    assert proba.shape == (80, 3)
    assert (proba[:, 2] < 0.1).all()
    assert (clf.predict(X) == (proba > 0.5)).all()
    assert clf.leaderboard_["score"].iloc[0] > 0.7


def test_rows_with_nothing_get_the_prior_whatever_members_say():
    X, y = texts(40)
    X.loc[[3, 4], "text"] = None
    with pytest.warns(UserWarning, match="2 of 40 rows have neither"):
        clf = automatic(("price", of_price())).fit(X, y)
    with pytest.warns(UserWarning, match="2 of 40 rows"):
        proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba[3], clf.class_prior_)
    assert abs(proba[0] - clf.class_prior_).max() > 0.01


def test_weights_reach_the_last_step_of_a_pipeline():
    X, y = texts(60)
    heavy = np.where(y == "a", 50.0, 1.0)
    plain, weighted = (
        automatic(("price", of_price())).fit(X, y, sample_weight=w).predict_proba(X)
        for w in (None, heavy)
    )
    assert weighted[:, 0].mean() > plain[:, 0].mean() + 0.2


def test_temperatures_change_no_answer():
    X, y = texts(90, wrong=0.5)
    pair = ("sure", First(strength=0.999))
    clf = automatic(pair).fit(X, y)
    plain = automatic(pair, calibrate=False).fit(X, y)
    assert clf.temperatures_["image_missing"] > 1.5
    assert set(plain.temperatures_.values()) == {1.0}
    assert (clf.predict(X) == plain.predict(X)).all()
    assert clf.predict_proba(X).max() < plain.predict_proba(X).max()


def test_the_defaults_follow_from_the_encoder_and_are_combined():
    X, y = make_scenes(30, n_classes=2, random_state=0)
    own = ("mine", TfidfClassifier(C=0.1))
    clf = AutoMultimodalClassifier(
        "robustmm/tiny-bert", candidates=[own, "default"], random_state=0, max_epochs=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.set_params(time_limit=5).fit(X, y)
    names = list(clf.leaderboard_.index)
    assert {"mine", "prior", "TF-IDF, C=5", "ensemble"} <= set(names)
    assert "probe, tiny-bert, C=0.1" in names


def test_a_clone_a_search_and_a_pickle():
    X, y = texts(60)
    clf = automatic(("words", TfidfClassifier()), ("price", of_price()))
    search = GridSearchCV(clf, {"ensemble_size": [1, 5]}, cv=2, error_score="raise")
    best = search.fit(X, y).best_estimator_
    assert not hasattr(clone(best), "members_")
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_proba(X), best.predict_proba(X))
    pd.testing.assert_frame_equal(again.leaderboard_, best.leaderboard_)


def test_a_saved_model_predicts_the_same_without_pickle(tmp_path):
    X, y = texts(60)
    X["image"] = [np.full((8, 8, 3), 9 * i % 255, dtype=np.uint8) for i in range(60)]
    pairs = [
        ("words", TfidfClassifier()),
        ("price", of_price()),
        ("probe", LinearProbeClassifier("robustmm/tiny-clip", C=0.1)),
    ]
    clf = automatic(*pairs).fit(X, y)
    # All three, whatever was chosen.
    clf.members_ = [(n, clone(e).fit(X, y)) for n, e in pairs]
    clf.weights_ = np.full(3, 1 / 3)
    save(clf, tmp_path / "model", include_backbone=True)
    again = load(tmp_path / "model")
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-6)
    pd.testing.assert_frame_equal(again.leaderboard_, clf.leaderboard_)
    assert again.candidates == "default"
    assert str(again.members_[2][1].backbone).startswith(str(tmp_path))


def test_a_member_that_cannot_be_opened_safely_is_not_saved(tmp_path):
    X, y = texts()
    clf = automatic(("own", First())).fit(X, y)
    with pytest.raises(TypeError, match="First"):
        save(clf, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"candidates": "all"}, 'candidates must be "default" or a list.*all'),
        ({"candidates": []}, "candidates must be"),
        ({"candidates": [("one", 1)]}, "candidates must be"),
        ({"candidates": [("a", First()), ("a", First())]}, "must differ"),
        ({"candidates": [("ensemble", First())]}, "must differ"),
        ({"candidates": [("one", First)]}, "candidates must be"),
        ({"backbones": None}, "backbones must be.*None"),
        ({"cv": 1}, "cv.*1"),
        ({"time_limit": 0}, "time_limit.*0"),
        ({"ensemble_size": 0}, "ensemble_size.*0"),
        ({"scoring": "r2"}, "scoring must fit the task"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(params, message):
    X, y = texts()
    with pytest.raises(ValueError, match=message):
        automatic(("first", First())).set_params(**params).fit(X, y)


def test_nothing_can_be_held_out_of_classes_of_one_row():
    X, _ = texts(3)
    with pytest.raises(ValueError, match="must have two rows"):
        automatic(("first", First())).fit(X, ["a", "b", "c"])


def test_an_unfitted_one_has_no_leaderboard():
    with pytest.raises(NotFittedError):
        _ = AutoMultimodalClassifier().leaderboard_
