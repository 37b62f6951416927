"""
Tables and figures of the five papers
=====================================

One command fills a table or draws a figure of CMPT, MoRA, MAIL or MemPrompt that
concerns images and texts; DeLo's are those of ``continual.py``, and the large tables
those of ``reproduce.py``::

    python examples/papers.py --list
    python examples/papers.py cmpt figure-3
    python examples/papers.py mora table-5 --data food101 --root DIR --paper

By default on scenes with the embedded encoders, in a minute or two: to see what the
numbers are, not how high they should be. ``--paper`` takes the papers' recipes,
``--data`` the published rows, and ``--checkpoint`` other encoders. Numbers are written
as CSV and pictures as PNG.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from robustmm import (
    AttentionMapDisplay,
    AvailabilityRadarDisplay,
    CMPTClassifier,
    CrossScenarioDisplay,
    DCPClassifier,
    EmbeddingDisplay,
    ExpertUsageDisplay,
    FineTuneClassifier,
    LinearProbeClassifier,
    MAILClassifier,
    MAPClassifier,
    MemoryUsageDisplay,
    MemPromptClassifier,
    MissingRateCurveDisplay,
    MoRAClassifier,
    MSPClassifier,
    RAGPTClassifier,
    SpectrumDisplay,
    availability_grid,
    class_scores_by_pattern,
    compare_methods,
    cross_scenario_matrix,
    drop_modalities,
    missing_rate_curve,
    nearest_class_share,
    score_by_pattern,
)
from robustmm.datasets import load_food101, load_hateful_memes, load_mmimdb, make_scenes

LOADERS = {
    "mmimdb": load_mmimdb,
    "food101": load_food101,
    "hateful_memes": load_hateful_memes,
}
TINY = {
    "vilt": "robustmm/tiny-vilt",
    "clip": "robustmm/tiny-clip",
    "bert": "robustmm/tiny-bert",
}
SCORING = {"mmimdb": "f1_macro", "hateful_memes": "roc_auc"}
SCENARIOS = ("text", "image", "both")
SHARES = [(1.0, 0.3), (0.65, 0.65), (0.3, 1.0)]
ITEMS = {}

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
add = parser.add_argument
add("paper_name", nargs="?", help="cmpt, mora, mail or memprompt")
add("item", nargs="?", help="such as table-5 or figure-3")
add("--list", action="store_true", help="say what there is")
add("--data", default="scenes", choices=["scenes", *LOADERS])
add("--root", type=Path, help="folder of the data set")
add("--paper", action="store_true", help="the papers' recipes")
add("--checkpoint", nargs="+", default=[], metavar="KIND=NAME", help="vilt, clip, bert")
add("--rows", type=int, default=360, help="scenes; two thirds are trained on")
add("--epochs", type=int, default=3, help="without --paper")
add("--seed", type=int, default=0, help="of everything")
add("--device", default="auto")
add("--out", type=Path, default=Path("outputs/papers"))


def item(paper: str, *names: str):
    """Register a function that returns tables and figures, by name."""

    def register(function):
        ITEMS.update({(paper, name): function for name in names})
        return function

    return register


# %%
# Rows, and untrained classifiers
# -------------------------------


def read() -> tuple[pd.DataFrame, pd.Series, list]:
    """Return all rows, labels and one split, as positions."""
    if args.data == "scenes":
        X, y = make_scenes(args.rows, random_state=args.seed)
        n = 2 * len(X) // 3
    else:
        parts = [LOADERS[args.data](args.root, split) for split in ("train", "test")]
        n = len(parts[0][0])
        X, y = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    return X, y, [(np.arange(n), np.arange(n, len(X)))]


def make(cls: type, **changes):
    """Return a classifier, of the paper's recipe or small and fast."""
    names = {"backbone": "clip" if "joint" not in (cls.STREAMS or ()) else "vilt"}
    if cls is CMPTClassifier:
        names = {"image_backbone": "clip", "text_backbone": "bert"}
    if cls is RAGPTClassifier:
        names["retriever_backbone"] = "clip"
    common = {name: encoders[kind] for name, kind in names.items()}
    common |= {"random_state": args.seed, "device": args.device}
    if args.paper:
        recipe = getattr(cls, "PAPER", {})
        if all(isinstance(part, dict) for part in recipe.values()):
            recipe = recipe.get(args.data, next(iter(recipe.values()), {}))
    else:
        recipe = {"max_epochs": args.epochs, "batch_size": 16, "lr": 3e-3}
        if cls in (MAPClassifier, MSPClassifier):
            recipe |= {"prompt_length": 4, "prompt_layers": 2}
        if cls is MemPromptClassifier:
            recipe |= {"prompt_length": 2, "generative_layers": 2, "shared_layers": 2}
        if cls is DCPClassifier:
            recipe |= {"prompt_length": 12, "prompt_depth": 2}
    if cls is LinearProbeClassifier:
        recipe = {}
    return cls(**{**recipe, **common, **changes})


