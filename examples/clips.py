"""
Clips that lose their sound or their picture
============================================

The other half of CMPT's paper: sounds and videos instead of pictures and texts. A model
is trained on complete clips and asked about clips that lost one of the two, with its
proxy tokens, without them, and beside logistic regression on the frozen features.
"""

import argparse

import pandas as pd

from robustmm import CMPTClassifier, LinearProbeClassifier, score_by_pattern
from robustmm.datasets import make_clips

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=240, help="clips to train on")
parser.add_argument("--test-rows", type=int, default=240, help="clips to ask about")
parser.add_argument("--epochs", type=int, default=8, help="passes over the rows")
parser.add_argument("--seeds", type=int, default=1, help="tables and trainings")
args = parser.parse_args()

# %%
# A table of clips
# ----------------
#
# A sound is ``(rate, samples)`` here, a video an array of frames; both may be paths.
# Each tells something of the class, and both together more.

X, y = make_clips(6, random_state=0)
print(pd.DataFrame({"label": y, "frames": [len(film) for film in X["video"]]}))

# %%
# Names in the place of two fixed columns
# ---------------------------------------
#
# ``modalities`` says what is read. All else is as for pictures and texts: missing
# cells, searches, saved models, evaluation.

CLIPS = {
    "modalities": ("audio", "video"),
    "audio_backbone": "robustmm/tiny-ast",
    "video_backbone": "robustmm/tiny-clip",
}


def models(seed: int) -> dict:
    """Return what is compared."""
    trained = CLIPS | {"max_epochs": args.epochs, "random_state": seed}
    return {
        "CMPT": CMPTClassifier(**trained),
        "without proxies": CMPTClassifier(use_proxy=False, **trained),
        "linear probe": LinearProbeClassifier(**CLIPS, C=0.1),
    }


# %%
# Complete in training, one of the two missing in the test
# --------------------------------------------------------

runs = []
for seed in range(args.seeds):
    X, y = make_clips(args.rows + args.test_rows, random_state=seed)
    train, test = slice(None, args.rows), slice(args.rows, None)
    for name, model in models(seed).items():
        model.fit(X[train], y[train])
        scores = score_by_pattern(model, X[test], y[test], rows="blanked")["score"]
        runs += [{"model": name, "seed": seed, **scores}]

table = pd.DataFrame(runs).drop(columns="seed").groupby("model", sort=False)
print(table.agg(["mean", "std"] if args.seeds > 1 else ["mean"]).round(3).to_string())
