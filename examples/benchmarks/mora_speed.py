"""What MoRA costs: merged prediction, and an epoch with the frozen prefix at hand.

CLIP ViT-B/16 of full size with random weights, pictures of 224 pixels, on the CPU.
Everything is measured in turn, three times, by the clock and in seconds of the
processor, which other programs disturb less; the table shows the median of the ratios
and all of them. Needs no network; takes a few minutes.

    python examples/benchmarks/mora_speed.py [--rows 16] [--threads 1]
"""

import argparse
import tempfile
import time
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from skorch.callbacks import Callback
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from robustmm import MoRAClassifier, drop_modalities, load_backbone
from robustmm.datasets import make_scenes

REPEATS = 3
BATCH = 16


def write_clip(folder: str) -> CLIPModel:
    """Save a random CLIP ViT-B/16 with the tokenizer of an embedded backbone."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    text = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    model = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}, text_config=text))
    model.save_pretrained(folder)
    load_backbone("robustmm/tiny-clip").tokenizer.save_pretrained(folder)
    return model.eval()


def make_rows(n: int) -> tuple[pd.DataFrame, pd.Series]:
    """Draw captioned pictures, every picture another, of 224 pixels."""
    X, y = make_scenes(n, n_classes=2, random_state=0)
    large = [im.resize((224, 224), Image.Resampling.BICUBIC) for im in X["image"]]
    return X.assign(image=pd.Series(large, index=X.index, dtype=object)), y


def prepared(clf: MoRAClassifier, X: pd.DataFrame) -> list[dict]:
    """Return the batches that the bare model is timed on; preparing them is free."""
    rows = clf._check_X(X, reset=False)
    data = clf._dataset(clf.net_.module_.backbone, rows)
    # Sorted by length like the prediction's, so that padding costs both the same.
    data = torch.utils.data.Subset(data, np.argsort(data.text_lengths, kind="stable"))
    names = ("input_ids", "attention_mask", "pixel_values")
    batches = clf.net_.get_iterator(data, training=False)
    read = [{**batch, **batch["pictures"].pixels()} for batch, _ in batches]
    return [{name: batch[name] for name in names} for batch in read]


def now() -> np.ndarray:
    """Return the clock and the processor time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def seconds(function) -> np.ndarray:
    """Time one call, as :func:`now` does."""
    start = now()
    function()
    return now() - start


class EpochTimes(Callback):
    """Take the time at the end of every epoch."""

    times: ClassVar[list[np.ndarray]] = []

    def on_epoch_end(self, net, **kwargs) -> None:
        """Append to the list that copies share."""
        self.times.append(now())


def run_bare(model: CLIPModel, batches: list[dict]) -> None:
    """Run Hugging Face's own forward pass."""
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def epoch_seconds(options: dict, X: pd.DataFrame, y: pd.Series) -> np.ndarray:
    """Train two epochs and return the seconds of the second."""
    params = options["net_params"] | {"callbacks": [EpochTimes()]}
    MoRAClassifier(max_epochs=2, **options | {"net_params": params}).fit(X, y)
    first, second = EpochTimes.times[-2:]
    return second - first


def report(what: str, ours: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Print both times and return their ratios, by the clock and the processor."""
    times = [f"{clock:.2f} s ({busy:.2f} s busy)" for clock, busy in (ours, other)]
    print(f"{what}: {times[0]} against {times[1]}", flush=True)
    return ours / other


def measure(n_rows: int) -> dict[str, list[np.ndarray]]:
    """Return the ratios of each repetition."""
    X, y = make_rows(n_rows)
    holes = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    ratios = {name: [] for name in ("complete", "70% both", "warm epoch")}
    with tempfile.TemporaryDirectory() as folder:
        model = write_clip(folder)
        options = {"backbone": folder, "batch_size": BATCH, "random_state": 0}
        options |= {"device": "cpu", "cache": None}
        options["net_params"] = {"iterator_valid__batch_size": BATCH}
        few = np.concatenate([np.flatnonzero(y == c)[:2] for c in y.unique()])
        clf = MoRAClassifier(max_epochs=1, **options).fit(X.iloc[few], y.iloc[few])
        frames = {"complete": X, "70% both": holes}
        batches = {name: prepared(clf, frame) for name, frame in frames.items()}
        run_bare(model, batches["complete"][:1])
        for _ in range(REPEATS):
            for name, frame in frames.items():
                ours = seconds(lambda frame=frame: clf.predict(frame))
                bare = seconds(lambda name=name: run_bare(model, batches[name]))
                ratios[name].append(report(f"{name}: predict", ours, bare))
            warm = epoch_seconds(options | {"cache": "memory"}, X, y)
            without = epoch_seconds(options, X, y)
            ratios["warm epoch"].append(report("warm epoch", warm, without))
    return ratios


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    limits = {"complete": 1.03, "70% both": 0.75, "warm epoch": 0.45}
    for name, found in measure(given.rows).items():
        for kind, each in zip(("clock", "busy"), np.transpose(found), strict=True):
            all_of_them = ", ".join(f"{ratio:.3f}" for ratio in each)
            limit = f"at most {limits[name]}"
            print(f"{name}, {kind}: {np.median(each):.3f} ({limit}; {all_of_them})")


if __name__ == "__main__":
    main()
