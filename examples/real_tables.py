"""
All methods and baselines on two real tables
============================================

Film posters with plots (several genres each) and pictures of clothes with titles (one
product type each), blanked by the protocol of the field, with two families of encoders:
those that ship with the package, which never saw the tables, and others that you name.
The same training rows for everybody, and every method with its defaults; the penalties
of the linear models are chosen by cross-validated log-loss on the training rows.

Every run is a file in ``--out``; the same command goes on where it was stopped, and two
commands may share the work (``--methods``). ``--report`` only prints the tables and
draws the picture.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tabulate import tabulate
from tqdm.auto import tqdm

from robustmm import (
    AutoMultimodalClassifier,
    CMPTClassifier,
    DCPClassifier,
    FineTuneClassifier,
    LinearProbeClassifier,
    MAILClassifier,
    MAPClassifier,
    MemPromptClassifier,
    MoRAClassifier,
    MSPClassifier,
    RAGPTClassifier,
    drop_modalities,
)

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
for name in ("clip", "bert", "vilt"):
    parser.add_argument(f"--{name}", help="checkpoint of encoders that you name")
parser.add_argument("--out", type=Path, default=Path("outputs/real_tables"))
parser.add_argument("--methods", nargs="+", help="some of the methods")
parser.add_argument("--tables", nargs="+", help="one of the two, by name")
parser.add_argument("--encoders", nargs="+", help="unseen (the package's), yours")
parser.add_argument("--train-rows", type=int, default=1400)
parser.add_argument("--test-rows", type=int, default=600)
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--rate", type=float, default=0.7, help="part of rows with a hole")
parser.add_argument("--time-limit", type=float, help="seconds of the automatic choice")
parser.add_argument(
    "--learning-rates",
    type=float,
    nargs="+",
    help="instead of the default rate, the best of these on other training rows",
)
parser.add_argument("--held-out-rows", type=int, default=600, help="to choose rates")
parser.add_argument("--device", default="auto")
parser.add_argument("--threads", type=int, help="torch threads")
parser.add_argument("--report", action="store_true", help="no runs, only their tables")
args = parser.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)

# %%
# The encoders, and what stands on them
# -------------------------------------
# A longer text is cut at 40 tokens for every encoder, as ViLT's is.

FAMILIES = {
    "unseen": {name: f"robustmm/tiny-{name}" for name in ("clip", "bert", "vilt")},
    "yours": {"clip": args.clip, "bert": args.bert, "vilt": args.vilt},
}
if not all(FAMILIES["yours"].values()):
    del FAMILIES["yours"]
STRENGTHS = [1e-3, 1e-2, 1e-1, 1.0, 10.0]
TUNE_SEED = 100  # its rows and holes are drawn with this, the reported ones with seeds


def minus_log_loss(clf, X, y) -> float:
    """Score probabilities, of one label or several, by the mean logarithm."""
    proba, y = np.clip(clf.predict_proba(X), 1e-7, 1 - 1e-7), np.asarray(y)
    if y.ndim == 2:
        return np.mean(np.where(y, np.log(proba), np.log1p(-proba)))
    at = np.searchsorted(clf.classes_, y)
    # A class that the training folds lack counts as the smallest probability.
    known = clf.classes_[np.minimum(at, len(clf.classes_) - 1)] == y
    there = proba[np.arange(len(y)), np.minimum(at, len(clf.classes_) - 1)]
    return np.mean(np.log(np.where(known, there, 1e-7)))


def by_penalty(clf, name: str) -> GridSearchCV:
    """Return a linear model that chooses its penalty by itself."""
    return GridSearchCV(clf, {name: STRENGTHS}, cv=3, scoring=minus_log_loss)


def words(multilabel: bool) -> GridSearchCV:
    """Return the simplest model of the texts: weighted words, logistic regression."""
    linear, name = LogisticRegression(max_iter=1000), "logisticregression__C"
    if multilabel:
        linear = OneVsRestClassifier(linear)
        name = "onevsrestclassifier__estimator__C"
    return by_penalty(
        make_pipeline(
            FunctionTransformer(lambda X: X["text"].fillna("").astype(str)),
            TfidfVectorizer(sublinear_tf=True, min_df=2),
            linear,
        ),
        name,
    )


def untrained(encoders: dict, multilabel: bool) -> dict:
    """Return what trains no encoder, by name."""
    shared = {"image_root": args.data, "max_text_length": 40, "device": args.device}

    def probe(backbone: str, **params) -> GridSearchCV:
        return by_penalty(LinearProbeClassifier(backbone, **params | shared), "C")

    return {
        "Class prior": DummyClassifier(strategy="prior"),
        "TF-IDF on the text": words(multilabel),
        "Probe, CLIP": probe(encoders["clip"]),
        "Probe, CLIP + BERT": probe(encoders["clip"], text_backbone=encoders["bert"]),
        "Probe, ViLT": probe(encoders["vilt"]),
    }


def trained(encoders: dict, seed: int) -> dict:
    """Return the methods that are trained by steps, by name."""
    common = {
        "image_root": args.data,
        "max_text_length": 40,
        "device": args.device,
        "random_state": seed,
    }
    clip, bert, vilt = encoders["clip"], encoders["bert"], encoders["vilt"]
    return {
        "MAIL": MAILClassifier(vilt, **common),
        "CMPT": CMPTClassifier(clip, bert, **common),
        "MoRA": MoRAClassifier(clip, **common),
        "DCP": DCPClassifier(clip, **common),
        "RAGPT": RAGPTClassifier(vilt, retriever_backbone=clip, **common),
        "MSP": MSPClassifier(vilt, **common),
        "MAP": MAPClassifier(vilt, **common),
        "MemPrompt": MemPromptClassifier(vilt, **common),
        "LoRA, CLIP": FineTuneClassifier(clip, tune="lora", **common),
        "LoRA, ViLT": FineTuneClassifier(vilt, tune="lora", **common),
        "Full, CLIP": FineTuneClassifier(clip, tune="full", **common),
    }


def automatic(encoders: dict, seed: int) -> AutoMultimodalClassifier:
    """Return the classifier that chooses among all of these and combines them."""
    return AutoMultimodalClassifier(
        tuple(encoders.values()),
        image_root=args.data,
        max_text_length=40,
        time_limit=args.time_limit,
        device=args.device,
        random_state=seed,
    )


# %%
# The tables
# ----------

CLOTHES, POSTERS = "fashion products", "movie posters"


def load(name: str) -> tuple[pd.DataFrame, pd.Series | pd.DataFrame, pd.Series]:
    """Return the rows (image and text), the targets and the split of a table."""
    folder = name.replace(" ", "_")
    table = pd.read_csv(args.data / folder / "table.csv", index_col="id")
    images = f"{folder}/images/" + table["image"]
    text = table["text_masked" if name == CLOTHES else "text"]
    y = table["label"] if name == CLOTHES else table["labels"].str.get_dummies("|")
    return pd.DataFrame({"image": images, "text": text}), y, table["split"]


def holes(X: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows after the protocol's blanking."""
    return drop_modalities(X, args.rate, "both", random_state=seed)


