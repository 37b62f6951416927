"""RAGPT on scenes: its switches beside MAP, MAIL and a linear probe on the same ViLT.

    python examples/benchmarks/ragpt_scenes.py --seeds 0 1

70% of the rows miss their picture or their caption; 400 to train on, 1,000 to test on.
"""

import argparse
import time

import pandas as pd
import torch

from robustmm import (
    LinearProbeClassifier,
    MAILClassifier,
    MAPClassifier,
    RAGPTClassifier,
    drop_modalities,
)
from robustmm.datasets import make_scenes

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument("--epochs", type=int, default=6)
args = parser.parse_args()
torch.set_num_threads(1)

VILT = {"backbone": "robustmm/tiny-vilt"}
TRAINED = {**VILT, "batch_size": 32, "max_epochs": args.epochs}
RAGPT = {**TRAINED, "retriever_backbone": "robustmm/tiny-clip"}
FAST = {**RAGPT, "label_std": 0.1, "lr": 3e-3}


def classifiers(seed: int) -> dict:
    """Return what is compared."""
    return {
        "the default": RAGPTClassifier(**RAGPT, random_state=seed),
        "label_std=0.1": RAGPTClassifier(**RAGPT, label_std=0.1, random_state=seed),
        "lr=3e-3": RAGPTClassifier(**RAGPT, lr=3e-3, random_state=seed),
        "both": RAGPTClassifier(**FAST, random_state=seed),
        "both, no label token": RAGPTClassifier(
            **FAST, use_label_token=False, random_state=seed
        ),
        'both, pool="cls"': RAGPTClassifier(**FAST, pool="cls", random_state=seed),
        "both, no prompts": RAGPTClassifier(
            **FAST, use_prompts=False, random_state=seed
        ),
        "both, no generator": RAGPTClassifier(
            **FAST, use_generator=False, random_state=seed
        ),
        "MAP": MAPClassifier(**TRAINED, random_state=seed),
        "MAIL": MAILClassifier(**TRAINED, random_state=seed),
        "linear probe": LinearProbeClassifier(**VILT, random_state=seed),
    }


rows = []
for seed in args.seeds:
    X, y = make_scenes(1400, random_state=seed)
    X = drop_modalities(X, 0.7, "both", random_state=seed)
    for name, clf in classifiers(seed).items():
        start = time.perf_counter()
        clf.fit(X[:400], y[:400])
        record = {"trained": name, "seed": seed, "score": clf.score(X[400:], y[400:])}
        record["numbers"] = clf.n_trainable_parameters_
        record["seconds"] = time.perf_counter() - start
        rows.append(record)
        print(record, flush=True)
table = pd.DataFrame(rows).pivot_table(
    index="trained", columns="seed", values="score", sort=False
)
print(table.round(3).to_string())
