"""MoRA beside simpler ways to train the same encoders, on drawn scenes with holes.

Seven rows in ten have lost their picture or their caption, in training and in the test
("both"). All methods see the same rows in the same batches, on the embedded CLIP; the
low-rank methods adapt the same linears. Needs no network; a few minutes on two cores.

    python examples/benchmarks/mora_scenes.py [--rows 600] [--epochs 10] [--seeds 0 1 2]
"""

import argparse
import time

import pandas as pd
import torch
from torch import Tensor, nn

from robustmm import MoRAClassifier, MultimodalClassifier, drop_modalities
from robustmm.backbones import Backbone
from robustmm.datasets import make_scenes

BACKBONE = "robustmm/tiny-clip"
N_TEST = 1000


class PlainModule(nn.Module):
    """Both projected embeddings, side by side, and a linear head."""

    def __init__(self, backbone: Backbone, n_outputs: int):
        super().__init__()
        self.backbone = backbone
        streams = backbone.streams.values()
        self.head = nn.Linear(
            sum(s.projection.out_features for s in streams), n_outputs
        )
        nn.init.normal_(self.head.weight, std=0.02)

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the embeddings, (B, 2p); a missing cell is the batch's dummy."""
        streams = self.backbone.streams.values()
        pooled = [s.projection(s.pool(s.run(s.embed(**batch)))) for s in streams]
        return torch.cat(pooled, dim=1)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits, (B, C)."""
        return self.head(self.features(**batch))


class PlainClip(MultimodalClassifier):
    """A linear probe, or with ``fine_tune`` a training of every parameter of CLIP."""

    def __init__(
        self, backbone=BACKBONE, *, fine_tune=False, max_epochs, batch_size, lr, seed
    ):
        super().__init__(
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=0.02,
            lr_schedule="cosine",
            random_state=seed,
        )
        self.backbone = backbone
        self.fine_tune = fine_tune
        self.seed = seed

    def _build_module(self, backbone: Backbone, n_outputs: int) -> PlainModule:
        if self.fine_tune:
            for module in backbone.modules():
                for name, frozen in module.named_parameters(recurse=False):
                    setattr(module, name, nn.Parameter(frozen.detach().clone()))
        return PlainModule(backbone, n_outputs)


def candidates(seed: int, max_epochs: int) -> dict[str, MultimodalClassifier]:
    """Return the estimators by name."""
    common = {"max_epochs": max_epochs, "batch_size": 32}
    plain = common | {"seed": seed}
    mora = common | {"backbone": BACKBONE, "random_state": seed}
    return {
        "MoRA": MoRAClassifier(**mora),
        "MoRA, identity start": MoRAClassifier(init="identity", **mora),
        "DoRA (no shared branch)": MoRAClassifier(use_shared=False, **mora),
        "LoRA (no shared, additive)": MoRAClassifier(
            use_shared=False, parametrization="additive", strength=1.0, **mora
        ),
        "linear probe": PlainClip(lr=1e-2, **plain),
        "full fine-tuning, lr 1e-4": PlainClip(fine_tune=True, lr=1e-4, **plain),
        "full fine-tuning, lr 1e-2": PlainClip(fine_tune=True, lr=1e-2, **plain),
    }


def compare(n_rows: int, max_epochs: int, seeds: list[int]) -> pd.DataFrame:
    """Return the accuracy on rows with holes of every fit, and what it took.

    ``seconds`` are of the processor, which other programs disturb less.
    """
    found = []
    for seed in seeds:
        X, y = make_scenes(n_rows + N_TEST, random_state=seed)
        X = drop_modalities(X, rate=0.7, scenario="both", random_state=seed)
        train, test = slice(None, n_rows), slice(n_rows, None)
        for name, clf in candidates(seed, max_epochs).items():
            start = time.process_time()
            clf.fit(X[train], y[train])
            row = {"method": name, "seed": seed}
            row["seconds"] = time.process_time() - start
            row["trained"] = clf.n_trainable_parameters_
            row["accuracy"] = clf.score(X[test], y[test])
            found.append(row)
            print(row, flush=True)
    return pd.DataFrame(found)


def main() -> None:
    """Print means and standard deviations over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    by_method = compare(given.rows, given.epochs, given.seeds).groupby(
        "method", sort=False
    )
    table = by_method.agg(
        accuracy=("accuracy", "mean"),
        deviation=("accuracy", "std"),
        trained=("trained", "first"),
        seconds=("seconds", "mean"),
    )
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
