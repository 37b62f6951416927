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

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[3])
parser.add_argument("--rows", type=int, default=4, help="rows of the batch")
parser.add_argument("--steps", type=int, default=3, help="timed steps of each kind")
parser.add_argument("--padded", type=int, default=512, help="the fixed length")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--prompt-lengths", type=int, nargs="+", default=[16, 4])
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

# %%
# A backbone of full size, and a batch of texts of 20 to 60 tokens
# ----------------------------------------------------------------

with tempfile.TemporaryDirectory() as folder:
    ViltModel(ViltConfig()).save_pretrained(folder)
    load_backbone("robustmm/tiny-vilt").tokenizer.save_pretrained(folder)
    backbone = load_backbone(folder, max_text_length=args.padded)

lengths = np.random.default_rng(0).integers(20, 61, args.rows)
lengths[:2] = 20, 60
mask = (torch.arange(args.padded) < torch.from_numpy(lengths)[:, None]).long()
present = torch.ones(args.rows, 2, dtype=torch.bool)
present[1::2, 0] = False  # every second image is missing, and white
images = torch.randn(args.rows, 3, 384, 384)
images[1::2] = 1.0
padded = {
    "input_ids": torch.randint(5, 600, mask.shape) * mask,
    "attention_mask": mask,
    "pixel_values": images,
    "present": present,
}
longest = int(lengths.max())
ragged = padded | {k: padded[k][:, :longest] for k in ("input_ids", "attention_mask")}
targets = torch.arange(args.rows) % 2

# %%
# The two steps, one after the other
# ----------------------------------


def seconds_of_step(module, optimizer, batch) -> tuple[float, float]:
    """Return the loss of a training step and how long the step took.

    In seconds of processor time, which other programs on the machine disturb least.
    """
    start = time.process_time()
    loss = F.cross_entropy(module(**batch), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), time.process_time() - start


def compare(prompt_length: int) -> dict:
    """Time both steps, which alternate, on modules that start alike."""
    clf = MemPromptClassifier(prompt_length=prompt_length)
    runs = {}
    for name, batch in (("ragged", ragged), ("padded", padded)):
        torch.manual_seed(0)
        module = clf._build_module(backbone.copy(), 2).train()
        trained = [p for p in module.parameters() if p.requires_grad]
        runs[name] = module, torch.optim.AdamW(trained, lr=1e-3), batch
    records = [
        {name: seconds_of_step(*run) for name, run in runs.items()}
        for _ in range(args.steps + 1)
    ]
    losses = {name: [record[name][0] for record in records] for name in runs}
    # The first step of each is a warm-up.
    times = {name: np.median([r[name][1] for r in records[1:]]) for name in runs}
    gaps = np.abs(np.subtract(losses["ragged"], losses["padded"]))
    return {
        "prompt_length": prompt_length,
        "ragged (CPU s)": times["ragged"],
        "padded (CPU s)": times["padded"],
        "times faster": times["padded"] / times["ragged"],
        "loss, first step": losses["ragged"][0],
        "gap, first step": gaps[0],
    }


table = pd.DataFrame([compare(length) for length in args.prompt_lengths])
print(
    f"{args.rows} rows, texts of {lengths.min()} to {longest} tokens, padded to "
    f"{args.padded}; images of 384 x 384; {args.threads} threads; median of "
    f"{args.steps} steps\n{table.to_string(index=False, float_format='{:.3g}'.format)}"
)
