"""Open forged model folders, each in a process of its own, and count what happens.

``python tests/stress/strangers.py`` tries every forgery of ``forgeries.py`` and as many
random ones as ``--random`` says, prints a table and ends with status 1 if one of them
ran code, read outside of its folder, hung, took too much memory, crashed, ended in an
obscure error, or predicted NaN. ``--only WORD`` tries the forgeries whose group or name
has the word. Needs Linux. Not part of the test suite, which holds the cases that did
harm once.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).parent))
from forgeries import GROUPS, JUNK, World, document_of, write
from guarded import Guard

os.environ["HF_HUB_OFFLINE"] = "1"
import robustmm
from robustmm.datasets import make_scenes

torch.set_num_threads(1)


BASES = {
    "MAP": ("MAPClassifier", "vilt", {"prompt_layers": 2, "prompt_length": 2}),
    "DeLo": ("DeLoClassifier", "vilt", {"pool_size": 4}),
    "MoRA": ("MoRAClassifier", "clip", {"precision": "float32"}),
    "probe": ("LinearProbeClassifier", "clip", {}),
    "pipeline": ("LinearProbeClassifier", "clip", {}),
}


def honest(folder: Path, base: str = "MAP"):
    """Save a small model with its encoder; return rows and what is predicted."""
    X, y = make_scenes(24, n_classes=2, random_state=0)
    X = robustmm.drop_modalities(X, 0.7, "both", random_state=0)
    X.loc[X.index[-1]] = None  # a row without anything
    name, backbone, options = BASES[base]
    clf = getattr(robustmm, name)(f"robustmm/tiny-{backbone}", **options)
    if "max_epochs" in clf.get_params():
        clf.set_params(max_epochs=1)
    clf.set_params(random_state=0, device="cpu")
    if base == "pipeline":
        features = robustmm.OutOfFoldFeatures(clf, cv=2, random_state=0)
        clf = make_pipeline(features, LogisticRegression())
    clf.fit(X, y)
    robustmm.save(clf, folder, include_backbone=True)
    rows = X[-6:]
    return rows, robustmm.load(folder, device="cpu").predict_proba(rows)


def opened(folder: Path, rows, expected) -> str:
    """Open a folder and predict; return what came of it."""
    clf = robustmm.load(folder, device="cpu")
    try:
        proba = clf.predict_proba(rows)
    except (ValueError, OSError):
        return "refused later"
    if not np.isfinite(proba).all():
        return "NAN"
    same = proba.shape == expected.shape and np.allclose(proba, expected, atol=1e-6)
    return "same result" if same else "other result"


def places(value, path=()):
    """The paths of all values inside parsed JSON."""
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield (*path, key)
        if isinstance(value[key], list | dict):
            yield from places(value[key], (*path, key))


def random_forgery(draw: random.Random):
    """Put junk into one to three random places of the document."""

    def change(folder, world):
        document = document_of(folder)
        for _ in range(draw.randint(1, 3)):
            found = [path for path in places(document) if path[0] != "files"]
            *path, last = draw.choice(found)
            owner = document
            for key in path:
                owner = owner[key]
            owner[last] = json.loads(json.dumps(draw.choice(JUNK)))
        write(folder, document)

    return change


def forgeries(n_random: int, seed: int, only: str):
    """Yield group, name, change and the model that is changed."""
    for group, make in GROUPS.items():
        for name, change in make():
            if only in group or only in name:
                yield group, name, change, "MAP"
    draw, names = random.Random(seed), list(BASES)
    for i in range(n_random):
        base = names[i % len(names)]
        yield f"random junk, {base}", str(i), random_forgery(draw), base


def main() -> int:
    """Try them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=int, default=60, help="then it is a hang")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="strangers-"))
    world = World(place / "outside", place / "canary")
    for folder in (world.outside, world.canary):
        folder.mkdir()
    honest_ones = {base: honest(place / base, base) for base in BASES}
    secret = next((place / "MAP").glob("*/model.safetensors"))
    for name in ("secret", "secret.safetensors", "config.json"):
        shutil.copy(secret, world.outside / name)
    os.chdir(place)
    guard = Guard(world.outside, world.canary, options.seconds)
    tried = forgeries(options.random, options.seed, options.only)
    for i, (group, name, change, base) in enumerate(tried):
        folder = place / "tried" / f"m{i}"
        shutil.copytree(place / base, folder)
        change(folder, world)
        guard.attempt(group, name, partial(opened, folder, *honest_ones[base]))
        shutil.rmtree(folder)
    shutil.rmtree(place)
    return guard.report()


if __name__ == "__main__":
    sys.exit(main())
