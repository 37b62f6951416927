"""
Saved, opened, and asked from many threads
==========================================

What an application does with a fitted model: save it without pickle, open it on the
CPU, and answer rows as they come, one at a time or from several threads, with cells
that are missing or broken. ``examples/serve.py`` is the whole web server.
"""

import argparse
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import robustmm
from robustmm import LinearProbeClassifier, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=200, help="rows in the table")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
X = drop_modalities(X, 0.5, "both", random_state=args.seed)

# %%
# Save once, with the encoder, for a machine that is offline
# ----------------------------------------------------------

folder = Path(tempfile.mkdtemp()) / "model"
clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
robustmm.save(clf, folder, include_backbone=True)
size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
print(f"{size / 1e6:.1f} MB, of which the encoder is nearly all")

# %%
# Open it, and answer
# -------------------
#
# Opening runs nothing that the folder contains. The labels come back as they were given
# to ``fit``.

model = robustmm.load(folder, device="cpu")
row = pd.DataFrame({"image": [None], "text": ["A small boat near the sand."]})
proba = model.predict_proba(row)[0].round(3).tolist()
print(dict(zip(model.classes_, proba, strict=True)))

# %%
# How long does one row take?
# ---------------------------
#
# The median of twenty, on the machine that built this page. Each row is new, so nothing
# is found in the cache.


def milliseconds(rows: pd.DataFrame) -> float:
    """Median time of a prediction of one row."""
    seconds = []
    for i in range(len(rows)):
        start = time.perf_counter()
        model.predict(rows.iloc[i : i + 1])
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


fresh, _ = make_scenes(60, random_state=args.seed + 1)
times = pd.Series(
    {
        "complete": milliseconds(fresh[:20]),
        "image missing": milliseconds(fresh[20:40].assign(image=None)),
        "text missing": milliseconds(fresh[40:].assign(text=None)),
    }
)
print(times.round(1).to_string())
figure, ax = plt.subplots(figsize=(5, 2.2), layout="constrained")
ax.bar_label(ax.barh(times.index[::-1], times[::-1]), fmt="%.0f", padding=3)
ax.set(xlabel="milliseconds per row", xlim=(0, 1.2 * times.max()))

# %%
# Many threads, one model
# -----------------------

alone = [model.predict_proba(X[i : i + 1]) for i in range(16)]
with ThreadPoolExecutor(4) as pool:
    together = list(pool.map(model.predict_proba, [X[i : i + 1] for i in range(16)]))
apart = max(np.abs(a - b).max() for a, b in zip(alone, together, strict=True))
print(f"largest difference from one thread: {apart:.1e}")

# %%
# What a stranger may send
# ------------------------
#
# A picture that cannot be read is an error that names the row, or a missing cell.

broken = pd.DataFrame({"image": [b"no picture"], "text": ["Snow."]}, index=["row 7"])
try:
    model.predict(broken)
except ValueError as error:
    print(error)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    print(model.set_params(on_bad_image="missing").predict(broken))
