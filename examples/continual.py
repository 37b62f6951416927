"""
Classes that arrive in stages
=============================

Ten kinds of scenes come in five stages of two. Seven rows in ten have lost their
picture or their caption, and the rows of earlier stages are gone when the next ones
come. Sequential fine-tuning trains one set of low-rank adapters and one growing head on
each stage in turn, and forgets. DeLo keeps a partition per stage; class Gaussians of
frozen features keep a mean per class and one matrix, and train nothing.

``--methods all`` compares everything that learns in stages, and joint training, the
bound from above; ``--table fashion`` does so on a real table in ten stages of three
product types (``--data`` is its folder). Every run is a file in ``--out``: the same
command goes on where it was stopped, several commands may share the work, and
``--report`` only prints the tables and draws the pictures.
"""

import argparse
import json
import pickle
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from tabulate import tabulate

from robustmm import (
    ContinualMatrixDisplay,
    DeLoClassifier,
    DualPromptClassifier,
    GaussianPrototypeClassifier,
    L2PClassifier,
    RanPACClassifier,
    RebQClassifier,
    SequentialClassifier,
    apply_missing_table,
    average_performance,
    forgetting,
    missing_table,
)
from robustmm.datasets import make_scenes

# What is compared: a class and its parameters beside those that all have.
METHODS = {
    "DeLo": (DeLoClassifier, {}),
    "DeLo, nearest key": (DeLoClassifier, {"task_inference": "nearest"}),
    "DeLo, Gaussians": (DeLoClassifier, {"task_inference": "gaussian"}),
    "DeLo, deep keys": (DeLoClassifier, {"key_layers": (-1, 0)}),
    "DeLo, static": (DeLoClassifier, {"static": True}),
    "DeLo, one pool": (DeLoClassifier, {"single_pool": True}),
    "DeLo, no guide": (DeLoClassifier, {"cross_modal_guide": False}),
    "DeLo, no losses": (
        DeLoClassifier,
        {"lambda_align": 0.0, "lambda_consistency": 0.0},
    ),
    "Class Gaussians": (GaussianPrototypeClassifier, {}),
    "RanPAC": (RanPACClassifier, {}),
    "L2P": (L2PClassifier, {}),
    "L2P, per stage": (
        L2PClassifier,
        {"selection": "per_stage", "center_queries": True},
    ),
    "DualPrompt": (DualPromptClassifier, {}),
    "DualPrompt, Gaussians": (DualPromptClassifier, {"task_inference": "gaussian"}),
    "RebQ": (RebQClassifier, {}),
    "RebQ, as released": (RebQClassifier, {"fresh_components": False}),
    "Sequential": (SequentialClassifier, {}),
    "Sequential, masked": (SequentialClassifier, {"masked": True}),
    "Replay": (SequentialClassifier, {"memory_size": None}),
    "Joint": (SequentialClassifier, {}),
    "Joint, head alone": (SequentialClassifier, {"tune": "head"}),
}
RIVALS = [name for name in METHODS if not name.startswith("DeLo, ")]
RIVALS[:1] = ["DeLo, nearest key", "DeLo, Gaussians", "DeLo, deep keys"]
SETTINGS = ("both", "unseen")
TUNE_SEED = 100  # its rows and holes choose learning rates; the reported ones differ

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--table", choices=["scenes", "fashion"], default="scenes")
parser.add_argument("--data", type=Path, help="folder of the real tables")
parser.add_argument("--backbone", default="robustmm/tiny-vilt", help="a ViLT")
parser.add_argument("--rows", type=int, default=40, help="training rows per class")
parser.add_argument("--test-rows", type=int, default=40, help="test rows per class")
parser.add_argument("--rate", type=float, default=0.7, help="part of rows with a hole")
parser.add_argument(
    "--settings",
    nargs="+",
    default=["both"],
    choices=SETTINGS,
    help="unseen: test rows miss what no training row of their stage does",
)
parser.add_argument("--reverse", action="store_true", help="the last stage first")
parser.add_argument("--splits", type=Path, help="read class orders, rows and holes")
parser.add_argument("--write-splits", type=Path, help="write them, and run nothing")
parser.add_argument("--epochs", type=int, default=4, help="passes over each stage")
parser.add_argument(
    "--learning-rates",
    type=float,
    nargs="+",
    default=[3e-3],
    help="the best for each method is chosen on other rows",
)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--memory-per-class", type=int, default=5, help="for replay")
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument(
    "--methods",
    nargs="+",
    default=["DeLo", "Class Gaussians", "Sequential"],
    choices=[*METHODS, "all"],
)
parser.add_argument("--device", default="auto")
parser.add_argument("--threads", type=int, help="torch threads")
parser.add_argument("--report", action="store_true", help="print the tables, no runs")
parser.add_argument("--out", type=Path, default=Path("outputs"), help="for the results")
args = parser.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)
if args.table == "fashion" and args.data is None:
    parser.error("--table fashion needs --data, the folder of the real tables")
