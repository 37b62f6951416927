"""What MoRA costs: merged prediction, and an epoch with the frozen prefix at hand.

CLIP ViT-B/16 of full size with random weights, pictures of 224 pixels, on the CPU.
Everything is measured in turn, three times; the table shows the median of the ratios
and all of them. Needs no network; takes about five minutes on two cores.

    python examples/benchmarks/mora_speed.py [--rows 32] [--threads 2]
"""

import argparse
import tempfile
import time

import numpy as np
import pandas as pd
import torch
from PIL import Image
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
    return [{name: batch[name] for name in names} for batch, _ in batches]


def seconds(function) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run_bare(model: CLIPModel, batches: list[dict]) -> None:
    """Run Hugging Face's own forward pass."""
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def epoch_seconds(options: dict, X: pd.DataFrame, y: pd.Series) -> float:
    """Train two epochs and return the seconds of the second."""
    return MoRAClassifier(max_epochs=2, **options).fit(X, y).history_["dur"].iloc[-1]


def measure(n_rows: int) -> dict[str, list[float]]:
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
                ratios[name].append(ours / bare)
                print(f"{name}: predict {ours:.2f} s, bare forward {bare:.2f} s")
            warm = epoch_seconds(options | {"cache": "memory"}, X, y)
            without = epoch_seconds(options, X, y)
            ratios["warm epoch"].append(warm / without)
            print(f"epoch: warm {warm:.2f} s, without cache {without:.2f} s")
    return ratios


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    limits = {"complete": 1.03, "70% both": 0.75, "warm epoch": 0.45}
    for name, found in measure(given.rows).items():
        each = ", ".join(f"{ratio:.3f}" for ratio in found)
        middle = np.median(found)
        print(f"{name}: {middle:.3f} (at most {limits[name]}; each: {each})")


if __name__ == "__main__":
    main()
