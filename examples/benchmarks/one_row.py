"""What a prediction of one row costs over the bare forward of the same batch.

Encoders of tiny layers with random weights, so that what is measured is all that stands
around them: reading the row, the picture, the tokenizer, the batch. The tokenizers are
those of a folder, such as ``bert-base-uncased`` or CLIP's, or the small one of an
embedded encoder. Both sides are measured in turn, in one run, by the clock and in the
processor's time, which other programs disturb less. Needs no network; takes half a
minute.

    python examples/benchmarks/one_row.py [--tokenizer FOLDER ...] [--repeats 200]
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, CLIPConfig, CLIPModel
from transformers.utils import logging

from robustmm import CMPTClassifier, load_backbone
from robustmm.datasets import make_scenes

WARM = 20
SMALL = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 128}


def open_tokenizer(folder: str | None):
    """Return the tokenizer of a folder, or that of an embedded encoder."""
    if folder is None:
        return load_backbone("robustmm/tiny-clip").tokenizer
    return AutoTokenizer.from_pretrained(folder)


def write_bert(tokenizer, folder: Path) -> None:
    """Save a random BERT of one layer with a tokenizer."""
    BertModel(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_clip(tokenizer, folder: Path) -> None:
    """Save a random CLIP of one layer with a tokenizer."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    special = {name: getattr(tokenizer, name) for name in names}
    text = SMALL | special | {"vocab_size": len(tokenizer)}
    vision = SMALL | {"image_size": 48, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = load_backbone("robustmm/tiny-clip").image_config
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make_classifier(tokenizer, folder: str) -> CMPTClassifier:
    """Return an unfitted classifier whose text encoder reads with a tokenizer."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    image, path = "robustmm/tiny-clip", Path(folder)
    # BERT's texts begin with a token of their class, CLIP's end with one of their own.
    if tokenizer.eos_token_id is None:
        write_bert(tokenizer, path)
    else:
        write_clip(tokenizer, path)
        image = path
    return CMPTClassifier(image, path, max_epochs=1, device="cpu", random_state=0)


def bare_forward(clf, row: pd.DataFrame):
    """Return a function that runs the module on a row's batch, made beforehand."""
    module = clf.net_.module_
    data = clf._dataset(module.backbone, clf._check_X(row, reset=False))
    batch, _ = clf._collate(module.backbone)([data[0]])
    batch |= batch["pictures"].pixels()
    names = ("present", "input_ids", "attention_mask", "pixel_values")
    batch = {name: batch[name] for name in names}

    def forward() -> None:
        with torch.inference_mode():
            module(**batch)

    return forward


def now() -> np.ndarray:
    """Return the clock and the processor time of this process, in milliseconds."""
    return 1000 * np.array([time.perf_counter(), time.process_time()])


def milliseconds(function) -> np.ndarray:
    """Time one call, as :func:`now` does."""
    start = now()
    function()
    return now() - start


def sides(clf, row: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Time the prediction of a row, and then the forward of its batch."""
    predict = milliseconds(lambda: clf.predict(row))
    return milliseconds(bare_forward(clf, row)), predict


def compare(folder: str | None, repeats: int) -> dict:
    """Fit with one tokenizer; return medians of both sides and of the difference."""
    tokenizer = open_tokenizer(folder)
    X, y = make_scenes(32 + WARM + repeats, n_classes=2, random_state=0)
    with tempfile.TemporaryDirectory() as files:
        clf = make_classifier(tokenizer, files).fit(X[:32], y[:32])
        # Each row another, so that no cache knows its picture.
        rows = [X.iloc[[i]] for i in range(32, len(X))]
        times = [sides(clf, row) for row in rows]
    times = np.array(times[WARM:])  # (repeats, 2 sides, 2 clocks)
    (forward, _), (predict, _) = np.median(times, axis=0)
    over, processor = np.median(times[:, 1] - times[:, 0], axis=0)
    figures = {"forward ms": forward, "predict ms": predict, "over ms": over}
    figures["over, processor ms"] = processor
    return {"tokenizer": Path(folder or "embedded").name, "words": len(tokenizer)} | {
        name: round(float(value), 2) for name, value in figures.items()
    }


def main() -> None:
    """Measure with each of the tokenizers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokenizer", nargs="*", default=[None], metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = [compare(folder, options.repeats) for folder in options.tokenizer]
    print(pd.DataFrame(table).to_string(index=False))


if __name__ == "__main__":
    main()
