"""
The published protocol on the published data sets
=================================================

One command trains methods on MM-IMDb, UPMC Food-101 or Hateful Memes with 70% of the
rows blanked, or another share, scores them under every scenario, and prints the means
and deviations over seeds beside the figures of the papers::

    python examples/reproduce.py hateful_memes --root ~/data/hateful_memes \\
        --methods map-input memprompt --scenarios both --seeds 0 1 2
    python examples/reproduce.py food101 --root ~/data/food101 --methods mora dcp \\
        --scenarios text image both --rate 0.5 --order map --select official
    python examples/reproduce.py mmimdb --root ~/data/mmimdb --methods cmpt \\
        --rate 0 --test-rate 0 1

Recipes are the papers' own: they want a GPU with the memory for their batches, or
smaller ones (``--batch-size``, and a smaller ``--lr`` with it). Two things differ until
they are asked for: the last epoch is scored, where the papers take the best one of the
official validation rows (``--select official``), and the cells that are blanked, as
exact in number as theirs, are not the same ones (``--order map`` draws as the authors
of missing-aware prompts do). DeLo is left out: its protocol is another one, see
``continual.py``.

Every run is written when it ends, and its state after every epoch; the same command
goes on where it was stopped. A run counts as done if nothing differs that can change
its score; what each recipe was is in ``DATA_SET_recipes.json``.
"""

import argparse
import hashlib
import io
import json
import random
from pathlib import Path

import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from tqdm.auto import tqdm

from robustmm import (
    CMPTClassifier,
    DCPClassifier,
    MAILClassifier,
    MAPClassifier,
    MemPromptClassifier,
    MoRAClassifier,
    MSPClassifier,
    RAGPTClassifier,
    __version__,
    drop_modalities,
    missing_table,
)
from robustmm.datasets import load_food101, load_hateful_memes, load_mmimdb

# %%
# The figures of the papers
# -------------------------
# In percent, by data set and by the shares of rows that are blanked in training and in
# the test. Nine figures: trained without text and tested without text, without image,
# with either missing; trained without image, tested in the same order; trained with
# either missing. Three: trained and tested without text, without image, with either
# missing. Two: trained complete, tested without text, without image. "vilt" is a frozen
# ViLT under a trained pooler and head.
#
# Sources: table 1 of MemPrompt; tables 3, 8 and 11 of CMPT; table 1 of MoRA, whose
# column of DCP has the figures of DCP's own paper; and table 1 of MAIL, whose protocol
# is another one: one text per film, and the code that it builds on computes another F1
# than the one it names. RAGPT's on MM-IMDb, a micro F1, are left out for that. Further
# rates are in figures without numbers: 2 and 3 of MemPrompt, 4 to 6 of MAIL, 2, 3 and 7
# of CMPT, 7 and 8 of MoRA.

