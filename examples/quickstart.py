"""
Quick start: train on a table with holes
========================================

Seven rows in ten are incomplete. The training table has lost pictures; in use, either
cell may be missing, so that rows without a caption come as a surprise. Three models see
the same rows: the most frequent class, CMPT without its proxy tokens, and CMPT.
Everything runs on the backbones inside the package, so nothing is downloaded.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import train_test_split

from robustmm import CMPTClassifier, drop_modalities
from robustmm.datasets import make_scenes

# %%
# The table: a column of pictures, a column of captions, a cell may be None
# -------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=1800, help="rows in the table")
parser.add_argument("--epochs", type=int, default=6, help="passes over the rows")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
parser.add_argument("--out", type=Path, default=Path("outputs"), help="for the picture")
parser.add_argument("--quiet", action="store_true", help="no progress bars")
args = parser.parse_args()

X, y = make_scenes(args.rows, random_state=args.seed)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=args.seed
)
X_train = drop_modalities(X_train, 0.7, scenario="image", random_state=args.seed)
X_test = drop_modalities(X_test, 0.7, scenario="both", random_state=args.seed)
print(X_train.head(4).to_string(max_colwidth=42), "\n")

# %%
# Three models, one interface
# ---------------------------


def cmpt(**params) -> CMPTClassifier:
    """CMPT on the embedded encoders."""
    return CMPTClassifier(
        image_backbone="robustmm/tiny-clip",
        text_backbone="robustmm/tiny-bert",
        rank=4,
        alpha=4,
        batch_size=16,
        max_epochs=args.epochs,
        lr=3e-3,
        lr_schedule="cosine",
        warmup=0.1,
        random_state=args.seed,
        verbose=int(not args.quiet),
        **params,
    )


models = {
    "prior": DummyClassifier(strategy="prior"),
    "without proxies": cmpt(use_proxy=False),
    "CMPT": cmpt(),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# Accuracy where both cells are there, and where one is missing
# -------------------------------------------------------------

missing = X_test.isna()
patterns = {
    "complete": ~missing["image"] & ~missing["text"],
    "image missing": missing["image"],
    "text missing": missing["text"],
    "either missing": missing["image"] | missing["text"],
}
scores = pd.DataFrame(
    {
        name: {p: model.score(X_test[at], y_test[at]) for p, at in patterns.items()}
        for name, model in models.items()
    }
)
scores.insert(0, "test rows", [int(at.sum()) for at in patterns.values()])
print(f"\nAccuracy on {len(X_test)} test rows\n{scores.round(3).to_string()}")

args.out.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
scores.drop(columns="test rows").plot.bar(ax=axes, rot=0, width=0.8)
for bars in axes.containers:
    axes.bar_label(bars, fmt="%.2f", fontsize=8)
axes.set(ylabel="accuracy", ylim=(0, 1), title="70% of the rows miss a modality")
axes.legend(frameon=False, ncols=3)
figure.savefig(args.out / "quickstart.png", dpi=150)
print(f"\nPicture: {args.out / 'quickstart.png'}")
