"""Fit classifiers on the CPU and on the pretended device; write what differs.

A script for a process of its own. It reads JSON, by name of a case a class, parameters
and whether there are two tasks, and writes as JSON what each check of each case found,
and the error of a case that fails: ``python pretended_fits.py bfloat16 < cases.json``.
"""

import contextlib
import json
import pickle
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pretended
import torch
from contract import (
    ToyClassifier,
    ToyModule,
    frame_with_holes,
    public_classifiers,
    small,
)
from skorch.callbacks import Callback

import robustmm
from robustmm.backbones import host
from robustmm.data import STATES
from robustmm.training.net import Net

host.ASYNCHRONOUS |= {pretended.NAME}

X, Y = frame_with_holes(24, n_classes=4)
# What is fitted, and rows that no fit has seen.
TRAIN, NEW = slice(0, 12), slice(12, 24)


class AskingModule(ToyModule):
    """Asks for the host's copies, and does nothing but pass them on."""

    reads_host = True


class AskingClassifier(ToyClassifier):
    """The least that a method does to wait for nothing."""

    def _build_module(self, backbone, n_outputs):
        return AskingModule(backbone, n_outputs)


CLASSES = {cls.__name__: cls for cls in [*public_classifiers(), AskingClassifier]}


class Kill(Callback):
    """Ends a training at the beginning of its second epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


class Steps(Callback):
    """Collects, by epoch, the waits of each batch until its loss is written down."""

    def __init__(self):
        self.epochs = []

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append([])

    def on_batch_begin(self, net, **kwargs):
        pretended.waits.clear()

    def on_batch_end(self, net, **kwargs):
        self.epochs[-1].append(list(pretended.waits))


class Case:
    """A class with parameters, and the labels that it is fitted to."""

    def __init__(self, name: str, params: dict, in_tasks: bool):
        self.cls, self.in_tasks = CLASSES[name], in_tasks
        # Of a variant it is enough to see that its steps are right.
        self.is_variant = bool(params) or in_tasks or self.cls is AskingClassifier
        self.params = {"max_epochs": 1 if self.is_variant else 2} | params
        self.known = self.cls().get_params()

    def fit(self, **params):
        """A small instance, fitted, with those of the parameters that it has."""
        given = self.params | params
        clf = small(self.cls, **{n: v for n, v in given.items() if n in self.known})
        late = np.isin(Y, np.unique(Y)[2:])
        if self.in_tasks:
            return clf.fit(X[TRAIN], Y[TRAIN], tasks=late[TRAIN])
        return clf.fit(X[TRAIN], late[TRAIN])


def probe(case: Case, precision: str, found: dict) -> None:
    """Write what each check of a case finds."""
    # What classes before this one have left there would not be waited for.
    STATES.clear()
    where = {"precision": precision, "device": pretended.NAME}
    steps = Steps()
    known = case.fit(precision=precision)
    with watched() as encoded:
        there = case.fit(**where, net_params={"callbacks": [steps]})
    # The probe takes no steps: it evaluates batches.
    found["epochs"] = steps.epochs or [encoded]
    if "net_params" in case.known:
        there.set_params(net_params=None)
    found["stray"] = sorted(stray_tensors(there.net_.module_))
    found["trained"] = [trained(known), trained(there)]
    found["new rows"], found["known rows"] = predicted(there), predicted(there)
    expected, own = known.predict_proba(X), there.predict_proba(X)
    found["fitted"] = distance(own, expected)
    if case.is_variant:
        return
    if "checkpoint_dir" in case.known:
        found["resumed"] = distance(resumed(case, where).predict_proba(X), expected)
    with tempfile.TemporaryDirectory() as folder:
        for name, opened in reopened(there, Path(folder)):
            # From itself: what was written must be all that was learned.
            found[name] = distance(opened.predict_proba(X), own)


def predicted(clf) -> dict:
    """Predict some rows; return the waits of each batch, and those around them."""
    clf.net_.iterator_valid__batch_size = 6
    pretended.waits.clear()
    with watched() as batches:
        clf.predict_proba(X[NEW])
    return {"batches": batches, "around": list(pretended.waits)}


@contextlib.contextmanager
def watched():
    """Collect the waits of each batch that is evaluated inside the block."""
    found, evaluate = [], Net.evaluate

    def watching(*args, **kwargs):
        before = len(pretended.waits)
        values = evaluate(*args, **kwargs)
        found.append(pretended.waits[before:])
        del pretended.waits[before:]
        return values

    Net.evaluate = watching
    try:
        yield found
    finally:
        Net.evaluate = evaluate


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def trained(clf) -> dict:
    """Count what is trained, and what the optimiser and a saved model hold of it."""
    tensors = clf.__getstate__()["_trained"]["tensors"]
    return {
        "counted": clf.n_trainable_parameters_,
        "optimised": sum(p.numel() for _, p in clf.net_.get_all_learnable_params()),
        "saved": sum(value.size for value in tensors.values()),
    }


def reopened(clf, folder: Path):
    """Yield (name, classifier) for each way to take a fitted one elsewhere."""
    yield "pickled", pickle.loads(pickle.dumps(clf))
    robustmm.save(clf, folder / "model")
    yield "loaded", robustmm.load(folder / "model", "cpu", classes=[ToyClassifier])
    # Where the device is absent, pickles fall back on what is there.
    clf.set_params(device="cpu")
    yield "moved", pickle.loads(pickle.dumps(clf))


def resumed(case: Case, where: dict):
    """A classifier whose training was killed after its first epoch and goes on."""
    with tempfile.TemporaryDirectory() as folder:
        options = {**where, "checkpoint_dir": folder}
        with contextlib.suppress(KeyboardInterrupt):
            case.fit(**options, net_params={"callbacks": [Kill()]})
        if not any(Path(folder).iterdir()):
            raise RuntimeError("the training that was killed left no checkpoint")
        return case.fit(**options, net_params={"callbacks": []})


def stray_tensors(module: torch.nn.Module):
    """Yield the paths of tensors that require a gradient and are no parameter."""
    registered = {id(p) for p in module.parameters()}
    for path, member in module.named_modules():
        for name, value in vars(member).items():
            for tensor in tensors_in(value):
                if tensor.requires_grad and id(tensor) not in registered:
                    yield f"{path}.{name}"


def tensors_in(value):
    """Yield the tensors in lists, tuples and dicts; modules are walked elsewhere."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def main(precision: str) -> None:
    torch.set_num_threads(1)
    # A fingerprint reads all weights, once per process: no wait of the first batch.
    tiny = [f"robustmm/tiny-{name}" for name in ("clip", "vilt")]
    _ = [robustmm.load_backbone(x, device=pretended.NAME).fingerprint for x in tiny]
    report = {}
    for name, given in json.load(sys.stdin).items():
        found = report[name] = {}
        try:
            probe(Case(*given), precision, found)
        except Exception:
            found["error"] = traceback.format_exc(limit=-6)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
