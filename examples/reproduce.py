"""
The published protocol on the published data sets
=================================================

One command trains methods on MM-IMDb, UPMC Food-101 or Hateful Memes with 70% of the
rows blanked, or another share, scores them under every scenario, and prints the means
and deviations over seeds beside the figures of the papers. On CREMA-D, AVE and
Kinetics-Sound it trains CMPT on complete clips, and tests it with both, without video
and without audio::

    python examples/reproduce.py hateful_memes --root ~/data/hateful_memes \\
        --methods map-input memprompt --scenarios both --seeds 0 1 2
    python examples/reproduce.py food101 --root ~/data/food101 --methods mora dcp \\
        --scenarios text image both --rate 0.5 --order map --select official
    python examples/reproduce.py mmimdb --root ~/data/mmimdb --methods cmpt \\
        --rate 0 --test-rate 0 1
    python examples/reproduce.py crema_d --root ~/data/CREMA-D --methods cmpt \\
        --seeds 0 1 2 --lists train=train.csv test=test.csv --gaps

Recipes are the papers' own: they want a GPU with the memory for their batches, or
smaller ones (``--batch-size``, and a smaller ``--lr`` with it). Two things differ until
they are asked for: the last epoch is scored, where the papers take the best one of the
official validation rows (``--select official``), and the cells that are blanked, as
exact in number as theirs, are not the same ones (``--order map`` draws as the authors
of missing-aware prompts do). DeLo is left out: its protocol is another one, see
``continual.py``.

Of clips, rows differ too: CREMA-D has no official split and is divided by actor unless
``--lists`` names the papers' lists, and of Kinetics-Sound as many films are there as
could still be had. Published AST, tuned on AudioSet, has very likely heard AVE's test.

Every run is written when it ends, and its state after every epoch; the same command
goes on where it was stopped. A run counts as done if nothing differs that can change
its score; what each recipe was is in ``DATA_SET_recipes.json``.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

import pandas as pd
from reproduce_data import (
    DATA_SETS,
    OPTIONS,
    SPLITS,
    describe,
    other_rows,
    rows_digest,
    sampled,
    score,
)
from reproduce_published import clip_figures, published
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

ORDERS = ("split", "nested", "map")

# %%
# The recipes of the papers, where they differ between data sets
# --------------------------------------------------------------

CHECKPOINTS = {
    "vilt": "dandelin/vilt-b32-mlm",
    "clip": "openai/clip-vit-base-patch16",
    "bert": "bert-base-uncased",
    "retriever": "openai/clip-vit-large-patch14-336",
    "ast": CMPTClassifier.PAPER["audio-video"]["audio_backbone"],
    "siglip": "google/siglip-base-patch16-224",
}


def recipe(cls: type, data_set: str, **changes) -> dict:
    """Return the paper's parameters, of a data set where it has several."""
    paper = cls.PAPER
    if all(isinstance(part, dict) for part in paper.values()):
        paper = paper.get(data_set, next(iter(paper.values())))
    return paper | changes


def clip_methods(names: dict) -> dict:
    """Return CMPT of sounds and films, and its variants in tables 5, 7, 9 and 10."""
    encoders = {"audio_backbone": names["ast"], "video_backbone": names["clip"]}
    variants = {"cmpt": {}}
    variants |= {f"cmpt-rank-{r}": {"rank": r, "alpha": r} for r in (2, 4)}
    variants |= {f"cmpt-{kind}": {"adapter": kind} for kind in ("dora", "vera")}
    variants["cmpt-siglip"] = {"video_backbone": names["siglip"]}
    weights = (0.0, 0.1, 0.3, 0.4, 0.5)  # the recipe's is 0.2
    variants |= {f"cmpt-lambda-{w}": {"lambda_align": w} for w in weights}
    return {
        name: CMPTClassifier(**recipe(CMPTClassifier, "audio-video", **encoders | own))
        for name, own in variants.items()
    }


def methods(data_set: str, names: dict, layers: int = 6) -> dict:
    """Return untrained classifiers by name, on checkpoints given by name.

    ``layers`` is the number of layers with prompts.
    """
    if DATA_SETS[data_set].clips:
        return clip_methods(names)
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