def halves() -> tuple:
    """Return training rows and labels, test rows and labels."""
    train, test = split[0]
    return X.iloc[train], y.iloc[train], X.iloc[test], y.iloc[test]


def fitted(clf, scenario: str | None = None, rate: float = 0.7):
    """Fit on the training rows, blanked by a scenario or complete."""
    rows, labels, _, _ = halves()
    if scenario is not None:
        rows = drop_modalities(rows, rate, scenario, args.seed)
    return clf.fit(rows, labels)


def curves(classifiers: dict, scenario, **options) -> tuple:
    """Scores over rates, a line per classifier."""
    rates = options.pop("rates", [0.1, 0.3, 0.5, 0.7, 0.9])
    parts = [
        missing_rate_curve(clf, X, y, rates, scenario, **common, **options).assign(
            method=name
        )
        for name, clf in classifiers.items()
    ]
    table = pd.concat(parts)
    return table, MissingRateCurveDisplay.from_frame(table).figure_


def variants(classifiers: dict, scenarios=SCENARIOS, rate: float = 0.7) -> pd.DataFrame:
    """Score classifiers trained and tested under the same scenario."""
    parts = {
        name: {
            scenario: cross_scenario_matrix(
                clf, X, y, rate=rate, scenarios=[scenario], **common
            ).iloc[0, 0]
            for scenario in scenarios
        }
        for name, clf in classifiers.items()
    }
    return pd.DataFrame(parts).T


def complete_training(classifiers: dict) -> pd.DataFrame:
    """Train on complete rows; test with both, with images only, with texts only."""
    rows = {}
    for name, clf in classifiers.items():
        scores = score_by_pattern(
            fitted(clf), *halves()[2:], rows="blanked", scoring=common["scoring"]
        )
        rows[name] = scores.iloc[:, -1]
    names = {"complete": "both", "text_missing": "image", "image_missing": "text"}
    return pd.DataFrame(rows).T.rename(columns=names)


def bars(table: pd.DataFrame, label: str = "score"):
    """Draw a table as bars."""
    size = 2 + 0.35 * table.size, 3.2
    ax = table.plot.bar(figsize=size, rot=90 if len(table) > 6 else 0, ylabel=label)
    if ax.get_legend():  # beside the bars, which may be high everywhere
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ax.figure.set_layout_engine("constrained")
    return ax.figure


# %%
# CMPT
# ----


def cmpt_levels() -> dict:
    """The three lines of figures 3 and 7."""
    plain = {"use_proxy": False, "missing": "placeholder"}
    return {
        "baseline": make(CMPTClassifier, modality_dropout=0.0, **plain),
        "modality dropout": make(CMPTClassifier, **plain),
        "CMPT": make(CMPTClassifier),
    }