methods = RIVALS if "all" in args.methods else args.methods

# %%
# Stages, each with its own classes, rows and holes
# -------------------------------------------------
# Class orders, rows and missing cells are data: ``--write-splits`` writes them, and
# ``--splits`` reads what others have published. Rows are named by the index of
# ``make_scenes`` with the seed, or by the ``id`` of the real table.

N_STAGES = {"scenes": 5, "fashion": 10}
# What a split was drawn with; the codes of its rows are those of ``missing_table``.
OPTIONS = {"rows": args.rows, "test_rows": args.test_rows, "rate": args.rate}


def load(seed: int):
    """Return images and texts, labels, and which rows are for training."""
    if args.table == "scenes":
        n_rows = 14 * (args.rows + args.test_rows)
        X, y = make_scenes(n_rows, n_classes=10, random_state=seed)
        return X, y, y.groupby(y).cumcount() < args.rows
    table = pd.read_csv(args.data / "fashion_products" / "table.csv", index_col="id")
    images = "fashion_products/images/" + table["image"]
    X = pd.DataFrame({"image": images, "text": table["text_masked"]})
    return X, table["label"], table["split"] == "train"


def draw_part(pools: dict, n_rows: int, seed: int, scenario: str) -> dict:
    """Return the names of rows of some classes, and a code for each."""
    rows = [
        pool.to_series().sample(min(n_rows, len(pool)), random_state=seed).tolist()
        for pool in pools.values()
    ]
    rows = [row for of_class in rows for row in of_class]
    codes = missing_table(len(rows), args.rate, scenario, random_state=seed)
    return {"rows": rows, "missing": "".join(map(str, np.asarray(codes)))}


def draw_split(seed: int, setting: str) -> list[dict]:
    """Return the classes of each stage, its rows and their holes."""
    _, y, training = load(seed)
    order = np.random.default_rng(seed).permutation(np.unique(y))
    stages = []
    for number, classes in enumerate(np.split(order, N_STAGES[args.table])):
        stage = {"classes": classes.tolist()}
        scenarios = {"train": "both", "test": "both"}
        if setting == "unseen":  # text and image in turn, and the other in the test
            pair = ("text", "image") if number % 2 == 0 else ("image", "text")
            scenarios = dict(zip(scenarios, pair, strict=True))
        for part, n_rows in (("train", args.rows), ("test", args.test_rows)):
            there = training if part == "train" else ~training
            pools = {c: y.index[there & (y == c)] for c in classes}
            own = 100 * seed + 10 * number + (part == "test")
            stage[part] = draw_part(pools, n_rows, own, scenarios[part])
        stages.append(stage)
    return stages


def split_of(seed: int, setting: str) -> list[dict]:
    """Return a split as it was published, or as it is drawn."""
    if args.splits is None:
        return draw_split(seed, setting)
    published = json.loads(args.splits.read_text())[args.table]
    if published["options"] != OPTIONS:
        parser.error(f"the splits are of {published['options']}, got {OPTIONS}")
    return published[setting][str(seed)]


def make_stages(seed: int, setting: str) -> list[tuple]:
    """Return tuples (X_train, y_train, X_test, y_test)."""
    X, y, _ = load(seed)
    stages = []
    for stage in split_of(seed, setting):
        tables = []
        for part in ("train", "test"):
            rows, codes = stage[part]["rows"], [*map(int, stage[part]["missing"])]
            tables += [apply_missing_table(X.loc[rows], codes), y.loc[rows]]
        stages.append(tuple(tables))
    return stages[::-1] if args.reverse else stages


