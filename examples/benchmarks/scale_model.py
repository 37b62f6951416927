"""What larger clusters would give, computed from parts that are measured here.

The parts: what a task costs beside its work, what a worker takes to open a model, bytes
that a task sends, rows per second, and bytes of gradients of adapters and of all
weights. From them, and a search on two workers that is timed, the efficiency: the time
of one worker over ``n`` times the time of ``n``.

Of ``k`` tasks of ``t`` seconds, of which the scheduler passes one every ``o`` seconds,
after a start of ``s``, ``n`` workers need ``s + max(ceil(k / n) (t + o), k o)``. A step
of ``t`` seconds that averages ``b`` bytes of gradients over a network of ``w`` bytes a
second needs ``t + 2 (n - 1) / n * b / w``, as in a ring; latency is left out.

    python examples/benchmarks/scale_model.py [--out FILE.json]
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import cloudpickle
import dask
import dask.dataframe as dd
import pandas as pd
import torch
from distributed import Client, LocalCluster
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import GridSearchCV
from transformers import CLIPConfig, CLIPModel

from robustmm import LinearProbeClassifier, MoRAClassifier
from robustmm.backbones import Backbone
from robustmm.backbones.clip import ClipImageStream, ClipTextStream
from robustmm.datasets import make_scenes
from robustmm.distributed import predict
from robustmm.distributed.packing import pack_model

SIZES = (2, 8, 64)
NETWORK = 10e9 / 8  # bytes per second: 10 Gbit/s
GRID = {"rank": [1, 2, 4], "lr": [1e-3, 3e-3]}


def nothing() -> None:
    """A task without work."""


def clock(call) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def search(X, y) -> None:
    """Twelve fits."""
    clf = MoRAClassifier("robustmm/tiny-clip", max_epochs=4, random_state=0)
    GridSearchCV(clf, GRID, cv=2, refit=False).fit(X, y)


def measure(n_rows: int) -> dict:
    """Return the parts."""
    X, y = make_scenes(n_rows, n_classes=3, random_state=0)
    probe = LinearProbeClassifier("robustmm/tiny-clip", device="cpu").fit(X, y)
    texts = pd.concat([X[["text"]].assign(image=None)] * 20, ignore_index=True)
    frame = dd.from_pandas(texts, npartitions=8)
    parts = {"model_bytes": len(pack_model(probe)[1])}
    # Beside the table, which is sent once.
    clf = MoRAClassifier("robustmm/tiny-clip")
    parts["bytes_per_task"] = len(cloudpickle.dumps((clf, list(range(n_rows)))))
    parts["search_seconds_alone"] = clock(lambda: search(X, y))
    # Instead of Dask's own, which has memory given back in every step of a fit.
    dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as own,
        Client(own) as client,
        parallel_config("dask", client=client, scatter=[X, y]),
    ):
        first = predict(probe, frame.partitions[:2], device="cpu")
        parts["first_partitions_seconds"] = clock(first.compute)
        parts["rows_per_second_of_two"] = len(texts) / clock(
            predict(probe, frame, device="cpu").compute
        )
        parts["start_seconds"] = parts["first_partitions_seconds"] - clock(
            first.compute
        )
        calls = [delayed(nothing)() for _ in range(200)]
        run = Parallel(n_jobs=-1, batch_size=1)
        parts["task_overhead_seconds"] = clock(lambda: run(calls)) / len(calls)
        parts["search_seconds_of_two"] = clock(lambda: search(X, y))
    return parts | gradients()


def gradients() -> dict:
    """Return bytes of float32 gradients on CLIP ViT-B/16, by counting parameters."""
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}))
    streams = {
        "image": ClipImageStream.of_clip(model),
        "text": ClipTextStream.of_clip(model),
    }
    backbone = Backbone(streams, sources={}, identities={})
    module = MoRAClassifier(cache=None)._build_module(backbone, 101)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    return {"adapter_bytes": 4 * trained, "full_bytes": 4 * everything}


def of_tasks(n: int, k: int, t: float, parts: dict, start: float) -> float:
    """Return the efficiency of ``n`` workers with ``k`` tasks of ``t`` seconds."""
    overhead = parts["task_overhead_seconds"]

    def seconds(n: int) -> float:
        return start + max(math.ceil(k / n) * (t + overhead), k * overhead)

    return seconds(1) / (n * seconds(n))


def of_steps(n: int, t: float, n_bytes: int) -> float:
    """Return the efficiency of ``n`` processes with steps of ``t`` seconds."""
    return t / (t + 2 * (n - 1) / n * n_bytes / NETWORK)


def model(parts: dict) -> dict:
    """Return efficiencies by what is done and by the number of workers."""
    per_fit = parts["search_seconds_alone"] / 12
    per_row = 2 / parts["rows_per_second_of_two"]
    start = parts["start_seconds"]
    kinds = {
        "12 fits, as measured": lambda n: of_tasks(n, 12, per_fit, parts, 0.0),
        "600 fits of a minute": lambda n: of_tasks(n, 600, 60, parts, start),
        "600 fits of a second": lambda n: of_tasks(n, 600, 1, parts, start),
        "1e8 rows by 100,000": lambda n: of_tasks(n, 1000, 1e5 * per_row, parts, start),
        "steps of 0.2 s, adapters": lambda n: of_steps(n, 0.2, parts["adapter_bytes"]),
        "steps of 0.2 s, all weights": lambda n: of_steps(n, 0.2, parts["full_bytes"]),
    }
    return {name: {n: round(of(n), 3) for n in SIZES} for name, of in kinds.items()}


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=90)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    parts = measure(options.rows)
    alone, two = parts["search_seconds_alone"], parts["search_seconds_of_two"]
    found = {
        "parts": {name: round(value, 4) for name, value in parts.items()},
        "measured_efficiency_of_two": round(alone / (2 * two), 3),
        "computed": model(parts),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