@item("cmpt", "figure-1")
def cmpt_radar():
    shares = [(1, 1), (1, 0.65), (1, 0.3), (0.3, 1), (0.65, 1), (0.65, 0.65)]
    parts = [
        availability_grid(clf, X, y, availability=shares, **common).assign(method=name)
        for name, clf in cmpt_levels().items()
    ]
    grid = pd.concat(parts)
    return grid, AvailabilityRadarDisplay.from_frame(grid).figure_


@item("cmpt", "table-1", "table-8")
def cmpt_shares():
    parts = {
        f"{image:.0%} image, {text:.0%} text": availability_grid(
            make(CMPTClassifier),
            X,
            y,
            availability=SHARES,
            train_availability=(image, text),
            **common,
        ).set_index(["image", "text"])["score"]
        for image, text in SHARES
    }
    return pd.DataFrame(parts).T.rename_axis("trained on")


@item("cmpt", "table-2", "table-3")
def cmpt_complete():
    return complete_training({"CMPT": make(CMPTClassifier)})


@item("cmpt", "figure-2")
def cmpt_texts():
    options = {"rates": [0.0, 0.35, 0.7, 0.9, 1.0]}
    return curves({"CMPT": make(CMPTClassifier)}, "text", **options)


@item("cmpt", "figure-3", "figure-7")
def cmpt_effect():
    return curves(cmpt_levels(), ["text", "image"], rates=[0.0, 0.3, 0.7, 1.0])


@item("cmpt", "figure-4", "figure-8", "figure-9")
def cmpt_gains():
    clf, test = fitted(make(CMPTClassifier)), halves()[2:]
    with_them, without = (
        class_scores_by_pattern(c, *test, rows="blanked")
        for c in (clf, clf.without_proxies())
    )
    gains = (with_them - without)[["text_missing", "image_missing"]]
    gains = gains.sort_values("text_missing")
    return gains, bars(gains, "gain in F1 by the proxies")


@item("cmpt", "figure-5", "figure-10")
def cmpt_features():
    clf = fitted(make(CMPTClassifier))
    _, _, rows, labels = halves()
    some = labels.isin(labels.unique()[:10])
    rows, labels = rows[some], labels[some]
    blanked = drop_modalities(rows, 0.5, "text", args.seed)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    shares = {}
    for ax, c, name in zip(
        axes, (clf, clf.without_proxies()), ("with", "without"), strict=True
    ):
        EmbeddingDisplay.from_estimator(c, blanked, labels, method="tsne", ax=ax)
        ax.set_title(f"{name} proxies")
        shares[name] = nearest_class_share(c, rows, labels)["share"]
    return pd.DataFrame(shares), figure


@item("cmpt", "figure-6", "figure-11")
def cmpt_attention():
    clf = fitted(make(CMPTClassifier))
    _, _, rows, labels = halves()
    blanked = rows.assign(text=None)
    right = clf.predict(blanked) == labels
    lost = clf.without_proxies().predict(blanked) != labels
    only = np.flatnonzero(right & lost) if (right & lost).any() else [0]
    row = blanked.iloc[[only[0]]]
    who = pd.crosstab(right.rename("with proxies"), ~lost.rename("without"))
    return who, AttentionMapDisplay.from_estimator(clf, row).figure_


@item("cmpt", "figure-12", "figure-13")
def cmpt_classes():
    table = class_scores_by_pattern(
        fitted(make(CMPTClassifier)), *halves()[2:], rows="blanked"
    )
    return table, bars(table.drop(columns="n_rows"), "F1")


@item("cmpt", "table-5")
def cmpt_lambda():
    weights = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    return complete_training(
        {f"lambda {w}": make(CMPTClassifier, lambda_align=w) for w in weights}
    )


@item("cmpt", "table-7")
def cmpt_rank():
    return complete_training(
        {f"rank {r}": make(CMPTClassifier, rank=r, alpha=r) for r in (1, 2, 4)}
    )


