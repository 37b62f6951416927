"""scikit-learn's callbacks are told of fits and epochs, and may end a training."""

import gc
import importlib.util
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from contract import ToyClassifier, ToyModule, frame_with_holes, small
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import robustmm

callback = pytest.importorskip("sklearn.callback")  # from scikit-learn 1.9 on


class Recorder:
    """Keeps what it is told; asks to stop where ``stop_after`` says."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.events.append(f"end {context.task_name} {context.task_id}")
        self.last = {"X": X, "y": y, "metadata": metadata, "fitted": fitted_estimator}
        return (context.task_name, context.task_id) == ("epoch", self.stop_after)


@pytest.fixture(scope="module")
def data():
    return frame_with_holes()


def test_a_fit_is_a_task_and_each_epoch_a_subtask(data):
    X, y = data
    weight = np.ones(len(X))
    recorder = Recorder()
    estimator = small(ToyClassifier, max_epochs=2).set_callbacks(recorder)
    estimator.fit(X, y, sample_weight=weight)
    epochs = ["begin epoch 0", "end epoch 0", "begin epoch 1", "end epoch 1"]
    assert recorder.events == ["setup", "begin fit 0", *epochs, "end fit 0", "teardown"]
    assert recorder.last["X"] is X
    assert recorder.last["y"] is y
    assert recorder.last["metadata"]["sample_weight"] is weight


def test_scores_are_of_each_epoch_and_change_nothing(data):
    X, y = data
    monitor = callback.ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    watched = small(ToyClassifier, max_epochs=3).set_callbacks(monitor).fit(X, y)
    alone = small(ToyClassifier, max_epochs=3).fit(X, y)
    np.testing.assert_array_equal(
        watched.decision_function(X), alone.decision_function(X)
    )
    log = monitor.get_logs().data_as_pandas.set_index(["task_name", "task_id"])
    assert log.index.tolist() == [("fit", 0), *(("epoch", i) for i in range(3))]
    assert log["neg_log_loss"].nunique() == 3
    assert log.loc[("epoch", 2), "accuracy"] == watched.score(X, y)


def test_a_callback_may_stop_the_training(data):
    recorder = Recorder(stop_after=1)
    estimator = small(ToyClassifier, max_epochs=9, early_stopping=True)
    estimator.set_callbacks(recorder).fit(*data)
    assert estimator.n_iter_ == len(estimator.history_) == 2
    assert recorder.last["fitted"].n_iter_ == 2
    assert recorder.events[-3:] == ["end epoch 1", "end fit 0", "teardown"]


def test_a_failed_fit_tears_down_and_leaves_the_estimator_as_it_was(data):
    X, y = data

    class Failing(Recorder):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("no")

    recorder = Failing()
    estimator = small(ToyClassifier).set_callbacks(recorder)
    before = dict(vars(estimator))
    with pytest.raises(RuntimeError, match="no"):
        estimator.fit(X, y)
    assert vars(estimator) == before
    assert recorder.events[-1] == "teardown"


def test_what_was_fitted_on_another_backbone_can_be_watched(data):
    X, y = data
    monitor = callback.ScoringMonitor(scoring="accuracy")
    estimator = small(ToyClassifier).fit(X, y)
    estimator.set_params(backbone="robustmm/tiny-vilt").set_callbacks(monitor)
    estimator.fit(X, y)
    assert len(monitor.get_logs().data) == 2


def test_the_data_are_let_go(data):
    X, y = data[0].copy(), data[1]
    estimator = small(ToyClassifier).set_callbacks(
        callback.ScoringMonitor(scoring="accuracy")
    )
    estimator.fit(X, y)
    seen = weakref.ref(X)
    del X
    gc.collect()
    assert seen() is None
    assert not [k for k in vars(estimator) if "context" in k or "task" in k]


def test_bars_of_epochs_stand_below_those_of_a_search(data, capsys):
    X, y = data
    search = GridSearchCV(
        small(ToyClassifier, max_epochs=2), {"batch_size": [12]}, cv=2
    )
    search.set_callbacks(callback.ProgressBar()).fit(X, y)
    shown = capsys.readouterr().out
    assert "GridSearchCV - fit" in shown
    assert "ToyClassifier - fit" in shown


def test_scores_of_all_folds_of_a_search(data):
    X, y = data
    monitor = callback.ScoringMonitor(scoring="accuracy")
    estimator = small(ToyClassifier, max_epochs=2).set_callbacks(monitor)
    GridSearchCV(estimator, {"batch_size": [6, 12]}, cv=2).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    # Two candidates, two folds and the final fit, each with two epochs and itself.
    assert log["task_name"].tolist().count("epoch") == 2 * (2 * 2 + 1)
    assert len(log) == 3 * (2 * 2 + 1)


def test_clone_keeps_callbacks():
    monitor = callback.ScoringMonitor(scoring="accuracy")
    estimator = small(ToyClassifier).set_callbacks(monitor)
    assert clone(estimator)._skl_callbacks == [monitor]


def load_again(name, monkeypatch):
    """Import a file of the package once more, under the name it has."""
    path = Path(robustmm.__file__).parent.joinpath(*name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"robustmm.{name}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_older_versions_of_scikit_learn_fit_without_callbacks(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    load_again("training.tasks", monkeypatch)
    load_again("table", monkeypatch)
    load_again("base", monkeypatch)
    trained = load_again("trained", monkeypatch)

    class Old(trained.MultimodalClassifier):
        def __init__(self, backbone="robustmm/tiny-clip", *, random_state=0):
            super().__init__(max_epochs=1, random_state=random_state, batch_size=8)
            self.backbone = backbone

        def _build_module(self, backbone, n_outputs):
            return ToyModule(backbone, n_outputs)

    assert not hasattr(Old, "set_callbacks")
    X, y = data
    new = small(ToyClassifier).fit(X, y)
    np.testing.assert_array_equal(
        Old().fit(X, y).decision_function(X), new.decision_function(X)
    )
