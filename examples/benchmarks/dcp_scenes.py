"""DCP beside three other methods, and without parts of it, on drawn scenes with holes.

Seven rows in ten have lost their picture or their caption, in training and in the test
("both"). All see the same rows, in batches of 32, with their other defaults, on the
embedded encoders; CMPT also in batches of 8, its default. Needs no network; ten minutes
on one core.

    python examples/benchmarks/dcp_scenes.py [--rows 400] [--epochs 6] [--seeds 0 1]
"""

import argparse
import time

import pandas as pd
from sklearn.base import ClassifierMixin

from robustmm import (
    CMPTClassifier,
    DCPClassifier,
    LinearProbeClassifier,
    MoRAClassifier,
    drop_modalities,
)
from robustmm.datasets import make_scenes

CLIP, BERT = "robustmm/tiny-clip", "robustmm/tiny-bert"
N_TEST = 1000
# The paper's depth is half of CLIP's layers; the little encoders have four.
DCP = {"prompt_depth": 2}
WITHOUT_PROMPTS = {"use_correlated": False, "use_common": False, "use_dynamic": False}
VARIANTS = {
    "DCP": {},
    "DCP, lr=1e-3": {"lr": 1e-3},
    "DCP, lr=1e-3, without prompts": {"lr": 1e-3} | WITHOUT_PROMPTS,
    "DCP, lr=1e-3, output frozen": {"lr": 1e-3, "train_output": False},
}


def candidates(seed: int, max_epochs: int) -> dict[str, ClassifierMixin]:
    """Return the estimators by name."""
    common = {"max_epochs": max_epochs, "batch_size": 32, "random_state": seed}
    others = {
        "linear probe": LinearProbeClassifier(CLIP, random_state=seed),
        "MoRA": MoRAClassifier(CLIP, **common),
        "CMPT": CMPTClassifier(CLIP, BERT, **common),
        "CMPT, batches of 8": CMPTClassifier(CLIP, BERT, **common | {"batch_size": 8}),
    }
    variants = {
        name: DCPClassifier(CLIP, **DCP | options, **common)
        for name, options in VARIANTS.items()
    }
    return others | variants


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
    """Print the accuracy of each seed, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    found = compare(given.rows, given.epochs, given.seeds)
    table = found.pivot_table("accuracy", "method", "seed", sort=False)
    by_method = found.groupby("method", sort=False)
    table["mean"] = table.mean(axis=1)
    table["trained"] = by_method["trained"].first()
    table["seconds"] = by_method["seconds"].mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
