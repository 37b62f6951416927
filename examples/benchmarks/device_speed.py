"""How many rows a second each method trains on and predicts, on a GPU or on the CPU.

CLIP ViT-B/16, ViLT-B/32 and BERT of full size with random weights, JPEGs of 640 x 480
pixels and captions of scenes. The first epoch decodes every picture, later ones find it
in the cache; ``bare`` is the forward pass of Hugging Face's own model on batches that
are on the device already. Needs no network.

    python examples/benchmarks/device_speed.py [--device cuda] [--rows 512]
        [--workers 8] [--methods MAIL ...]
"""

import argparse
import io
import tempfile
import time
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from mora_speed import write_clip
from skorch.callbacks import Callback
from transformers import BertConfig, BertModel, CLIPModel, ViltConfig, ViltModel

import robustmm
from robustmm.datasets import make_scenes
from robustmm.training.device import autocast_type, resolve_device

METHODS = {
    "MAIL": robustmm.MAILClassifier(),
    "MemPrompt": robustmm.MemPromptClassifier(),
    "DeLo": robustmm.DeLoClassifier(),
    "MoRA": robustmm.MoRAClassifier(),
    "CMPT": robustmm.CMPTClassifier(),
    "LoRA": robustmm.FineTuneClassifier(tune="lora"),
    "full": robustmm.FineTuneClassifier(tune="full"),
    "probe": robustmm.LinearProbeClassifier(),
}
EPOCHS = 3


def write_backbones(folder: str) -> dict[str, str]:
    """Save the encoders with tokenizers of embedded ones."""
    paths = {name: f"{folder}/{name}" for name in ("clip", "vilt", "bert")}
    write_clip(paths["clip"])
    words = robustmm.load_backbone("robustmm/tiny-vilt").tokenizer
    others = {"vilt": ViltModel(ViltConfig()), "bert": BertModel(BertConfig())}
    for name, model in others.items():
        model.save_pretrained(paths[name])
        words.save_pretrained(paths[name])
    return paths


def make_rows(n: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Draw captioned pictures as JPEGs of 640 x 480 pixels."""
    X, y = make_scenes(n, n_classes=4, random_state=seed)
    cells = []
    for image in X["image"]:
        image.resize((640, 480)).save(stream := io.BytesIO(), "JPEG")
        cells.append(stream.getvalue())
    return X.assign(image=pd.Series(cells, index=X.index, dtype=object)), y


def clock(device: torch.device) -> float:
    """Return the time at which the device is done with what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class EpochEnds(Callback):
    """Write down when every epoch ends."""

    times: ClassVar[list[float]] = []
    device: ClassVar[torch.device] = torch.device("cpu")

    def on_epoch_end(self, net, **kwargs) -> None:
        """Append to the list that copies share."""
        self.times.append(clock(self.device))


def bare_speed(path: str, batch_size: int, device: torch.device) -> float:
    """Rows a second of the forward pass alone."""
    is_clip = path.endswith("clip")
    model = (CLIPModel if is_clip else ViltModel).from_pretrained(path)
    model = model.to(device).eval()
    side = 224 if is_clip else 384
    batch = {
        "input_ids": torch.full((batch_size, 16), 5, device=device),
        "attention_mask": torch.ones(batch_size, 16, dtype=torch.long, device=device),
        "pixel_values": torch.zeros(batch_size, 3, side, side, device=device),
    }
    kind = autocast_type("auto", device)
    cast = torch.autocast(device.type, dtype=kind, enabled=kind is not None)
    repeats = 20 if device.type == "cuda" else 2
    with torch.inference_mode(), cast:
        model(**batch)
        start = clock(device)
        for _ in range(repeats):
            model(**batch)
        return repeats * batch_size / (clock(device) - start)


def measure(clf, rows, options: dict, device: torch.device) -> dict[str, float]:
    """Rows a second of the first and the last epoch and of predictions, and memory."""
    train, y, new = rows
    params = {"random_state": 0, "verbose": 0, "device": str(device)}
    params |= {"max_epochs": EPOCHS, "batch_size": options["batch_size"]}
    clf.set_params(**{k: v for k, v in params.items() if k in clf.get_params()})
    net_params = {"callbacks": [EpochEnds()]}
    if options["workers"]:
        for part in ("train", "valid"):
            net_params[f"iterator_{part}__num_workers"] = options["workers"]
    if "max_epochs" in clf.get_params():
        clf.set_params(net_params=net_params)
    EpochEnds.times.clear()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = clock(device)
    clf.fit(train, y)
    found = {"whole fit (s)": clock(device) - start}
    ends = EpochEnds.times
    if len(ends) == EPOCHS:
        found["later epochs"] = len(train) * (EPOCHS - 1) / (ends[-1] - ends[0])
    start = clock(device)
    clf.predict(new)
    found["predict"] = len(new) / (clock(device) - start)
    start = clock(device)
    clf.predict(new)
    found["predict again"] = len(new) / (clock(device) - start)
    if device.type == "cuda":
        found["peak (GB)"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    given = parser.parse_args()
    device = EpochEnds.device = resolve_device(given.device)
    X, y = make_rows(given.rows, seed=0)
    X = robustmm.drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    new, _ = make_rows(given.rows // 2, seed=1)
    options = {"workers": given.workers, "batch_size": given.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_backbones(folder)
        for name, path in list(paths.items())[:2]:
            speed = bare_speed(path, given.batch_size, device)
            print(f"bare {name}: {speed:.0f} rows/s", flush=True)
        for name in given.methods:
            clf = METHODS[name]
            path = paths["vilt" if "joint" in (clf.STREAMS or ()) else "clip"]
            if name == "CMPT":
                clf.set_params(image_backbone=path, text_backbone=paths["bert"])
            else:
                clf.set_params(backbone=path)
            found = measure(clf, (X, y, new), options, device)
            parts = [f"{what} {value:.1f}" for what, value in found.items()]
            print(f"{name} ({np.size(X, 0)} rows): " + ", ".join(parts), flush=True)


if __name__ == "__main__":
    main()
