"""
Explanations of one row
=======================

Which words and which parts of the picture does a prediction come from? ``explain``
leaves out each word and covers each region of the picture in turn, and says what the
class loses by it. A cell that is missing stays missing.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from robustmm import ExplanationDisplay, LinearProbeClassifier, drop_modalities, explain
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=600, help="rows in the table")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

# %%
# A classifier
# ------------
#
# Any with ``predict_proba`` will do: a linear probe of frozen encoders here, trained on
# rows of which half lack the picture or the caption.

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
X = drop_modalities(X, 0.5, "both", random_state=args.seed)
train, test = slice(args.rows // 2), slice(args.rows // 2, None)
clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X[train], y[train])

# %%
# A row with both
# ---------------
#
# What is blue speaks for the predicted class, what is vermilion against it. Words and
# regions have one scale, so that they can be compared.

rows = X[test]
complete = rows[rows.notna().all(axis=1)]
display = ExplanationDisplay.from_estimator(clf, complete[:1])

# %%
# The numbers are tables. ``support`` is what the log-odds of the class lose without the
# word:

found = display.explanation
print(found)
print(found.words.sort_values("support", ascending=False).head().round(3))

# %%
# Without the whole picture, and without the whole caption:

print(found.modalities.round(3))

# %%
# Rows that lack one
# ------------------
#
# Nothing is filled in: the other cell alone is explained, as the classifier saw it.

ExplanationDisplay.from_estimator(clf, rows[rows["image"].isna()][:1])

# %%
ExplanationDisplay.from_estimator(clf, rows[rows["text"].isna()][:1], grid=8)

# %%
# Why not another class?
# ----------------------
#
# ``class_`` names the one to explain. What speaks most for the second most probable:

row = complete[:1]
order = clf.predict_proba(row)[0].argsort()
other = explain(clf, row, class_=clf.classes_[order[-2]])
print(other)
print(other.words.sort_values("support", ascending=False).head(3).round(3))
