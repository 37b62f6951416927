"""Predict a Dask DataFrame, lazily and into a folder that can be resumed.

    python examples/scale/predict_dask.py FOLDER [--rows 200]

FOLDER is made; it gets a table, a model and the answers.
"""

import argparse
from pathlib import Path

import dask
import dask.dataframe as dd
from dask.distributed import Client, LocalCluster

import robustmm
from robustmm import LinearProbeClassifier
from robustmm.datasets import make_scenes


def make_table(folder: Path, n_rows: int) -> None:
    """Write a saved model and a table of texts in four files."""
    X, y = make_scenes(60, n_classes=2, random_state=0)
    clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    robustmm.save(clf, folder / "model")
    table = X.assign(image=None).sample(n_rows, replace=True, random_state=0)
    table = table.reset_index(drop=True)
    (folder / "shop").mkdir()
    for i in range(4):
        table.iloc[i::4].to_parquet(folder / "shop" / f"{i}.parquet")


def answer(folder: Path):
    """Return the probabilities, and the files of the labels."""
    # [predict]
    from robustmm.distributed import predict

    frame = dd.read_parquet(folder / "shop")
    proba = predict(folder / "model", frame, method="predict_proba")
    print(proba.head())  # computes the first partition only

    files = predict(folder / "model", frame, output=folder / "labels", verbose=1)
    # [end]
    return proba.compute(), files


def main() -> None:
    """Start two workers, which a cluster of your own has already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    make_table(options.folder, options.rows)
    # Instead of Dask's own, which has memory given back in every step of a fit.
    dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as own,
        Client(own),
    ):
        proba, files = answer(options.folder)
    print(f"{len(proba)} rows in {len(files)} files")


if __name__ == "__main__":
    main()
