"""A grid search, a cross-validation and a comparison on the workers of Dask.

python examples/scale/search_dask.py [--rows 60]
"""

import argparse

import dask
from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, cross_validate

from robustmm import LinearProbeClassifier, MoRAClassifier, compare_methods
from robustmm.datasets import make_scenes


def search(client, X, y) -> GridSearchCV:
    """Search on the cluster."""
    # [search]
    clf = MoRAClassifier("robustmm/tiny-clip", max_epochs=2, random_state=0)
    search = GridSearchCV(clf, {"rank": [2, 4], "lr": [1e-3, 3e-3]}, cv=3)
    with parallel_config("dask", client=client, scatter=[X, y]):
        search.fit(X, y)
    # [end]
    return search


def evaluate(client, X, y) -> tuple:
    """Cross-validate and compare on the cluster."""
    # [evaluate]
    probe = LinearProbeClassifier("robustmm/tiny-clip")
    with parallel_config("dask", client=client, scatter=[X, y]):
        scores = cross_validate(probe, X, y, cv=3)
    with parallel_config("dask", client=client):
        strong = LinearProbeClassifier("robustmm/tiny-clip", C=10.0)
        table = compare_methods({"probe": probe, "strong": strong}, X, y, rate=0.5)
    # [end]
    return scores, table


def main() -> None:
    """Start two workers, which a cluster of your own has already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60)
    X, y = make_scenes(parser.parse_args().rows, n_classes=2, random_state=0)
    # [cluster]
    # Instead of Dask's own, which has memory given back in every step of a fit.
    dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as own,
        Client(own) as client,
    ):
        print(search(client, X, y).best_params_)
        # [end]
        scores, table = evaluate(client, X, y)
        print(scores["test_score"].mean(), table["score_mean"].to_dict())


if __name__ == "__main__":
    main()