@item("cmpt", "table-9")
def cmpt_adapters():
    kinds = ("lora", "dora", "vera")
    return complete_training({k: make(CMPTClassifier, adapter=k) for k in kinds})


# %%
# MoRA
# ----


@item("mora", "figure-1")
def mora_motivation():
    other = {"text_backbone": encoders["bert"]}
    return complete_training(
        {
            "aligned": make(LinearProbeClassifier, backbone=encoders["clip"]),
            "unaligned": make(
                LinearProbeClassifier, backbone=encoders["clip"], **other
            ),
        }
    )


@item("mora", "table-1", "figure-7", "figure-8")
def mora_rates():
    two = {"MoRA": make(MoRAClassifier), "DCP": make(DCPClassifier)}
    options = {"rates": [0.5, 0.7, 0.9], "train_rate": "same"}
    return curves(two, SCENARIOS, **options)


@item("mora", "figure-3")
def mora_cross():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    tables = {}
    for ax, cls in zip(axes, (MoRAClassifier, DCPClassifier), strict=True):
        table = cross_scenario_matrix(make(cls), X, y, **common)
        CrossScenarioDisplay.from_frame(table, ax=ax)
        name = cls.__name__.removesuffix("Classifier")
        ax.set_title(name)
        tables[name] = table
    return pd.concat(tables), figure


@item("mora", "table-2", "table-3")
def mora_gap():
    clf = fitted(make(MoRAClassifier))
    settings = [(of, unit) for of in ("means", "pairs") for unit in (False, True)]
    return pd.concat(
        {
            f"{of}, {'unit' if unit else 'raw'}": clf.modality_gap(
                *halves()[2:], normalize=unit, of=of
            ).mean()
            for of, unit in settings
        },
        axis=1,
    )


@item("mora", "figure-4")
def mora_spectra():
    clf = fitted(make(MoRAClassifier), "both")
    return clf.spectra(), SpectrumDisplay.from_estimator(clf).figure_


@item("mora", "table-4")
def mora_tuning():
    clip = encoders["clip"]
    return variants(
        {
            "MoRA": make(MoRAClassifier),
            **{
                tune: make(FineTuneClassifier, backbone=clip, tune=tune)
                for tune in ("lora", "dora", "bitfit", "full")
            },
        },
        ["both"],
    )


@item("mora", "table-5")
def mora_parts():
    own = {"use_shared": False}
    changes = {
        "MoRA": {},
        "Align": {**own, "join": "align"},
        "Fusion": {**own, "join": "fusion"},
        "w/o Specific": {"use_specific": False},
        "w/o Gram": {"gram": "identity"},
        "learnable Gram": {"gram": "learnable"},
        "w/o Shared (own Gram)": {"gram": "own"},
        "w/o Shared (no branch)": own,
        "w/ W0": {"w0_residual": True},
    }
    some = {name: make(MoRAClassifier, **c) for name, c in changes.items()}
    return variants(some, ["both"])


@item("mora", "table-7")
def mora_position():
    places = ("front", "middle", "rear")
    return variants({p: make(MoRAClassifier, position=p) for p in places}, ["both"])


@item("mora", "figure-6")
def mora_time():
    three = {
        "MoRA": make(MoRAClassifier),
        "DCP": make(DCPClassifier),
        "LoRA": make(FineTuneClassifier, backbone=encoders["clip"], tune="lora"),
    }
    found = compare_methods(three, X, y, rate=0.7, seeds=[args.seed], cv=split)
    times = 1000 * found["predict_seconds"] / len(split[0][1])
    trained = found["n_trainable_parameters"].astype(float)
    table = pd.DataFrame({"ms a row": times, "numbers trained": trained})
    figure, ax = plt.subplots(figsize=(4.4, 3.4), layout="constrained")
    ax.plot(trained, times, "o")
    for name in table.index:
        place = trained[name], times[name]
        ax.annotate(name, place, (5, 4), textcoords="offset points")
    ax.set(xscale="log", xlabel="numbers trained", ylabel="ms a row")
    ax.set_xlim(trained.min() / 2, 4 * trained.max())
    ax.xaxis.set_minor_formatter("")
    return table, figure


