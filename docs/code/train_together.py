"""One fit of all processes: ``torchrun --nproc-per-node 2 train_together.py``."""

import os
import sys

import pandas as pd

import robustmm


def main(table: str, folder: str) -> None:
    frame = pd.read_csv(table)
    clf = robustmm.CMPTClassifier._small(
        batch_size=16,  # of each process
        max_epochs=3,
        random_state=0,
        verbose=1,  # one bar, that of the first process
    )
    clf.fit(frame, frame["label"])
    # All have the same model now: one of them saves it.
    if os.environ.get("RANK", "0") == "0":
        robustmm.save(clf, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
