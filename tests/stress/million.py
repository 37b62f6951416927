"""Predict a frame of a million rows: what it takes beside the table; run by hand."""

import argparse
import gc
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from contract import ToyClassifier, frame_with_holes, small


def resident() -> float:
    """Return the resident megabytes of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def many_rows(n_rows: int) -> pd.DataFrame:
    """Return rows with a text; every tenth has an image instead."""
    texts = np.array([f"hill {i % 1000}" for i in range(n_rows)], dtype=object)
    images = np.full(n_rows, None, dtype=object)
    pixels = np.zeros((4, 4, 3), np.uint8)
    for i in range(0, n_rows, 10):
        texts[i], images[i] = None, pixels
    texts = pd.Series(texts, dtype=object)
    return pd.DataFrame({"image": pd.Series(images), "text": texts})


def main() -> None:
    """Say how much memory a prediction took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n_rows = parser.parse_args().rows
    torch.set_num_threads(1)
    clf = small(ToyClassifier, backbone="robustmm/tiny-bert").fit(*frame_with_holes())
    X = many_rows(n_rows)
    clf.predict(X[:100])
    gc.collect()
    before, peak, over = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    proba = clf.predict_proba(X)
    seconds = time.process_time() - start
    over.set()
    watcher.join()
    print(
        f"{n_rows} rows: {before:.0f} MB before, +{peak[0] - before:.0f} MB at peak, "
        f"result {proba.nbytes / 1e6:.0f} MB, {seconds:.0f} s of processor time"
    )


if __name__ == "__main__":
    main()