PUBLISHED = {
    ("mmimdb", 0.7, 0.7): """
vilt          MemPrompt 35.09 28.21 31.77 29.64 37.65 34.71 34.23 35.19 36.10
map-attention MemPrompt 35.82 28.76 33.33 25.30 44.46 36.38 35.77 42.08 39.51
map-input     MemPrompt 36.03 21.02 30.72 22.08 44.64 35.00 37.55 44.35 41.48
memprompt     MemPrompt 38.47 35.06 37.60 34.86 48.59 42.14 39.09 45.37 42.47
msp           CMPT      38.34 34.11 36.97 34.32 47.45 42.17 37.30 44.81 42.03
cmpt          CMPT      52.61 44.72 49.26 36.10 60.21 50.05 50.05 57.45 54.04
dcp           MoRA      48.52 -     -     -     53.14 -     -     -     51.42
mora          MoRA      52.56 -     -     -     56.39 -     -     -     52.97
mail          MAIL      55.42 -     -     -     46.39 -     -     -     52.06
""",
    ("food101", 0.7, 0.7): """
vilt          MemPrompt 67.25 46.13 51.90 42.38 76.43 58.90 64.47 73.04 70.13
map-attention MemPrompt 73.54 27.82 51.38 39.98 85.68 62.68 71.31 85.28 78.39
map-input     MemPrompt 74.25 27.82 51.17 29.68 86.30 57.93 72.24 85.91 79.11
memprompt     MemPrompt 75.15 80.81 78.11 60.63 86.52 74.07 72.39 86.12 79.76
msp           CMPT      73.77 57.22 65.13 56.87 86.34 71.88 71.58 85.91 78.89
cmpt          CMPT      80.37 85.34 82.78 67.60 87.48 77.52 78.40 87.36 82.83
dcp           MoRA      78.87 -     -     -     87.32 -     -     -     81.87
mora          MoRA      80.85 -     -     -     88.01 -     -     -     83.77
ragpt         MAIL      75.53 -     -     -     81.98 -     -     -     76.94
mail          MAIL      75.77 -     -     -     81.26 -     -     -     77.28
""",
    ("hateful_memes", 0.7, 0.7): """
vilt          MemPrompt 60.95 59.36 61.37 56.07 63.11 59.42 59.48 62.91 61.80
map-attention MemPrompt 61.66 59.44 58.50 59.04 64.57 58.33 61.06 61.75 58.10
map-input     MemPrompt 59.13 57.55 58.08 59.32 65.27 58.82 61.03 64.05 60.35
memprompt     MemPrompt 60.26 59.64 62.55 59.82 65.63 65.12 61.91 64.26 65.74
msp           MAIL      59.60 -     -     -     60.05 -     -     -     59.08
dcp           MoRA      62.82 -     -     -     64.12 -     -     -     66.08
mora          MoRA      69.43 -     -     -     70.68 -     -     -     70.15
ragpt         MAIL      64.10 -     -     -     62.57 -     -     -     63.47
mail          MAIL      63.47 -     -     -     62.73 -     -     -     63.11
""",
    ("mmimdb", 0.5, 0.5): """
dcp  MoRA 52.13 54.32 52.32
mora MoRA 54.62 57.61 55.88
""",
    ("mmimdb", 0.9, 0.9): """
dcp  MoRA 49.26 52.22 48.04
mora MoRA 50.67 53.57 51.64
""",
    ("food101", 0.5, 0.5): """
dcp  MoRA 82.11 89.12 85.24
mora MoRA 84.41 89.63 86.68
""",
    ("food101", 0.9, 0.9): """
dcp  MoRA 75.26 85.78 79.87
mora MoRA 78.41 86.77 81.09
""",
    ("hateful_memes", 0.5, 0.5): """
dcp  MoRA 62.32 64.46 66.02
mora MoRA 70.66 71.58 69.58
""",
    ("hateful_memes", 0.9, 0.9): """
dcp  MoRA 62.08 63.87 66.78
mora MoRA 68.52 68.78 68.37
""",
    ("mmimdb", 0.0, 1.0): "cmpt CMPT 46.97 56.32",
    ("mmimdb", 0.0, 0.0): "cmpt CMPT 63.58",
    ("food101", 0.0, 1.0): "cmpt CMPT 75.66 85.31",
    ("food101", 0.0, 0.0): "cmpt CMPT 94.47",
}
METRICS = {"mmimdb": "F1-macro", "food101": "accuracy", "hateful_memes": "AUROC"}
SCORING = {"mmimdb": "f1_macro", "food101": "accuracy", "hateful_memes": "roc_auc"}
SCENARIOS = ("text", "image", "both")
ORDERS = ("split", "nested", "map")
# What rows of several figures were trained and tested without, by their number.
CASES = {
    9: [f"{trained} {tested}" for trained in SCENARIOS for tested in SCENARIOS],
    3: [f"{scenario} {scenario}" for scenario in SCENARIOS],
    2: ["complete text", "complete image"],
    1: ["complete complete"],
}


def published(data_set: str, rate: float, test_rate: float) -> pd.DataFrame:
    """Return the figures of the papers: method, trained, tested, published, source."""
    columns = ["method", "source", "trained", "tested", "published"]
    text = PUBLISHED.get((data_set, rate, test_rate), "").strip()
    if not text:
        return pd.DataFrame(columns=columns)
    cases = CASES[len(text.splitlines()[0].split()) - 2]
    table = pd.read_csv(
        io.StringIO(text),
        sep=r"\s+",
        names=["method", "source", *cases],
        na_values="-",
    )
    long = table.melt(["method", "source"], var_name="case", value_name="published")
    long[["trained", "tested"]] = long["case"].str.split(" ", expand=True)
    return long[columns].dropna()


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
    "retriever": "openai/clip-vit-large-patch14-336",
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
        "dcp": DCPClassifier(
            **recipe(DCPClassifier, data_set, prompt_depth=layers, **clip)
        ),
        "ragpt": RAGPTClassifier(
            **recipe(
                RAGPTClassifier,
                data_set,
                retriever_backbone=names["retriever"],
                **vilt,
            )
        ),
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    add = parser.add_argument
    every = list(methods("mmimdb", CHECKPOINTS))
    add("data_set", choices=list(METRICS))
    add("--root", type=Path, required=True, help="folder of the data set")
    add("--methods", nargs="+", choices=every, default=every, metavar="METHOD")
    add("--scenarios", nargs="+", choices=SCENARIOS, default=["both"], help="to train")
    add(
        "--rate",
        type=float,
        default=0.7,
        help="part of the training rows that lose a cell; 0 for a complete training",
    )
    add(
        "--test-rate",
        type=float,
        nargs="+",
        metavar="RATE",
        help="the same of the test rows, several for one training; by default --rate",
    )
    add("--order", choices=ORDERS, default="split", help="see drop_modalities")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training")
    add("--table-seed", type=int, default=0, help="of what is blanked, for all runs")
    add(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="KIND=NAME",
        help=", ".join(CHECKPOINTS),
    )
    add("--plots", default="all", help="of MM-IMDb: all, first or outline")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--batch-size", type=int, help="instead of the recipe's")
    add("--lr", type=float, help="instead of the recipe's")
    add("--text-length", type=int, help="tokens, instead of the recipe's")
    add("--prompt-layers", type=int, default=6, help="fewer for a smaller checkpoint")
    add(
        "--select",
        choices=["none", "held-out", "official"],
        default="none",
        help="keep the best epoch, on a tenth of the training rows or on the official "
        "validation rows",
    )
    add(
        "--early-stopping",
        dest="select",
        action="store_const",
        const="held-out",
        default=argparse.SUPPRESS,
        help="the same as --select held-out",
    )
    add("--train-rows", type=int, help="take only so many, for a trial")
    add("--test-rows", type=int, help="take only so many, for a trial")
    add("--device", default="auto")
    add("--out", type=Path, default=Path("outputs/reproduce"))
    add("--verbose", action="store_true", help="show a bar for each training, too")
    args = parser.parse_args()
    args.test_rate = list(dict.fromkeys(args.test_rate or [args.rate]))
    for rate in (args.rate, *args.test_rate):
        if not 0 <= rate <= 1:
            parser.error(f"--rate and --test-rate must be in [0, 1], got {rate}.")
    return args


