"""A scorer sees the classifier as it is behind an epoch, on rows of the table."""

import logging
import time

import numpy as np
import pytest
from contract import frame_with_holes, small
from sklearn.metrics import accuracy_score, make_scorer
from toys import QuickClassifier

from robustmm import DeLoClassifier, MAILClassifier
from robustmm.training.scored import check_scoring

OWN = make_scorer(accuracy_score)


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(40, 3)


@pytest.fixture(scope="module")
def further():
    X, y = frame_with_holes(52, 3)
    return X.iloc[40:], y[40:]


def quick(**params):
    clf = QuickClassifier()
    vars(clf).update({"max_epochs": 3, "lr": 1e-2} | params)
    return clf


class Watching:
    """A scorer that keeps what it is given, and gives what it is told."""

    def __init__(self, values=None):
        self.values, self.calls = values, []

    def __call__(self, estimator, X, y):
        rows = slice(None, None, 2)
        part = X.iloc[rows]
        self.calls.append(
            {
                "X": X,
                "y": y,
                "classes": estimator.classes_,
                "proba": estimator.predict_proba(X),
                "part": estimator.predict_proba(part),
                "labels": estimator.predict(X),
                "scores": estimator.decision_function(X),
                "accuracy": estimator.score(X, y),
                "net": estimator.net_,
            }
        )
        if self.values is None:
            return self.calls[-1]["accuracy"]
        return self.values[len(self.calls) - 1]


def test_it_sees_the_classifier_as_it_is(table, further):
    scorer = Watching()
    X, y = table
    clf = quick(scoring=scorer)
    clf.set_params(random_state=0).fit(X, y, validation_data=further)
    assert len(scorer.calls) == 3
    last = scorer.calls[-1]
    assert last["net"] is clf.net_
    np.testing.assert_array_equal(last["y"], further[1])
    assert last["X"].columns.tolist() == ["image", "text"]
    assert last["X"].index.tolist() == further[0].index.tolist()
    np.testing.assert_array_equal(last["classes"], clf.classes_)
    expected = clf.predict_proba(further[0])
    np.testing.assert_allclose(last["proba"], expected, atol=1e-6)
    np.testing.assert_allclose(last["part"], expected[::2], atol=1e-6)
    np.testing.assert_array_equal(last["labels"], clf.predict(further[0]))
    scores = clf.decision_function(further[0])
    np.testing.assert_allclose(last["scores"], scores, atol=1e-5)
    assert not np.allclose(scorer.calls[0]["proba"], expected, atol=1e-6)
    assert clf.history_["valid_score"].tolist() == [c["accuracy"] for c in scorer.calls]


def test_scoring_changes_nothing_in_the_training(table, further):
    X, y = table
    plain = small(MAILClassifier, max_epochs=2).fit(X, y)
    clf = small(MAILClassifier, max_epochs=2, scoring=Watching())
    clf.fit(X, y, validation_data=further)
    np.testing.assert_array_equal(clf.decision_function(X), plain.decision_function(X))


def test_the_held_out_table_is_not_computed_again(table, monkeypatch):
    X, y = table
    clf = quick(early_stopping=True, scoring="neg_log_loss")
    evaluated = []
    evaluate = QuickClassifier._evaluate
    monkeypatch.setattr(
        "robustmm.base.BaseMultimodalClassifier._evaluate",
        lambda self, X, *rest: evaluated.append(len(X)) or evaluate(self, X, *rest),
    )
    history = clf.fit(X, y).history_
    assert not evaluated
    np.testing.assert_allclose(
        history["valid_score"], -history["valid_loss"], atol=1e-6
    )


@pytest.mark.parametrize("columns", [["image", "text"], ["text", "price", "image"]])
def test_further_columns_are_not_in_the_way(columns, table):
    X, y = table
    X = X.assign(price=1.0)[columns]
    scorer = Watching()
    quick(early_stopping=True, scoring=scorer).fit(X, y)
    assert all(call["part"].shape == (2, 3) for call in scorer.calls)
    scorer = Watching()
    quick(early_stopping=True, scoring=scorer).fit(table[0].to_numpy(), y)
    assert all(call["part"].shape == (2, 3) for call in scorer.calls)


