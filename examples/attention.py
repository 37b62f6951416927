"""
Where the proxy token looks
===========================

In CMPT, a proxy token in each encoder learns to be what the other encoder's class token
would have been. The paper draws what the two tokens attend to (figures 6 and 11); here
are the same maps, of pictures and of texts. The proxies start from noise: from the
class token, the default, a training as short as this one leaves them so close to it
that the maps look alike.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from robustmm import AttentionMapDisplay, CMPTClassifier, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=360, help="rows in the table")
parser.add_argument("--epochs", type=int, default=12, help="passes over most of them")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
train = args.rows * 3 // 4
clf = CMPTClassifier(
    "robustmm/tiny-clip",
    "robustmm/tiny-bert",
    rank=4,
    alpha=4,
    proxy_init="normal",
    lr=3e-3,
    batch_size=16,
    max_epochs=args.epochs,
    random_state=args.seed,
).fit(
    drop_modalities(X[:train], 0.7, "both", random_state=args.seed),
    y[:train],
)

# %%
# A complete row
# --------------
#
# The stronger the colour, the more a token attends to a patch or a word in the last
# layer. The titles say how much of its attention is drawn; the rest goes to special
# tokens and to the proxy.

row = X.iloc[[train]]
display = AttentionMapDisplay.from_estimator(clf, row)

# %%
# The same row without its text
# -----------------------------
#
# The encoders do not see each other, so the maps of the picture stay as they are. What
# changes is their use: now the proxy takes the place of the text.

display = AttentionMapDisplay.from_estimator(clf, row.assign(text=None))

# %%
# And without its picture, in the first layer
# -------------------------------------------

display = AttentionMapDisplay.from_estimator(clf, row.assign(image=None), layer=0)

# %%
# How far the two tokens are apart
# --------------------------------
#
# Half of the sum of the differences, the mean over the rows that were not trained on: 0
# where both tokens look at the same, 1 where they have no patch or word in common. In
# this small text encoder they agree from the second layer on.

print("layer  image   text")
for layer in range(4):
    maps = clf.attention_maps(X[train:], layer=layer)
    places = ["modality", "row", "position"]
    wide = maps.pivot(index=places, columns="token", values="attention")
    apart = (wide["class"] - wide["proxy"]).abs().groupby(["modality", "row"]).sum() / 2
    means = apart.groupby("modality").mean()
    print(f"{layer:5}  {means['image']:.3f}  {means['text']:.3f}")
