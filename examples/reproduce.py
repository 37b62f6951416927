"""
The published protocol on the published data sets
=================================================

One command trains methods on MM-IMDb, UPMC Food-101 or Hateful Memes with 70% of the
rows blanked, scores them under every scenario, and prints the means and deviations over
seeds beside the figures of the papers::

    python examples/reproduce.py hateful_memes --root ~/data/hateful_memes \\
        --methods map-input memprompt --scenarios both --seeds 0 1 2

Recipes are the papers' own: they want a GPU with the memory for their batches, or
smaller ones (``--batch-size``, and a smaller ``--lr`` with it). Two things differ: the
last epoch is scored, where the papers take the best one of the official validation
split, which is not used here (``--early-stopping`` takes the best one on a tenth of the
training rows), and the cells that are blanked, as exact in number as theirs, are not
the same ones. DeLo is left out: its protocol is another one, see ``continual.py``.

Every run is written when it ends, and its state after every epoch; the same command
goes on where it was stopped.
"""

import argparse
import io
from pathlib import Path

import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from tqdm.auto import tqdm

from robustmm import (
    CMPTClassifier,
    MAILClassifier,
    MAPClassifier,
    MemPromptClassifier,
    MoRAClassifier,
    MSPClassifier,
    drop_modalities,
)
from robustmm.datasets import load_food101, load_hateful_memes, load_mmimdb

# %%
# The figures of the papers
# -------------------------
# In percent, 70% blanked. Nine figures each: trained without text and tested without
# text, without image, with either missing; trained without image, tested in the same
# order; trained with either missing. "vilt" is a frozen ViLT under a trained pooler and
# head. Sources: table 1 of MemPrompt, table 8 of CMPT, table 1 of MoRA, and table 1 of
# MAIL, whose protocol is another one (one text per film; and the code that it builds on
# computes another F1 than the one it names).

PUBLISHED = {
    "mmimdb": """
vilt          MemPrompt 35.09 28.21 31.77 29.64 37.65 34.71 34.23 35.19 36.10
map-attention MemPrompt 35.82 28.76 33.33 25.30 44.46 36.38 35.77 42.08 39.51
map-input     MemPrompt 36.03 21.02 30.72 22.08 44.64 35.00 37.55 44.35 41.48
memprompt     MemPrompt 38.47 35.06 37.60 34.86 48.59 42.14 39.09 45.37 42.47
msp           CMPT      38.34 34.11 36.97 34.32 47.45 42.17 37.30 44.81 42.03
cmpt          CMPT      52.61 44.72 49.26 36.10 60.21 50.05 50.05 57.45 54.04
mora          MoRA      52.56 -     -     -     56.39 -     -     -     52.97
mail          MAIL      55.42 -     -     -     46.39 -     -     -     52.06
""",
    "food101": """
vilt          MemPrompt 67.25 46.13 51.90 42.38 76.43 58.90 64.47 73.04 70.13
map-attention MemPrompt 73.54 27.82 51.38 39.98 85.68 62.68 71.31 85.28 78.39
map-input     MemPrompt 74.25 27.82 51.17 29.68 86.30 57.93 72.24 85.91 79.11
memprompt     MemPrompt 75.15 80.81 78.11 60.63 86.52 74.07 72.39 86.12 79.76
msp           CMPT      73.77 57.22 65.13 56.87 86.34 71.88 71.58 85.91 78.89
cmpt          CMPT      80.37 85.34 82.78 67.60 87.48 77.52 78.40 87.36 82.83
mora          MoRA      80.85 -     -     -     88.01 -     -     -     83.77
mail          MAIL      75.77 -     -     -     81.26 -     -     -     77.28
""",
    "hateful_memes": """
vilt          MemPrompt 60.95 59.36 61.37 56.07 63.11 59.42 59.48 62.91 61.80
map-attention MemPrompt 61.66 59.44 58.50 59.04 64.57 58.33 61.06 61.75 58.10
map-input     MemPrompt 59.13 57.55 58.08 59.32 65.27 58.82 61.03 64.05 60.35
memprompt     MemPrompt 60.26 59.64 62.55 59.82 65.63 65.12 61.91 64.26 65.74
msp           MAIL      59.60 -     -     -     60.05 -     -     -     59.08
mora          MoRA      69.43 -     -     -     70.68 -     -     -     70.15
mail          MAIL      63.47 -     -     -     62.73 -     -     -     63.11
""",
}
METRICS = {"mmimdb": "F1-macro", "food101": "accuracy", "hateful_memes": "AUROC"}
SCENARIOS = ("text", "image", "both")


def published(data_set: str) -> pd.DataFrame:
    """Return the figures of the papers: method, trained, tested, published, source."""
    cases = [f"{trained} {tested}" for trained in SCENARIOS for tested in SCENARIOS]
    table = pd.read_csv(
        io.StringIO(PUBLISHED[data_set]),
        sep=r"\s+",
        names=["method", "source", *cases],
        na_values="-",
    )
    long = table.melt(["method", "source"], var_name="case", value_name="published")
    long[["trained", "tested"]] = long["case"].str.split(" ", expand=True)
    return long.drop(columns="case").dropna()


