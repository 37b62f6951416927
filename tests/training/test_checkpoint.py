"""Fits that are interrupted or killed lose nothing, and nothing is left half done."""

import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import ToyClassifier, frame_with_holes, public_classifiers, small
from skorch.callbacks import Callback, EarlyStopping

import robustmm
from robustmm import DeLoClassifier
from robustmm.storage.archive import dump_archive, load_archive
from robustmm.training import checkpoint
from robustmm.training.checkpoint import EpochCheckpoint
from robustmm.training.net import Net

X, Y = frame_with_holes()
RESUMABLE = [
    cls for cls in public_classifiers() if "checkpoint_dir" in cls().get_params()
]
# What is kept of frozen layers differs in the last bit with the batch it came from.
OPTIONS = {"max_epochs": 3, "early_stopping": True}


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture
def steps(monkeypatch):
    """Counts optimiser steps; the process is "killed" in step ``steps.last``."""

    class Steps:
        done, last = 0, None

    def counted(net, *args, **kwargs):
        if Steps.done == Steps.last:
            raise Killed
        Steps.done += 1
        return step(net, *args, **kwargs)

    step = Net.train_step_single
    monkeypatch.setattr(Net, "train_step_single", counted)
    return Steps


def exactly_as(one, other):
    """Compare everything learned, to the bit."""
    trained = [clf.__getstate__()["_trained"] for clf in (one, other)]
    for name, value in trained[0]["tensors"].items():
        np.testing.assert_array_equal(trained[1]["tensors"][name], value)
    histories = [clf.history_.drop(columns="dur") for clf in (one, other)]
    assert histories[0].equals(histories[1])
    flags = [clf.net_.history[:, "train_loss_best"] for clf in (one, other)]
    assert flags[0] == flags[1]


def kill_and_go_on(make, steps, last, fit):
    """Kill one fit in a step, go on in another estimator; return it and its steps."""
    steps.done, steps.last = 0, last
    with pytest.raises(Killed):
        fit(make())
    steps.done, steps.last = 0, None
    return fit(make()), steps.done


@pytest.mark.parametrize("cls", RESUMABLE, ids=lambda cls: cls.__name__)
def test_every_classifier_goes_on_to_the_same_weights(cls, steps, tmp_path):
    options = OPTIONS | ({} if cls is ToyClassifier else {"cache": None})

    def make(**more):
        return small(cls, **options | more)

    whole = make().fit(X, Y)
    total = steps.done
    again, rest = kill_and_go_on(
        lambda: make(checkpoint_dir=tmp_path), steps, 8, lambda clf: clf.fit(X, Y)
    )
    assert (total, rest) == (9, 3)
    exactly_as(again, whole)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("last", range(9))
def test_whenever_it_is_killed(last, steps, tmp_path):
    def make():
        return small(ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS)

    whole = make().fit(X, Y)
    again, rest = kill_and_go_on(make, steps, last, lambda clf: clf.fit(X, Y))
    assert rest == 9 - last // 3 * 3
    exactly_as(again, whole)


def test_a_kill_between_the_last_epoch_and_the_end(steps, tmp_path, monkeypatch):
    whole = small(ToyClassifier, **OPTIONS).fit(X, Y)
    clf = small(ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS)

    def killed(self, net):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ToyClassifier, "_keep", killed)
        with pytest.raises(Killed):
            clf.fit(X, Y)
    steps.done = 0
    exactly_as(clf.fit(X, Y), whole)
    assert steps.done == 0


