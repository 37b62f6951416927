"""Poison the files of cache and checkpoint folders, and count what happens.

``python tests/stress/poison.py`` puts every poison of the tests, and some random ones,
in the place of decoded images, of states, of features and of a checkpoint.
Predictions must be those without a cache; a fit must go on to the same weights or say
which file to remove. Prints a table and ends with status 1 otherwise, or if something
ran, hung, took too much memory or was read outside. Needs Linux.
"""

import argparse
import logging
import os
import pickle
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).parent))
from contract import frame_with_holes
from guarded import Guard
from test_cache_files import POISON, sealed
from test_checkpoint import DAMAGE, FORGED

import robustmm
from robustmm.storage.archive import dump_archive, load_archive
from robustmm.training.net import Net

torch.set_num_threads(1)
X, Y = frame_with_holes()
PLACES = ("gone", "folder", "link", "dangling", "loop", "fifo", "zero", "sparse")


def exchange(file: Path, place: str, outside: Path) -> None:
    """Put something in the place of a file."""
    file.unlink()
    if place == "folder":
        file.mkdir()
    elif place == "fifo":
        os.mkfifo(file)
    elif place == "sparse":
        file.touch()
        os.truncate(file, 2**40)
    elif place != "gone":
        targets = {"link": outside / "secret", "loop": file, "zero": "/dev/zero"}
        file.symlink_to(targets.get(place, outside / "nowhere"))


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Flip, cut, insert, repeat or zero something at random."""
    data, place = bytearray(data), draw.randrange(len(data))
    size, kind = draw.randint(1, 64), draw.randrange(5)
    if kind == 0:
        data[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        del data[place : place + size]
    elif kind == 3:
        data[place:place] = draw.randbytes(size)
    else:
        data[place : place + size] = bytes(len(data[place : place + size]))
    return bytes(data)


# Caches -------------------------------------------------------------------------------


def caches(place: Path):
    """Yield what is kept, a fitted classifier whose cache holds it, and predictions."""
    options = {"random_state": 0, "device": "cpu"}
    for kept, clf in {
        "images": robustmm.MAPClassifier(
            "robustmm/tiny-vilt", max_epochs=1, prompt_layers=2, **options
        ),
        "states": robustmm.MoRAClassifier(
            "robustmm/tiny-clip", max_epochs=1, **options
        ),
        "features": robustmm.LinearProbeClassifier("robustmm/tiny-clip", **options),
    }.items():
        folder = place / kept
        folder.mkdir()
        clf.set_params(cache=folder).fit(X, Y)
        yield kept, clf, clf.predict_proba(X)


def poisoned_caches(n_random: int, draw: random.Random, outside: Path):
    """Yield a name and a change of a cache's file."""
    for name, content in POISON.items():
        yield name, lambda file, c=content: file.write_bytes(c)
        resealed = partial(_reseal, content)
        yield f"{name}, with a sum", resealed
    for place in PLACES:
        yield place, lambda file, p=place: exchange(file, p, outside)
    for i in range(n_random):
        yield (
            f"random {i}",
            lambda file: file.write_bytes(damaged(file.read_bytes(), draw)),
        )


def _reseal(content: bytes, file: Path) -> None:
    # What the sum cannot tell: an array of another kind, and no array at all.
    file.write_bytes(sealed(content[:-4], bytes.fromhex(file.stem)))


def predicted(clf, folder: Path, expected) -> str:
    """Predict with a cache that was poisoned."""
    # As another process would have it: an open module goes on with its own folder.
    again = pickle.loads(pickle.dumps(clf.set_params(cache=folder)))
    proba = again.predict_proba(X)
    if not np.isfinite(proba).all():
        return "NAN"
    same = np.allclose(proba, expected, atol=1e-5)
    return "computed anew" if same else "OTHER RESULT"


