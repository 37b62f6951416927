"""
What padding costs MemPrompt
============================

One training step of MemPrompt on a full-size ViLT-B/32 with random weights: the texts
of a batch padded to its longest text, as robustmm does, against every text padded to a
fixed length, as the papers do. Positions are those of the fixed length in both, so both
compute the same loss. Runs on the CPU.
"""

import argparse
import tempfile
import time

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from transformers import ViltConfig, ViltModel

from robustmm import MemPromptClassifier, load_backbone

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--rows", type=int, default=2, help="rows of the batch")
parser.add_argument("--steps", type=int, default=2, help="timed steps of each kind")
parser.add_argument("--padded", type=int, nargs="+", default=[512, 1024])
parser.add_argument("--prompt-lengths", type=int, nargs="+", default=[16, 4])
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

# %%
# A batch of texts of 20 to 60 tokens
# -----------------------------------

lengths = np.random.default_rng(0).integers(20, 61, args.rows)
lengths[:2] = 20, 60
longest = int(lengths.max())
present = torch.ones(args.rows, 2, dtype=torch.bool)
present[1::2, 0] = False  # every second image is missing, and white
images = torch.randn(args.rows, 3, 384, 384)
images[1::2] = 1.0
words = torch.randint(5, 600, (args.rows, longest))
targets = torch.arange(args.rows) % 2


def batch_of_length(size: int) -> dict:
    """Return the batch with all texts padded to ``size`` tokens."""
    mask = (torch.arange(size) < torch.from_numpy(lengths)[:, None]).long()
    ids = F.pad(words, (0, size - longest)) * mask
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": images,
        "present": present,
    }


# %%
# Both kinds of step, one after the other
# ---------------------------------------


def step(module, optimizer, batch) -> tuple[float, float]:
    """Make a training step; return its loss and how long it took.

    In seconds of processor time, which other programs on the machine disturb least.
    """
    start = time.process_time()
    loss = F.cross_entropy(module(**batch), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), time.process_time() - start


def compare(backbone, size: int, prompt_length: int) -> dict:
    """Time both kinds, which alternate, on modules that start alike."""
    clf = MemPromptClassifier(prompt_length=prompt_length)
    runs = {}
    for name, length in (("ragged", longest), ("padded", size)):
        torch.manual_seed(0)
        module = clf._build_module(backbone.copy(), 2).train()
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        runs[name] = module, optimizer, batch_of_length(length)
    records = [
        {name: step(*run) for name, run in runs.items()} for _ in range(args.steps + 1)
    ]
    # The first step of each is a warm-up; it alone starts from equal weights.
    seconds = {name: np.median([r[name][1] for r in records[1:]]) for name in runs}
    losses = {name: records[0][name][0] for name in runs}
    return {
        "padded to": size,
        "prompt_length": prompt_length,
        "padded (CPU s)": seconds["padded"],
        "ragged (CPU s)": seconds["ragged"],
        "times faster": seconds["padded"] / seconds["ragged"],
        "loss": losses["ragged"],
        "difference of losses": losses["ragged"] - losses["padded"],
    }


rows = []
with tempfile.TemporaryDirectory() as folder:
    ViltModel(ViltConfig()).save_pretrained(folder)
    load_backbone("robustmm/tiny-vilt").tokenizer.save_pretrained(folder)
    for size in args.padded:
        backbone = load_backbone(folder, max_text_length=size)
        rows += [compare(backbone, size, length) for length in args.prompt_lengths]
table = pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format)
print(
    f"{args.rows} rows, texts of {lengths.min()} to {longest} tokens, images of 384 x "
    f"384; {args.threads} thread(s); median of {args.steps} steps\n{table}"
)
