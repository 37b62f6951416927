"""
What MAIL's experts cost
========================

Two figures on ViLT-B/32 with random weights: the stacked experts against loops over
experts that compute the same, and a forward pass of the whole adapted model against
the frozen one. Calls take turns, and the fastest of each counts, so that other work on
the machine disturbs all alike.
"""

import argparse
import time

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ViltConfig, ViltModel

from robustmm import MAILClassifier
from robustmm.adapters import Experts
from robustmm.backbones import Backbone
from robustmm.backbones.vilt import ViltStream

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--batch-size", type=int, default=8, help="rows")
parser.add_argument("--words", type=int, default=40, help="tokens of every text")
parser.add_argument("--side", type=int, default=384, help="pixels of an image side")
parser.add_argument("--n-experts", type=int, default=5, help="experts of each linear")
parser.add_argument("--rank", type=int, default=4, help="rank of each expert")
parser.add_argument("--repeats", type=int, default=15, help="calls of each")
parser.add_argument("--threads", type=int, default=None, help="torch threads")
args = parser.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)
torch.manual_seed(0)


def fastest(**calls) -> dict[str, float]:
    """Milliseconds of the fastest of several calls of each function."""
    times = {name: [] for name in calls}
    for _ in range(args.repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(taken[1:]) for name, taken in times.items()}


# %%
# The experts alone
# -----------------


def chosen_by(experts: Experts, p: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gates and numbers of the chosen experts of linear ``p``, (tokens, k) each."""
    probabilities = F.linear(x, experts.router.weight[p]).softmax(dim=-1)
    gates, chosen = probabilities.topk(experts.router.top_k, dim=-1)
    return gates / gates.sum(dim=-1, keepdim=True), chosen


def gathering_loop(experts: Experts, x: Tensor, outputs: list[Tensor]) -> None:
    """Each expert in turn computes the tokens that chose it."""
    for p, y in enumerate(outputs):
        gates, chosen = chosen_by(experts, p, x)
        for n in range(experts.down.shape[1]):
            token, slot = torch.where(chosen == n)
            update = x[token] @ experts.down[p, n].T @ experts.up[p, n]
            weight = experts.scale * gates[token, slot, None]
            y.index_add_(0, token, weight * update)


def dense_loop(experts: Experts, x: Tensor, outputs: list[Tensor]) -> None:
    """Each expert in turn computes all tokens, most of them with a gate of zero."""
    for p, y in enumerate(outputs):
        gates, chosen = chosen_by(experts, p, x)
        for n in range(experts.down.shape[1]):
            update = x @ experts.down[p, n].T @ experts.up[p, n]
            gate = (gates * (chosen == n)).sum(dim=-1, keepdim=True)
            y += experts.scale * gate * update


def compare_experts(d_out: int, n_linears: int, tokens: int) -> dict:
    """Time the three on the same input, after checking that they agree."""
    size = 768, d_out, args.n_experts, args.rank
    experts = Experts(*size, n_linears, alpha=2.0 * args.rank).eval()
    experts.up.normal_()
    x = torch.randn(tokens, 768)
    calls = {"stacked": experts, "gathering": gathering_loop, "dense": dense_loop}
    outputs = {k: [torch.zeros(tokens, d_out) for _ in range(n_linears)] for k in calls}
    experts(x, outputs["stacked"])
    for name in ("gathering", "dense"):
        calls[name](experts, x, outputs[name])
        for y, expected in zip(outputs[name], outputs["stacked"], strict=True):
            torch.testing.assert_close(y, expected, atol=1e-3, rtol=1e-4)
    return fastest(
        stacked=lambda: experts(x, outputs["stacked"]),
        gathering=lambda: gathering_loop(experts, x, outputs["gathering"]),
        dense=lambda: dense_loop(experts, x, outputs["dense"]),
    )


tokens = args.batch_size * (args.words + 1 + (args.side // 32) ** 2)
with torch.inference_mode():
    alone = pd.DataFrame(
        {
            "query, key, value": compare_experts(768, 3, tokens),
            "up": compare_experts(3072, 1, tokens),
        }
    ).T
for name in ("gathering", "dense"):
    alone[f"{name} / stacked"] = alone[name] / alone["stacked"]
print(f"Experts alone, {tokens} tokens, {torch.get_num_threads()} threads, ms")
print(alone.round(2).to_string(), "\n")

# %%
# The whole model
# ---------------

backbone = Backbone(
    {"joint": ViltStream(ViltModel(ViltConfig()))}, sources={}, identities={}
)
frozen = backbone.copy()["joint"]
batch = {
    "input_ids": torch.randint(5, 1000, (args.batch_size, args.words)),
    "attention_mask": torch.ones(args.batch_size, args.words, dtype=torch.long),
    "pixel_values": torch.randn(args.batch_size, 3, args.side, args.side),
    "present": torch.ones(args.batch_size, 2, dtype=torch.bool),
}


def adapted_model(targets: str) -> torch.nn.Module:
    """MAIL's module for 23 classes around the same frozen weights."""
    classifier = MAILClassifier(
        targets=targets, n_experts=args.n_experts, rank=args.rank
    )
    return classifier._build_module(backbone.copy(), 23).eval()


def frozen_features() -> Tensor:
    """What the frozen model makes of the batch, (B, d)."""
    return frozen.pooler(frozen.pool(frozen.run(frozen.embed(**batch))))


rows = {}
with torch.inference_mode():
    modules = {name: adapted_model(name) for name in ("linear", "attention", "both")}
    calls = {k: lambda m=m: m.features(**batch) for k, m in modules.items()}
    apart = {k: (c() - frozen_features()).abs().max().item() for k, c in calls.items()}
    times = fastest(frozen=frozen_features, **calls)
for name, module in modules.items():
    experts = [p.numel() for n, p in module.named_parameters() if ".experts." in n]
    rows[name] = {
        "expert parameters": sum(experts),
        "ms": round(times[name], 1),
        "frozen ms": round(times["frozen"], 1),
        "ratio": round(times[name] / times["frozen"], 3),
        "largest difference at initialisation": apart[name],
    }
print(f"Forward pass of ViLT-B/32, batches of {args.batch_size}")
print(pd.DataFrame(rows).T.to_string())
