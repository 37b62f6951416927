"""Peak memory of a fit on rows of bytes: ``memory_of_fit.py frame|stored N_ROWS``."""

import io
import json
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from robustmm import store_table

ROWS_OF_A_FRAME = 1000


def anonymous():
    """Bytes that are the process' own: no page of a file, which can be let go."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("no RssAnon")


class Peak(threading.Thread):
    """Look at the memory every 20 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self.most = threading.Event(), 0

    def run(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, anonymous())


def frames(n_rows):
    """Frames of 5 kB pictures, no two of them equal, and texts."""
    rng, files = np.random.default_rng(0), []
    for _ in range(100):
        file = io.BytesIO()
        noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "PNG")
        files.append(file.getvalue())
    for start in range(0, n_rows, ROWS_OF_A_FRAME):
        rows = range(start, min(n_rows, start + ROWS_OF_A_FRAME))
        # What follows the end of a PNG is not read.
        images = [files[i % 100] + i.to_bytes(8, "big") for i in rows]
        texts = [f"a picture of the number {i}" if i % 3 else None for i in rows]
        frame = {"image": images, "text": texts, "label": [i % 2 for i in rows]}
        yield pd.DataFrame(frame)


def main(kind, n_rows):
    from toys import QuickClassifier

    torch.set_num_threads(1)
    clf = QuickClassifier(batch_size=128)
    clf.cache = None  # that of pictures has a limit of its own
    clf.fit(*(lambda few: (few, few["label"]))(next(frames(256))))
    before, peak = anonymous(), Peak()
    peak.start()
    with tempfile.TemporaryDirectory() as folder:
        if kind == "stored":
            table = store_table(frames(n_rows), Path(folder) / "rows.arrow")
            y = table["label"].to_numpy()
        else:
            table = pd.concat(frames(n_rows), ignore_index=True)
            y = table["label"].to_numpy()
        clf.fit(table, y)
        peak.over.set()
        peak.join()
    bias = clf.net_.module_.head.bias.detach().numpy()
    found = {"before": before, "peak": peak.most, "bias": bias.tolist()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
