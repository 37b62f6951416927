"""Kill ``fit`` and ``save`` with SIGKILL at random moments, and count what is lost.

``python tests/stress/kill.py --fits 20 --saves 20 --seed 0`` prints a line per kill and
ends with status 1 if a completed epoch, a completed save or an old model was lost. Not
part of the test suite, which holds two kills at chosen moments.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import robustmm
from robustmm.datasets import make_scenes
from robustmm.training.net import Net

torch.set_num_threads(1)
N_EPOCHS, N_ROWS = 8, 64


def rows():
    """Scenes of which half lost a cell."""
    X, y = make_scenes(N_ROWS, n_classes=3, random_state=0)
    return robustmm.drop_modalities(X, 0.5, "both", random_state=0), y


def classifier(folder=None, seed=0):
    """A classifier with dropout and early stopping, so that every state counts."""
    return robustmm.CMPTClassifier(
        "robustmm/tiny-clip",
        "robustmm/tiny-bert",
        max_epochs=N_EPOCHS,
        early_stopping=True,
        checkpoint_dir=folder,
        random_state=seed,
        device="cpu",
    )


def killed_after(seconds, function):
    """Run a function in a child; kill it; return what it reported before."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(out)
            function(lambda: os.write(into, b"."))
        finally:
            os._exit(0)
    os.close(into)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(out, "rb") as stream:
        return len(stream.read())


def learned(clf):
    """Return all trained numbers in a row."""
    tensors = clf.__getstate__()["_trained"]["tensors"]
    return np.concatenate([np.ravel(tensors[name]) for name in sorted(tensors)])


def steps_of(function):
    """Call a function; return how many optimiser steps it made."""
    steps, original = [], Net.train_step_single

    def count(net, *args, **kwargs):
        steps.append(1)
        return original(net, *args, **kwargs)

    Net.train_step_single = count
    function()
    Net.train_step_single = original
    return len(steps)


def kill_fits(n_kills, draw):
    """Kill fits; go on with each; return the number of losses."""
    from skorch.callbacks import Callback

    class Report(Callback):
        """Tells the parent of each epoch, once its successor has begun."""

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) > 1:
                Report.tell()

    X, y = rows()
    whole = classifier().fit(X, y)  # reads the encoders
    start = time.perf_counter()
    classifier(tempfile.mkdtemp()).fit(X, y)
    duration, lost = time.perf_counter() - start, 0
    per_epoch = whole.net_.history[-1, "train_batch_count"]
    for i in range(n_kills):
        folder = tempfile.mkdtemp()

        def fit(tell, folder=folder):
            Report.tell = staticmethod(tell)
            clf = classifier(folder).set_params(net_params={"callbacks": [Report()]})
            clf.fit(X, y)
            tell()

        moment = draw.uniform(0, duration)
        told = killed_after(moment, fit)
        # The callback is part of the key, so the resumed fit has one as well.
        Report.tell = staticmethod(lambda: None)
        clf = classifier(folder).set_params(net_params={"callbacks": [Report()]})
        kept = N_EPOCHS - steps_of(lambda clf=clf: clf.fit(X, y)) / per_epoch
        same = np.array_equal(learned(clf), learned(whole))
        # Told of the end as well: then there was nothing to go on with.
        over = told == N_EPOCHS
        good = same and (over or kept >= told) and not os.listdir(folder)
        lost += not good
        print(
            f"fit {i:2d}: killed at {moment:5.2f} s of {duration:.2f}, epochs reported "
            f"{'all' if over else told}, kept {kept:g}, same weights: {same}"
        )
    return lost


def kill_saves(n_kills, draw):
    """Kill saves over an old model; return the number of losses."""
    X, y = rows()
    models = [classifier(seed=s).set_params(max_epochs=1).fit(X, y) for s in (0, 1)]
    proba = [clf.predict_proba(X) for clf in models]
    folder, lost = Path(tempfile.mkdtemp()) / "model", 0
    start = time.perf_counter()
    robustmm.save(models[0], folder, include_backbone=True)
    duration, current, left_overs = time.perf_counter() - start, 0, 0
    for i in range(n_kills):
        other = 1 - current

        def save(tell, other=other):
            robustmm.save(models[other], folder, include_backbone=True)
            tell()

        moment = draw.uniform(0, 4 * duration)
        told = killed_after(moment, save)
        left_overs += len(os.listdir(folder)) > 4
        opened = robustmm.load(folder, device="cpu").predict_proba(X)
        found = [np.array_equal(opened, p) for p in proba]
        good = found[other] if told else any(found)
        lost += not good
        state = "the new model" if found[other] else "the old model"
        print(
            f"save {i:2d}: killed at {moment:5.2f} s of {duration:.2f}, reported "
            f"{bool(told)}, holds {state if any(found) else 'NOTHING'}"
        )
        current = other if found[other] else current
    robustmm.save(models[0], folder, include_backbone=True)
    print(f"{left_overs} kills left files behind; now there are {os.listdir(folder)}")
    return lost + (len(os.listdir(folder)) != 4)


def main():
    """Run both and say how much was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=20)
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    lost = [kill_fits(options.fits, draw), kill_saves(options.saves, draw)]
    print(f"{options.fits} fits killed, {lost[0]} lost something;", end=" ")
    print(f"{options.saves} saves killed, {lost[1]} lost something")
    sys.exit(any(lost))


if __name__ == "__main__":
    main()
