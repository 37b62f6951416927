"""
MoRA: merged, and exported for transformers
===========================================

After ``fit`` MoRA's updates are merged into CLIP's weights, so that a row costs what
CLIP costs. The merged model leaves the package as a checkpoint that ``transformers``
opens: this page classifies the same rows without robustmm and compares.
"""

import argparse
import json
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
from transformers.utils.logging import disable_progress_bar

from robustmm import MoRAClassifier, drop_modalities
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=200, help="rows in the table")
parser.add_argument("--epochs", type=int, default=5, help="passes over the rows")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()

X, y = make_scenes(args.rows, n_classes=4, random_state=args.seed)
half = args.rows // 2
X_train = drop_modalities(X[:half], 0.7, "both", random_state=args.seed)
clf = MoRAClassifier(
    "robustmm/tiny-clip", max_epochs=args.epochs, random_state=args.seed, device="cpu"
).fit(X_train, y[:half])
print(f"{clf.n_trainable_parameters_:,} of {clf.n_parameters_:,} numbers were trained")

# %%
# The export
# ----------

folder = Path(tempfile.mkdtemp()) / "merged"
clf.to_huggingface(folder)
print(sorted(file.name for file in folder.iterdir()))

# %%
# The same rows, without this package
# -----------------------------------
#
# Complete rows; where a cell is missing, the package computes its constant once.

disable_progress_bar()
model = CLIPModel.from_pretrained(folder)
head = load_file(folder / "head.safetensors")
labels = json.loads((folder / "labels.json").read_text())
images = AutoImageProcessor.from_pretrained(folder)
words = AutoTokenizer.from_pretrained(folder)
rows = X[half:]
with torch.no_grad():
    pixels = images(list(rows["image"]), return_tensors="pt")["pixel_values"]
    text = words(list(rows["text"]), padding=True, return_tensors="pt")
    seen = model.vision_model(pixels).pooler_output
    read = model.text_model(text["input_ids"], text["attention_mask"]).pooler_output
    both = torch.cat(
        [model.visual_projection(seen), model.text_projection(read)], dim=1
    )
    logits = both @ head["head.weight"].T + head["head.bias"]

there, here = logits.softmax(dim=1).numpy(), clf.predict_proba(rows)
apart = np.abs(there - here).max()
print(f"{len(rows)} rows, classes {labels['classes']}")
print(f"largest difference of a probability: {apart:.1e}")

# %%
# A point per row and class
# -------------------------

figure, ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
ax.plot([0, 1], [0, 1], color="0.8")
ax.plot(here.ravel(), there.ravel(), ".")
ax.set(xlabel="probability, robustmm", ylabel="probability, transformers")