def score(data_set: str, clf, X: pd.DataFrame, y) -> float:
    """Return the metric of the data set, in percent."""
    if data_set == "mmimdb":  # a genre that is neither there nor predicted counts 0
        value = f1_score(y, clf.predict(X), average="macro", zero_division=0)
    elif data_set == "food101":
        value = accuracy_score(y, clf.predict(X))
    else:
        value = roc_auc_score(y, clf.predict_proba(X)[:, 1])
    return 100 * value


# %%
# The recipes of the papers, where they differ between data sets
# --------------------------------------------------------------

CHECKPOINTS = {
    "vilt": "dandelin/vilt-b32-mlm",
    "clip": "openai/clip-vit-base-patch16",
    "bert": "bert-base-uncased",
}


def recipe(cls: type, data_set: str, **changes) -> dict:
    """Return the paper's parameters, of a data set where it has several."""
    paper = cls.PAPER
    if all(isinstance(part, dict) for part in paper.values()):
        paper = paper.get(data_set, next(iter(paper.values())))
    return paper | changes


def methods(data_set: str, names: dict, layers: int = 6) -> dict:
    """Return untrained classifiers by name, on checkpoints given by name.

    ``layers`` is the number of layers with prompts.
    """
    vilt, clip = {"backbone": names["vilt"]}, {"backbone": names["clip"]}
    prompts = recipe(MAPClassifier, data_set, prompt_layers=layers, **vilt)
    # All on ViLT read as much text, but for MAIL, whose protocol is another one.
    msp = {"max_text_length": prompts["max_text_length"], "prompt_layers": layers}
    memory = {"generative_layers": layers, "shared_layers": layers}
    encoders = {"image_backbone": names["clip"], "text_backbone": names["bert"]}
    if data_set == "hateful_memes":  # not in CMPT's paper
        encoders["max_text_length"] = None
    return {
        "vilt": MAPClassifier(**prompts | {"prompt_layers": 0}),
        "map-input": MAPClassifier(**prompts),
        "map-attention": MAPClassifier(**prompts | {"prompt_type": "attention"}),
        "msp": MSPClassifier(**recipe(MSPClassifier, data_set, **msp, **vilt)),
        "memprompt": MemPromptClassifier(
            **recipe(MemPromptClassifier, data_set, **memory, **vilt)
        ),
        "mail": MAILClassifier(**recipe(MAILClassifier, data_set, **vilt)),
        "cmpt": CMPTClassifier(**recipe(CMPTClassifier, data_set, **encoders)),
        "mora": MoRAClassifier(**recipe(MoRAClassifier, data_set, **clip)),
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    add = parser.add_argument
    every = list(methods("mmimdb", CHECKPOINTS))
    add("data_set", choices=list(PUBLISHED))
    add("--root", type=Path, required=True, help="folder of the data set")
    add("--methods", nargs="+", choices=every, default=every, metavar="METHOD")
    add("--scenarios", nargs="+", choices=SCENARIOS, default=["both"], help="to train")
    add("--rate", type=float, default=0.7, help="part of the rows that lose a cell")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training")
    add("--table-seed", type=int, default=0, help="of what is blanked, for all runs")
    add(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="KIND=NAME",
        help="vilt, clip, bert",
    )
    add("--plots", default="all", help="of MM-IMDb: all, first or outline")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--batch-size", type=int, help="instead of the recipe's")
    add("--lr", type=float, help="instead of the recipe's")
    add("--text-length", type=int, help="tokens, instead of the recipe's")
    add("--prompt-layers", type=int, default=6, help="fewer for a smaller checkpoint")
    add("--early-stopping", action="store_true", help="keep the best epoch")
    add("--train-rows", type=int, help="take only so many, for a trial")
    add("--test-rows", type=int, help="take only so many, for a trial")
    add("--device", default="auto")
    add("--out", type=Path, default=Path("outputs/reproduce"))
    add("--verbose", action="store_true", help="show a bar for each training, too")
    return parser.parse_args()


# %%
# The tables: official training and test rows, blanked once and for all methods
# -----------------------------------------------------------------------------


def read(split: str):
    """Return rows and labels of a split as the published results use them."""
    if args.data_set == "mmimdb":
        X, y = load_mmimdb(args.root, split, plots=args.plots)
    elif args.data_set == "food101":
        X, y = load_food101(args.root, split)
        titled = X["text"].notna()  # the others are left out by all papers
        X, y = X[titled], y[titled]
    else:
        X, y = load_hateful_memes(args.root, split)
    n_rows = args.train_rows if split == "train" else args.test_rows
    if n_rows is not None and n_rows < len(X):
        at = pd.Series(range(len(X))).sample(n_rows, random_state=args.table_seed)
        X, y = X.iloc[at], y.iloc[at]
    return X, y


def blank(X: pd.DataFrame, split: str, scenario: str) -> pd.DataFrame:
    """Return the rows with the holes of a split; all plots of a film share theirs."""
    seed = args.table_seed + (split == "test")
    return drop_modalities(X, args.rate, scenario, seed, groups=X.index)


def describe(X: pd.DataFrame) -> str:
    """Say how many units (films, dishes, memes) miss what."""
    units = X[~X.index.duplicated()]
    image, text = units["image"].isna().sum(), units["text"].isna().sum()
    whole = units.notna().all(axis=1).sum()
    return f"{len(units)}: {whole} complete, {text} without text, {image} without image"


# %%
# The runs: each a training with one seed, tested under every scenario
# --------------------------------------------------------------------


def settings(name: str, clf) -> dict:
    """Return what tells a run from others, besides seed and scenario."""
    checkpoint = clf.image_backbone if name == "cmpt" else clf.backbone
    return {
        "method": name,
        "checkpoint": str(checkpoint),
        "rate": args.rate,
        "table_seed": args.table_seed,
        "epochs": clf.max_epochs,
        "batch_size": clf.batch_size,
        "lr": clf.lr,
        "text_length": clf.max_text_length or 0,
        "prompt_layers": args.prompt_layers,
        "early_stopping": clf.early_stopping,
        "train_rows": len(train[0]),
        "test_rows": len(test[0]),
    }


def run(clf, scenario: str) -> list[dict]:
    """Train on rows blanked in one way; return a record per way of the test."""
    X, y = train
    clf.fit(blank(X, "train", scenario), y)
    seconds = round(clf.history_["dur"].sum(), 1)
    X, y = test
    return [
        {
            "tested": tested,
            "score": score(args.data_set, clf, blank(X, "test", tested), y),
            "trained_parameters": clf.n_trainable_parameters_,
            "train_seconds": seconds,
        }
        for tested in SCENARIOS
    ]


def write(frame: pd.DataFrame, name: str) -> None:
    """Write a table in one step, so that an interruption leaves the old one."""
    path = args.out / f"{args.data_set}_{name}.csv"
    frame.to_csv(path.with_suffix(".part"), index=False)
    path.with_suffix(".part").replace(path)


def done(records: list[dict], key: dict) -> bool:
    """Whether a run with these settings is among the records."""
    return any(
        all(r.get(name) == value for name, value in key.items()) for r in records
    )


args = arguments()
args.out.mkdir(parents=True, exist_ok=True)
named = dict(pair.split("=", 1) for pair in args.checkpoint)
unknown = set(named) - set(CHECKPOINTS)
if unknown:
    raise SystemExit(f"--checkpoint knows {list(CHECKPOINTS)}, got {sorted(unknown)}.")
train, test = read("train"), read("test")
for scenario in args.scenarios:
    print(f"{scenario}, train {describe(blank(train[0], 'train', scenario))}")
    print(f"{scenario}, test  {describe(blank(test[0], 'test', scenario))}")

path = args.out / f"{args.data_set}_runs.csv"
records = pd.read_csv(path).to_dict("records") if path.exists() else []
known = methods(args.data_set, CHECKPOINTS | named, args.prompt_layers)
changes = {
    "max_epochs": args.epochs,
    "batch_size": args.batch_size,
    "lr": args.lr,
    "max_text_length": args.text_length,
}
changes = {name: value for name, value in changes.items() if value is not None}
checkpoints = args.out / "checkpoints"
checkpoints.mkdir(exist_ok=True)
changes |= {
    "early_stopping": args.early_stopping,
    "device": args.device,
    "checkpoint_dir": checkpoints,
}
if not args.early_stopping:  # no rows to score
    changes["scoring"] = None
plan = [(s, t, m) for s in args.seeds for t in args.scenarios for m in args.methods]
shown = []
for seed, scenario, name in tqdm(plan, desc=f"reproduce {args.data_set}"):
    clf = known[name].set_params(
        **changes, random_state=seed, verbose=int(args.verbose)
    )
    key = settings(name, clf) | {"seed": seed, "trained": scenario}
    if not done(records, key):
        records += [key | record for record in run(clf, scenario)]
        write(pd.DataFrame(records), "runs")
    shown.append(key)

# %%
# What was measured, beside what was published
# --------------------------------------------

runs = pd.DataFrame([r for r in records if any(done([r], key) for key in shown)])
cases = ["method", "trained", "tested"]
table = runs.groupby(cases, sort=False)["score"].agg(
    measured="mean", sd="std", seeds="count"
)
table = table.reset_index()
if args.rate == 0.7:
    table = table.merge(published(args.data_set), on=cases, how="left")
    table["difference"] = table["measured"] - table["published"]
write(table.round(4), "table")
print(f"\n{METRICS[args.data_set]} in percent, {args.rate:.0%} blanked")
print(table.round(2).to_string(index=False, na_rep=""))
print(f"\nRuns and table: {args.out}")