def test_tasks_that_were_learned_are_not_learned_again(steps, tmp_path):
    X4, y4 = frame_with_holes(24, n_classes=4)
    tasks = np.isin(y4, np.unique(y4)[:2]).astype(int)

    def make(folder=tmp_path):
        return small(DeLoClassifier, checkpoint_dir=folder, max_epochs=2)

    def fit(clf):
        return clf.fit(X4, y4, tasks=tasks)

    whole = fit(make(None))
    total, first = steps.done, 2 * -(-np.sum(tasks == 0) // 8)
    again, rest = kill_and_go_on(make, steps, first + 1, fit)
    assert rest == total - first
    exactly_as(again, whole)
    assert list(tmp_path.iterdir()) == []


def test_another_task_starts_anew(steps, tmp_path):
    """Rows, encoded labels and all tensors may be those of the other task."""
    early, late = (np.char.add(Y.astype(str), suffix) for suffix in (" 1", " 2"))
    learned = small(DeLoClassifier, max_epochs=2).partial_fit(X, early)
    learned = pickle.dumps(learned.partial_fit(X, late))
    whole = pickle.loads(learned).partial_fit(X, late)
    again = pickle.loads(learned).set_params(checkpoint_dir=tmp_path)
    steps.done, steps.last = 0, 4
    with pytest.raises(Killed):
        pickle.loads(pickle.dumps(again)).partial_fit(X, early)
    steps.last = None
    exactly_as(again.partial_fit(X, late), whole)


def test_another_fit_starts_anew(steps, tmp_path):
    def make(**more):
        return small(ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS | more)

    steps.last = 5
    with pytest.raises(Killed):
        make().fit(X, Y)
    (stored,) = tmp_path.iterdir()
    steps.last = None
    retold = X.assign(text=X["text"].replace({X["text"].iloc[0]: "other"}))
    others = [
        (make(random_state=1), X, Y, None),
        (make(class_weight="balanced"), X, Y, None),
        (make(net_params={"lr": 0.1}), X, Y, None),
        (make(), X, Y, np.linspace(1, 2, len(Y))),
        (make(), X[::-1], Y[::-1], None),
        (make(), retold, Y, None),
    ]
    for clf, table, labels, weights in others:
        steps.done = 0
        clf.fit(table, labels, sample_weight=weights)
        assert steps.done == 9
    assert list(tmp_path.iterdir()) == [stored]


def identities():
    """Return what parameters count as that a pickle holds, by reference or by value."""
    given = [
        {"optimizer": torch.optim.SGD},
        {"optimizer": torch.optim.Adam},
        {"callbacks": [("stop", EarlyStopping(patience=2))]},
        {"callbacks": [("stop", EarlyStopping(patience=3))]},
        {"callbacks": [EarlyStopping()]},
        {"callbacks": (EarlyStopping(),)},
        {"classes": {"b", "a", "c"}, "weights": np.arange(3)},
        {"classes": {"b", "a", "c"}, "weights": np.arange(3) + 1},
        {"a": 1},
        {"a": 1.0},
        {"a": Path("1")},
    ]
    return [checkpoint._identity(value) for value in given]


def test_other_objects_in_net_params_are_another_training():
    assert len(set(identities())) == len(identities())


@pytest.mark.slow
def test_parameters_count_the_same_in_another_process():
    code = "import test_checkpoint as t; print(*t.identities(), sep=chr(10))"
    tests = Path(__file__).parents[1]
    paths = [
        str(Path(robustmm.__file__).parents[1]),
        str(tests),
        str(tests / "training"),
    ]
    for seed in "1", "2":
        env = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, check=True
        ).stdout
        assert out.decode().split() == identities()


def test_a_callback_counts_by_its_parameters_and_others_by_their_type():
    used = EarlyStopping()
    used.misses_ = 3
    assert checkpoint._identity(used) == checkpoint._identity(EarlyStopping())
    closed = [lambda: 1, lambda: 2]
    assert checkpoint._identity(closed[0]) == "builtins.function"
    assert checkpoint._identity({"a": closed}) == checkpoint._identity(
        {"a": closed[::-1]}
    )


def test_a_search_shares_a_folder(tmp_path):
    from sklearn.model_selection import GridSearchCV

    clf = small(ToyClassifier, checkpoint_dir=tmp_path)
    plain = small(ToyClassifier)
    scores = [
        GridSearchCV(e, {"batch_size": [6, 12]}, cv=2).fit(X, Y).cv_results_
        for e in (clf, plain)
    ]
    np.testing.assert_array_equal(*[s["mean_test_score"] for s in scores])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"checkpoint_dir": "nowhere"}, "checkpoint_dir must be .* 'nowhere'"),
        ({"checkpoint_dir": 3}, "checkpoint_dir must be .* got 3"),
        ({"checkpoint_dir": ".", "random_state": None}, "random_state must be set"),
    ],
)
def test_what_a_checkpoint_needs(params, message):
    with pytest.raises(ValueError, match=message):
        small(ToyClassifier, **params).fit(X, Y)