def parser_of_arguments() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    add = parser.add_argument
    add("data_set", choices=list(DATA_SETS))
    add("--root", type=Path, required=True, help="folder of the data set")
    add(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="by default all, of clips cmpt; a wrong one lists them",
    )
    add("--scenarios", nargs="+", default=["both"], help="what is missing in training")
    add(
        "--rate",
        type=float,
        help="part of the training rows that lose a cell; 0 for a complete training, "
        "as of clips; else 0.7",
    )
    add(
        "--test-rate",
        type=float,
        nargs="+",
        metavar="RATE",
        help="the same of the test rows, several for one training; by default --rate, "
        "of clips after complete training 0 and 1",
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
    add(
        "--lists",
        nargs="+",
        metavar="SPLIT=FILE",
        help="of CREMA-D and Kinetics-Sound: CSV files of the rows, see the loaders",
    )
    add(
        "--shared",
        choices=["keep", "drop"],
        default="keep",
        help="of AVE: films that are in two splits",
    )
    add(
        "--gaps",
        action="store_true",
        help="of clips: those that are not there or cannot be read count as missing",
    )
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
    return parser


def arguments() -> argparse.Namespace:
    """Read the command line, and fill in what the data set decides."""
    parser = parser_of_arguments()
    args = parser.parse_args()
    data_set = DATA_SETS[args.data_set]
    every = list(methods(args.data_set, CHECKPOINTS))
    args.methods = args.methods or (["cmpt"] if data_set.clips else every)
    for option, values, known in (
        ("--methods", args.methods, every),
        ("--scenarios", args.scenarios, data_set.scenarios),
    ):
        unknown = [value for value in values if value not in known]
        if unknown:
            said = f"{option} of {args.data_set} must be among {', '.join(known)}"
            parser.error(f"{said}, got {unknown[0]}.")
    for name, unset in OPTIONS.items():
        if getattr(args, name) != unset and name not in data_set.options:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} says nothing of {args.data_set}.")
    if args.lists:
        args.lists = dict(pair.partition("=")[::2] for pair in args.lists)
        splits = set(args.lists)
        if not {"train", "test"} <= splits <= set(SPLITS) or "" in args.lists.values():
            parser.error(
                "--lists must be train=FILE test=FILE, and dev=FILE for CREMA-D if "
                f"wanted, got {' '.join(args.lists)}."
            )
    if args.rate is None:
        args.rate = data_set.rate
    usual = data_set.test_rates if args.rate == data_set.rate else ()
    args.test_rate = list(dict.fromkeys(args.test_rate or usual or [args.rate]))
    for rate in (args.rate, *args.test_rate):
        if not 0 <= rate <= 1:
            parser.error(f"--rate and --test-rate must be in [0, 1], got {rate}.")
    return args


# %%
# The tables: official rows, blanked once and for all methods
# -----------------------------------------------------------


def read_validation():
    """Return the official validation rows and their labels."""
    try:
        X, y = sampled(args, "dev")
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


def scenarios_at(rate: float, scenarios=None) -> tuple[str, ...]:
    """Return what can be missing: where nothing is blanked, all is one case."""
    return tuple(scenarios or data_set.scenarios) if rate > 0 else ("complete",)


def blank(split: str, scenario: str, rate: float) -> pd.DataFrame:
    """Return the rows of a split with its holes; all plots of a film share theirs."""
    X = rows[split][0]
    if scenario == "complete":
        return X
    drawn = {"order": args.order, "modalities": data_set.modalities}
    seed = args.table_seed + (0, 2, 1)[SPLITS.index(split)]
    if args.order == "map":
        # As the authors do, from one generator, split by split; so that a split has the
        # same holes whatever the others have, these count as blanked in the same way.
        seed = random.Random(args.table_seed)
        for before in SPLITS[: SPLITS.index(split)]:
            n_units = rows[before][0].index.nunique()
            missing_table(n_units, rate, scenario, seed, **drawn)
    return drop_modalities(X, rate, scenario, seed, X.index, **drawn)


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
    own = {"plots": args.plots} if args.data_set == "mmimdb" else {}
    if data_set.clips:  # lists and folders of clips differ
        own = {"rows": rows_digest(rows)}
    return {
        "method": name,
        "recipe": fingerprint(clf),
        **own,
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
    if data_set.clips:
        checkpoint = f"{clf.audio_backbone} {clf.video_backbone}"
    else:
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
data_set = DATA_SETS[args.data_set]
args.out.mkdir(parents=True, exist_ok=True)
named = dict(pair.split("=", 1) for pair in args.checkpoint)
unknown = set(named) - set(CHECKPOINTS)
if unknown:
    raise SystemExit(f"--checkpoint knows {list(CHECKPOINTS)}, got {sorted(unknown)}.")
records = read_records(args.out / f"{args.data_set}_runs.csv")
official = args.select == "official"
rows = {split: sampled(args, split) for split in ("train", "test")}
if official or args.order == "map":
    rows["dev"] = read_validation()
trained = scenarios_at(args.rate, args.scenarios)
holes = [("train", s, args.rate) for s in trained]
holes += [("dev", s, args.rate) for s in trained if official]
holes += [("test", s, rate) for rate in args.test_rate for s in scenarios_at(rate)]
for split, scenario, rate in holes:
    counts = describe(blank(split, scenario, rate), data_set.modalities)
    print(f"{scenario:8} {rate:4.0%}, {split:5} {counts}")
if other_rows(args, rows):
    print(other_rows(args, rows))

known = methods(args.data_set, CHECKPOINTS | named, args.prompt_layers)
changes = {
    "max_epochs": args.epochs,
    "batch_size": args.batch_size,
    "lr": args.lr,
    "max_text_length": args.text_length,
    "on_bad_image": "missing" if args.gaps else None,
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
    changes["scoring"] = data_set.scoring if official else None
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
print(f"\n{data_set.metric} in percent, {args.rate:.0%} blanked")
print(table.round(2).to_string(index=False, na_rep=""))
if data_set.clips:
    sizes = runs.groupby("method", sort=False)["trained_parameters"].first() / 1e6
    paper = clip_figures(args.data_set).set_index("method")["parameters"]
    sizes = pd.DataFrame({"here": sizes, "published": paper.reindex(sizes.index)})
    print("\nTrained parameters in millions")
    print(sizes.round(3).reset_index().to_string(index=False, na_rep=""))
print(f"\nRuns and table: {args.out}")
