"""
Incomplete rows in feature space, with and without proxy tokens
===============================================================

CMPT puts a learned proxy in the place of a missing encoder's class token. If it does
what it is trained for, rows that lack a cell lie among the complete rows of their
class. The same classifier without proxies, ``use_proxy=False``, is drawn beside it.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from robustmm import CMPTClassifier, EmbeddingDisplay, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=400, help="rows in the table")
parser.add_argument("--epochs", type=int, default=10, help="passes over half of them")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
X = drop_modalities(X, 0.7, "both", random_state=args.seed)
half = args.rows // 2

# %%
# The same training, with and without
# -----------------------------------

models = {}
for name, use_proxy in {"with proxies": True, "without": False}.items():
    models[name] = CMPTClassifier(
        "robustmm/tiny-clip",
        "robustmm/tiny-bert",
        rank=4,
        alpha=4,
        use_proxy=use_proxy,
        lr=3e-3,
        batch_size=16,
        max_epochs=args.epochs,
        random_state=args.seed,
    ).fit(X[:half], y[:half])

# %%
# Test rows, in the two directions in which they differ most
# ----------------------------------------------------------
#
# Circles are complete rows, triangles lack the text, squares the image.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    EmbeddingDisplay.from_estimator(model, X[half:], y[half:], ax=ax)
    ax.set_title(name)

# %%
# In numbers: is the nearest complete row of the same class?
# ----------------------------------------------------------
#
# All directions count here, not only the two of the picture.


def share_of_hits(model) -> dict[str, float]:
    """Per pattern, how often the nearest complete row has the row's label."""
    features, labels = model.transform(X[half:]), y[half:].to_numpy()
    missing = X[half:].isna()
    complete = np.flatnonzero(~missing.any(axis=1))
    shares = {}
    for column in ("image", "text"):
        rows = np.flatnonzero(missing[column])
        apart = features[rows, None] - features[complete]
        nearest = complete[(apart**2).sum(axis=2).argmin(axis=1)]
        shares[f"{column} missing"] = float((labels[nearest] == labels[rows]).mean())
    return shares


print(pd.DataFrame({n: share_of_hits(m) for n, m in models.items()}).round(3))