class Trap:
    def __reduce__(self):
        return os.abort, ()


def archive(content):
    """A zip file, as PyTorch writes and as bombs are packed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", content)
    return stream.getvalue()


def stored_by(clf, steps):
    """Kill a fit in its second epoch; return its checkpoint's path and state."""
    clf.set_params(max_epochs=2, batch_size=24)
    steps.done, steps.last = 0, 1
    with pytest.raises(Killed):
        clf.fit(X, Y)
    steps.done, steps.last = 0, None
    (stored,) = Path(clf.checkpoint_dir).iterdir()
    return stored, load_archive(stored, 10**7)


DAMAGE = {
    "nothing": b"",
    "half": b"half",
    "a pickle": pickle.dumps(Trap()),
    "a zip of a pickle": archive(pickle.dumps(Trap())),
    "a bomb": archive(bytes(10**8)),
    "an archive of another thing": dump_archive([1, 2]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_not_executed(name, steps, tmp_path):
    clf = small(ToyClassifier, checkpoint_dir=tmp_path)
    stored, _ = stored_by(clf, steps)
    stored.write_bytes(DAMAGE[name])
    with pytest.raises(ValueError, match=f"{stored.name}.*is damaged.*remove it"):
        clf.fit(X, Y)
    stored.unlink()
    assert clf.fit(X, Y).n_iter_ == 2


@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "fifo", "sparse"])
def test_a_checkpoint_is_a_file(kind, steps, tmp_path):
    (tmp_path / "states").mkdir()
    clf = small(ToyClassifier, checkpoint_dir=tmp_path / "states")
    stored, _ = stored_by(clf, steps)
    stored.rename(tmp_path / "elsewhere")
    if kind == "folder":
        stored.mkdir()
    elif kind == "fifo":
        os.mkfifo(stored)
    elif kind == "sparse":
        stored.touch()
        os.truncate(stored, 2**40)
    else:
        stored.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    with pytest.raises(ValueError, match=f"{stored.name}.*is damaged.*remove it"):
        clf.fit(X, Y)


def without(name):
    return lambda state: state.pop(name)


def put(value, *path):
    """A change that puts a value at a path inside the state."""

    def change(state):
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


