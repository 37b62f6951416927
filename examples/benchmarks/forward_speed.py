"""What compiling, 16 bits, 8 bits, merging and prompts do to a forward pass.

One command per claim; encoders with random weights of full size. Both sides take turns
in one process, and what is printed is the median of the ratios of their processor time,
with the lowest and highest ratio. Needs no network.

    python examples/benchmarks/forward_speed.py {bfloat16,int8,compile,merge,prompts}
"""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ViltConfig,
    ViltModel,
)

from robustmm import CMPTClassifier, MAPClassifier, MemPromptClassifier
from robustmm.backbones import Backbone
from robustmm.backbones.clip import ClipImageStream
from robustmm.backbones.quantized import quantize_layers
from robustmm.backbones.text import BertStream
from robustmm.backbones.vilt import ViltStream
from robustmm.methods.cmpt import initial_proxies

PATCH = 32
# Launches cost more than arithmetic in layers of these sizes.
SMALL = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}


def seconds(call: Callable) -> float:
    """Processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(name: str, other: Callable, base: Callable, repeats: int) -> None:
    """Print the ratio of two calls that take turns."""
    other(), base()
    pairs = [(seconds(other), seconds(base)) for _ in range(repeats)]
    ratios = np.array([a / b for a, b in pairs])
    low, middle, high = ratios.min(), np.median(ratios), ratios.max()
    base_ms = 1000 * np.median([b for _, b in pairs])
    print(
        f"{name}: {middle:.2f} ({low:.2f} to {high:.2f}), {repeats} pairs, "
        f"other side {base_ms:.0f} ms"
    )


def vilt_of(options, **sizes) -> ViltModel:
    """Return a random ViLT in evaluation mode."""
    return ViltModel(ViltConfig(max_image_length=-1, **sizes)).eval()


def batch_of(options) -> dict[str, torch.Tensor]:
    """Return complete rows with texts of one length."""
    rows, words, side = options.batch_size, options.words, options.side
    return {
        "input_ids": torch.randint(5, 1000, (rows, words)),
        "attention_mask": torch.ones(rows, words, dtype=torch.long),
        "pixel_values": torch.randn(rows, 3, side, side),
    }


def pooled(stream, batch) -> torch.Tensor:
    """What a stream makes of a batch, (B, d)."""
    return stream.pool(stream.run(stream.embed(**batch)))


def bfloat16(options) -> None:
    """The stream in 16 bits against Hugging Face in 32, and how far apart they are."""
    model, batch = vilt_of(options), batch_of(options)
    stream = ViltStream(model)

    def half() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return pooled(stream, batch)

    apart = (half().float() - pooled(stream, batch)).norm() / pooled(
        stream, batch
    ).norm()
    compare("bfloat16 / ViltModel", half, lambda: model(**batch), options.repeats)
    compare("float32 / ViltModel", *_pair(stream, model, batch), options.repeats)
    print(f"relative error of the pooled row: {apart:.4f}")


def _pair(stream, model, batch) -> tuple[Callable, Callable]:
    return lambda: pooled(stream, batch), lambda: model(**batch)


def int8(options) -> None:
    """Linears of 8 bits against the same stream in 32."""
    stream, batch = ViltStream(vilt_of(options)), batch_of(options)
    backbone = Backbone({"joint": stream}, sources={}, identities={})
    whole = backbone.copy()["joint"]
    quantize_layers(whole)
    exact, found = pooled(stream, batch), pooled(whole, batch)
    sides = (lambda: pooled(whole, batch)), (lambda: pooled(stream, batch))
    compare("8 bits / float32", *sides, options.repeats)
    apart = (found - exact).norm() / exact.norm()
    print(f"relative error of the pooled row: {apart:.4f}")


def compile(options) -> None:
    """Compiled blocks against the same blocks as they are, small and of full size."""
    for name, sizes in (("small layers", SMALL), ("B/32 layers", {})):
        stream = ViltStream(vilt_of(options, **sizes))
        backbone = Backbone({"joint": stream}, sources={}, identities={})
        twin, batch = backbone.copy()["joint"], batch_of(options)
        twin.compile_blocks = True
        start = time.perf_counter()
        found = pooled(twin, batch)
        print(f"compiled in {time.perf_counter() - start:.0f} s")
        torch.testing.assert_close(found, pooled(stream, batch), atol=1e-3, rtol=1e-3)
        sides = (
            lambda s=twin, b=batch: pooled(s, b),
            lambda s=stream, b=batch: pooled(s, b),
        )
        compare(f"compiled / not, {name}", *sides, options.repeats)


def merge(options) -> None:
    """CMPT's module with merged adapters against the same with adapters beside."""
    vision = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        num_hidden_layers=12,
        image_size=options.side,
        patch_size=PATCH,
    )
    image = Backbone(
        {"image": ClipImageStream(CLIPVisionModel(vision).eval())},
        sources={"image": ""},
        identities={"image": None},
    )
    text = Backbone(
        {"text": BertStream.of_bert(BertModel(BertConfig()).eval())},
        sources={"text": ""},
        identities={"text": None},
    )
    backbone = Backbone.join(image=image, text=text)
    clf, batch = CMPTClassifier(), batch_of(options)
    clf._initial_proxies = lambda backbone: initial_proxies(backbone, None)
    batch["present"] = torch.ones(options.batch_size, 2, dtype=torch.bool)
    beside, merged = (clf._build_module(backbone.copy(), 5).eval() for _ in range(2))
    merged.load_state_dict(beside.state_dict())
    merged.merge()
    torch.testing.assert_close(merged(**batch), beside(**batch), atol=1e-4, rtol=1e-4)
    sides = (lambda: merged(**batch)), (lambda: beside(**batch))
    compare("merged / beside", *sides, options.repeats)


