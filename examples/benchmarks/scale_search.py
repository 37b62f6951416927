"""How long two workers of Dask take for a 3 x 3 x 3 search, over one process.

Three ranks, three numbers of experts and three folds of MAIL on a tiny ViLT, first in
this process and then on a LocalCluster of two, each with one torch thread: once on new
workers, whose imports and backbones are part of the time, and once more on these. The
load of the machine is printed beside, as other programs take their part of both.

    python examples/benchmarks/scale_search.py [--rows 120] [--epochs 8]
"""

import argparse
import os
import time

import dask
import numpy as np
import torch
from distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from robustmm import MAILClassifier
from robustmm.datasets import make_scenes

GRID = {"rank": [1, 2, 4], "n_experts": [2, 3, 5]}


def timed(X, y, epochs: int) -> tuple[float, np.ndarray]:
    """Return seconds of a search, and the scores of each fold and candidate."""
    clf = MAILClassifier(
        "robustmm/tiny-vilt", max_epochs=epochs, random_state=0, device="cpu"
    )
    start = time.perf_counter()
    results = GridSearchCV(clf, GRID, cv=3, refit=False).fit(X, y).cv_results_
    seconds = time.perf_counter() - start
    return seconds, np.array([results[f"split{i}_test_score"] for i in range(3)])


def main() -> None:
    """Print both times, their ratio, and whether the scores are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    X, y = make_scenes(options.rows, n_classes=3, random_state=0)
    loads = [os.getloadavg()[0]]
    one, scores = timed(X, y, options.epochs)
    loads.append(os.getloadavg()[0])
    # Instead of Dask's own, which has memory given back in every step of a fit.
    dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as own,
        Client(own) as client,
        parallel_config("dask", client=client, scatter=[X, y]),
    ):
        new, found = timed(X, y, options.epochs)
        again, as_well = timed(X, y, options.epochs)
    loads.append(os.getloadavg()[0])
    equal = np.array_equal(scores, found) and np.array_equal(scores, as_well)
    print(f"27 fits in one process: {one:.1f} s, equal scores: {equal}")
    for what, two in (("new", new), ("the same", again)):
        print(f"on two {what} workers: {two:.1f} s, ratio {two / one:.3f}")
    print("load before, between, after:", *(f"{load:.1f}" for load in loads))


if __name__ == "__main__":
    main()
