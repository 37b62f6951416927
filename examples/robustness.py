"""
What a missing cell costs: four pictures
========================================

Classifiers of the same drawn scenes: TF-IDF with a logistic regression on the caption,
a linear probe of a frozen CLIP and, with ``--methods``, CMPT on the same CLIP and a
BERT. Each is trained on rows of which 70% miss a modality and tested on rows that miss
more and more; the probe is also trained and tested under every scenario. Everything
runs on the backbones inside the package.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from robustmm import (
    AvailabilityRadarDisplay,
    CMPTClassifier,
    CrossScenarioDisplay,
    EmbeddingDisplay,
    LinearProbeClassifier,
    MissingRateCurveDisplay,
    availability_grid,
    cross_scenario_matrix,
    drop_modalities,
    missing_rate_curve,
    modality_importance,
    score_by_pattern,
)
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--methods", nargs="+", default=["words", "linear probe"])
parser.add_argument("--rows", type=int, default=400, help="rows in the table")
parser.add_argument("--epochs", type=int, default=4, help="of CMPT")
parser.add_argument("--folds", type=int, default=3, help="random splits")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
parser.add_argument(
    "--out", type=Path, default=Path("outputs"), help="for the pictures"
)
parser.add_argument("--quiet", action="store_true", help="no progress bars")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)


def texts(X: pd.DataFrame) -> pd.Series:
    """Return the captions, "" where missing."""
    return X["text"].fillna("").astype(str)


models = {
    "words": make_pipeline(
        FunctionTransformer(texts), TfidfVectorizer(), LogisticRegression()
    ),
    "linear probe": LinearProbeClassifier("robustmm/tiny-clip"),
    "CMPT": CMPTClassifier(
        "robustmm/tiny-clip",
        "robustmm/tiny-bert",
        rank=4,
        alpha=4,
        batch_size=16,
        max_epochs=args.epochs,
        lr=3e-3,
        random_state=args.seed,
    ),
}
models = {name: models[name] for name in args.methods}
X, y = make_scenes(args.rows, random_state=args.seed)
splits = StratifiedShuffleSplit(args.folds, test_size=0.4, random_state=args.seed)
common = {"cv": splits, "random_state": args.seed, "verbose": int(not args.quiet)}

# %%
# More and more test rows miss a modality
# ---------------------------------------

curves = [
    missing_rate_curve(
        model,
        X,
        y,
        rates=[0.0, 0.3, 0.5, 0.7, 0.9],
        scenario=["text", "image"],
        train_rate=0.7,
        train_scenario="both",
        **common,
    ).assign(method=name)
    for name, model in models.items()
]
display = MissingRateCurveDisplay.from_frame(pd.concat(curves), label="accuracy")
display.figure_.savefig(args.out / "missing_rate_curve.png", dpi=110)

# %%
# Shares of images and texts
# --------------------------

grids = [
    availability_grid(model, X, y, train_availability=(0.65, 0.65), **common).assign(
        method=name
    )
    for name, model in models.items()
]
display = AvailabilityRadarDisplay.from_frame(pd.concat(grids), label="accuracy")
display.figure_.savefig(args.out / "availability_radar.png", dpi=110)

# %%
# Trained on one scenario, tested on another
# ------------------------------------------

display = CrossScenarioDisplay.from_frame(
    cross_scenario_matrix(
        LinearProbeClassifier("robustmm/tiny-clip"),
        X,
        y,
        scenarios=["text", "image", "both", "complete"],
        **common,
    ),
    label="accuracy",
)
display.ax_.set_title("linear probe", fontsize=10)
display.figure_.savefig(args.out / "cross_scenario.png", dpi=110)

# %%
# Where incomplete rows lie, and what each modality is worth
# ----------------------------------------------------------

train, test = next(splits.split(X, y))
X_train = drop_modalities(X.iloc[train], 0.7, "both", args.seed)
X_test = drop_modalities(X.iloc[test], 0.7, "both", args.seed + 1)
y_train, y_test = y.iloc[train], y.iloc[test]
for name, model in models.items():
    model.fit(X_train, y_train)
    print(f"\n{name}\n{score_by_pattern(model, X_test, y_test).round(3)}")
    importance = modality_importance(model, X_test, y_test, random_state=args.seed)
    print(f"\n{importance.round(3)}")
probe = LinearProbeClassifier("robustmm/tiny-clip").fit(X_train, y_train)
display = EmbeddingDisplay.from_estimator(probe, X_test, y_test, method="tsne")
display.figure_.savefig(args.out / "embedding.png", dpi=110)
print(f"\nPictures: {args.out}")