def draw(table: str, part: str, n_rows: int, seed: int):
    """Return so many rows of one part of the split, blanked, and their targets."""
    X, y, split = load(table)
    rows = X[split == part].sample(n_rows, random_state=seed).index
    return holes(X.loc[rows], seed + (part == "test")), y.loc[rows]


# %%
# One run: fit, then scores per missing pattern
# ---------------------------------------------


def probabilities(clf, X) -> np.ndarray:
    """Return probabilities (n, C), the dummy's list for several labels as well."""
    proba = clf.predict_proba(X)
    if isinstance(proba, list):
        proba = np.stack([p[:, -1] for p in proba], axis=1)
    return proba


def score(classes, y: np.ndarray, proba: np.ndarray) -> float:
    """Return accuracy; or, for several labels, mean average precision."""
    if y.ndim == 1:
        return float(np.mean(classes[proba.argmax(axis=1)] == y))
    there = y.any(axis=0)  # a genre that no row has cannot be ranked
    return average_precision_score(y[:, there], proba[:, there], average="macro")


def scores(clf, X, y) -> dict:
    """Return the scores on all rows, and on those of each pattern."""
    start = time.process_time()
    proba, y = probabilities(clf, X), np.asarray(y)
    seconds = time.process_time() - start
    image, text = X["image"].notna().to_numpy(), X["text"].notna().to_numpy()
    patterns = {
        "all": np.ones(len(X), dtype=bool),
        "complete": image & text,
        "image missing": ~image,
        "text missing": ~text,
    }
    classes = None if y.ndim == 2 else clf.classes_
    found = {name: score(classes, y[at], proba[at]) for name, at in patterns.items()}
    return found | {"ms_per_row": 1000 * seconds / len(X)}


