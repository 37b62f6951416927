"""
Composed retrieval: a picture, and what to change in it
=======================================================

A query is a picture with a text that says what is to be otherwise; what is looked for
is the picture of a gallery that fits both. MoRA's paper trains its adapters on such
triplets (table 6). Here they are drawn, or read from a local folder::

   python examples/retrieval.py --cirr DIR --backbone openai/clip-vit-base-patch16
   python examples/retrieval.py --fashion-iq DIR --category dress
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from robustmm import load_backbone, retrieval_scores
from robustmm.backbones import encode_streams, projected
from robustmm.data import Collate, ImageTransform, MultimodalDataset, prepare_tokenizer
from robustmm.data.frame import read_rows
from robustmm.datasets import load_cirr, load_fashion_iq, make_modified_scenes
from robustmm.methods.mora import MoRAModule, adapted_layers

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=300, help="scenes to train and test on")
parser.add_argument("--epochs", type=int, default=4, help="passes over the triplets")
parser.add_argument("--batch-size", type=int, default=50, help="triplets of a step")
parser.add_argument("--lr", type=float, default=1e-2, help="learning rate of MoRA")
parser.add_argument("--backbone", default="robustmm/tiny-clip", help="a CLIP model")
parser.add_argument("--device", default="cpu", help="such as cuda")
parser.add_argument("--cirr", help="folder of CIRR")
parser.add_argument("--fashion-iq", help="folder of FashionIQ")
parser.add_argument("--category", default="dress", help="of FashionIQ")
parser.add_argument("--seed", type=int, default=0, help="random_state of everything")
args = parser.parse_args()


def read(split: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return queries and gallery; no picture is in both splits."""
    if args.cirr:
        return load_cirr(args.cirr, split)
    if args.fashion_iq:
        return load_fashion_iq(args.fashion_iq, args.category, split)
    return make_modified_scenes(args.rows, 2 * args.seed + (split == "val"))


queries, gallery = read("train")
test_queries, test_gallery = read("val")
print(queries["text"].head(3).to_string(index=False))

# %%
# What the frozen encoders know
# -----------------------------
#
# The sum of the embeddings of picture and text is the query. The reference itself is
# not searched where the table names it, as in CIRR; FashionIQ's papers do search it.

if args.fashion_iq:
    test_queries = test_queries.drop(columns="reference")
backbone = load_backbone(args.backbone, device=args.device)
frozen = retrieval_scores(backbone, test_queries, test_gallery)
print(frozen.round(3).to_string())

# %%
# MoRA on triplets
# ----------------
#
# The adapters of the last two layers, no head, and the loss of CLIP: of all targets in
# a batch, each query should be most like its own. ``init="identity"`` starts at the
# frozen encoders; the head of the module is not used.

torch.manual_seed(args.seed)
layers = {m: adapted_layers(backbone[m].n_layers, 2, "rear") for m in backbone.streams}
module = MoRAModule(backbone, 1, layers, ("query", "value"), init="identity")
module.to(args.device).train()
tokenizer = prepare_tokenizer(backbone.tokenizer, backbone.max_text_length)
collate = Collate(ImageTransform.from_config(backbone.image_config), tokenizer)


def embed(table: pd.DataFrame) -> list[torch.Tensor]:
    """Return embeddings of images and of texts, (B, p) each, with gradients."""
    data = MultimodalDataset(read_rows(table), collate.transform, collate.tokenizer)
    batch, _ = collate([data[i] for i in range(len(data))])
    batch |= batch["pictures"].pixels()
    names = ("present", "pixel_values", "input_ids", "attention_mask")
    batch = {name: batch[name].to(args.device) for name in names}

    def encode(stream, present, batch):
        tokens = stream.run(stream.embed(**batch))
        return projected(stream, stream.pool(tokens))

    return encode_streams(backbone, batch.pop("present"), batch, encode)


named = module.named_parameters()
trained = [p for n, p in named if p.requires_grad and not n.startswith("head")]
optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.02)
draws = np.random.default_rng(args.seed)
for _ in range(args.epochs):
    order, losses = draws.permutation(len(queries)), []
    for start in range(0, len(order), args.batch_size):
        asked = queries.iloc[order[start : start + args.batch_size]]
        targets = pd.DataFrame({"image": gallery[asked["target"]].to_numpy()})
        images, texts = embed(asked)
        wanted, _ = embed(targets.assign(text=None))
        similar = F.normalize(images + texts, dim=1) @ F.normalize(wanted, dim=1).T
        own = torch.arange(len(asked), device=similar.device)
        loss = F.cross_entropy(100 * similar, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {np.mean(losses):.3f}")

# The adapters are inside the encoders: the same call scores them.
adapted = retrieval_scores(module.eval().backbone, test_queries, test_gallery)
print(adapted.round(3).to_string())

# %%
# Recall, before and after
# ------------------------

shown = [name for name in frozen if name.startswith("R@")]
figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True, layout="constrained")
for ax, scores, title in zip(
    axes, (frozen, adapted), ("frozen", "MoRA on triplets"), strict=True
):
    scores[shown].T.plot.bar(ax=ax, rot=0, legend=ax is axes[0], title=title)
axes[0].set_ylabel(f"share of {len(test_queries)} queries")
if args.cirr or args.fashion_iq:
    figure.savefig("retrieval.png", dpi=150)
