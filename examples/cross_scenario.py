"""
Trained on one scenario, tested on another
==========================================

Training rows may lack other cells than the rows in use do. The matrix has a line for
what the training rows were missing and a column for what the test rows are missing,
for TF-IDF on the texts and for a linear probe of a frozen encoder.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from robustmm import (
    CrossScenarioDisplay,
    LinearProbeClassifier,
    cross_scenario_matrix,
)
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=400, help="rows in the table")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
parser.add_argument("--out", type=Path, default=Path("outputs"), help="for the picture")
args = parser.parse_args()

# %%
# Two classifiers that take the frame
# -----------------------------------
#
# Any scikit-learn classifier will do that takes the frame with its holes.


def texts(X: pd.DataFrame) -> pd.Series:
    """Return the captions, "" where missing."""
    return X["text"].fillna("").astype(str)


models = {
    "words": make_pipeline(
        FunctionTransformer(texts), TfidfVectorizer(), LogisticRegression()
    ),
    "linear probe": LinearProbeClassifier("robustmm/tiny-clip"),
}
X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)

# %%
# A fit per scenario and fold, a score per pair of scenarios
# ----------------------------------------------------------
#
# ``rate=0.7`` blanks 70% of the rows, in training and in the test. A test row that
# still has both cells is among the other 30%.

matrices = {
    name: cross_scenario_matrix(model, X, y, rate=0.7, cv=2, random_state=args.seed)
    for name, model in models.items()
}
for name, matrix in matrices.items():
    print(f"{name}\n{matrix.round(2).to_string()}\n")

# %%
# The same numbers as pictures
# ----------------------------

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
    CrossScenarioDisplay.from_frame(matrix, label="accuracy", ax=ax)
    ax.set_title(name)
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "cross_scenario_methods.png", dpi=110)