def run(clf, train, test) -> dict:
    """Fit and score; seconds are the processor's."""
    start, clock = time.process_time(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that a fold of a search lacks
        clf.fit(*train)
    record = {
        "fit_seconds": time.process_time() - start,
        "clock_seconds": time.perf_counter() - clock,
        "C": next(iter(getattr(clf, "best_params_", {}).values()), None),
        "rate": getattr(clf, "lr", None),
    }
    best = getattr(clf, "best_estimator_", clf)
    record["trained_parameters"] = getattr(best, "n_trainable_parameters_", None)
    record["scores"] = scores(clf, *test)
    if isinstance(clf, AutoMultimodalClassifier):
        board = clf.leaderboard_.reset_index()
        record["leaderboard"] = json.loads(board.to_json(orient="records"))
    return record


def path_of(*parts) -> Path:
    """Return the file of a run."""
    words = [str(part).replace(" ", "-").replace(",", "") for part in parts]
    settings = f"{args.train_rows}_rate{args.rate}"
    return args.out / settings / f"{'_'.join(words)}.json"


def once(parts: tuple, make) -> dict:
    """Return what a finished run has written, or make the run."""
    path = path_of(*parts)
    if not path.exists():
        record = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record))
        part.replace(path)
    return json.loads(path.read_text())


def chosen_rate(name: str, table: str, family: str) -> float:
    """Return the best rate on rows and holes that no reported run uses alone."""
    X, y = draw(table, "train", args.train_rows + args.held_out_rows, TUNE_SEED)
    n, found = args.train_rows, {}
    for rate in args.learning_rates:
        clf = trained(FAMILIES[family], TUNE_SEED)[name].set_params(lr=rate)
        record = once(
            ("rate", table, family, name, rate),
            lambda clf=clf: run(clf, (X[:n], y[:n]), (X[n:], y[n:])),
        )
        found[rate] = record["scores"]["all"]
    return max(found, key=found.get)


def execute(name: str, table: str, family: str, seed: int) -> dict:
    """Make one run of one method."""
    train = draw(table, "train", args.train_rows, seed)
    test = draw(table, "test", args.test_rows, seed)
    simple = untrained(FAMILIES[family], table == POSTERS)
    if name in simple:
        return run(simple[name], train, test)
    if name == AUTO:
        return run(automatic(FAMILIES[family], seed), train, test)
    clf = trained(FAMILIES[family], seed)[name]
    if args.learning_rates:
        clf.set_params(lr=chosen_rate(name, table, family))
    return run(clf, train, test)


AUTO = "Automatic"
simple_names = list(untrained(FAMILIES["unseen"], multilabel=False))
names = [*simple_names, *trained(FAMILIES["unseen"], 0), AUTO]
for option, given, known in (
    ("--methods", args.methods, names),
    ("--tables", args.tables, [CLOTHES, POSTERS]),
    ("--encoders", args.encoders, list(FAMILIES)),
):
    unknown = set(given or ()) - set(known)
    if unknown:
        parser.error(f"{option} must be among {known}, got {sorted(unknown)}")
jobs = [
    (name, table, family, seed)
    for seed in args.seeds
    for family in args.encoders or FAMILIES
    for table in args.tables or (CLOTHES, POSTERS)
    for name in args.methods or names
]
kind_of_rate = "chosen" if args.learning_rates else "default"
if not args.report:
    for job in tqdm(jobs, desc="runs"):
        once((kind_of_rate, *job), lambda job=job: execute(*job))

