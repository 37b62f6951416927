"""
Classes that arrive in stages
=============================

Ten kinds of scenes come in five stages of two. Seven rows in ten have lost their
picture or their caption, and the rows of earlier stages are gone when the next ones
come. DeLo keeps a partition per stage and finds it again through task keys. Naive
sequential fine-tuning trains one set of low-rank adapters and one growing head on each
stage in turn, and forgets. Both train the same frozen backbone, at the same places,
with the same rank, rows and epochs.

``--methods`` adds DeLo's ablations and ``--seeds`` repeats everything; the table then
has means and standard deviations over the seeds.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from robustmm import (
    ContinualMatrixDisplay,
    DeLoClassifier,
    MultimodalClassifier,
    average_performance,
    continual_matrix,
    drop_modalities,
    forgetting,
)
from robustmm.adapters import LoRALinear
from robustmm.datasets import make_scenes

ABLATIONS = {
    "DeLo": {},
    "static": {"static": True},
    "single pool": {"single_pool": True},
    "no guide": {"cross_modal_guide": False},
    "no losses": {"lambda_align": 0.0, "lambda_consistency": 0.0},
    "centered keys": {"center_keys": True},
}
parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=40, help="training rows per class")
parser.add_argument("--epochs", type=int, default=4, help="passes over each stage")
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument(
    "--methods", nargs="+", default=["DeLo", "naive"], choices=[*ABLATIONS, "naive"]
)
parser.add_argument("--out", type=Path, default=Path("outputs"), help="for the results")
args = parser.parse_args()

# %%
# What DeLo is compared with: one adapter and one head for everything
# -------------------------------------------------------------------


class SequentialModule(nn.Module):
    """ViLT with LoRA on query, key and value of every layer, and one linear head."""

    def __init__(self, backbone, n_outputs: int, rank: int):
        super().__init__()
        self.backbone = backbone
        stream = backbone["joint"]
        for layer in range(stream.n_layers):
            for name in ("query", "key", "value"):
                linear = stream.linear(layer, name)
                stream.wrap(layer, name, LoRALinear(linear, rank, alpha=2.0 * rank))
        self.head = nn.Linear(stream.width, n_outputs)

    def features(self, present, **batch):
        stream = self.backbone["joint"]
        return stream.pooler(stream.pool(stream.run(stream.embed(**batch))))

    def forward(self, **batch):
        return self.head(self.features(**batch))


class SequentialClassifier(MultimodalClassifier):
    """Naive fine-tuning: each call trains the same adapters and a longer head."""

    def __init__(
        self, backbone, rank=4, max_epochs=1, lr=1e-3, batch_size=16, random_state=None
    ):
        super().__init__(
            max_epochs=max_epochs,
            lr=lr,
            batch_size=batch_size,
            lr_schedule="cosine",
            random_state=random_state,
        )
        self.backbone = backbone
        self.rank = rank

    def partial_fit(self, X, y):
        """Train on the rows of one stage, over all classes seen so far."""
        known = getattr(self, "classes_", None)
        rows = self._check_X(X, reset=known is None)
        self._seen = known
        self._fit_rows(rows, self._encode(y, known), None)
        return self

    def _optimizer_options(self):
        return {"optimizer__betas": (0.9, 0.98)}

    def _build_module(self, backbone, n_outputs):
        module = SequentialModule(backbone, n_outputs, self.rank)
        if self._seen is not None:
            old = self.net_.module_
            tensors = old.state_dict()
            places = np.searchsorted(self.classes_, self._seen)
            own = module.state_dict(keep_vars=True)
            with torch.no_grad():
                for name, tensor in own.items():
                    if name.startswith("head."):
                        tensor[places] = tensors[name]
                    elif tensor.requires_grad:
                        tensor.copy_(tensors[name])
        return module


# %%
# Five stages of two classes, each with its own holes
# ---------------------------------------------------


def make_stages(seed: int) -> list[tuple]:
    """Five tuples (X_train, y_train, X_test, y_test)."""
    n_test = max(40, args.rows // 2)
    X, y = make_scenes(14 * (args.rows + n_test), n_classes=10, random_state=seed)
    order = np.random.default_rng(seed).permutation(np.unique(y))
    stages = []
    for stage, classes in enumerate(order.reshape(5, 2)):
        parts = {"train": [], "test": []}
        for label in classes:
            rows = X[y == label]
            parts["train"].append(rows.iloc[: args.rows])
            parts["test"].append(rows.iloc[args.rows : args.rows + n_test])
        tables = []
        for part, blocks in enumerate(parts.values()):
            table = pd.concat(blocks)
            holes = drop_modalities(
                table, 0.7, "both", random_state=100 * seed + 10 * stage + part
            )
            tables += [holes, y[table.index]]
        stages.append(tuple(tables))
    return stages


def make_estimator(method: str, seed: int):
    """One of the compared classifiers."""
    common = {
        "backbone": "robustmm/tiny-vilt",
        "max_epochs": args.epochs,
        "lr": args.lr,
        "batch_size": args.batch_size,
        "random_state": seed,
    }
    if method == "naive":
        return SequentialClassifier(**common)
    return DeLoClassifier(**common, **ABLATIONS[method])


# %%
# Learn, and look back after every stage
# --------------------------------------

args.out.mkdir(parents=True, exist_ok=True)
names = [f"stage {i + 1}" for i in range(5)]
results, matrices = [], {}
for seed in args.seeds:
    stages = make_stages(seed)
    for method in args.methods:
        estimator = make_estimator(method, seed)
        matrix, learned = continual_matrix(
            estimator, stages, names=names, return_estimator=True
        )
        matrices.setdefault(method, matrix)
        result = {
            "method": method,
            "seed": seed,
            "AP": average_performance(matrix),
            "FG": forgetting(matrix),
            "FG diagonal": forgetting(matrix, kind="diagonal"),
            "right after": float(np.diag(matrix).mean()),
        }
        if hasattr(learned, "predict_task"):
            hits = [learned.predict_task(s[2]) == i for i, s in enumerate(stages)]
            result["task found"] = float(np.concatenate(hits).mean())
            told = [
                learned.with_tasks(np.full(len(s[2]), i)).score(s[2], s[3])
                for i, s in enumerate(stages)
            ]
            result["AP, task told"] = float(np.mean(told))
        results.append(result)
        print(f"seed {seed}, {method}: AP {result['AP']:.3f}, FG {result['FG']:.3f}")

table = pd.DataFrame(results)
table.to_csv(args.out / "continual.csv", index=False)
summary = table.drop(columns="seed").groupby("method", sort=False)
print(f"\nMeans over seeds {args.seeds}\n{summary.mean().round(3).to_string()}")
if len(args.seeds) > 1:
    print(f"\nStandard deviations\n{summary.std().round(3).to_string()}")

# %%
# The matrices of the first seed
# ------------------------------

shown = [m for m in ("naive", "DeLo") if m in matrices] or list(matrices)
figure, axes = plt.subplots(
    1, len(shown), figsize=(5 * len(shown), 4.2), layout="constrained", squeeze=False
)
for ax, method in zip(axes[0], shown, strict=True):
    ContinualMatrixDisplay.from_frame(matrices[method], ax=ax)
    scores = table[table["method"] == method].iloc[0]
    ax.set_title(f"{method}: AP {scores['AP']:.2f}, FG {scores['FG']:.2f}")
figure.savefig(args.out / "continual.png", dpi=150)
print(f"\nPicture: {args.out / 'continual.png'}")
