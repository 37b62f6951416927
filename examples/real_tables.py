"""
All methods and baselines on two real tables
============================================

Film posters with plots (several genres each) and pictures of clothes with titles (one
product type each), blanked by the protocol of the field. The same training rows, passes
over them and batches for every method; the learning rate of each is chosen on other
training rows, the penalty of the linear probes by cross-validation.

Every run is a file in ``--out``; the same command goes on where it was stopped, and two
commands may share the work (``--methods``). ``--report`` only prints the tables.
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
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tabulate import tabulate
from tqdm.auto import tqdm

from robustmm import (
    CMPTClassifier,
    DeLoClassifier,
    FineTuneClassifier,
    LinearProbeClassifier,
    MAILClassifier,
    MAPClassifier,
    MemPromptClassifier,
    MoRAClassifier,
    MSPClassifier,
    drop_modalities,
)

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
parser.add_argument("--vilt", required=True, help="checkpoint: folder or hub id")
parser.add_argument("--clip", required=True, help="checkpoint: folder or hub id")
parser.add_argument("--bert", required=True, help="checkpoint: folder or hub id")
parser.add_argument("--out", type=Path, default=Path("outputs/real_tables"))
parser.add_argument("--methods", nargs="+", help="some of the methods")
parser.add_argument("--tables", nargs="+", help="one of the two, by name")
parser.add_argument("--settings", nargs="+", help="some of both, cross, extra")
parser.add_argument("--train-rows", type=int, default=800)
parser.add_argument("--test-rows", type=int, default=600)
parser.add_argument(
    "--learning-rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2]
)
parser.add_argument("--held-out-rows", type=int, default=200, help="to choose rates")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--rate", type=float, default=0.7, help="part of rows with a hole")
parser.add_argument("--device", default="auto")
parser.add_argument("--threads", type=int, help="torch threads")
parser.add_argument("--report", action="store_true", help="print the tables, no runs")
args = parser.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)

# %%
# The methods, and the learning rates to choose from
# --------------------------------------------------
# A longer text is cut at 40 tokens for every encoder, as ViLT's is. Full fine-tuning
# has the default rates: 1e-4 for the encoder's weights, 1e-3 for the head.

STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
TUNE_SEED = 100  # its rows and holes are drawn with this, the reported ones with seeds


def trained(seed: int, folder: Path) -> dict:
    """Return the methods that are trained by steps, by name."""
    common = {
        "image_root": folder,
        "max_text_length": 40,
        "max_epochs": args.epochs,
        "batch_size": args.batch_size,
        "device": args.device,
        "random_state": seed,
    }
    vilt, clip = {"backbone": args.vilt} | common, {"backbone": args.clip} | common
    return {
        "MAIL": MAILClassifier(**vilt),
        "MemPrompt": MemPromptClassifier(**vilt),
        "MSP": MSPClassifier(**vilt),
        "MAP": MAPClassifier(**vilt),
        "DeLo, one task": DeLoClassifier(**vilt),
        "MoRA": MoRAClassifier(**clip),
        "CMPT": CMPTClassifier(args.clip, args.bert, **common),
        "Head, ViLT": FineTuneClassifier(tune="head", **vilt),
        "LoRA, ViLT": FineTuneClassifier(tune="lora", **vilt),
        "Head, CLIP": FineTuneClassifier(tune="head", **clip),
        "LoRA, CLIP": FineTuneClassifier(tune="lora", **clip),
        "Full, CLIP": FineTuneClassifier(tune="full", **clip),
    }


def probe(backbone: str, folder: Path, multilabel: bool, **params) -> GridSearchCV:
    """Return a linear probe that chooses its penalty by itself."""
    clf = LinearProbeClassifier(
        backbone, image_root=folder, max_text_length=40, device=args.device, **params
    )
    scoring = "average_precision" if multilabel else "accuracy"
    return GridSearchCV(clf, {"C": STRENGTHS}, cv=3, scoring=scoring, refit=True)


def untrained(folder: Path, multilabel: bool) -> dict:
    """Return what needs no learning rate, by name."""
    linear = LogisticRegression(C=5, max_iter=1000)
    words = make_pipeline(
        FunctionTransformer(lambda X: X["text"].fillna("").astype(str)),
        TfidfVectorizer(sublinear_tf=True, min_df=2),
        OneVsRestClassifier(linear) if multilabel else linear,
    )
    about = folder, multilabel
    return {
        "Class prior": DummyClassifier(strategy="prior"),
        "TF-IDF on the text": words,
        "Linear probe, ViLT": probe(args.vilt, *about),
        "Linear probe, ViLT and means": probe(args.vilt, *about, pooling="both"),
        "Linear probe, CLIP": probe(args.clip, *about),
        "Linear probe, CLIP image, BERT": probe(
            args.clip, *about, text_backbone=args.bert
        ),
    }


# %%
# The tables
# ----------

GENRES = "movie posters"
CLOTHES = "fashion products"


def read(folder: str) -> pd.DataFrame:
    """Return a table whose images are paths below the data folder."""
    table = pd.read_csv(args.data / folder / "table.csv", index_col="id")
    table["image"] = f"{folder}/images/" + table["image"]
    return table


def load(name: str, extra: bool = False):
    """Return the rows (image and text), the targets and the split of a table."""
    if name == CLOTHES:
        table = read("fashion_products")
        X = pd.DataFrame({"image": table["image"], "text": table["text_masked"]})
        return X, table["label"], table["split"]
    table = read("movie_posters")
    if extra:
        table = pd.concat([table, read("movie_posters_extra")])
    Y = table["labels"].str.get_dummies("|")
    return table[["image", "text"]], Y, table["split"]


def draw(X, y, split, seed: int, part: str, n_rows: int):
    """Return so many rows of one part of the split."""
    there = (split == part).sum()
    if n_rows > there:
        raise ValueError(f"There are {there} {part} rows, got {n_rows} to draw.")
    rows = X[split == part].sample(n_rows, random_state=seed).index
    return X.loc[rows], y.loc[rows]


def holes(X, scenario: str, seed: int) -> pd.DataFrame:
    """Return the rows after the protocol's blanking."""
    return drop_modalities(X, args.rate, scenario, random_state=seed)


