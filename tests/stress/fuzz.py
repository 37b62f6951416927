"""Throw hostile rows at a fitted classifier and count what becomes of them.

``python tests/stress/fuzz.py --tables 3000 --seed 1`` predicts so many random tables of
one to six rows, each together and row by row, and prints how many rows were read, had a
bad image or were empty. Damaged files start from two photographs that come with
scikit-learn. Ends with the table, as code, on the first crash, wrong row name, hang of
20 s or difference between a row alone and among others. Not part of the test suite,
which draws 60 such tables.
"""

import argparse
import collections
import contextlib
import faulthandler
import sys
import time
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1]))


def main():
    """Draw the tables and print the counts."""
    from contract import ToyClassifier, frame_with_holes, small
    from hostile import outcome, tables

    import robustmm

    classes = {
        "clip": (ToyClassifier, {}),
        "vilt": (robustmm.MAPClassifier, {}),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=250, help="stop after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", choices=list(classes), default="clip")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cls, params = classes[options.backbone]
    clf = small(cls, **params).fit(*frame_with_holes())
    counts, slowest, n_tables = collections.Counter(), 0.0, 0

    @seed(options.seed)
    @given(table=tables())
    @settings(
        max_examples=options.tables,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(table):
        nonlocal slowest, n_tables
        if time.perf_counter() - begun > options.seconds:
            raise KeyboardInterrupt
        faulthandler.dump_traceback_later(20, exit=True)
        start = time.perf_counter()
        counts.update(outcome(clf, table))
        slowest = max(slowest, time.perf_counter() - start)
        n_tables += 1
        faulthandler.cancel_dump_traceback_later()

    begun = time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C prints the counts too
        run()
    rows = sum(counts.values())
    print(
        f"{cls.__name__}, seed {options.seed}: {n_tables} tables, {rows} rows in "
        f"{time.perf_counter() - begun:.0f} s, slowest table {slowest:.2f} s: "
        + ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    )


if __name__ == "__main__":
    main()
