"""Sequential fine-tuning and experience replay: what methods for stages are against.

One set of low-rank updates, or none, and a head that grows are trained on one stage
after another. Nothing protects what was learned but, if wanted, a loss among the
current stage's classes alone, or a memory of rows of earlier stages (Chaudhry et al.,
"On Tiny Episodic Memories in Continual Learning", arXiv:1902.10486, 2019). One ``fit``
on the rows of all stages is the bound from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Subset

from ..adapters import LoRALinear, ReservoirMemory, reservoir_slots
from ..backbones import Backbone, Tokens, upload
from ..checks import check_choice, check_number
from ..data.targets import Targets
from ..stagewise import COMPARED, StagewiseClassifier, StagewiseModule

TUNES = ("lora", "head")
ADAPTED = ("query", "key", "value")


class SequentialModule(StagewiseModule):
    r"""ViLT with low-rank updates of all stages, and a head that grows.

    While training, the task loss of a row is among the classes of all stages so far,
    or, if ``masked``, among those of its own; with a memory, the mean loss of as many
    remembered rows is the penalty. Of several labels, those of other stages count as
    absent unless masked.

    Shapes: ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C), those of the stage that
    is learned, or these in front of all others.
    """

    def __init__(
        self,
        backbone: Backbone,
        columns: Sequence[Sequence[int]],
        *,
        multilabel: bool,
        tune: str,
        rank: int,
        alpha: float,
        masked: bool,
        replays: bool,
        memory_sizes: Sequence[int],
        store=None,
    ):
        super().__init__(backbone, columns, store=store)
        self.multilabel, self.tune = multilabel, tune
        self.masked, self.replays = masked, replays
        self.sizes = [len(own) for own in columns]
        self.memory = ReservoirMemory(self.stream.width, *memory_sizes)
        for layer in range(self.stream.n_layers if tune == "lora" else 0):
            for name in ADAPTED:
                linear = self.stream.linear(layer, name)
                self.stream.wrap(layer, name, LoRALinear(linear, rank, alpha))

    def train_only(self, stage: int) -> None:
        """Freeze the heads that no loss reaches, which a decay would move."""
        for position, member in enumerate(self.stages):
            reached = not self.masked or self.replays
            member.requires_grad_(reached or position == stage)

    def forward(
        self, present: Tensor, learning: int | None = None, **batch: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; of ``learning``, and others while training with a penalty."""
        features = self.features(present, **batch)
        if learning is None:
            return self.classify(features)
        own = self.stages[learning].head(features)
        if not self.training:
            return own
        penalty = own.new_zeros(())
        if len(self.memory):
            drawn = torch.randint(len(self.memory), (len(present),))
            penalty = penalty + self._replay(drawn)
        others = [s.head(features) for i, s in enumerate(self.stages) if i != learning]
        if self.masked or not others:
            return own, penalty
        others = torch.cat(others, dim=1)
        if self.multilabel:
            return own, penalty + F.softplus(others).mean()
        # In front, so that the targets of the stage are places in all.
        return torch.cat([own, others], dim=1), penalty

    def features(self, present: Tensor, learning=None, **batch: Tensor) -> Tensor:
        """Return the pooled token behind the frozen pooler, (B, d)."""
        if self.tune == "head":
            return self._pooled(self.query(present, **batch))
        return self._read(self.stream.embed(**batch))

    def states(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return what a memory keeps of rows, with a last entry that masks padding.

        (B, L, d + 1): the tokens that enter the first layer, or the features, where
        nothing before them is trained.
        """
        if self.tune == "head":
            values = self.features(present, **batch)[:, None]
            return F.pad(values, (0, 1), value=1.0)
        tokens = self.stream.embed(**batch)
        mask = torch.cat([tokens.mask_of(name) for name in tokens.names], dim=1)
        return torch.cat([tokens.values, mask[..., None].to(tokens.values)], dim=2)

    def _read(self, tokens: Tokens) -> Tensor:
        return self._pooled(self.stream.pool(self.stream.run(tokens)))

    def _pooled(self, token: Tensor) -> Tensor:
        pooler = self.stream.pooler
        return token if pooler is None else pooler(token)

    def _replay(self, positions: Tensor) -> Tensor:
        """The mean loss of remembered rows, at positions on the CPU."""
        to = partial(upload, device=self.order.device)
        index, mask = map(to, self.memory.plan(positions))
        features = self._remembered(self.memory.read(index, mask), mask)
        logits = torch.cat([stage.head(features) for stage in self.stages], dim=1)
        wanted, counted = self._wanted(positions, logits.shape[1])
        wanted, counted = to(wanted), to(counted)
        if not self.multilabel:
            logits = logits.masked_fill(~counted, float("-inf"))
            return F.cross_entropy(logits, wanted.argmax(dim=1))
        losses = F.binary_cross_entropy_with_logits(
            logits, wanted.to(logits), reduction="none"
        )
        losses = (losses * counted).sum(dim=1) / counted.sum(dim=1)
        return losses.mean()

    def _remembered(self, states: Tensor, mask: Tensor) -> Tensor:
        """The features of remembered rows, (b, d)."""
        if self.tune == "head":
            return states[:, 0]
        # Their positions and types are in them already: one segment will do.
        anchor = torch.zeros_like(mask[:, 0], dtype=torch.int64)
        return self._read(Tokens(states, mask, {"text": (0, states.shape[1])}, anchor))

    def _wanted(self, positions: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        """Targets among the outputs of all heads, and which of these count, (b, C)."""
        stages, targets = self.memory.stages[positions], self.memory.targets[positions]
        sizes = torch.tensor(self.sizes)
        first = (sizes.cumsum(0) - sizes)[stages][:, None]  # (b, 1)
        wanted = torch.zeros(
            len(stages), n_outputs + targets.shape[1], dtype=torch.int8
        )
        if self.multilabel:
            index = first + torch.arange(targets.shape[1])
            wanted = wanted.scatter(1, index, targets.to(torch.int8))
        else:
            wanted = wanted.scatter(1, first + targets[:, :1], 1)
        place = torch.arange(n_outputs)
        counted = torch.ones(len(stages), n_outputs, dtype=torch.bool)
        if self.masked:
            counted = (place >= first) & (place < first + sizes[stages][:, None])
        return wanted[:, :n_outputs], counted


class SequentialClassifier(StagewiseClassifier):
    """Fine-tuning on one stage after another, unprotected or with replay [1]_.

    What methods for stages are compared with. The bound from above is ``fit`` on the
    rows of all stages at once.

    Parameters
    ----------
    tune : {"lora", "head"}
        What is trained beside the head: low-rank updates of query, key and value in all
        layers, or nothing.
    rank : int
        Rank of the updates.
    alpha : float
        Their scale is ``alpha / rank``.
    masked : bool
        Whether the loss of a row is among the classes of its own stage, instead of all
        that were seen, whose heads learn then that no row is theirs.
    memory_size : int
        Rows of earlier stages that are kept and replayed, as many in each step as
        there are new ones; 0 for none. It is a uniform sample of all rows seen, each
        with its missing cells.

    Notes
    -----
    The memory is a part of the model and of its pickle. With ``tune="lora"`` it holds
    the embedded tokens of a row, half a megabyte with a ViLT of full size; with
    ``tune="head"`` its features, 3 kilobytes. Embedded tokens are no pictures or texts,
    but these could be guessed from them: where rows may not be kept, use neither.

    References
    ----------
    .. [1] Chaudhry et al., "On Tiny Episodic Memories in Continual Learning",
       arXiv:1902.10486, 2019.

    Examples
    --------
    >>> from robustmm import SequentialClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=4, random_state=0)
    >>> X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    >>> early = (y == "beach") | (y == "city")
    >>> clf = SequentialClassifier(
    ...     "robustmm/tiny-vilt", memory_size=10, max_epochs=1, random_state=0
    ... )
    >>> clf = clf.partial_fit(X[early], y[early]).partial_fit(X[~early], y[~early])
    >>> clf.predict_proba(X).shape
    (60, 4)
    """

    # The training that DeLo's paper gives all methods; of the updates it says nothing.
    PAPER: ClassVar[dict] = {
        "backbone": "dandelin/vilt-b32-mlm",
        "tune": "lora",
        "rank": 4,
        "masked": False,
        "memory_size": 0,
        **COMPARED,
    }
    _KEPT = (*StagewiseClassifier._KEPT, "_memory_sizes")

    tune: str = "lora"
    rank: int = 4
    alpha: float = 8.0
    masked: bool = False
    memory_size: int = 0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("tune", self.tune, TUNES)
        check_number("rank", self.rank, Integral, 1)
        check_number("alpha", self.alpha, Real, 0, open="low")
        check_choice("masked", self.masked, (True, False))
        check_number("memory_size", self.memory_size, Integral, 0)

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        super()._take_labels(targets, weights)
        if not self.__sklearn_is_fitted__():
            vars(self).pop("_memory_sizes", None)

    def _build_stages(
        self, backbone: Backbone, columns: list[list[int]]
    ) -> SequentialModule:
        return SequentialModule(
            backbone,
            columns,
            multilabel=self._multilabel,
            tune=self.tune,
            rank=self.rank,
            alpha=self.alpha,
            masked=self.masked,
            replays=self.memory_size > 0,
            memory_sizes=getattr(self, "_memory_sizes", (0, 0, 1)),
            store=self._state_cache(),
        )

    def _train(self, module, train: Subset, held_out: Subset, draws):
        net = super()._train(module, train, held_out, draws)
        if self.memory_size:
            with draws.lent():
                self._remember(net, train)
        return net

    def _remember(self, net, train: Subset) -> None:
        """Let the rows of this call enter the memory."""
        memory, n_new = net.module_.memory, len(train)
        slots = reservoir_slots(int(memory.seen), n_new, self.memory_size)
        memory.seen = memory.seen + n_new
        if not slots:
            return
        chosen = [train.indices[row] for row in slots.values()]
        rows: list[Tensor] = []
        some = Subset(train.dataset, chosen)
        for batch, _ in net.get_iterator(some, training=False):
            packed = net.evaluate(batch, SequentialModule.states)
            states, mask = packed[..., :-1], packed[..., -1] > 0
            rows += [row[at].clone() for row, at in zip(states, mask, strict=True)]
        targets = torch.from_numpy(train.dataset.targets[chosen]).long()
        targets = targets.view(len(chosen), -1)  # (n, 1), or (n, L) of indicators
        places = {slot: row for row, slot in enumerate(slots)}
        memory.put(places, rows, self._task, targets)
        self._memory_sizes = list(memory.sizes)
