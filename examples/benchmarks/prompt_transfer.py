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
import time
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
parser.add_argument("--train", type=int, default=1200, help="training rows")
parser.add_argument("--test", type=int, default=1000, help="test rows")
parser.add_argument("--rate", type=float, default=0.7, help="part of rows affected")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--layers", type=int, default=3, help="layers with prompts")
parser.add_argument("--scenarios", nargs="+", default=["text", "image"])
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
        "prompt_length": 4,
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
    }


# %%
# Train on one scenario, test on all
# ----------------------------------


def run(seed: int, trained_on: str) -> list[dict]:
    """Accuracies of all methods for one seed and training scenario."""
    X, y = make_scenes(args.train + args.test, random_state=seed)
    train, test = slice(None, args.train), slice(args.train, None)
    holes = {"rate": args.rate, "random_state": seed}
    X_train = drop_modalities(X[train], scenario=trained_on, **holes)
    tables = {
        s: drop_modalities(X[test], scenario=s, **holes) for s in ("text", "image")
    }
    records = []
    for name, clf in methods(seed).items():
        if args.methods and name not in args.methods:
            continue
        start = time.perf_counter()
        clf.fit(X_train, y[train])
        for tested_on, X_test in tables.items():
            lost = X_test[tested_on].isna().to_numpy()
            right = clf.predict(X_test) == y[test].to_numpy()
            records.append(
                {
                    "method": name,
                    "trained": trained_on,
                    "tested": tested_on,
                    "seed": seed,
                    "accuracy": right.mean(),
                    "incomplete": right[lost].mean(),
                    "complete": right[~lost].mean(),
                    "seconds": time.perf_counter() - start,
                }
            )
    return records


runs = []
for seed in range(args.seeds):
    for scenario in args.scenarios:
        runs += run(seed, scenario)
runs = pd.DataFrame(runs)
args.out.mkdir(parents=True, exist_ok=True)
runs.to_csv(args.out / "prompt_transfer.csv", index=False)


def table(value: str) -> str:
    """Mean and standard deviation over the seeds, methods by scenarios."""
    groups = runs.groupby(["method", "trained", "tested"], sort=False)[value]
    text = groups.mean().map("{:.3f}".format)
    text += " ± " + groups.std().map("{:.3f}".format)
    return text.unstack(["trained", "tested"]).to_string()


print(
    f"{args.train} training rows, {args.test} test rows, {args.rate:.0%} of the rows "
    f"miss the modality named, {args.epochs} epochs, lr {args.lr}, {args.seeds} seeds"
)
print(f"\nAccuracy on all test rows\n{table('accuracy')}")
print(f"\nAccuracy on the test rows that miss the modality\n{table('incomplete')}")
