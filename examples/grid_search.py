"""
Grid search over rank and number of experts
===========================================

Every parameter has a plain name, so scikit-learn's searches take them as they are. All
candidates share one copy of the frozen encoder, and images are decoded once for all
candidates and folds.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV, train_test_split

from robustmm import MAILClassifier, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=120, help="rows in the table")
parser.add_argument("--epochs", type=int, default=2, help="of each fit")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=3, random_state=args.seed)
X = drop_modalities(X, 0.7, "both", random_state=args.seed)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, stratify=y, random_state=args.seed
)

# %%
# Candidates
# ----------
#
# The learning rate first: it matters more than any other parameter. Here it is fixed,
# so that the search takes seconds.

clf = MAILClassifier(
    "robustmm/tiny-vilt", lr=3e-3, max_epochs=args.epochs, random_state=args.seed
)
grid = {"rank": [2, 8], "n_experts": [2, 5]}
search = GridSearchCV(clf, grid, cv=2).fit(X_train, y_train)

# %%
# What came out
# -------------
#
# With so few rows the differences are within the noise of two folds: the standard
# deviation stands beside each mean.

table = pd.DataFrame(search.cv_results_)
table = table[
    ["param_rank", "param_n_experts", "mean_test_score", "std_test_score"]
].rename(columns=lambda name: name.removeprefix("param_"))
print(table.round(3).to_string(index=False))
print(f"\nBest: {search.best_params_}, test {search.score(X_test, y_test):.3f}")

# %%
# The same as a picture
# ---------------------

figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for experts, rows in table.groupby("n_experts"):
    ax.errorbar(
        rows["rank"],
        rows["mean_test_score"],
        yerr=rows["std_test_score"],
        marker="o",
        capsize=3,
        label=f"{experts} experts",
    )
ax.set(xlabel="rank", ylabel="accuracy in two folds", xticks=grid["rank"])
ax.legend(frameon=False)