def poison_caches(guard: Guard, place: Path, outside: Path, options) -> None:
    """Poison all files of each cache, one poison at a time."""
    draw = random.Random(options.seed)
    for kept, clf, expected in caches(place):
        for name, change in poisoned_caches(options.random, draw, outside):
            folder = Path(tempfile.mkdtemp(dir=place))
            shutil.copytree(place / kept, folder, dirs_exist_ok=True)
            for file in folder.glob("*/*.npy"):
                change(file)
            action = partial(predicted, clf, folder, expected)
            guard.attempt(f"cache of {kept}", name, action)
            shutil.rmtree(folder)


# Checkpoints --------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill."""


def classifier(folder: Path | None):
    """A classifier with dropout and early stopping, so that every state counts."""
    return robustmm.CMPTClassifier(
        "robustmm/tiny-clip",
        "robustmm/tiny-bert",
        max_epochs=2,
        early_stopping=True,
        checkpoint_dir=folder,
        random_state=0,
        device="cpu",
    )


def first_epoch(folder: Path) -> Path:
    """Kill a fit in its second epoch; return the checkpoint."""
    step, done = Net.train_step_single, []

    def killed(net, *args, **kwargs):
        if len(net.history) > 1:
            raise Killed
        done.append(None)
        return step(net, *args, **kwargs)

    Net.train_step_single = killed
    try:
        classifier(folder).fit(X, Y)
    except Killed:
        pass
    finally:
        Net.train_step_single = step
    return next(folder.iterdir())


def poisoned_checkpoints(n_random: int, draw: random.Random, outside: Path):
    """Yield a name and a change of a checkpoint."""
    for name, content in DAMAGE.items():
        yield name, lambda file, c=content: file.write_bytes(c)
    for name, forge in FORGED.items():
        yield name, partial(_forge, forge)
    for place in PLACES:
        yield place, lambda file, p=place: exchange(file, p, outside)
    for i in range(n_random):
        yield (
            f"random {i}",
            lambda file: file.write_bytes(damaged(file.read_bytes(), draw)),
        )


def _forge(forge, file: Path) -> None:
    state = load_archive(file, 2**30)
    bias = next(k for k in state["tensors"] if k.endswith("head.bias"))
    state["tensors"]["head.bias"] = state["tensors"].pop(bias)
    forge(state)
    if "head.bias" in (state.get("tensors") or ()):
        state["tensors"][bias] = state["tensors"].pop("head.bias")
    file.write_bytes(dump_archive(state))


def fitted(folder: Path, expected) -> str:
    """Go on with a checkpoint that was poisoned."""
    try:
        clf = classifier(folder).fit(X, Y)
    except ValueError as error:
        told = "is damaged" in str(error) and "remove it" in str(error)
        return "refused" if told else "UNCLEAR ERROR"
    same = np.array_equal(clf.predict_proba(X), expected)
    return "same result" if same else "OTHER RESULT"


def poison_checkpoints(guard: Guard, place: Path, outside: Path, options) -> None:
    """Poison the checkpoint of a fit that was killed."""
    expected = classifier(None).fit(X, Y).predict_proba(X)
    (place / "checkpoint").mkdir()
    first_epoch(place / "checkpoint")
    draw = random.Random(options.seed)
    for name, change in poisoned_checkpoints(options.random, draw, outside):
        folder = Path(tempfile.mkdtemp(dir=place))
        shutil.copytree(place / "checkpoint", folder, dirs_exist_ok=True)
        change(next(folder.iterdir()))
        action = partial(fitted, folder, expected)
        guard.attempt("checkpoint", name, action)
        shutil.rmtree(folder)


def main() -> int:
    """Run both and say what happened."""
    logging.getLogger("robustmm").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=60, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="poison-"))
    outside, canary = place / "outside", place / "canary"
    for folder in (outside, canary):
        folder.mkdir()
    (outside / "secret").write_bytes(b"secret")
    guard = Guard(outside, canary)
    poison_caches(guard, place, outside, options)
    poison_checkpoints(guard, place, outside, options)
    shutil.rmtree(place)
    return guard.report()


if __name__ == "__main__":
    sys.exit(main())