if args.write_splits:
    found = {}
    if args.write_splits.exists():
        found = json.loads(args.write_splits.read_text())
    drawn = {
        setting: {str(seed): draw_split(seed, setting) for seed in args.seeds}
        for setting in args.settings
    }
    found[args.table] = {"options": OPTIONS, **drawn}
    args.write_splits.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    parser.exit(message=f"Splits: {args.write_splits}\n")

# %%
# Learn, and look back after every stage
# --------------------------------------


def make_estimator(method: str, seed: int, rate: float, n_classes: int):
    """Return one of the compared classifiers."""
    cls, params = METHODS[method]
    params = {"backbone": args.backbone, "device": args.device, **params}
    if args.data is not None:
        params["image_root"] = args.data
    if params.get("memory_size", 0) is None:
        params["memory_size"] = args.memory_per_class * n_classes
    wanted = {
        "max_epochs": args.epochs,
        "batch_size": args.batch_size,
        "lr": rate,
        "random_state": seed,
    }
    taken = cls().get_params(deep=False)
    if "lr" not in taken:  # nothing is trained: all in one pass
        wanted.pop("batch_size")
    return cls(**params | {k: v for k, v in wanted.items() if k in taken})


def learn(clf, stages: list[tuple], joint: bool) -> dict:
    """Learn stage after stage, or all at once, and score after each."""
    n = len(stages)
    matrix, seconds, sizes = np.full((n, n), np.nan), [], []
    calls = [stages] if joint else [[stage] for stage in stages]
    for number, call in enumerate(calls):
        X = pd.concat([stage[0] for stage in call])
        y = pd.concat([stage[1] for stage in call])
        start = time.process_time()
        clf = clf.fit(X, y) if joint else clf.partial_fit(X, y)
        seconds.append(time.process_time() - start)
        sizes.append(len(pickle.dumps(clf)) / 1e6)
        last = n - 1 if joint else number
        for row in range(last + 1):
            matrix[row, last] = clf.score(*stages[row][2:])
    return {
        "matrix": matrix.tolist(),
        "seconds": seconds,
        "megabytes": np.diff(sizes, prepend=0).tolist(),
        **found_stages(clf, stages),
    }


def found_stages(clf, stages: list[tuple]) -> dict:
    """Return how many rows are taken for their stage, and scores by what they miss."""
    tested = pd.concat([stage[2] for stage in stages])
    y = pd.concat([stage[3] for stage in stages])
    owner = {c: i for i, stage in enumerate(stages) for c in np.unique(stage[3])}
    predicted = pd.Series(clf.predict(tested), y.index)
    right = predicted.map(owner).to_numpy() == y.map(owner).to_numpy()
    hit = predicted.to_numpy() == y.to_numpy()
    image, text = tested["image"].notna(), tested["text"].notna()
    patterns = {"complete": image & text, "image only": ~text, "text only": ~image}
    found = {"task": float(right.mean())}
    found["patterns"] = {
        name: float(hit[at.to_numpy()].mean())
        for name, at in patterns.items()
        if at.any()
    }
    if hasattr(clf, "predict_task"):
        found["task asked"] = float(
            (clf.predict_task(tested) == y.map(owner).to_numpy()).mean()
        )
    if hasattr(clf, "with_tasks"):
        told = clf.with_tasks(y.map(owner).to_numpy())
        found["told"] = float(told.score(tested, y))
    return found


def path_of(*parts) -> Path:
    """Return the file of a run."""
    about = f"{args.table}_{args.rows}x{args.epochs}x{args.batch_size}"
    about += "_reverse" * args.reverse
    name = "_".join(str(part).replace(" ", "-").replace(",", "") for part in parts)
    return args.out / "continual" / about / f"{name}.json"


def once(path: Path, make) -> dict:
    """Return what a finished run has written, or make the run."""
    if not path.exists():
        record = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record))
        part.replace(path)
    return json.loads(path.read_text())


def execute(method: str, seed: int, setting: str, rate: float) -> dict:
    """Make one run."""
    stages = make_stages(seed, setting)
    n_classes = sum(len(np.unique(stage[1])) for stage in stages)
    clf = make_estimator(method, seed, rate, n_classes)
    return learn(clf, stages, joint=method.startswith("Joint")) | {"rate": rate}


def last_scores(record: dict) -> float:
    """Return the mean score of the stages at the end."""
    return float(np.array(record["matrix"], dtype=float)[:, -1].mean())


