"""Call one fitted classifier of every class from many threads, and count what differs.

``python tests/stress/threads.py --threads 8 --calls 1000`` prints a line per class: how
many calls raised, and how many gave other numbers than the same call alone. It ends
with status 1 if there was any. Not part of the test suite, which makes a few calls.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from contract import frame_with_holes, public_classifiers, small

torch.set_num_threads(1)


def count(classifier, n_threads: int, n_calls: int) -> tuple[int, int]:
    """Return how many calls raised, and how many gave other numbers than alone."""
    X, y = frame_with_holes()
    fitted = small(classifier).fit(X, y)
    # Single rows and a few, so that what is missing differs from call to call.
    parts = [X.iloc[i : i + 1 + i % 3] for i in range(len(X) - 2)]
    alone = [fitted.predict_proba(part) for part in parts]

    def call(number: int) -> str:
        place = number % len(parts)
        try:
            proba = fitted.predict_proba(parts[place])
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "" if np.array_equal(proba, alone[place]) else "other numbers"

    with ThreadPoolExecutor(n_threads) as pool:
        outcomes = list(pool.map(call, range(n_threads * n_calls)))
    differ = outcomes.count("other numbers")
    raised = [o for o in outcomes if o not in ("", "other numbers")]
    for reason in sorted(set(raised))[:3]:
        print(f"    {reason}")
    return len(raised), differ


def main() -> int:
    """Run all classes; return the number of calls that were not as they are alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--calls", type=int, default=1000, help="of each thread")
    options = parser.parse_args()
    wrong = 0
    for classifier in public_classifiers():
        start = time.perf_counter()
        raised, differ = count(classifier, options.threads, options.calls)
        wrong += raised + differ
        total = options.threads * options.calls
        print(
            f"{classifier.__name__}: {total} calls, {raised} raised, {differ} differ "
            f"({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
