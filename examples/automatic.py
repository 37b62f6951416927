"""
Automatic choice, with its leaderboard
======================================

``AutoMultimodalClassifier`` fits candidates from cheap to dear until its time is over,
scores them on rows that were held out, averages the best, and shows what it saw.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from sklearn.model_selection import train_test_split

from robustmm import AutoMultimodalClassifier, LeaderboardDisplay, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=240, help="rows in the table")
parser.add_argument("--epochs", type=int, default=2, help="of trained candidates")
parser.add_argument("--time-limit", type=float, default=60, help="seconds")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
X = drop_modalities(X, 0.7, "both", random_state=args.seed)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, stratify=y, random_state=args.seed
)

# %%
# A time limit instead of a list of settings
# ------------------------------------------
#
# What is tried follows from the encoders. One candidate is always fitted, however short
# the time.

clf = AutoMultimodalClassifier(
    "robustmm/tiny-clip",
    time_limit=args.time_limit,
    max_epochs=args.epochs,
    random_state=args.seed,
).fit(X_train, y_train)
print(f"test accuracy {clf.score(X_test, y_test):.3f}")

# %%
# What was tried
# --------------
#
# Scores are those of the rows held out. With so few of them, differences of a few
# hundredths mean nothing.

columns = ["score", "weight", "fit_seconds", "status"]
shown = [name for name in columns if name in clf.leaderboard_]
print(clf.leaderboard_[shown].round(3).to_string())

# %%
# The same as a picture
# ---------------------

display = LeaderboardDisplay.from_estimator(clf, label="accuracy")