def test_the_best_epoch_is_that_of_the_highest_score(table):
    X, y = table
    scorer = Watching([0.1, 0.9, 0.5, 0.4, 0.3])
    clf = quick(early_stopping=True, scoring=scorer, max_epochs=5, n_iter_no_change=2)
    clf.fit(X, y)
    assert clf.history_["valid_score"].tolist() == [0.1, 0.9, 0.5, 0.4]
    held = scorer.calls[0]["X"]
    now = clf.predict_proba(held)
    np.testing.assert_allclose(now, scorer.calls[1]["proba"], atol=1e-6)
    assert not np.allclose(now, scorer.calls[3]["proba"], atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", OWN])
def test_scorers_of_scikit_learn_are_taken(scoring, several, table):
    X, y = table
    y = np.stack([y == "city", y == "beach"], axis=1) * 1 if several else y
    clf = quick(early_stopping=True, scoring=scoring, validation_fraction=0.3)
    assert clf.fit(X, y).history_["valid_score"].between(0, 1).all()


def test_a_task_is_scored_among_its_own_labels(table):
    X, y = table
    early = y != "beach"
    scorer = Watching()
    options = {"early_stopping": True, "scoring": scorer, "task_inference": "oracle"}
    clf = small(DeLoClassifier, **options).fit(X[early], y[early])
    labels = np.where(np.arange((~early).sum()) % 2, "a", "b")
    clf.partial_fit(X[~early], labels)
    first, second = scorer.calls
    assert first["classes"].tolist() == np.unique(y[early]).tolist()
    assert second["classes"].tolist() == ["a", "b"]
    assert second["proba"].shape[1] == 2
    np.testing.assert_allclose(second["part"], second["proba"][::2], atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), None, "high", np.ones(2)])
def test_what_is_no_finite_number_is_refused(value, table):
    clf = quick(early_stopping=True, scoring=Watching([value]))
    with pytest.raises(ValueError, match=r"a finite number .* in epoch 1"):
        clf.fit(*table)


@pytest.mark.parametrize(
    ("scoring", "error", "message"),
    [
        ("acuracy", ValueError, "scoring must be one of .*'accuracy'.*, got 'acuracy'"),
        (3, TypeError, r"must be the name of a scorer, a scorer\(.*, got 3"),
    ],
)
def test_what_is_no_scorer_is_refused(scoring, error, message, table):
    with pytest.raises(error, match=message):
        check_scoring(scoring)
    with pytest.raises(error, match=message):
        quick(early_stopping=True, scoring=scoring).fit(*table)


def test_a_scorer_without_rows_is_refused(table):
    with pytest.raises(ValueError, match=r"scoring needs rows to score: .* alone\."):
        quick(scoring="accuracy").fit(*table)


def test_rows_are_let_go_when_the_fit_is_over(table):
    import gc
    import weakref

    class Held(Watching):
        def __call__(self, estimator, X, y):
            held.append(weakref.ref(X))
            return 0.5

    held = []
    clf = quick(early_stopping=True, scoring=Held()).fit(*table)
    gc.collect()
    assert all(ref() is None for ref in held)
    assert clf.n_iter_ == 3


# ------------------------------------------------------------------- fits with a limit


def test_a_fit_ends_in_time_with_the_best_weights(table, further, caplog):
    X, y = table
    scorer, start = Watching(), time.perf_counter()
    clf = small(MAILClassifier, max_epochs=1000, time_limit=1.5, scoring=scorer)
    with caplog.at_level(logging.INFO, logger="robustmm"):
        clf.fit(X, y, validation_data=further)
    assert time.perf_counter() - start < 6
    assert clf.n_iter_ == len(clf.history_) == len(scorer.calls) < 1000
    best = int(clf.history_["valid_score"].argmax())
    proba = clf.predict_proba(further[0])
    np.testing.assert_allclose(proba, scorer.calls[best]["proba"], atol=1e-5)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"MAILClassifier: time_limit=1.5 is spent in epoch {clf.n_iter_} of 1000."
    )
    assert not hasattr(clf, "_fitting") or clf._fitting is None


def test_a_step_is_made_whatever_the_limit(table):
    clf = quick(time_limit=1e-9).fit(*table)
    assert clf.n_iter_ == 1
    assert np.isfinite(clf.history_["train_loss"]).all()


def test_a_limit_that_is_not_reached_changes_nothing(table):
    X, y = table
    plain, limited = (
        small(MAILClassifier, max_epochs=2, time_limit=limit).fit(X, y)
        for limit in (None, 1e5)
    )
    np.testing.assert_array_equal(
        plain.decision_function(X), limited.decision_function(X)
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"time_limit": 0}, r"time_limit must be in \(0"),
        ({"time_limit": float("inf")}, r"time_limit must be in \(0, inf\)"),
        ({"time_limit": 5, "checkpoint_dir": "."}, "must be None with checkpoint_dir"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(params, message, table):
    with pytest.raises(ValueError, match=message):
        quick(**params).fit(*table)