# %%
# One run: fit, then scores per missing pattern on each test scenario
# -------------------------------------------------------------------


def scores(clf, X, y) -> dict:
    """Return the scores on all rows, and on those of each pattern."""
    start = time.process_time()
    labels, proba = np.asarray(clf.predict(X)), clf.predict_proba(X)
    seconds = time.process_time() - start
    if isinstance(proba, list):  # the dummy's multilabel answer
        proba = np.stack([p[:, -1] for p in proba], axis=1)
    image, text = X["image"].notna().to_numpy(), X["text"].notna().to_numpy()
    y = np.asarray(y)
    patterns = {
        "all": np.ones(len(X), dtype=bool),
        "complete": image & text,
        "image missing": ~image,
        "text missing": ~text,
    }
    found = {"predict_seconds": seconds}
    for name, at in patterns.items():
        if at.any():
            found[name] = metrics(y[at], labels[at], proba[at])
    return found


def metrics(y, labels, proba) -> dict:
    """Return accuracy; or, for several labels, mean average precision and F1."""
    if y.ndim == 1:
        return {"accuracy": accuracy_score(y, labels)}
    there = y.any(axis=0)  # a genre that no row has cannot be ranked
    return {
        "mAP": average_precision_score(y[:, there], proba[:, there], average="macro"),
        "F1-macro": f1_score(y, labels, average="macro", zero_division=0),
    }