# %%
# The tables: official rows, blanked once and for all methods
# -----------------------------------------------------------

SPLITS = ("train", "dev", "test")


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


def read_validation():
    """Return the official validation rows and their labels."""
    try:
        X, y = read("dev")
        reason = "" if len(X) else "the split has no rows"
    except FileNotFoundError as error:
        reason = str(error)
    except KeyError as error:
        reason = f"there is no split {error}"
    if reason:
        raise SystemExit(
            "--select official and --order map need the official validation rows of "
            f"{args.data_set}, got none below {args.root}: {reason.rstrip('.')}."
        )
    return X, y


def scenarios_at(rate: float, scenarios=SCENARIOS) -> tuple[str, ...]:
    """Return what can be missing: where nothing is blanked, all is one case."""
    return tuple(scenarios) if rate > 0 else ("complete",)


def blank(split: str, scenario: str, rate: float) -> pd.DataFrame:
    """Return the rows of a split with its holes; all plots of a film share theirs."""
    X = rows[split][0]
    if scenario == "complete":
        return X
    seed = args.table_seed + (0, 2, 1)[SPLITS.index(split)]
    if args.order == "map":
        # As the authors do, from one generator, split by split; so that a split has the
        # same holes whatever the others have, these count as blanked in the same way.
        seed = random.Random(args.table_seed)
        for before in SPLITS[: SPLITS.index(split)]:
            n_units = rows[before][0].index.nunique()
            missing_table(n_units, rate, scenario, seed, order="map")
    return drop_modalities(X, rate, scenario, seed, X.index, order=args.order)


def describe(X: pd.DataFrame) -> str:
    """Say how many units (films, dishes, memes) miss what."""
    units = X[~X.index.duplicated()]
    image, text = units["image"].isna().sum(), units["text"].isna().sum()
    whole = units.notna().all(axis=1).sum()
    return f"{len(units)}: {whole} complete, {text} without text, {image} without image"


# %%
# The runs: each a training with one seed, tested under every scenario
# --------------------------------------------------------------------

# What cannot change a score; the seed has a column of its own.
INCIDENTAL = {
    "cache",
    "checkpoint_dir",
    "device",
    "image_root",
    "random_state",
    "verbose",
}


def parameters(clf) -> dict:
    """Return the parameters that can change a score."""
    known = clf.get_params(deep=False)
    return {name: value for name, value in known.items() if name not in INCIDENTAL}


def fingerprint(clf) -> str:
    """Return ten letters and digits that stand for a class and its parameters."""
    said = {"class": type(clf).__name__} | parameters(clf)
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def changed(clf) -> dict:
    """Return the class, its version, and the parameters that are not its defaults."""
    defaults = parameters(type(clf)())
    own = {k: v for k, v in parameters(clf).items() if v != defaults[k]}
    return {"class": type(clf).__name__, "version": __version__} | own


def identity(name: str, clf) -> dict:
    """Return what tells a training from others, besides its scenario."""
    plots = {"plots": args.plots} if args.data_set == "mmimdb" else {}
    return {
        "method": name,
        "recipe": fingerprint(clf),
        **plots,
        "rate": args.rate,
        "order": args.order,
        "table_seed": args.table_seed,
        "select": args.select,
        "train_rows": len(rows["train"][0]),
        "validation_rows": len(rows["dev"][0]) if official else 0,
        "test_rows": len(rows["test"][0]),
        "seed": clf.random_state,
    }