@item("mora", "figure-9")
def mora_sensitivity():
    pairs = ("query", "query+key", "query+value", "key+value")
    changes = {
        **{f"rank {r}": {"rank": r} for r in (2, 4, 8)},
        **{f"strength {s}": {"strength": s} for s in (0.001, 0.01, 0.1)},
        **{f"layers {n}": {"n_layers": n} for n in (1, 2, 4)},
        **{p: {"projections": p.split("+")} for p in pairs},
    }
    some = {name: make(MoRAClassifier, **c) for name, c in changes.items()}
    table = variants(some, ["both"])
    return table, bars(table)


@item("mora", "figure-10")
def mora_features():
    three = {
        "MoRA": make(MoRAClassifier),
        "DCP": make(DCPClassifier),
        "full": make(FineTuneClassifier, backbone=encoders["clip"], tune="full"),
    }
    _, _, rows, labels = halves()
    blanked = drop_modalities(rows, 0.7, "both", args.seed)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    shares = {}
    for ax, (name, clf) in zip(axes, three.items(), strict=True):
        fitted(clf, "both")
        EmbeddingDisplay.from_estimator(clf, blanked, labels, method="tsne", ax=ax)
        ax.set_title(name)
        shares[name] = nearest_class_share(clf, rows, labels)["share"]
    return pd.DataFrame(shares), figure


# %%
# MAIL and MemPrompt
# ------------------


@item("mail", "table-1")
def mail_rivals():
    classes = (MAILClassifier, MAPClassifier, MSPClassifier, RAGPTClassifier)
    return variants({c.__name__.removesuffix("Classifier"): make(c) for c in classes})


@item("mail", "figure-4")
def mail_radar():
    shares = [(1, 0.3), (1, 0.65), (0.65, 0.65), (0.65, 1), (0.3, 1), (1, 1)]
    parts = [
        availability_grid(
            make(cls), X, y, availability=shares, train_availability="same", **common
        ).assign(method=cls.__name__.removesuffix("Classifier"))
        for cls in (MAILClassifier, MSPClassifier)
    ]
    grid = pd.concat(parts)
    return grid, AvailabilityRadarDisplay.from_frame(grid).figure_


@item("mail", "figure-5")
def mail_rates():
    classes = (MAILClassifier, MAPClassifier, MSPClassifier)
    some = {c.__name__.removesuffix("Classifier"): make(c) for c in classes}
    return curves(some, "both", train_rate="same")


@item("mail", "figure-6")
def mail_test_rates():
    kinds = {f"MAIL, {p}": p for p in ("linear", "attention", "both")}
    some = {n: make(MAILClassifier, targets=p) for n, p in kinds.items()}
    return curves(some, SCENARIOS, train_rate=0.7, train_scenario="both")


@item("mail", "table-2")
def mail_routing():
    changes = {
        "top-1": {"top_k": 1},
        "top-2": {"top_k": 2},
        "SoftMerge": {"routing": "soft_merge"},
    }
    return variants({n: make(MAILClassifier, **c) for n, c in changes.items()})


@item("mail", "table-3")
def mail_shapes():
    shapes = ("square", "triangle", "inverted_triangle")
    return variants({s: make(MAILClassifier, expert_shape=s) for s in shapes})


@item("mail", "routing")
def mail_usage():
    clf = fitted(make(MAILClassifier), "both")
    rows = drop_modalities(halves()[2], 0.7, "both", args.seed)
    display = ExpertUsageDisplay.from_estimator(clf, rows)
    return clf.expert_usage(rows), display.figure_


