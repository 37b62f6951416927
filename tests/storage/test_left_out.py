"""Callbacks of loggers and the like do not stand in the way of a file."""

import pickle
import threading

import numpy as np
import pytest
from contract import frame_with_holes, small
from skorch.callbacks import Callback, EpochScoring, MlflowLogger
from toys import QuickClassifier

import robustmm
from robustmm import MAILClassifier
from robustmm.storage.left_out import can_pack, can_pickle, without_unstorable


class Handle(Callback):
    """Writes to something that no file can hold."""

    def __init__(self):
        self.lock = threading.Lock()
        self.epochs = []

    def on_epoch_end(self, net, **kwargs):
        with self.lock:
            self.epochs.append(dict(net.history[-1]))


class Client:
    """As much of MLflow's as skorch's logger asks for."""

    def __init__(self):
        self.metrics, self.ended = [], []
        self.lock = threading.Lock()

    def log_metric(self, run, name, value, step):
        self.metrics.append((name, step))

    def set_terminated(self, run):
        self.ended.append(run)


class Run:
    class info:
        run_id = "one"


@pytest.fixture(scope="module")
def table():
    return frame_with_holes(16)


def assert_predicts(clf, again, X):
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_a_handle_is_left_out_of_a_pickle_with_one_warning(table):
    X, y = table
    handle = Handle()
    kept = EpochScoring("accuracy", name="own")
    params = {"callbacks": [handle, ("kept", kept)], "iterator_train__shuffle": False}
    clf = QuickClassifier(net_params=params).fit(X, y)
    assert len(handle.epochs) == 1
    with pytest.warns(UserWarning, match="pickle .* cannot hold Handle: left") as seen:
        again = pickle.loads(pickle.dumps(clf))
    assert len(seen) == 1
    assert_predicts(clf, again, X)
    assert clf.net_params is params
    assert params["callbacks"][0] is handle
    ((name, scoring),) = again.net_params["callbacks"]
    assert (name, type(scoring)) == ("kept", EpochScoring)
    assert again.net_params["iterator_train__shuffle"] is False
    # It learns on.
    assert again.set_params(net_params=None).fit(X, y).n_iter_ == 1


def test_what_can_be_stored_is_no_reason_for_a_word(table, recwarn):
    clf = QuickClassifier(net_params={"optimizer__betas": (0.9, 0.95)}).fit(*table)
    again = pickle.loads(pickle.dumps(clf))
    assert again.net_params == clf.net_params
    assert not recwarn


def test_one_that_is_not_fitted_loses_no_callback():
    clf = QuickClassifier(net_params={"callbacks": [Handle()]})
    with pytest.raises(TypeError, match="lock"):
        pickle.dumps(clf)


def test_a_logger_of_skorchs_hears_all_and_is_left_out(table, tmp_path):
    X, y = table
    client = Client()
    logger = MlflowLogger(run=Run(), client=client, create_artifact=False)
    params = {"callbacks": [logger]}
    clf = QuickClassifier(max_epochs=2, early_stopping=True, net_params=params)
    clf.fit(X, y)
    names = {"train_loss", "valid_loss", "valid_score", "dur"}
    assert names <= {name for name, _ in client.metrics}
    assert {step for _, step in client.metrics} == {1, 2}
    assert client.ended == ["one"]
    with pytest.warns(UserWarning, match="saved model .* MlflowLogger: left out"):
        robustmm.save(clf, tmp_path)
    again = robustmm.load(tmp_path, classes=[QuickClassifier], trust_net_params=True)
    assert again.net_params == {"callbacks": []}
    assert_predicts(clf, again, X)
    with pytest.warns(UserWarning, match="pickle .* MlflowLogger: left out"):
        assert_predicts(clf, pickle.loads(pickle.dumps(clf)), X)


def test_artifacts_of_a_logger_are_written(table):
    class Artifacts(Client):
        written = ()

        def log_artifact(self, run, path):
            self.written = (*self.written, path.name)
            assert path.stat().st_size

    client = Artifacts()
    logger = MlflowLogger(run=Run(), client=client)
    QuickClassifier(net_params={"callbacks": [logger]}).fit(*table)
    assert client.written == (
        "params.pth",
        "optimizer.pth",
        "criterion.pth",
        "history.json",
    )


def test_a_scorer_that_is_no_name_is_left_out(table, tmp_path):
    X, y = table
    options = {"early_stopping": True, "scoring": lambda estimator, X, y: 0.5}
    clf = small(MAILClassifier, **options).fit(X, y)
    with pytest.warns(UserWarning, match="cannot hold scoring=<lambda>: left out"):
        again = pickle.loads(pickle.dumps(clf))
    assert again.scoring is None
    with pytest.warns(UserWarning, match="cannot hold scoring=<lambda>: left out"):
        robustmm.save(clf, tmp_path)
    again = robustmm.load(tmp_path)
    assert again.scoring is None
    assert_predicts(clf, again, X)
    named = small(MAILClassifier, early_stopping=True, scoring="accuracy").fit(X, y)
    robustmm.save(named, tmp_path)
    assert robustmm.load(tmp_path).scoring == "accuracy"


def test_names_say_what_is_left_out():
    params = {
        "scoring": print,
        "net_params": {"callbacks": [Handle, Handle(), ("a", Handle())], "x": {1}},
        "class_weight": {1},
    }
    kept, left = without_unstorable(params, can_pack)
    assert sorted(left) == ["Handle", "Handle", "a Handle", "scoring=print", "x=set"]
    assert kept["net_params"] == {"callbacks": []}
    assert kept["class_weight"] == {1}
    kept, left = without_unstorable(params, can_pickle)
    assert sorted(left) == ["Handle", "a Handle"]
    assert kept["net_params"] == {"callbacks": [Handle], "x": {1}}
    assert without_unstorable({"lr": 1}, can_pack) == ({"lr": 1}, [])
    assert without_unstorable({"net_params": print}, can_pack)[0] == {
        "net_params": None
    }
