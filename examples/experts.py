"""
Which experts serve which rows
==============================

MAIL routes each token through a few of several low-rank experts. Nothing tells the
routers what is missing; whether they treat rows without an image differently shows in
which experts they choose.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from robustmm import ExpertUsageDisplay, MAILClassifier, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=120, help="rows in the table")
parser.add_argument("--epochs", type=int, default=3, help="passes over the rows")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
X = drop_modalities(X, 0.7, "both", random_state=args.seed)
clf = MAILClassifier(
    "robustmm/tiny-vilt",
    n_experts=4,
    targets="linear",
    lr=3e-3,
    max_epochs=args.epochs,
    random_state=args.seed,
).fit(X, y)

# %%
# A row per pattern, layer, linear and expert
# -------------------------------------------
#
# ``frequency`` is the share of tokens that chose the expert, ``weight`` its mean gate.

usage = clf.expert_usage(X)
print(usage.round(3).head(8).to_string(index=False))

# %%
# The same as a heat map
# ----------------------
#
# A block per pattern, layers from top to bottom, experts from left to right.

display = ExpertUsageDisplay.from_frame(usage)

# %%
# How much the patterns differ
# ----------------------------
#
# The largest difference of a frequency between complete rows and those that lack a
# cell, by layer.

wide = usage.pivot_table(
    index=["layer", "linear", "expert"], columns="pattern", values="frequency"
)
away = wide.drop(columns="complete").sub(wide["complete"], axis=0).abs()
print(away.groupby("layer").max().round(3).to_string())