@item("memprompt", "table-1")
def memprompt_cross():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    tables = {}
    for ax, cls in zip(axes, (MemPromptClassifier, MAPClassifier), strict=True):
        table = cross_scenario_matrix(make(cls), X, y, **common)
        CrossScenarioDisplay.from_frame(table, ax=ax)
        name = cls.__name__.removesuffix("Classifier")
        ax.set_title(name)
        tables[name] = table
    return pd.concat(tables), figure


@item("memprompt", "figure-2")
def memprompt_rates():
    two = {"MemPrompt": make(MemPromptClassifier), "MAP": make(MAPClassifier)}
    return curves(two, SCENARIOS, train_rate="same")


@item("memprompt", "table-2")
def memprompt_kinds():
    none = {"generative_layers": 0}, {"shared_layers": 0}
    changes = {
        "none": none[0] | none[1],
        "shared": none[0],
        "generative": none[1],
        "both": {},
    }
    return variants({n: make(MemPromptClassifier, **c) for n, c in changes.items()})


@item("memprompt", "figure-3a")
def memprompt_complete():
    two = {"MemPrompt": make(MemPromptClassifier), "MAP": make(MAPClassifier)}
    return curves(two, SCENARIOS)


@item("memprompt", "figure-3b")
def memprompt_trained():
    parts = []
    for rate in (0.1, 0.3, 0.5, 0.7):
        options = {"train_rate": rate, "train_scenario": "both"}
        clf = make(MemPromptClassifier)
        found = missing_rate_curve(clf, X, y, [0.7], SCENARIOS, **options, **common)
        parts.append(found.assign(rate=rate))
    table = pd.concat(parts)
    return table, MissingRateCurveDisplay.from_frame(table).figure_


@item("memprompt", "figure-3c")
def memprompt_layers():
    most = 6 if args.paper else 4
    full = {"generative_layers": most, "shared_layers": most}
    counts = range(1, most + 1)
    table = pd.DataFrame(
        {
            kind: [
                variants(
                    {"": make(MemPromptClassifier, **full | {f"{kind}_layers": n})}
                ).mean(axis=None)
                for n in counts
            ]
            for kind in ("shared", "generative")
        },
        index=pd.Index(counts, name="layers"),
    )
    ax = table.plot(marker="o", figsize=(4.4, 3.4), ylabel="mean score")
    ax.figure.set_layout_engine("constrained")
    return table, ax.figure


@item("memprompt", "table-3")
def memprompt_sizes():
    sizes = (8, 12, 16, 20, 24)
    return variants({f"{n}": make(MemPromptClassifier, memory_size=n) for n in sizes})


@item("memprompt", "table-4")
def memprompt_location():
    places = ("pre_append", "distributed")
    return variants({p: make(MemPromptClassifier, location=p) for p in places})


@item("memprompt", "memory")
def memprompt_usage():
    clf = fitted(make(MemPromptClassifier), "both")
    rows = drop_modalities(halves()[2], 0.7, "both", args.seed)
    usage = clf.memory_usage(rows)
    return usage, MemoryUsageDisplay.from_frame(usage).figure_


# %%
# What was asked for
# ------------------

args = parser.parse_args()
key = (args.paper_name, args.item)
if args.list or key not in ITEMS:
    for paper in dict.fromkeys(name for name, _ in ITEMS):
        print(paper, *(thing for name, thing in ITEMS if name == paper))
    raise SystemExit(0 if args.list else f"There is no {' '.join(map(str, key))}.")
encoders = dict(TINY) | dict(pair.split("=", 1) for pair in args.checkpoint)
X, y, split = read()
common = {
    "cv": split,
    "scoring": SCORING.get(args.data),
    "random_state": args.seed,
}
made = ITEMS[key]()
table, figure = made if isinstance(made, tuple) else (made, None)
args.out.mkdir(parents=True, exist_ok=True)
stem = args.out / f"{args.paper_name}_{args.item}"
table.to_csv(stem.with_suffix(".csv"))
print(table.round(3).to_string(max_rows=40))
if figure is not None:
    figure.savefig(stem.with_suffix(".png"), dpi=110)