def tokens_in(layers: int, options, more: int) -> list[int]:
    """Tokens of a row that enter each layer, if each of the first adds some."""
    start = options.words + 1 + (options.side // PATCH) ** 2
    return [start + more * min(i + 1, layers) for i in range(12)]


def prompts(options) -> None:
    """MAP and MemPrompt against the bare stream, and what their tokens alone cost."""
    stream, batch = ViltStream(vilt_of(options)), batch_of(options)
    backbone = Backbone({"joint": stream}, sources={}, identities={})
    bare = sum(tokens_in(0, options, 0))
    batch["present"] = torch.ones(options.batch_size, 2, dtype=torch.bool)
    for clf, more in (
        (MAPClassifier(), 16),
        (MAPClassifier(prompt_type="attention"), 0),
        (MemPromptClassifier(), 64),
        (MemPromptClassifier(accumulate=False), None),
    ):
        module = clf._build_module(backbone.copy(), 23).eval()
        sides = (lambda m=module: m(**batch)), (lambda: pooled(stream, batch))
        if more is None:  # the prompts of the last prompted layer stay
            floor = 12 * (tokens_in(1, options, 64)[0]) / bare
        else:
            floor = sum(tokens_in(6, options, more)) / bare
        changed = {k: v for k, v in clf.get_params().items() if k in _SHOWN}
        name = f"{type(clf).__name__} {changed} / bare, floor {floor:.2f}"
        compare(name, *sides, options.repeats)


_SHOWN = ("prompt_type", "accumulate")
CLAIMS = {f.__name__: f for f in (bfloat16, int8, compile, merge, prompts)}


def main() -> None:
    """Measure one claim."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument(
        "--side", type=int, default=384, help="pixels, as patches of 32"
    )
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, one thread, {platform.machine()}, batches of "
        f"{options.batch_size}, {options.words} tokens, {options.side} pixels"
    )
    with torch.inference_mode():
        CLAIMS[options.claim](options)


if __name__ == "__main__":
    main()
