"""
Prompts for a missing modality that training never missed
=========================================================

MAP has a prompt for each pattern of missing modalities, so the prompt of a pattern that
no training row has is never trained. MSP and MemPrompt build theirs from parts that
complete rows train, too. The telling case: training rows miss their texts, test rows
their images. Accuracy of all three, and of a frozen ViLT with trained pooler and head
but no prompts, on drawn scenes and the embedded ViLT.
"""

import argparse
import itertools
from pathlib import Path

import pandas as pd

from robustmm import (
    MAPClassifier,
    MemPromptClassifier,
    MSPClassifier,
    drop_modalities,
)
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--train", type=int, default=1000, help="training rows")
parser.add_argument("--test", type=int, default=500, help="test rows")
parser.add_argument("--rate", type=float, default=0.7, help="part of rows affected")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--lr", type=float, default=1e-2, help="MAP's own; of all methods")
parser.add_argument("--layers", type=int, default=3, help="layers with prompts")
parser.add_argument("--prompt-length", type=int, default=16)
parser.add_argument("--scenarios", nargs="+", default=["text"], help="to train on")
parser.add_argument("--methods", nargs="+", help="some of the rows of the table")
parser.add_argument("--out", type=Path, default=Path("outputs"), help="for the runs")
args = parser.parse_args()

# %%
# The methods, all with the same prompts, steps and learning rate
# ---------------------------------------------------------------


def methods(seed: int) -> dict:
    """Return untrained classifiers by name."""
    common = {
        "backbone": "robustmm/tiny-vilt",
        "prompt_length": args.prompt_length,
        "max_epochs": args.epochs,
        "batch_size": 32,
        "lr": args.lr,
        "random_state": seed,
    }
    fixed = common | {"prompt_layers": args.layers}
    read = common | {
        "generative_layers": args.layers,
        "shared_layers": args.layers,
    }
    return {
        "no prompts": MAPClassifier(**fixed | {"prompt_layers": 0}),
        "MAP (input)": MAPClassifier(**fixed),
        "MAP (attention)": MAPClassifier(prompt_type="attention", **fixed),
        "MSP (input)": MSPClassifier(prompt_type="input", **fixed),
        "MSP (attention)": MSPClassifier(**fixed),
        "MemPrompt": MemPromptClassifier(**read),
        "MemPrompt (one source)": MemPromptClassifier(shared="single", **read),
        "MemPrompt (memory only)": MemPromptClassifier(**read | {"shared_layers": 0}),
        "MemPrompt (shared only)": MemPromptClassifier(
            **read | {"generative_layers": 0}
        ),
    }


# %%
# Train on one scenario, test on both
# -----------------------------------
# Runs are written as they end; the same command goes on where it was stopped.

args.out.mkdir(parents=True, exist_ok=True)
settings = f"{args.train}x{args.epochs}_lr{args.lr}_{args.prompt_length}x{args.layers}"
path = args.out / f"prompt_transfer_{settings}_rate{args.rate}.csv"


def run(clf, seed: int, trained_on: str) -> list[dict]:
    """Return the accuracies of one method for one seed and training scenario."""
    X, y = make_scenes(args.train + args.test, random_state=seed)
    train, test = slice(None, args.train), slice(args.train, None)
    holes = {"rate": args.rate, "random_state": seed}
    clf.fit(drop_modalities(X[train], scenario=trained_on, **holes), y[train])
    records = []
    for tested_on in ("text", "image"):
        X_test = drop_modalities(X[test], scenario=tested_on, **holes)
        lost = X_test[tested_on].isna().to_numpy()
        right = clf.predict(X_test) == y[test].to_numpy()
        records.append(
            {
                "trained": trained_on,
                "tested": tested_on,
                "seed": seed,
                "all rows": right.mean(),
                "rows that miss it": right[lost].mean(),
            }
        )
    return records


runs = pd.read_csv(path).to_dict("records") if path.exists() else []
done = {(r["method"], r["trained"], r["seed"]) for r in runs}
for seed, scenario in itertools.product(args.seeds, args.scenarios):
    for name, clf in methods(seed).items():
        wanted = not args.methods or name in args.methods
        if wanted and (name, scenario, seed) not in done:
            runs += [{"method": name, **r} for r in run(clf, seed, scenario)]
            pd.DataFrame(runs).to_csv(path, index=False)

# %%
# Mean and standard deviation over the seeds
# ------------------------------------------

runs = pd.DataFrame(runs)
print(
    f"{args.train} training rows, {args.test} test rows, {args.rate:.0%} of them miss "
    f"the modality named; {args.epochs} epochs, lr {args.lr}, prompts of "
    f"{args.prompt_length} in {args.layers} layers, {runs['seed'].nunique()} seeds"
)
for value in ("all rows", "rows that miss it"):
    groups = runs.groupby(["method", "trained", "tested"], sort=False)[value]
    text = groups.mean().map("{:.3f}".format) + groups.std().map(" ± {:.3f}".format)
    table = text.unstack(["trained", "tested"])
    print(f"\nAccuracy, {value} of the test\n{table.to_string()}")