NAN = torch.tensor([[float("nan")]])
FORGED = {
    "no tensors": without("tensors"),
    "no optimizer": without("optimizer"),
    "no history": without("history"),
    "no callbacks": without("callbacks"),
    "no generators": without("generators"),
    "more": put(1, "more"),
    "tensors as a list": put([], "tensors"),
    "no tensor": put({}, "tensors"),
    "another shape": put(torch.zeros(1), "tensors", "head.bias"),
    "a number for a tensor": put(3, "tensors", "head.bias"),
    "tensors that are not finite": put(NAN, "tensors", "head.bias"),
    "history that is no JSON": put("[", "history"),
    "history of numbers": put("[1, 2]", "history"),
    "no epoch": put("[]", "history"),
    "too many epochs": lambda state: state.update(
        history=json.dumps(json.loads(state["history"]) * 3)
    ),
    "deep history": put("[" * 100_000, "history"),
    "an epoch without batches": put('[{"epoch": 1, "batches": []}]', "history"),
    "an epoch of another number": lambda state: state.update(
        history=state["history"].replace('"epoch": 1', '"epoch": 7')
    ),
    "optimizer without groups": put({"state": {}}, "optimizer"),
    "groups of another size": put([], "optimizer", "param_groups"),
    "moments without a step": lambda s: s["optimizer"]["state"][0].pop("step"),
    "moments of another shape": put(NAN, "optimizer", "state", 0, "exp_avg"),
    "no callback": put([], "callbacks"),
    "a callback's method": lambda s: s["callbacks"][-1].update(step=3),
    "a callback of another kind": put({"best_": {}}, "callbacks", 0),
    "no generator": put([], "generators"),
    "a short generator": put([torch.zeros(3, dtype=torch.uint8)], "generators"),
    "a generator of floats": put([torch.zeros(5056)], "generators"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_checkpoint_is_one_clear_error(name, steps, tmp_path):
    clf = small(ToyClassifier, checkpoint_dir=tmp_path)
    stored, state = stored_by(clf, steps)
    FORGED[name](state)
    stored.write_bytes(dump_archive(state))
    before = dict(vars(clf))
    with pytest.raises(ValueError, match=f"{stored.name}.*is damaged.*remove it"):
        clf.fit(X, Y)
    assert vars(clf) == before
    assert steps.done == 0


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), TypeError()])
def test_a_training_goes_on_without_room_for_a_checkpoint(
    error, steps, tmp_path, monkeypatch
):
    whole = small(ToyClassifier, **OPTIONS).fit(X, Y)
    clf = small(ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS)

    def full(*args):
        raise error

    monkeypatch.setattr(checkpoint, "replace_bytes", full)
    with pytest.warns(UserWarning, match="goes on without a checkpoint") as told:
        clf.fit(X, Y)
    assert len(told) == 1
    exactly_as(clf, whole)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_state_that_fitted(steps, tmp_path):
    make = partial(small, ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS)
    whole = make().fit(X, Y)

    def train():
        saved, epochs = EpochCheckpoint.on_epoch_end, []

        def on_epoch_end(self, net, **kwargs):
            if epochs:  # the disk is full from the second epoch on
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            epochs.append(None)
            saved(self, net, **kwargs)
            if len(epochs) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        EpochCheckpoint.on_epoch_end = on_epoch_end
        warnings.simplefilter("ignore")
        make().fit(X, Y)

    in_a_killed_child(train)
    (stored,) = tmp_path.iterdir()
    assert len(json.loads(load_archive(stored, 10**7)["history"])) == 1
    steps.done = 0
    exactly_as(make().fit(X, Y), whole)
    assert steps.done == 6


@pytest.mark.cuda
def test_a_fit_on_cuda_goes_on(steps, tmp_path):
    def make():
        options = {"device": "cuda", "checkpoint_dir": tmp_path, "precision": "float32"}
        return small(robustmm.CMPTClassifier, **OPTIONS | options)

    whole = make().fit(X, Y)
    again, rest = kill_and_go_on(make, steps, 7, lambda clf: clf.fit(X, Y))
    assert rest == 3
    proba = whole.predict_proba(X)
    np.testing.assert_allclose(again.predict_proba(X), proba, atol=1e-3)


# Trainings that diverge --------------------------------------------------------------


class Poison(Callback):
    """Makes a trained weight NaN before or behind the last step of an epoch."""

    epoch = None  # of the class: a checkpoint knows callbacks by their type alone
    early = False

    def on_batch_end(self, net, training=False, **kwargs):
        done = len(net.history[-1]["batches"])
        if training and len(net.history) == self.epoch and done == 2 + (not self.early):
            next(p for _, p in net.get_all_learnable_params()).data.fill_(torch.nan)


@pytest.mark.parametrize("early", [True, False])
def test_a_diverging_fit_leaves_the_last_good_epoch(
    early, steps, tmp_path, monkeypatch
):
    def make(folder=tmp_path):
        poison = {"callbacks": [Poison()]}
        return small(ToyClassifier, checkpoint_dir=folder, net_params=poison, **OPTIONS)

    whole = make(None).fit(X, Y)
    monkeypatch.setattr(Poison, "epoch", 2)
    monkeypatch.setattr(Poison, "early", early)
    clf = make()
    before = dict(vars(clf))
    message = "ToyClassifier must train with finite losses, got .* epoch 2"
    for _ in range(2):  # nothing is learned from the first time
        steps.done = 0
        with pytest.raises(ValueError, match=message):
            clf.fit(X, Y)
        assert vars(clf) == before
        (stored,) = tmp_path.iterdir()
        state = load_archive(stored, most=2**24)
        assert all(value.isfinite().all() for value in state["tensors"].values())
        assert len(json.loads(state["history"])) == 1
    assert steps.done == 3
    monkeypatch.setattr(Poison, "epoch", None)
    exactly_as(clf.fit(X, Y), whole)
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_task_leaves_the_earlier_ones(monkeypatch):
    X4, y4 = frame_with_holes(24, n_classes=4)
    early = np.isin(y4, np.unique(y4)[:2])
    clf = small(DeLoClassifier, net_params={"callbacks": [Poison()]})
    expected = clf.partial_fit(X4[early], y4[early]).decision_function(X4)
    before = dict(vars(clf))
    monkeypatch.setattr(Poison, "epoch", 1)
    monkeypatch.setattr(Poison, "early", True)
    with pytest.raises(ValueError, match="DeLoClassifier must train"):
        clf.partial_fit(X4[~early], y4[~early])
    assert vars(clf).keys() == before.keys()
    assert all(vars(clf)[name] is value for name, value in before.items())
    np.testing.assert_array_equal(clf.decision_function(X4), expected)