def remarks(name: str, clf) -> dict:
    """Return what else is worth reading in the table of runs."""
    checkpoint = clf.image_backbone if name == "cmpt" else clf.backbone
    return {
        "checkpoint": str(checkpoint),
        "epochs": clf.max_epochs,
        "batch_size": clf.batch_size,
        "lr": clf.lr,
        "text_length": clf.max_text_length or 0,
        "prompt_layers": args.prompt_layers,
        "version": __version__,
    }


def run(clf, scenario: str, test_rates: list[float]) -> list[dict]:
    """Train on rows blanked in one way; return a record per way of the test."""
    watched = {}
    if official:
        X = blank("dev", scenario, args.rate)
        watched["validation_data"] = X, rows["dev"][1]
    clf.fit(blank("train", scenario, args.rate), rows["train"][1], **watched)
    seconds = round(clf.history_["dur"].sum(), 1)
    y = rows["test"][1]
    return [
        {
            "test_rate": rate,
            "tested": tested,
            "score": score(args.data_set, clf, blank("test", tested, rate), y),
            "trained_parameters": clf.n_trainable_parameters_,
            "train_seconds": seconds,
        }
        for rate in test_rates
        for tested in scenarios_at(rate)
    ]


def write(text: str, name: str) -> None:
    """Write a file in one step, so that an interruption leaves the old one."""
    path = args.out / f"{args.data_set}_{name}"
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def read_records(path: Path) -> list[dict]:
    """Return the records of earlier commands."""
    if not path.exists():
        return []
    # A recipe of digits only, or such as 12e4567890, would become a number.
    earlier = pd.read_csv(path, dtype={"recipe": str})
    if "recipe" not in earlier:
        raise SystemExit(
            f"{path} must have a column recipe, without which its runs cannot be told "
            "apart: it is of an older version. Move it away, or pass another --out."
        )
    return earlier.to_dict("records")


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
records = read_records(args.out / f"{args.data_set}_runs.csv")
official = args.select == "official"
rows = {split: read(split) for split in ("train", "test")}
if official or args.order == "map":
    rows["dev"] = read_validation()
trained = scenarios_at(args.rate, args.scenarios)
holes = [("train", s, args.rate) for s in trained]
holes += [("dev", s, args.rate) for s in trained if official]
holes += [("test", s, rate) for rate in args.test_rate for s in scenarios_at(rate)]
for split, scenario, rate in holes:
    counts = describe(blank(split, scenario, rate))
    print(f"{scenario:8} {rate:4.0%}, {split:5} {counts}")

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
    "early_stopping": args.select != "none",
    "device": args.device,
    "checkpoint_dir": checkpoints,
}
if args.select != "held-out":  # the papers' choice, or no rows to score
    changes["scoring"] = SCORING[args.data_set] if official else None
path = args.out / f"{args.data_set}_recipes.json"
recipes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
plan = [(s, t, m) for s in args.seeds for t in trained for m in args.methods]
shown = []
for seed, scenario, name in tqdm(plan, desc=f"reproduce {args.data_set}"):
    clf = known[name].set_params(
        **changes, random_state=seed, verbose=int(args.verbose)
    )
    key = identity(name, clf) | {"trained": scenario}
    new = [r for r in args.test_rate if not done(records, key | {"test_rate": r})]
    if new:
        found = run(clf, scenario, new)
        recipes[key["recipe"]] = changed(clf)
        write(json.dumps(recipes, indent=1, default=str), "recipes.json")
        records += [key | record | remarks(name, clf) for record in found]
        write(pd.DataFrame(records).to_csv(index=False), "runs.csv")
    shown += [key | {"test_rate": rate} for rate in args.test_rate]

# %%
# What was measured, beside what was published
# --------------------------------------------

runs = pd.DataFrame([r for r in records if any(done([r], key) for key in shown)])
cases = ["method", "trained", "test_rate", "tested"]
table = runs.groupby(cases, sort=False)["score"].agg(
    measured="mean", sd="std", seeds="count"
)
table = table.reset_index()
figures = [
    published(args.data_set, args.rate, rate).assign(test_rate=rate)
    for rate in args.test_rate
]
figures = [part for part in figures if len(part)]
if figures:
    table = table.merge(pd.concat(figures), on=cases, how="left")
    table["difference"] = table["measured"] - table["published"]
write(table.round(4).to_csv(index=False), "table.csv")
print(f"\n{METRICS[args.data_set]} in percent, {args.rate:.0%} blanked")
print(table.round(2).to_string(index=False, na_rep=""))
print(f"\nRuns and table: {args.out}")
