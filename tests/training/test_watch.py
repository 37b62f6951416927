"""Scores behind each epoch, the best weights, and the pair of rows to look at."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from contract import frame_with_holes, small
from points import Points, make
from skorch.callbacks import Callback
from toys import QuickClassifier

from robustmm import CMPTClassifier, DeLoClassifier, MAILClassifier
from robustmm.training.watch import (
    BestWeights,
    ProgressBar,
    ValidationScore,
    check_validation,
    plain_score,
)


def test_best_weights_come_back():
    seen = {}

    class Worse(Callback):
        """Pretend that every epoch after the first is worse."""

        def on_epoch_end(self, net, **kwargs):
            epoch = len(net.history)
            net.history.record("valid_loss", float(epoch))
            seen[epoch] = net.module_.head.weight.detach().clone()

    net = make(callbacks=[Worse(), BestWeights(2)], max_epochs=9).fit(Points())
    assert len(net.history) == 3
    assert torch.equal(net.module_.head.weight, seen[1])
    assert not torch.equal(seen[1], seen[3])


class Scored(Callback):
    """Writes scores and losses of its own."""

    def __init__(self, name, values):
        self.name, self.values, self.seen = name, values, []

    def on_epoch_end(self, net, **kwargs):
        net.history.record(self.name, self.values[len(net.history) - 1])
        self.seen.append(net.module_.head.weight.detach().clone())


@pytest.mark.parametrize(
    ("monitor", "best", "epochs"), [("valid_loss", 1, 4), ("valid_score", 2, 5)]
)
def test_a_loss_is_best_when_low_and_a_score_when_high(monitor, best, epochs):
    scored = Scored(monitor, [2.0, 1.0, 3.0, 1.5, 1.5, 1.5])
    net = make(callbacks=[scored, BestWeights(2, monitor)], max_epochs=6).fit(Points())
    assert len(net.history) == epochs
    assert torch.equal(net.module_.head.weight, scored.seen[best])


@pytest.mark.parametrize("cut", [False, True])
def test_who_only_watches_puts_weights_back_if_the_time_was_spent(cut):
    class Cut(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.cut_ = cut and len(net.history) == 3

    scored = Scored("valid_loss", [2.0, 1.0, 3.0])
    callbacks = [scored, Cut(), BestWeights(None)]
    net = make(callbacks=callbacks, max_epochs=3).fit(Points())
    assert len(net.history) == 3
    assert torch.equal(net.module_.head.weight, scored.seen[1 if cut else 2])


def test_the_plain_score_is_accuracy_or_mean_average_precision():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 5.0, 2.0]])
    assert plain_score(None, logits, np.array([0, 1, 2])) == pytest.approx(2 / 3)
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    # The second label is found behind one row that lacks it; the third has no row.
    assert plain_score(None, logits, labels) == pytest.approx((1.0 + 0.5) / 2)
    assert math.isnan(plain_score(None, logits, np.zeros((3, 3))))


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        ("ab", TypeError, "got str"),
        (3, TypeError, "got int"),
        ((1, 2, 3), ValueError, "got 3 items; it takes no weights"),
        ((), ValueError, "got 0 items"),
    ],
)
def test_what_is_no_pair_is_refused(pair, error, message):
    with pytest.raises(error, match=rf"must be a tuple \(X, y\), {message}"):
        check_validation(pair)
    assert check_validation(None) is None
    assert check_validation([1, 2]) == (1, 2)


def test_the_bar_shows_what_is_known():
    class Bar:
        def __init__(self):
            self.shown = []

        def set_postfix(self, **values):
            self.shown.append(list(values))

        def update(self):
            pass

    class Score(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("valid_score", 0.5)

    bar = Bar()
    make(callbacks=[ProgressBar(bar)], max_epochs=1).fit(Points())
    make(callbacks=[Score(), ProgressBar(bar)], max_epochs=1).fit(Points())
    names = ["epoch", "train_loss"]
    assert bar.shown == [names, [*names, "valid_score"]]


# --------------------------------------------------- fit(..., validation_data=(X, y))


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(30, 3)


@pytest.fixture(scope="module")
def further():
    X, y = frame_with_holes(42, 3)
    return X.iloc[30:], y[30:]


def quick(**params):
    clf = QuickClassifier()
    vars(clf).update(params)
    return clf


def test_rows_that_are_only_watched_change_nothing(table, further):
    X, y = table
    clf = small(MAILClassifier, max_epochs=2).fit(X, y, validation_data=further)
    plain = small(MAILClassifier, max_epochs=2).fit(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), plain.decision_function(X))
    assert "valid_score" not in plain.history_
    last = clf.history_.iloc[-1]
    assert last["valid_score"] == clf.score(*further)
    proba = clf.predict_proba(further[0])
    places = np.searchsorted(clf.classes_, further[1])
    loss = -np.log(proba[np.arange(12), places]).mean()
    assert last["valid_loss"] == pytest.approx(loss, abs=1e-5)
    assert clf.n_iter_ == 2
    assert clf.missing_report_ == plain.missing_report_


def test_early_stopping_takes_them_and_trains_on_all(table, further):
    X, y = table
    clf = quick(early_stopping=True, max_epochs=3, lr=1e-2)
    sizes, split = [], clf._split

    def watch(rows, *rest):
        parts = split(rows, *rest)
        sizes.append([len(part) for part in parts])
        return parts

    clf._split = watch
    clf.fit(X, y, validation_data=further)
    clf.fit(X, y)
    assert sizes == [[30, 0], [27, 3]]


def test_several_labels_are_watched_too(table, further):
    def indicators(y):
        return np.stack([y == label for label in np.unique(table[1])], axis=1) * 1

    given = further[0], indicators(further[1])
    clf = small(CMPTClassifier, max_epochs=1, lambda_align=0)
    clf.fit(table[0], indicators(table[1]), validation_data=given)
    assert 0 < clf.history_["valid_score"][0] <= 1
    named = pd.DataFrame(given[1][:, ::-1])
    clf.fit(table[0], indicators(table[1]), validation_data=(given[0], named))
    with pytest.raises(ValueError, match="validation_data: Indicators must have the"):
        clf.fit(
            table[0], indicators(table[1]), validation_data=(given[0], given[1][:, :2])
        )


def test_an_array_is_read_by_position(table, further):
    X, y = table[0].to_numpy(), table[1]
    clf = quick().fit(X, y, validation_data=(further[0].to_numpy(), further[1]))
    assert np.isfinite(clf.history_["valid_loss"]).all()


def test_rows_without_any_modality_are_not_scored(table, further):
    X, y = further[0].copy(), further[1]
    X.iloc[:6] = None
    some = quick(lr=1e-12).fit(*table, validation_data=(X, y)).history_
    rest = quick(lr=1e-12).fit(*table, validation_data=(X[6:], y[6:])).history_
    names = ["valid_loss", "valid_score"]
    pd.testing.assert_frame_equal(some[names], rest[names])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:-1]), "validation_data: .* inconsistent numbers"),
        (lambda X, y: (X[:0], y[:0]), "validation_data: Found array with 0 sample"),
        (lambda X, y: (X, ["new"] * 12), r"validation_data: Labels .*, got \['new'\]"),
        (lambda X, y: (X, np.arange(12)), "validation_data: y must have labels of one"),
        (lambda X, y: (X, None), "validation_data: This classifier requires y"),
        (lambda X, y: (X[["image"]], y), "(?s)validation_data: .*text"),
        (lambda X, y: (X.assign(image=3), y), "validation_data: An image cell must be"),
        (
            lambda X, y: (X.assign(image=None, text=None), y),
            "image or a text, got 12",
        ),
        (
            lambda X, y: (X.assign(image=b"no"), y),
            "validation_data: .* image cells cannot be read",
        ),
    ],
)
def test_rows_that_cannot_be_watched_are_refused(change, message, table, further):
    clf = quick()
    before = dict(vars(clf))
    with pytest.raises(ValueError, match=message):
        clf.fit(*table, validation_data=change(*further))
    assert vars(clf) == before


def test_bad_images_are_missing_where_they_may_be(table, further):
    X, y = further[0].assign(image=b"no"), further[1]
    with pytest.warns(
        UserWarning, match="12 image cells cannot be read, taken"
    ) as seen:
        clf = quick(on_bad_image="missing").fit(*table, validation_data=(X, y))
    assert len(seen) == 1
    assert clf.missing_report_["bad_images"] == {}
    assert np.isfinite(clf.history_["valid_loss"]).all()


def test_a_task_is_watched_by_rows_of_its_own(table, further):
    X, y = table
    early, watched = y != "beach", further[1] != "beach"
    clf = small(DeLoClassifier).fit(X[early], y[early])
    pair = further[0][~watched], np.where(np.arange((~watched).sum()) % 2, "a", "b")
    labels = np.where(np.arange((~early).sum()) % 2, "a", "b")
    clf.partial_fit(X[~early], labels, validation_data=pair)
    told = clf.with_tasks(np.ones(len(pair[1]), int))
    assert clf.history_["valid_score"].iloc[-1] == told.score(*pair)
    with pytest.raises(ValueError, match="Labels must be among the 2 that are learned"):
        clf.partial_fit(X[~early], labels, validation_data=further)
    with pytest.raises(ValueError, match="validation_data must be None with tasks"):
        clf.fit(X, y, tasks=np.where(early, 0, 1), validation_data=further)
    assert len(clf.task_classes_) == 2


def test_the_score_is_of_what_the_validation_computed():
    seen = []

    def score(net, logits, targets):
        seen.append((logits.shape, targets.shape))
        return 0.25

    from skorch.helper import predefined_split

    callback = ValidationScore(score)
    options = {"train_split": predefined_split(Points(9)), "max_epochs": 2}
    net = make(callbacks=[callback], **options).fit(Points())
    assert seen == [((9, 2), (9,))] * 2
    assert net.history[:, "valid_score"] == [0.25] * 2
    assert callback.score is None