# Ctrl-C ------------------------------------------------------------------------------

MOMENTS = ["_check_X", "_load_backbone", "_screen", "_build_module", "_make_net"]


@pytest.mark.parametrize("moment", [*MOMENTS, "_keep"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fitted", [False, True])
def test_ctrl_c_leaves_the_estimator_as_it_was(moment, when, fitted, monkeypatch):
    clf = small(ToyClassifier)
    expected = clf.fit(X, Y).decision_function(X) if fitted else None
    before = dict(vars(clf))
    original = getattr(ToyClassifier, moment)

    def interrupted(*args, **kwargs):
        if when == "after":
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ToyClassifier, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X[:12], Y[:12])
    assert vars(clf) == before
    if fitted:
        np.testing.assert_array_equal(clf.decision_function(X), expected)
    assert clf.fit(X, Y).predict(X).shape == (24,)


# Kills -------------------------------------------------------------------------------


def in_a_killed_child(function):
    """Run a function in a child process that kills itself somewhere in it."""
    with warnings.catch_warnings():
        # Later Pythons warn of threads; torch has one here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_killed_process_loses_no_epoch(steps, tmp_path, monkeypatch):
    def make():
        return small(ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS)

    whole = make().fit(X, Y)

    def train():
        steps.done, step = 0, Net.train_step_single

        def killed(net, *args, **kwargs):
            if steps.done == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(net, *args, **kwargs)

        Net.train_step_single = killed
        make().fit(X, Y)

    in_a_killed_child(train)
    steps.done = 0
    exactly_as(make().fit(X, Y), whole)
    assert steps.done == 3


@pytest.mark.parametrize("calls", [0, 1])
def test_a_killed_save_leaves_the_old_model(calls, tmp_path):
    old = small(ToyClassifier).fit(X, Y)
    new = small(ToyClassifier, random_state=1).fit(X, Y)
    robustmm.save(old, tmp_path / "model")

    def save():
        left, replace = [None] * calls, os.fsync

        def killed(descriptor):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left.pop()
            replace(descriptor)

        os.fsync = killed
        robustmm.save(new, tmp_path / "model")

    in_a_killed_child(save)
    assert len(list((tmp_path / "model").iterdir())) == 3
    again = robustmm.load(tmp_path / "model", classes=[ToyClassifier])
    np.testing.assert_array_equal(again.predict_proba(X), old.predict_proba(X))
    robustmm.save(new, tmp_path / "model")
    again = robustmm.load(tmp_path / "model", classes=[ToyClassifier])
    np.testing.assert_array_equal(again.predict_proba(X), new.predict_proba(X))
    assert len(list((tmp_path / "model").iterdir())) == 2
    shutil.rmtree(tmp_path / "model")


def test_generators_of_the_caller_are_untouched_by_going_on(steps, tmp_path):
    def make():
        return small(ToyClassifier, checkpoint_dir=tmp_path, **OPTIONS)

    torch.manual_seed(3)
    before = torch.get_rng_state()
    kill_and_go_on(make, steps, 7, lambda clf: clf.fit(X, Y))
    assert torch.equal(torch.get_rng_state(), before)