# %%
# The tables of the report
# ------------------------


def results() -> pd.DataFrame:
    """Return a row per finished run."""
    rows = []
    for job in jobs:
        path = path_of(kind_of_rate, *job)
        if path.exists():
            record = json.loads(path.read_text())
            keys = dict(zip(("method", "table", "encoders", "seed"), job, strict=True))
            rows.append(keys | record | record.pop("scores"))
    return pd.DataFrame(rows)


def mean_and_error(values: pd.Series) -> str:
    """Return the mean and, of several seeds, its standard error."""
    error = f" ± {values.sem():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{error}"


def show(title: str, table: pd.DataFrame) -> None:
    """Print a table of strings in Markdown, methods in the order of this script."""
    table = table.reindex([name for name in names if name in table.index])
    cells = tabulate(table, "keys", "pipe", disable_numparse=True)
    print(f"\n### {title[0].upper()}{title[1:]}\n\n{cells}")


PATTERNS = ["all", "complete", "image missing", "text missing"]
WHOSE = {"unseen": "the package's encoders", "yours": "the encoders named"}
COSTS = {"trained_parameters": 0, "fit_seconds": 0, "ms_per_row": 1, "C": 3, "rate": 4}


def show_setting(of: pd.DataFrame, table: str, family: str) -> None:
    """Print scores by missing pattern, and costs, of one table and family."""
    by_method = of.groupby("method")
    shown = by_method[PATTERNS].agg(mean_and_error)
    shown.insert(0, "seeds", by_method.size().astype(str))
    metric = "mean average precision" if table == POSTERS else "accuracy"
    where = f"{table}, {WHOSE[family]}"
    show(f"{where}: {metric}", shown)
    costs = of.reindex(columns=["method", *COSTS]).groupby("method").median()
    costs = costs.apply(
        lambda column: column.map(
            lambda v: "" if pd.isna(v) else f"{v:,.{COSTS[column.name]}f}"
        )
    )
    show(f"{where}: cost and choices, medians", costs)


found = results()
if found.empty:
    parser.exit(message="No finished run.\n")
for (table, family), of in found.groupby(["table", "encoders"], sort=False):
    show_setting(of, table, family)

# %%
# The picture: the main score of every method on all rows
# -------------------------------------------------------

KINDS = {
    "automatic choice": "#d55e00",
    "papers": "#0072b2",
    "fine-tuning": "#56b4e9",
    "frozen features or words": "0.55",
}


def kind_of(name: str) -> str:
    """Return what sort of method it is."""
    if name == AUTO:
        return "automatic choice"
    if name in simple_names:
        return "frozen features or words"
    return "fine-tuning" if name.startswith(("LoRA", "Full")) else "papers"


def draw_scores(ax, of: pd.DataFrame, table: str, family: str) -> None:
    """Draw mean and standard error of each method, the best one on top."""
    scores = of.groupby("method")["all"].agg(["mean", "sem"]).sort_values("mean")
    kinds = scores.index.map(kind_of)
    for kind, color in KINDS.items():
        at = np.flatnonzero(kinds == kind)
        part = scores.iloc[at]
        ax.errorbar(part["mean"], at, xerr=part["sem"], fmt="o", c=color, label=kind)
    metric = "mean average precision" if table == POSTERS else "accuracy"
    ax.set(title=f"{table.capitalize()}, {WHOSE[family]}", xlabel=metric)
    ax.set_yticks(range(len(scores)), scores.index)
    ax.grid(axis="x", alpha=0.3)


settings = list(found.groupby(["table", "encoders"], sort=False))
columns = min(2, len(settings))
rows = -(-len(settings) // columns)
figure = Figure(figsize=(5.5 * columns, 4.4 * rows), layout="constrained")
axes = figure.subplots(rows, columns, squeeze=False).ravel()
for ax, ((table, family), of) in zip(axes, settings, strict=False):
    draw_scores(ax, of, table, family)
for ax in axes[len(settings) :]:
    ax.set_axis_off()
handles = axes[0].get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=4)
figure.savefig(args.out / "results.png", dpi=110)