def chosen_rate(method: str) -> float:
    """Return the rate that is best on rows that are not reported."""
    rates = args.learning_rates
    if len(rates) == 1 or "lr" not in METHODS[method][0]().get_params(deep=False):
        return rates[0]
    found = {}
    for rate in rates:
        path = path_of("rate", method, rate)
        record = once(path, lambda r=rate: execute(method, TUNE_SEED, "both", r))
        found[rate] = last_scores(record)
    return max(found, key=found.get)


jobs = [
    (method, seed, setting)
    for setting in args.settings
    for seed in args.seeds
    for method in methods
]
if not args.report:
    for number, (method, seed, setting) in enumerate(jobs, 1):
        path = path_of(method, setting, seed)
        if not path.exists():
            job = method, seed, setting, chosen_rate(method)
            record = once(path, lambda job=job: execute(*job))
            score = last_scores(record)
            print(f"{number}/{len(jobs)} {method}, {setting}, seed {seed}: {score:.3f}")

# %%
# The tables
# ----------
# AP is the mean score of all stages after the last one; FG what was lost since the best
# score of a stage, and since the score right after it was learned.


def summary(record: dict) -> dict:
    """Return the numbers of one run, by the heads of the table."""
    matrix = np.array(record["matrix"], dtype=float)
    joint = np.isnan(np.diag(matrix)[:-1]).any()
    return {
        "AP": last_scores(record) if joint else average_performance(matrix),
        "FG": np.nan if joint else forgetting(matrix),
        "FG diagonal": np.nan if joint else forgetting(matrix, kind="diagonal"),
        "right after": np.nan if joint else np.diag(matrix).mean(),
        "task found": record["task"],
        "task asked": record.get("task asked", np.nan),
        "task told": record.get("told", np.nan),
        **record["patterns"],
        "s per stage": sum(record["seconds"]) / len(matrix),
        "MB per stage": sum(record["megabytes"]) / len(matrix),
        "rate": record["rate"],
    }


def mean_and_sd(values: pd.Series) -> str:
    """Return mean and, of several seeds, standard deviation."""
    if values.isna().all():
        return ""
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


rows, matrices = [], {}
for method, seed, setting in jobs:
    path = path_of(method, setting, seed)
    if path.exists():
        record = json.loads(path.read_text())
        about = {"setting": setting, "method": method, "seed": seed}
        rows.append(about | summary(record))
        if setting == args.settings[0] and not method.startswith("Joint"):
            matrices.setdefault(method, []).append(record["matrix"])
if not rows:
    parser.exit(message=f"No finished run in {path_of('x').parent}.\n")
table = pd.DataFrame(rows)
args.out.mkdir(parents=True, exist_ok=True)
table.to_csv(args.out / f"continual_{args.table}.csv", index=False)
for setting, of in table.groupby("setting", sort=False):
    numbers = of.drop(columns=["setting", "seed"]).groupby("method", sort=False)
    shown = numbers.agg(mean_and_sd).dropna(axis=1, how="all")
    seeds = of["seed"].nunique()
    print(f"\n### {args.table}, {setting} missing, {args.rate:.0%}, {seeds} seeds\n")
    print(tabulate(shown, "keys", "pipe", disable_numparse=True))

# %%
# What is left of each stage after every later one
# ------------------------------------------------

names = [f"stage {i + 1}" for i in range(N_STAGES[args.table])]
n_columns = min(3, len(matrices)) or 1
n_lines = max(1, -(-len(matrices) // n_columns))
figure, axes = plt.subplots(
    n_lines,
    n_columns,
    figsize=(5 * n_columns, 4.2 * n_lines),
    layout="constrained",
    squeeze=False,
)
for ax in axes.flat[len(matrices) :]:
    ax.axis("off")
for ax, (method, runs) in zip(axes.flat, matrices.items(), strict=False):
    mean = pd.DataFrame(np.mean(np.array(runs, dtype=float), axis=0), names, names)
    ContinualMatrixDisplay.from_frame(mean, label="accuracy", ax=ax)
    score = average_performance(mean)
    ax.set_title(f"{method}: AP {score:.2f}, FG {forgetting(mean):.2f}")
picture = args.out / f"continual_{args.table}.png"
figure.savefig(picture, dpi=150)
print(f"\nPicture: {picture}")