def run(clf, train, tests: dict) -> dict:
    """Fit and score; seconds are the processor's."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that a fold of a search lacks
        clf.fit(*train)
    record = {"fit_seconds": time.process_time() - start}
    best = getattr(clf, "best_estimator_", clf)
    record["trained_parameters"] = getattr(best, "n_trainable_parameters_", None)
    record["C"] = getattr(clf, "best_params_", {}).get("C")
    return record | {
        "tests": {name: scores(clf, *test) for name, test in tests.items()}
    }


def path_of(*parts) -> Path:
    """Return the file of a run."""
    settings = f"{args.train_rows}x{args.epochs}_rate{args.rate}"
    name = "_".join(str(part).replace(" ", "-").replace(",", "") for part in parts)
    return args.out / settings / f"{name}.json"


def once(path: Path, make) -> dict:
    """Return what a finished run has written, or make the run."""
    if not path.exists():
        record = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record))
        part.replace(path)
    return json.loads(path.read_text())


def main_score(record: dict) -> float:
    """Return accuracy, or mean average precision."""
    return next(iter(record["all"].values()))


def chosen_rate(name: str, table: str) -> float:
    """Return the best rate on rows and holes that no reported run uses alone."""
    X, y, split = load(table)
    n = args.held_out_rows
    X, y = draw(X, y, split, TUNE_SEED, "train", args.train_rows // 2 + n)
    X = holes(X, "both", TUNE_SEED)
    train, held_out = (X[n:], y[n:]), (X[:n], y[:n])
    found = {}
    for rate in args.learning_rates:
        clf = trained(TUNE_SEED, args.data)[name].set_params(lr=rate)
        path = path_of("rate", table, name, rate)
        record = once(path, lambda clf=clf: run(clf, train, {"both": held_out}))
        found[rate] = main_score(record["tests"]["both"])
    return max(found, key=found.get)


def jobs():
    """Yield every run: setting, table, scenario of the training rows, seed."""
    for table in (CLOTHES, GENRES):
        for seed in args.seeds:
            yield "both", table, "both", seed
    for scenario in ("text", "image"):
        for table in (CLOTHES, GENRES):
            yield "cross", table, scenario, args.seeds[0]
    yield "extra", GENRES, "as it is", args.seeds[0]


def data_of(setting: str, table: str, scenario: str, seed: int):
    """Return the training rows and the tests of a run."""
    X, y, split = load(table, extra=setting == "extra")
    train_X, train_y = draw(X, y, split, seed, "train", args.train_rows)
    if setting != "extra":
        train_X = holes(train_X, scenario, seed)
    test_X, test_y = draw(X, y, split, seed, "test", args.test_rows)
    wanted = ("text", "image", "both") if seed == args.seeds[0] else ("both",)
    return (train_X, train_y), {s: (holes(test_X, s, seed), test_y) for s in wanted}


def execute(name: str, setting: str, table: str, scenario: str, seed: int) -> dict:
    """Make one run of one method."""
    train, tests = data_of(setting, table, scenario, seed)
    multilabel = table == GENRES
    simple = untrained(args.data, multilabel)
    if name in simple:
        return run(simple[name], train, tests)
    clf = trained(seed, args.data)[name]
    if not name.startswith("Full"):
        clf.set_params(lr=chosen_rate(name, table))
    return run(clf, train, tests) | {"rate": clf.lr}


simple_names = [*untrained(args.data, False)]
names = [*simple_names, *trained(0, args.data)]
for option, given, known in (
    ("--methods", args.methods, names),
    ("--tables", args.tables, [CLOTHES, GENRES]),
    ("--settings", args.settings, ["both", "cross", "extra"]),
):
    unknown = set(given or ()) - set(known)
    if unknown:
        parser.error(f"{option} must be among {known}, got {sorted(unknown)}")
todo = [
    (name, *job)
    for job in jobs()
    for name in names
    if name in (args.methods or names)
    and job[0] in (args.settings or [job[0]])
    and job[1] in (args.tables or [job[1]])
]
if not args.report:
    for job in tqdm(todo, desc="runs"):
        once(path_of(*job), lambda job=job: execute(*job))

# %%
# The tables of the report
# ------------------------


def results() -> pd.DataFrame:
    """Return a row per run, test scenario, pattern and metric."""
    rows = []
    for name, *job in [(name, *job) for job in jobs() for name in names]:
        path = path_of(name, *job)
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        for tested, found in record.pop("tests").items():
            found.pop("predict_seconds")
            for pattern, values in found.items():
                for metric, value in values.items():
                    keys = dict(
                        zip(KEYS, [name, *job, tested, pattern, metric], strict=True)
                    )
                    rows.append(keys | record | {"score": value})
    return pd.DataFrame(rows)


KEYS = ["method", "setting", "table", "trained", "seed", "tested", "rows", "metric"]


def show(title: str, table: pd.DataFrame) -> None:
    """Print a table of strings in Markdown, methods in the order of this script."""
    table = table.reindex([name for name in names if name in table.index])
    cells = tabulate(table, "keys", "pipe", disable_numparse=True)
    print(f"\n### {title[0].upper()}{title[1:]}\n\n{cells}")


def mean_and_sd(values: pd.Series) -> str:
    """Return mean and, of several seeds, standard deviation."""
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def plain(value, digits: int = 3) -> str:
    """Return a number as it is to be read; nothing for none."""
    return "" if pd.isna(value) else f"{value:,.{digits}f}"


found = results()
if found.empty:
    parser.exit(message=f"No finished run in {path_of('x').parent}.\n")


def usual(table: str) -> pd.DataFrame:
    """Return the scores where training and test rows lose either modality."""
    here = found[(found["table"] == table) & (found["setting"] == "both")]
    return here[here["tested"] == "both"]


def main_scores(of: pd.DataFrame) -> pd.DataFrame:
    """Return the scores on all rows by accuracy or mean average precision."""
    return of[(of["rows"] == "all") & (of["metric"] != "F1-macro")]


def show_patterns(table: str) -> None:
    """Print the scores by missing pattern, over the seeds."""
    for metric, of in usual(table).groupby("metric", sort=False):
        title = f"{table}, {args.rate:.0%} both, {metric}"
        shown = of.pivot_table("score", "method", "rows", mean_and_sd, sort=False)
        show(f"{title}, {of['seed'].nunique()} seeds", shown)


def show_scenarios(table: str) -> None:
    """Print the scores by what training and test rows lose, of the first seed."""
    of = found[(found["table"] == table) & (found["setting"] != "extra")]
    of = main_scores(of[of["seed"] == args.seeds[0]])
    if of.empty:
        return
    shown = of.pivot_table(
        "score", "method", ["trained", "tested"], "first", sort=False
    )
    shown.columns = [f"{train} → {test}" for train, test in shown.columns]
    title = f"{table}, {of['metric'].iloc[0]}, one seed"
    show(f"{title}: lost in training → in the test", shown.map(plain))


def show_cost(table: str) -> None:
    """Print what each method took, and what was chosen for it."""
    digits = {"trained_parameters": 0, "fit_seconds": 1, "rate": 3, "C": 4}
    of = usual(table).reindex(columns=["method", *digits])
    cost = of.groupby("method").median()
    shown = cost.apply(
        lambda column: column.map(lambda v: plain(v, digits[column.name]))
    )
    show(f"{table}, cost and choices (medians; seconds of processor time)", shown)


measured = [name for name in args.tables or (CLOTHES, GENRES) if len(usual(name))]
for table in measured:
    show_patterns(table)
    show_scenarios(table)
    show_cost(table)
extra = found[(found["setting"] == "extra") & (found["rows"] == "all")]
if len(extra):
    of = extra.pivot_table("score", "method", ["metric", "tested"], "first", sort=False)
    of.columns = [f"{metric}, test loses {test}" for metric, test in of.columns]
    show("Training rows that really are incomplete", of.map(plain))

# %%
# The picture: the main score of every method on all rows
# -------------------------------------------------------

KINDS = {"papers": "C3", "fine-tuning": "C0", "frozen features or words": "0.5"}


def kind_of(name: str) -> str:
    """Return what sort of method it is."""
    if name in simple_names:
        return "frozen features or words"
    parts = ("Head", "LoRA", "Full")
    return "fine-tuning" if name.startswith(parts) else "papers"


def draw_scores(ax, table: str) -> None:
    """Draw mean and standard deviation of each method, the best one on top."""
    of = main_scores(usual(table))
    scores = of.groupby("method")["score"].agg(["mean", "std"]).sort_values("mean")
    kinds = scores.index.map(kind_of)
    for kind, color in KINDS.items():
        at = np.flatnonzero(kinds == kind)
        part = scores.iloc[at]
        ax.errorbar(part["mean"], at, xerr=part["std"], fmt="o", c=color, label=kind)
    metric = of["metric"].iloc[0]
    ax.set(title=table.capitalize(), xlabel=f"{metric}, all rows, {args.rate:.0%} both")
    ax.set_yticks(range(len(scores)), scores.index)
    ax.grid(axis="x", alpha=0.3)


if measured:
    figure = Figure(figsize=(5.5 * len(measured), 5), layout="constrained")
    axes = figure.subplots(1, len(measured), squeeze=False)[0]
    for ax, table in zip(axes, measured, strict=True):
        draw_scores(ax, table)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    figure.savefig(path_of("results").with_suffix(".png"), dpi=110)
