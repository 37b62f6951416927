"""Frames, small settings and a toy method that the contract tests share."""

import inspect

import torch

import robustmm
from robustmm import BaseMultimodalClassifier, MultimodalClassifier
from robustmm.table import TableClassifier
from robustmm.testing.subject import table


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
    """The least that a method has to write, with a constructor written by hand.

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
    on_bad_image : str
        What to do with them.
    early_stopping : bool
        Whether to hold rows out.
    net_params : dict
        For skorch.
    device : str
        Where to compute.
    checkpoint_dir : path-like
        For the state.
    verbose : int
        Bars or not.
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
        if issubclass(member, BaseMultimodalClassifier)
        and not inspect.isabstract(member)
    ]
    return [*found, ToyClassifier]


def public_tables():
    """Those, and classifiers of several members, which have no net of their own."""
    several = [
        member
        for _, member in inspect.getmembers(robustmm, inspect.isclass)
        if issubclass(member, TableClassifier)
        and not issubclass(member, BaseMultimodalClassifier)
        and not inspect.isabstract(member)
    ]
    return [*public_classifiers(), *several]


def small(cls, **params):
    """An instance on embedded backbones that trains in a moment."""
    return cls._small(**params)


def frame_with_holes(n=24, n_classes=2):
    """Scenes of which a third lost the image and a third the text."""
    return table(n, n_classes)
