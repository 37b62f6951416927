"""A user's program, for type checkers: what they must find is marked, and nothing else.

A line that ends with ``# wrong`` is an error for all of them, and one that ends with
``# wrong: pyright`` for that one alone.
"""

from typing import assert_type

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline

import robustmm
from robustmm import (
    CMPTClassifier,
    DeLoClassifier,
    Explanation,
    ExplanationDisplay,
    LinearProbeClassifier,
    MissingRateCurveDisplay,
    compare_methods,
    drop_modalities,
    explain,
    load_backbone,
    missing_rate_curve,
    missing_table,
    score_by_pattern,
)
from robustmm.backbones import Backbone, Stream
from robustmm.datasets import make_scenes

X, y = make_scenes(60, random_state=0)
assert_type(X, pd.DataFrame)

# Holes ------------------------------------------------------------------------------

holes = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
assert_type(holes, pd.DataFrame)
holes.head()
both = drop_modalities(X, 0.7, "both", return_table=True)
assert_type(both, tuple[pd.DataFrame, np.ndarray])
both.head()  # wrong
drop_modalities(X, "0.7", "both")  # wrong
drop_modalities(X, 0.7)  # wrong
assert_type(missing_table(3, 0.5, "text"), np.ndarray)

# Parameters -------------------------------------------------------------------------

clf = CMPTClassifier("robustmm/tiny-clip", "robustmm/tiny-bert", random_state=0)
assert_type(clf, CMPTClassifier)
CMPTClassifier(rank=3, revision={"text_backbone": "main"}, cache=None)
CMPTClassifier(rnak=3)  # wrong: pyright
CMPTClassifier(rank="3")  # wrong
CMPTClassifier(max_epochs="3")  # wrong
LinearProbeClassifier("openai/clip-vit-base-patch16", revision="57c2164")
LinearProbeClassifier(revision=3)  # wrong
assert_type(clf.rank, int)

# Fitting and predicting -------------------------------------------------------------

assert_type(clf.fit(holes, y), CMPTClassifier)
assert_type(clf.fit(holes, y).predict(holes), np.ndarray)
assert_type(clf.fit(holes, y).adapter, str)
clf.fit([{"image": None, "text": "a boat"}], ["beach"])
clf.fit({"image": None, "text": "a boat"}, ["beach"])
clf.fit(holes.to_numpy(), y)
clf.fit(3, y)  # wrong: pyright
clf.fit(holes)  # wrong
assert_type(clf.predict_proba(holes), np.ndarray)
assert_type(clf.history_, pd.DataFrame)
assert_type(clf.classes_, np.ndarray)
assert_type(clf.n_iter_, int)
clf.histroy_.tail()  # wrong: pyright
tasks = DeLoClassifier()
assert_type(tasks.partial_fit(holes, y), DeLoClassifier)
assert_type(tasks.fit(holes, y, tasks=[0] * len(y)), DeLoClassifier)
assert_type(tasks.with_tasks([0]), DeLoClassifier)

# With scikit-learn ------------------------------------------------------------------

search = GridSearchCV(clf, {"rank": [2, 4]}, cv=2).fit(holes, y)
search.best_estimator_.predict(holes)
make_pipeline(clf).fit(holes, y)
cross_validate(clf, holes, y)

# Evaluation -------------------------------------------------------------------------

scores = score_by_pattern(clf, holes, y)
assert_type(scores, pd.DataFrame)
scores.sort_values("score")
assert_type(missing_rate_curve(clf, X, y), pd.DataFrame)
compare_methods({"CMPT": clf}, X, y).head()
runs = compare_methods({"CMPT": clf}, X, y, return_runs=True)[1]
runs.head()
compare_methods({"CMPT": clf}, X, y, sedes=[0])  # wrong
display = MissingRateCurveDisplay.from_estimator(clf, X, y)
assert_type(display, MissingRateCurveDisplay)
assert_type(display.ax_, Axes)
found = explain(clf, {"image": None, "text": "a boat"}, grid=(2, 3))
assert_type(found, Explanation)
found.words.head()
explain(clf, holes[:1], grid="3")  # wrong
ExplanationDisplay.from_estimator(clf, holes[:1]).plot()

# Saving -----------------------------------------------------------------------------

robustmm.save(clf, "model")
again = robustmm.load("model", device="cpu")
again.predict(holes)[0]
again.get_feature_names_out()  # of a pipeline, say
again.fit(holes, y).predict_proba(holes)
robustmm.load("model", "cpu", trust=True)  # wrong
backbone = load_backbone("openai/clip-vit-base-patch16", revision="57c2164")
assert_type(backbone, Backbone)
assert_type(backbone["image"], Stream)
