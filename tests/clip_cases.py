"""Batches and backbones for the tests of methods on CLIP."""

import torch

from robustmm.backbones import Backbone

# (image, text) of the rows: each pattern, complete ones twice.
PRESENT = [[True, True], [True, False], [False, True], [True, True]]
LENGTHS = [7, 2, 5, 4]


def clip_batch(present=PRESENT, lengths=LENGTHS):
    """Random cells; white images and empty texts where one is missing."""
    present = torch.tensor(present)
    ids = torch.randint(5, 60, (len(present), max(lengths)))
    ids[:, 0] = 2
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1], row[length:] = 3, 0
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    pixels = torch.randn(len(present), 3, 48, 48)
    pixels[~present[:, 0]] = 1.0
    names = ("present", "pixel_values", "input_ids", "attention_mask")
    return dict(zip(names, (present, pixels, ids, mask), strict=True))


def row_of(batch, i):
    """A row alone, its text without padding."""
    length = int(batch["attention_mask"][i].sum())
    row = {name: value[i : i + 1] for name, value in batch.items()}
    texts = ("input_ids", "attention_mask")
    return row | {name: row[name][:, :length] for name in texts}


def perturb(module, size=0.05):
    """Leave the initial point, and switch to evaluation."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))
    return module.eval()


def watch(module, modality):
    """Collect what enters the layers of a stream from now on."""
    stream, seen = module.backbone[modality], []
    step = stream.step

    def watched(i, tokens, *rest):
        seen.append(tokens)
        return step(i, tokens, *rest)

    stream.step = watched
    return seen


def full_size_clip():
    """CLIP ViT-B/16 without memory for its weights: good for counting."""
    from transformers import CLIPConfig, CLIPModel

    from robustmm.backbones.clip import ClipImageStream, ClipTextStream

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}))
    streams = {
        "image": ClipImageStream.of_clip(model),
        "text": ClipTextStream.of_clip(model),
    }
    return Backbone(streams, sources={}, identities={})


def count(module, start=""):
    """Trainable parameters of the parts whose names start like this."""
    return sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and name.startswith(start)
    )
