"""Fit every classifier on the CPU and on the pretended device; write what differs.

A script for a process of its own: ``python pretended_fits.py bfloat16`` writes as JSON
what each check of each class found, and the error of a class that fails.
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
from contract import ToyClassifier, frame_with_holes, public_classifiers, small
from skorch.callbacks import Callback

import robustmm

X, Y = frame_with_holes(16)
EPOCHS = {"max_epochs": 2}


class Kill(Callback):
    """Ends a training at the beginning of its second epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


def made(cls, **params):
    """A small instance with those of the parameters that its class has."""
    known = cls().get_params()
    return small(cls, **{name: v for name, v in params.items() if name in known})


def probe(cls, precision: str, found: dict) -> None:
    """Write what each check of a class finds."""
    where = {"precision": precision, "device": pretended.NAME}
    known = made(cls, precision=precision, **EPOCHS).fit(X, Y)
    there = made(cls, **where, **EPOCHS).fit(X, Y)
    found["stray"] = sorted(stray_tensors(there.net_.module_))
    found["trained"] = [trained(known), trained(there)]
    expected, own = known.predict_proba(X), there.predict_proba(X)
    found["fitted"] = distance(own, expected)
    if "checkpoint_dir" in known.get_params():
        found["resumed"] = distance(resumed(cls, where).predict_proba(X), expected)
    with tempfile.TemporaryDirectory() as folder:
        for name, opened in reopened(there, Path(folder)):
            # From itself: what was written must be all that was learned.
            found[name] = distance(opened.predict_proba(X), own)


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


def resumed(cls, where: dict):
    """A classifier whose training was killed after its first epoch and goes on."""
    with tempfile.TemporaryDirectory() as folder:
        options = {**where, **EPOCHS, "checkpoint_dir": folder}
        with contextlib.suppress(KeyboardInterrupt):
            made(cls, net_params={"callbacks": [Kill()]}, **options).fit(X, Y)
        clf = made(cls, net_params={"callbacks": []}, **options)
        if not any(Path(folder).iterdir()):
            raise RuntimeError("the training that was killed left no checkpoint")
        return clf.fit(X, Y)


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
    report = {}
    for cls in public_classifiers():
        found = report[cls.__name__] = {}
        try:
            probe(cls, precision, found)
        except Exception:
            found["error"] = traceback.format_exc(limit=-6)
    sys.stdout.write(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
