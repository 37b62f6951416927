"""Frames, small settings and a toy method that the contract tests share."""

import inspect
import io

import numpy as np
import pandas as pd
import torch
from PIL import Image

import robustmm
from robustmm import MultimodalClassifier
from robustmm.datasets import make_scenes

EMBEDDED = {
    "dandelin/vilt": "robustmm/tiny-vilt",
    "openai/clip": "robustmm/tiny-clip",
    "bert-base": "robustmm/tiny-bert",
}
# By the name of the parameter, for every method that has it.
SMALL = {
    "max_epochs": 1,
    "batch_size": 8,
    "random_state": 0,
    "device": "cpu",
    "generative_layers": 2,
    "shared_layers": 2,
    "prompt_layers": 2,
    "memory_size": 4,
    "top_k": 2,
    "prompt_length": 2,
    "pool_size": 6,
}


class ToyModule(torch.nn.Module):
    """The pooled token of each stream, side by side, into a linear head."""

    def __init__(self, backbone, n_outputs):
        super().__init__()
        self.backbone = backbone
        width = sum(stream.width for stream in backbone.streams.values())
        self.head = torch.nn.Linear(width, n_outputs)

    def features(self, present, **batch):
        streams = self.backbone.streams.values()
        pooled = [s.pool(s.run(s.embed(**batch))) for s in streams]
        return torch.cat(pooled, dim=1)

    def forward(self, **batch):
        return self.head(self.features(**batch))


class ToyClassifier(MultimodalClassifier):
    """The least that a method has to write.

    Parameters
    ----------
    backbone : str
        Any.
    max_epochs : int
        Passes over the rows.
    batch_size : int
        Rows per step.
    random_state : int
        Seed.
    class_weight : dict
        Weights.
    net_params : dict
        For skorch.
    """

    def __init__(
        self,
        backbone="openai/clip-vit-base-patch16",
        *,
        max_epochs=1,
        batch_size=8,
        random_state=None,
        class_weight=None,
        on_bad_image="raise",
        early_stopping=False,
        net_params=None,
        device="auto",
        checkpoint_dir=None,
        verbose=0,
    ):
        super().__init__(
            max_epochs=max_epochs,
            batch_size=batch_size,
            random_state=random_state,
            class_weight=class_weight,
            on_bad_image=on_bad_image,
            early_stopping=early_stopping,
            net_params=net_params,
            device=device,
            checkpoint_dir=checkpoint_dir,
            verbose=verbose,
        )
        self.backbone = backbone

    def _build_module(self, backbone, n_outputs):
        return ToyModule(backbone, n_outputs)


def public_classifiers():
    """Every concrete classifier of the public namespace, found by looking."""
    found = [
        member
        for _, member in inspect.getmembers(robustmm, inspect.isclass)
        if issubclass(member, MultimodalClassifier) and not inspect.isabstract(member)
    ]
    return [*found, ToyClassifier]


def small(cls, **params):
    """An instance on embedded backbones that trains in a moment."""
    estimator = cls()
    known = estimator.get_params()
    chosen = {name: value for name, value in SMALL.items() if name in known}
    for name, value in known.items():
        for prefix, embedded in EMBEDDED.items():
            if isinstance(value, str) and value.startswith(prefix):
                chosen[name] = embedded
    return estimator.set_params(**chosen | params)


def frame_with_holes(n=24, n_classes=2, random_state=0):
    """Scenes of which a third lost the image and a third the text."""
    X, y = make_scenes(n, n_classes=n_classes, random_state=random_state)
    X = X.astype(object)
    X.iloc[::3, 0] = None
    X.iloc[1::3, 1] = None
    X.index = [f"row{i}" for i in range(n)]
    return X, np.array(y)


def as_cell(image, kind, folder):
    """The same picture as another type of cell."""
    if kind == "pil":
        return image
    if kind == "array":
        return np.asarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    if kind == "bytes":
        return buffer.getvalue()
    path = folder / f"{abs(hash(buffer.getvalue()))}.png"
    path.write_bytes(buffer.getvalue())
    return str(path) if kind == "str" else path


def noise_image(seed=0, size=(20, 30)):
    """A picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


NULLS = {"None": None, "nan": float("nan"), "NA": pd.NA, "NaT": pd.NaT}
CELLS = ("pil", "array", "bytes", "str", "path")
