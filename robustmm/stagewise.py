"""What methods share that learn stages with tensors of their own for each stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from .adapters import LinearHead
from .backbones import Backbone, FrozenClasses
from .incremental import IncrementalClassifier
from .storage.tensors import own_tensors

QUERIES = ("text", "mean")
# The training that DeLo's paper gives to all that it compares with.
COMPARED = {
    "max_text_length": 512,
    "max_epochs": 10,
    "batch_size": 4,
    "lr": 1e-4,
    "weight_decay": 0.0,
    "lr_schedule": "cosine",
    "warmup": 0.1,
    "head_init": "random",
    "head_lr": None,
    "modality_dropout": 0.0,
    "early_stopping": False,
}


class Stage(nn.Module):
    """What one stage alone learns: a head, and what a method adds to it."""

    def __init__(self, width: int, n_outputs: int):
        super().__init__()
        self.head = LinearHead(width, n_outputs)


class StagewiseModule(nn.Module):
    """A frozen joint encoder, and one :class:`Stage` for each stage.

    What a stage has to itself is in tensors of its own, and only those of the stage
    that is learned require a gradient: a decay of weights, which needs none, would
    move the rows of a common tensor.

    Parameters
    ----------
    backbone : Backbone
        With a joint stream.
    columns : sequence of sequence of int
        For each stage, where its classes are among all.
    query : {"text", "mean"}
        What a row asks with: the class token of the text, which ViLT pools, or the
        mean of the class tokens of what the row has.
    store : Store or None
        Where the frozen encoder's class tokens are kept.
    """

    reads_host = True

    def __init__(
        self,
        backbone: Backbone,
        columns: Sequence[Sequence[int]],
        query: str = "text",
        store=None,
    ):
        super().__init__()
        self.backbone = backbone
        self.asks_with = query
        self.frozen = FrozenClasses(backbone, store)
        # From the outputs of one head after another to those of the classes.
        order = torch.tensor([*chain(*columns)]).argsort()
        self.register_buffer("order", order, persistent=False)
        self.stages = nn.ModuleList(
            self.make_stage(i, len(own)) for i, own in enumerate(columns)
        )

    @property
    def stream(self):
        """The joint stream."""
        return self.backbone["joint"]

    def make_stage(self, position: int, n_outputs: int) -> Stage:
        """Return what a stage of so many outputs has to itself."""
        return Stage(self.stream.width, n_outputs)

    def begin(self, stage: int) -> None:
        """Give a new stage the first values that depend on earlier ones."""

    def train_only(self, stage: int) -> None:
        """Freeze what belongs to the other stages."""
        for position, member in enumerate(self.stages):
            member.requires_grad_(position == stage)

    def classify(self, features: Tensor) -> Tensor:
        """Logits of all classes, (B, C), each by the head of its stage."""
        parts = [stage.head(features) for stage in self.stages]
        return torch.cat(parts, dim=1)[:, self.order]

    def query(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return what each row asks with, (B, d), a constant of the frozen encoder."""
        classes = self.frozen.tokens(present, batch)  # (B, 2, d)
        if self.asks_with == "text":
            return classes[:, 1]
        weight = present[..., None].to(classes.dtype)  # (B, 2, 1)
        return (classes * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class StagewiseClassifier(IncrementalClassifier):
    """Base class of classifiers with tensors of their own for each stage.

    A method is a subclass with parameters and ``_build_stages``. What earlier calls
    learned is copied into the new module, and only the stage at hand is trained.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT.
    weight_decay : float
        AdamW's decoupled weight decay of what the stage at hand trains.
    """

    STREAMS = ("joint",)

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)

    batch_size: int = 4
    lr: float = 1e-4
    lr_schedule: str = "cosine"
    weight_decay: float = 0.0

    @abstractmethod
    def _build_stages(
        self, backbone: Backbone, columns: list[list[int]]
    ) -> StagewiseModule:
        """Return the untrained module of stages with outputs at these columns."""

    def _look_at(self, net, train: Subset) -> None:
        """See the rows of a stage once, before they are learned."""

    def _build_module(self, backbone: Backbone, n_outputs: int) -> StagewiseModule:
        """Return all stages, the earlier ones as they were learned."""
        module = self._build_stages(backbone, self._labels.columns)
        learned = getattr(self, "net_", None)
        if learned is not None:
            copy_tensors(learned.module_, module)
        if learned is None or self._task >= len(learned.module_.stages):
            module.begin(self._task)
        module.train_only(self._task)
        return module

    def _optimizer_options(self) -> dict:
        return {"optimizer__betas": (0.9, 0.98)}

    def _forward_params(self) -> dict:
        return {"learning": self._task}

    def _head_of(self, module: StagewiseModule) -> tuple[nn.Module, Callable]:
        read = partial(type(module).features, learning=self._task)
        return module.stages[self._task].head, read

    def _start_options(self, module: nn.Module, train: Subset) -> dict:
        options = super()._start_options(module, train)
        start = options.get("start")

        def look_and_start(net, rows: Subset) -> None:
            self._look_at(net, rows)
            if start is not None:
                start(net, rows)

        return options | {"start": look_and_start}

    def _start_head(self, net, train: Subset) -> None:
        earlier = self.net_.module_.stages if self.__sklearn_is_fitted__() else ()
        # A stage that goes on has learned a head from more than the rows of this call.
        if self._task >= len(earlier):
            super()._start_head(net, train)

    def _read_rows(self, net, rows: Subset, read: Callable) -> Tensor:
        """Return what is read of each row of a training, (n, k)."""
        return torch.cat(net.read(rows, read))

    def _places(self, X, read: Callable) -> np.ndarray:
        """Return what is read of each row of a table as numbers of parts.

        -1 for a row without any modality.
        """
        values, empty = self._evaluate(X, read)
        return np.where(empty[:, None], -1, values.astype(np.int64))


def copy_tensors(learned: nn.Module, module: nn.Module) -> None:
    """Write what a module has learned into a larger one, where the names are the same.

    Copied: the module before stays as it was, should the training that follows fail.
    """
    known = own_tensors(learned)
    with torch.no_grad():
        for name, tensor in own_tensors(module).items():
            if name in known:
                tensor.copy_(known[name])
