"""
Image, text and numbers
=======================

A row has a picture, a text, a number and a category, and any of them may be missing.
The picture and the text become columns of probabilities, computed for each training
row by a classifier that has not seen it; gradient boosting reads these beside the
other columns.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from robustmm import LinearProbeClassifier, OutOfFoldFeatures, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=400, help="rows in the table")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

# %%
# A table of four columns
# -----------------------
#
# Scenes of drawn pictures and captions, with a height above the sea and a season that
# say something about the class, each with holes of its own.

X, y = make_scenes(args.rows, n_classes=6, random_state=args.seed)
X = drop_modalities(X, 0.7, "both", random_state=args.seed)
rng = np.random.default_rng(args.seed)
codes = y.astype("category").cat.codes
X["height"] = 100.0 * (codes % 3) + rng.normal(0, 60, args.rows)
X["season"] = np.where(rng.random(args.rows) < 0.7, codes % 2, rng.integers(2))
X["season"] = X["season"].map({0: "summer", 1: "winter"})
X.loc[rng.random(args.rows) < 0.3, "height"] = np.nan
print(X.drop(columns=["image"]).head(4).to_string(max_colwidth=40))
X_train, X_test, y_train, y_test = train_test_split(
    X, y, stratify=y, test_size=0.4, random_state=args.seed
)

# %%
# Three models
# ------------
#
# ``OutOfFoldFeatures`` fits its classifier once per fold and once on all rows.

probe = LinearProbeClassifier("robustmm/tiny-clip")
numbers = ("numbers", "passthrough", ["height"])
categories = ("categories", OrdinalEncoder(), ["season"])
seen = OutOfFoldFeatures(probe, cv=4, random_state=args.seed)


def boosted(*steps):
    """Gradient boosting on the columns of some steps."""
    boosting = HistGradientBoostingClassifier(max_depth=3, random_state=args.seed)
    return make_pipeline(ColumnTransformer(list(steps)), boosting)


models = {
    "image and text": probe,
    "height and season": boosted(numbers, categories),
    "all four": boosted(("seen", seen, ["image", "text"]), numbers, categories),
}
scores = pd.Series(
    {n: m.fit(X_train, y_train).score(X_test, y_test) for n, m in models.items()}
)
print(scores.round(3).to_string())

# %%
# Test accuracy
# -------------

figure, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
bars = ax.barh(scores.index[::-1], scores[::-1])
ax.bar_label(bars, fmt="%.2f", padding=3)
ax.set(xlabel="accuracy", xlim=(0, 1))
