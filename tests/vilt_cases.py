"""Batches and backbones for the tests of methods on ViLT."""

import torch

from robustmm import load_backbone
from robustmm.backbones import Backbone
from robustmm.backbones.backbone import Identity

# (image, text) of the rows of a batch: each pattern, complete ones twice.
PRESENT = [[True, True], [True, False], [False, True], [True, True]]
LENGTHS = [9, 2, 6, 4]


def vilt_batch(present=PRESENT, lengths=LENGTHS, seed=0):
    """Random texts of several lengths, padded, and images; white where missing."""
    generator = torch.Generator().manual_seed(seed)
    n, longest = len(present), max(lengths)
    size = load_backbone("robustmm/tiny-vilt").image_config["size"]
    side = size.get("height", size.get("shortest_edge"))
    ids = torch.randint(5, 60, (n, longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    pixels = torch.randn(n, 3, side, side, generator=generator)
    present = torch.tensor(present)
    pixels[~present[:, 0]] = 1.0
    return {
        "pixel_values": pixels,
        "input_ids": ids * mask,
        "attention_mask": mask,
        "present": present,
    }


def rows_of(batch, rows, length=None):
    """Some rows of a batch, with texts cut to ``length`` where that is given."""
    cut = {name: value[rows] for name, value in batch.items()}
    for name in ("input_ids", "attention_mask"):
        cut[name] = cut[name][:, :length]
    return cut


def perturb(module, seed=1, scale=0.05):
    """Leave the initial point, and switch to evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(scale * noise)
    return module.eval()


def assert_independent_of_batch(module):
    """A row alone, in a padded batch and in a shuffled batch has the same logits."""
    batch = vilt_batch()
    with torch.inference_mode():
        together = module(**batch)
        order = torch.tensor([2, 0, 3, 1])
        shuffled = module(**rows_of(batch, order))
        torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
        for i, length in enumerate(LENGTHS):
            alone = module(**rows_of(batch, [i], length))
            torch.testing.assert_close(alone, together[[i]], atol=1e-5, rtol=0)


def full_size_vilt():
    """ViLT-B/32 without memory for its weights: good for counting."""
    from transformers import ViltConfig, ViltModel

    from robustmm.backbones.vilt import ViltStream

    with torch.device("meta"):
        stream = ViltStream(ViltModel(ViltConfig()))
    identity = Identity(stream)
    identity._value = "no weights to hash"
    return Backbone({"joint": stream}, sources={}, identities={"joint": identity})


def count(module, *names):
    """Trainable parameters of the parts of a module whose names start like these."""
    return sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and name.startswith(names)
    )


def lengths_at_layers(module, batch):
    """Length of the sequences that enter each layer."""
    stream, lengths = module.backbone["joint"], []
    step = stream.step

    def counted(i, tokens, *args, **kwargs):
        lengths.append(tokens.length)
        return step(i, tokens, *args, **kwargs)

    stream.step = counted
    with torch.inference_mode():
        module(**batch)
    return lengths
