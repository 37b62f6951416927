"""The data sets of ``reproduce.py``: their rows, modalities, metrics and defaults."""

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from robustmm.datasets import (
    load_ave,
    load_crema_d,
    load_food101,
    load_hateful_memes,
    load_kinetics_sound,
    load_mmimdb,
)

SPLITS = ("train", "dev", "test")
# What only some data sets read; the others refuse it.
OPTIONS = {"lists": None, "shared": "keep", "gaps": False, "text_length": None}


@dataclass(frozen=True)
class DataSet:
    """What a data set is read and scored with, and what it is blanked by default."""

    read: Callable
    metric: str = "accuracy"
    scoring: str = "accuracy"
    modalities: tuple[str, ...] = ("image", "text")
    rate: float = 0.7
    test_rates: tuple[float, ...] = ()  # those of --rate if there are none
    options: tuple[str, ...] = ("text_length",)
    n_rows: tuple[int, int] | None = None  # the paper's, of training and test

    @property
    def clips(self) -> bool:
        """Whether rows are sounds and films."""
        return "audio" in self.modalities

    @property
    def scenarios(self) -> tuple[str, ...]:
        """What can be missing."""
        return (*reversed(self.modalities), "both")


# %%
# Pictures and texts
# ------------------


def read_mmimdb(args: argparse.Namespace, split: str):
    """Return films, a row per plot, and their genres."""
    return load_mmimdb(args.root, split, plots=args.plots)


def read_food101(args: argparse.Namespace, split: str):
    """Return dishes with a title; the others are left out by all papers."""
    X, y = load_food101(args.root, split)
    titled = X["text"].notna()
    return X[titled], y[titled]


def read_memes(args: argparse.Namespace, split: str):
    """Return memes, and whether they are hateful."""
    return load_hateful_memes(args.root, split)


# %%
# Sounds and films
# ----------------


def read_crema_d(args: argparse.Namespace, split: str):
    """Return clips of actors, in lists as the papers have or by actor."""
    return load_crema_d(args.root, split, listing=listed(args, split), **gaps(args))


def read_ave(args: argparse.Namespace, split: str):
    """Return films of events; as in the papers, some are in two splits."""
    return load_ave(args.root, split, shared=args.shared, **gaps(args))


def read_kinetics_sound(args: argparse.Namespace, split: str):
    """Return films of the 31 classes; papers test on Kinetics' validation films."""
    folder = {"train": "train", "test": "val"}[split]
    listing = listed(args, split)
    return load_kinetics_sound(args.root, folder, listing=listing, **gaps(args))


def listed(args: argparse.Namespace, split: str) -> str | None:
    """Return the list of a split's rows; where there are lists, all must have one."""
    return args.lists[split] if args.lists else None


def gaps(args: argparse.Namespace) -> dict:
    """Return what to do where a file is not there."""
    return {"on_missing_clip": "missing" if args.gaps else "raise"}


# Complete training, and tests with both, without video and without audio.
CLIPS = {
    "modalities": ("audio", "video"),
    "rate": 0.0,
    "test_rates": (0.0, 1.0),
}
DATA_SETS = {
    "mmimdb": DataSet(read_mmimdb, "F1-macro", "f1_macro"),
    "food101": DataSet(read_food101),
    "hateful_memes": DataSet(read_memes, "AUROC", "roc_auc"),
    "crema_d": DataSet(
        read_crema_d, **CLIPS, options=("lists", "gaps"), n_rows=(6698, 744)
    ),
    "ave": DataSet(read_ave, **CLIPS, options=("shared", "gaps"), n_rows=(3339, 402)),
    "kinetics_sound": DataSet(
        read_kinetics_sound, **CLIPS, options=("lists", "gaps"), n_rows=(14739, 2594)
    ),
}


def sampled(args: argparse.Namespace, split: str):
    """Return rows and labels of a split as the published results use them, or some."""
    try:
        X, y = DATA_SETS[args.data_set].read(args, split)
    except FileNotFoundError as error:
        said = str(error).replace("on_missing_clip='missing'", "--gaps")
        raise FileNotFoundError(said) from None
    n_rows = args.train_rows if split == "train" else args.test_rows
    if n_rows is not None and n_rows < len(X):
        at = pd.Series(range(len(X))).sample(n_rows, random_state=args.table_seed)
        X, y = X.iloc[at], y.iloc[at]
    return X, y


def score(data_set: str, clf, X: pd.DataFrame, y) -> float:
    """Return the metric of the data set, in percent."""
    metric = DATA_SETS[data_set].metric
    if metric == "F1-macro":  # a genre that is neither there nor predicted counts 0
        value = f1_score(y, clf.predict(X), average="macro", zero_division=0)
    elif metric == "accuracy":
        value = accuracy_score(y, clf.predict(X))
    else:
        value = roc_auc_score(y, clf.predict_proba(X)[:, 1])
    return 100 * value


def describe(X: pd.DataFrame, modalities: tuple[str, ...]) -> str:
    """Say how many units (films, dishes, memes) miss what."""
    absent = X.loc[~X.index.duplicated(), list(modalities)].isna()
    counts = [f"{absent[name].sum()} without {name}" for name in reversed(modalities)]
    whole = (~absent).all(axis=1).sum()
    return f"{len(absent)}: {whole} complete, {', '.join(counts)}"


def rows_digest(rows: dict) -> str:
    """Return letters that stand for rows, labels and the files that are not there.

    Lists of clips differ between papers, and folders between those who downloaded them.
    """
    digest = hashlib.sha256()
    for split, (X, y) in rows.items():
        told = zip(X.index, y, *(X[name].notna() for name in X), strict=True)
        digest.update("\n".join([split, *map(str, told)]).encode())
    return f"rows-{digest.hexdigest()[:10]}"


def other_rows(args: argparse.Namespace, rows: dict) -> str:
    """Say in what the rows differ from those of the paper's figures."""
    paper = DATA_SETS[args.data_set].n_rows
    found = tuple(len(rows[split][0]) for split in ("train", "test"))
    if paper is None or (paper == found and (args.lists or args.data_set == "ave")):
        return ""
    said = (
        f"The published figures are of {paper[0]} training rows and {paper[1]} test "
        f"rows, here are {found[0]} and {found[1]}"
    )
    if args.data_set == "crema_d" and not args.lists:
        said += ": no actor is on both sides, there all are; see --lists"
    return f"{said}."
