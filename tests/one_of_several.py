"""What each process of tests/scale/test_training.py does: see ``PARTS``."""

import json
import os
import pickle
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

import robustmm
from robustmm.datasets import make_scenes
from robustmm.training import processes
from robustmm.training.net import EarlyStop

# Rows that neither 12 nor 18 divides: the last step is ragged, and too small for three.
N_ROWS = 61
BATCH = 12


def table():
    X, y = make_scenes(N_ROWS, n_classes=3, random_state=0)
    X = robustmm.drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    return X, y, 1.0 + np.arange(N_ROWS) % 3


class PlainSGD(torch.optim.SGD):
    """Takes no notice of what is AdamW's."""

    def __init__(self, params, lr, betas=None, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)


def make(name, batch_size, **params):
    """Return a small classifier without dropout, which each process draws itself."""
    cls = getattr(robustmm, f"{name.partition(':')[0]}Classifier")
    own = cls().get_params()
    params = {"max_epochs": 2, "modality_dropout": 0.5, "dropout": 0.0} | params
    params |= {"tune": name.partition(":")[2]} if ":" in name else {}
    params |= {"balance_weight": 0.1}
    if params.pop("sgd", False):
        params |= {"lr": 0.05, "net_params": {"optimizer": PlainSGD}}
    params = {key: value for key, value in params.items() if key in own}
    return cls._small(batch_size=batch_size, **params)


def learned(clf, X):
    """What is compared of a fit."""
    state = clf.__getstate__()["_trained"]
    history = clf.history_.drop(columns="dur").to_dict("list")
    return {
        "tensors": state["tensors"],
        "history": history,
        "proba": clf.predict_proba(X),
        "bytes": len(pickle.dumps(clf)),
    }


def fits(options, size):
    """Fits of classifiers by name, with further parameters."""
    X, y, weight = table()
    found = {}
    for name, more in options.items():
        clf = make(name, BATCH // size, **more)
        found[name] = learned(clf.fit(X, y, sample_weight=weight), X)
    return found


def fits_on_one_card(options, size, apart):
    """Processes that share a card, which NCCL takes only as cards of two machines."""
    backends, new_group = [], dist.new_group
    place = processes._place
    dist.new_group = lambda *args, **kwargs: (
        backends.append(kwargs["backend"]) or new_group(*args, **kwargs)
    )
    if apart:
        os.environ["NCCL_HOSTID"] = f"machine {os.environ['RANK']}"
        processes._place = lambda device: (os.environ["RANK"], place(device)[1])
    return {"fits": fits(options, size), "backends": backends}


def tasks(names, size):
    """Four classes that come in two tasks."""
    X, y = make_scenes(45, n_classes=4, random_state=1)
    X = robustmm.drop_modalities(X, rate=0.5, scenario="both", random_state=1)
    second = np.isin(y, sorted(y.unique())[2:]).astype(int)
    found = {}
    for name in names:
        clf = make(name, BATCH // size).fit(X, y, tasks=second)
        found[name] = learned(clf, X)
    return found


class Die(Callback):
    """Kill this process, or stop it, in one step."""

    # No parameters: a training with others would be another one.
    plan: ClassVar = (0, 0, "SIGKILL")

    def on_train_begin(self, net, **kwargs):
        self.done_ = 0

    def on_grad_computed(self, net, **kwargs):
        rank, step, how = self.plan
        self.done_ += 1
        if self.done_ == step and int(os.environ.get("RANK", 0)) == rank:
            os.kill(os.getpid(), getattr(signal, how))


class StopHere(Callback):
    """Stop the training behind the second epoch in one process alone."""

    def on_epoch_end(self, net, **kwargs):
        if int(os.environ["RANK"]) == 1 and len(net.history) == 2:
            raise EarlyStop


def dies(rank, step, how="SIGKILL", size=2, **options):
    X, y, weight = table()
    Die.plan = (rank, step, how)
    net_params = {"callbacks": [Die()]}
    clf = make("CMPT", BATCH // size, max_epochs=4, net_params=net_params, **options)
    return learned(clf.fit(X, y, sample_weight=weight), X)


def stops(size):
    """One process has had enough behind the second epoch of four."""
    X, y, _ = table()
    net_params = {"callbacks": [StopHere()]}
    clf = make("CMPT", BATCH // size, max_epochs=4, net_params=net_params)
    return learned(clf.fit(X, y), X)


def limits(size):
    """A clock that is not the same in both."""
    X, y, _ = table()
    clf = make("CMPT", BATCH // size, max_epochs=1000, time_limit=4)
    time.sleep(float(os.environ["RANK"]))
    found = learned(clf.fit(X, y), X)
    return found | {"epochs": clf.n_iter_}


def others(size):
    """Rows that are not the same in both: refused in both."""
    X, y, _ = table()
    start = int(os.environ["RANK"])
    try:
        make("CMPT", BATCH // size).fit(X[start:], y[start:])
    except ValueError as error:
        return str(error)
    return "no error"


def no_room():
    raise OSError("no room left")


def breaks(size):
    """An error in one process: the other one says whose it was, and both go on."""
    X, y, _ = table()
    clf = make("CMPT", BATCH // size)
    if os.environ["RANK"] == "1":
        clf._optimizer_options = no_room
    first = "no error"
    try:
        clf.fit(X, y)
    except (OSError, RuntimeError) as error:
        first = f"{type(error).__name__}: {error}"
    again = make("CMPT", BATCH // size).fit(X, y)
    return {"first": first, "again": learned(again, X)["tensors"]}


def per_process(size):
    """What is not shared: predictions, a search's workers, and what is asked for."""
    X, y, _ = table()
    rank = int(os.environ["RANK"])
    with robustmm.fit_alone():
        mine = make("CMPT", BATCH, random_state=rank).fit(X[rank:], y[rank:])
    shared = make("LinearProbe", BATCH // size).fit(X, y)
    part = shared.predict(X[rank : rank + 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = GridSearchCV(make("LinearProbe", BATCH), {"C": [0.1, 1]}, n_jobs=2)
        search.fit(X, y)
    scores = search.cv_results_["mean_test_score"].tolist()
    return {"mine": learned(mine, X), "part": part.tolist(), "scores": scores}


PARTS = {f.__name__: f for f in (fits, tasks, dies, stops, limits, others, breaks)}
PARTS |= {"per_process": per_process, "fits_on_one_card": fits_on_one_card}


def main(out, calls):
    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    Path(f"{out}.{rank}.pid").write_text(str(os.getpid()))
    found = {}
    for name, params in calls:
        found[name] = PARTS[name](size=size, **params)
    Path(f"{out}.{rank}").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
