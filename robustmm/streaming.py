"""The classifier of frozen vectors that keeps sums, and takes rows in any order."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import Subset

from .adapters import group_parts
from .annotations import TableLike
from .backbones import Backbone, FrozenQueries, check_layers
from .base import BaseMultimodalClassifier
from .data.targets import Targets, encode_targets
from .data.task_labels import TaskLabels
from .training.device import RandomStream
from .training.net import Net
from .training.probe import row_losses

# By the number of encoders: what was best on the tables that were tried.
_LAYERS = {True: (-1, 0), False: ("pooled", "pooled")}


class StreamedModule(nn.Module):
    """Frozen vectors of a row, and what is read from the sums of those that were seen.

    A child has ``sums``, a module whose buffers they are, and a ``readout`` that
    :meth:`solve` computes from them.

    Shapes: ``present`` (B, 2) bool, and what the encoders read; features (B, d), the
    last of which say which modality is there; logits (B, C).

    Attributes
    ----------
    labels : ndarray of shape (C,)
        What the outputs are of; those of the sums are found by it when more come.
    """

    reads_host = True

    def __init__(self, queries: FrozenQueries, labels: np.ndarray, multilabel: bool):
        super().__init__()
        self.backbone, self.queries = queries.backbone, queries
        self.labels, self.multilabel = labels, multilabel

    @abstractmethod
    def add(self, vectors: Sequence[Tensor], present: Tensor, parts: Tensor) -> None:
        """Add rows to the sums; see :meth:`ClassMoments.update`."""

    @abstractmethod
    def take(self, earlier: Self, places: np.ndarray) -> None:
        """Take the sums of a module of fewer labels, which are now at ``places``."""

    @abstractmethod
    def solve(self) -> None:
        """Compute from the sums what logits are read with."""

    @abstractmethod
    def read(self, vectors: Sequence[Tensor], present: Tensor) -> Tensor:
        """Return the logits (B, C) of vectors [(B, d), ...]."""

    def forward(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return logits."""
        present, vectors = self._vectors(present, **batch)
        # Eight bits of a logit tie rows, and those of a sum are none.
        with torch.autocast(present.device.type, enabled=False):
            return self.read(vectors, present)

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return what the frozen encoders make of each row, (B, d)."""
        present, vectors = self._vectors(present, **batch)
        here = present.unbind(dim=1)
        vectors = [v.where(p[:, None], 0.0) for v, p in zip(vectors, here, strict=True)]
        return torch.cat([*vectors, present.float()], dim=1)

    def split(self, features: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the vectors and ``present`` of features."""
        vectors = self.queries.split(features[:, : self.queries.width])
        return vectors, features[:, self.queries.width :].bool()

    def _vectors(
        self, present: Tensor, image_key: Tensor | None = None, **batch: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        vectors = self.queries.split(self.queries(present, batch, image_key))
        # Column by column: a list as an index is copied to the device, which waits.
        there = [present[:, place] for place in self.queries.places]
        return torch.stack(there, dim=1), vectors


class StreamingClassifier(BaseMultimodalClassifier):
    """Base class of classifiers that keep sums of frozen vectors, and no row.

    :meth:`partial_fit` takes rows with any mix of known and new labels, one class at a
    time, too; whatever the calls and their order, up to rounding the model is that of
    one :meth:`fit` on all rows. There is no gradient, and no pass but one.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of any supported checkpoint: ViLT, CLIP,
        or a single image or text encoder, whose classifier ignores the other column.
    text_backbone : str or path-like, optional
        Takes the place of the text encoder of ``backbone``.
    layers : pair of int or "pooled", optional
        After how many layers of the encoder the image is read, and the text, as means
        over patches and over words: 0 is the embedding, -1 what leaves the last layer,
        ``"pooled"`` the pooled token (after CLIP's projection) of an encoder of one
        modality. None is what was best: (-1, 0) for ViLT, pooled tokens for others.
    batch_size : int
        Rows that are encoded at a time.
    class_weight : "balanced", dict or None
        Weights of the classes; "balanced" among the rows of a call.
    cache : {"memory", None} or path-like
        Whether decoded images and vectors are kept, in memory or in an existing folder.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs: sorted, so that earlier classes move when
        new ones come; indicators in the order they came.
    class_prior_ : ndarray of shape (n_classes,)
        Frequency of each class in all calls together; of a label that came later than
        others, among the rows since.
    net_ : Net
        The skorch net, whose module holds the sums; the others are listed at
        :class:`BaseMultimodalClassifier`. ``history_`` and ``missing_report_`` are
        those of the last call.

    Examples
    --------
    >>> from robustmm import GaussianPrototypeClassifier
    >>> GaussianPrototypeClassifier.__base__.__name__
    'StreamingClassifier'
    """

    _KEPT: ClassVar[tuple] = ("_seen_weights",)

    backbone: str | Path = field(default="dandelin/vilt-b32-mlm", kw_only=False)
    text_backbone: str | Path | None = None
    layers: Sequence[int | str] | None = None

    batch_size: int = 64

    @abstractmethod
    def _make_module(self, queries: FrozenQueries, labels: np.ndarray):
        """Return a :class:`StreamedModule` that has seen nothing."""

    @classmethod
    def _small(cls, **params):
        return super()._small(**{"backbone": "robustmm/tiny-vilt"} | params)

    # Labels --------------------------------------------------------------------------

    def fit(
        self, X: TableLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Forget everything and learn the rows.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels.
        sample_weight : array-like of shape (n,), optional
            A row of weight 2 is a row that stands twice.

        Returns
        -------
        self
        """
        with self._unchanged_on_failure():
            for name in ("net_", "_seen_weights"):
                vars(self).pop(name, None)
            return super().fit(X, y, sample_weight)

    def partial_fit(
        self,
        X: TableLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn more rows, of known labels, new ones or both.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels, of one class or more. Indicators of which a call has other columns
            than the first come as a DataFrame that names them; of a label that is not
            among them, nothing is learned.
        classes : array-like, optional
            Further labels that get an output before any row has them; not for
            indicators, whose columns say it.
        sample_weight : array-like of shape (n,), optional
            A row of weight 2 is a row that stands twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For labels of another kind than those of the first call, or a backbone or
            layers other than its.
        """
        with self._unchanged_on_failure():
            self._check_parameters()
            # Later calls must have the columns of the first, as scikit-learn asks.
            rows = self._check_X(X, reset=not self.__sklearn_is_fitted__())
            self._fit_rows(rows, self._encode_more(y, classes), sample_weight)
        return self

    def _encode_more(self, y, classes) -> Targets:
        """Encode the labels of one call among all; NaN for those it says nothing of."""
        if not self.__sklearn_is_fitted__():
            return encode_targets(y, classes, n_least=1)
        known = TaskLabels([self.classes_], 0, self._multilabel)
        known.check_kind(y)
        if self._multilabel:
            return known.encode_columns(y)
        more = self.classes_ if classes is None else [*self.classes_, *classes]
        return encode_targets(y, np.asarray(more), n_least=1)

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        """Set what is known with the rows of this call."""
        seen, places = np.zeros((2, len(targets.classes))), []
        if self.__sklearn_is_fitted__():
            places = _places(self.classes_, targets.classes)
            seen[:, places] = self._seen_weights
        # By label: sums of the weights of rows that have it, and that say if they do.
        parts = group_parts(targets.encoded, len(targets.classes)).numpy()
        there = parts[:, 1::2] if targets.multilabel else parts
        told = parts[:, 0::2] + there if targets.multilabel else np.ones_like(there)
        self._seen_weights = seen + np.stack([weights @ there, weights @ told])
        self.classes_, self._multilabel = targets.classes, targets.multilabel
        with_label, of = self._seen_weights
        of = of if self._multilabel else np.full_like(of, with_label.sum())
        self.class_prior_ = with_label / np.maximum(of, 1e-300)

    # Learning ------------------------------------------------------------------------

    def _build_module(self, backbone: Backbone, n_outputs: int) -> StreamedModule:
        layers = _LAYERS["joint" in backbone.streams]
        layers = layers if self.layers is None else self.layers
        queries = FrozenQueries(backbone, layers, self._state_cache())
        module = self._make_module(queries, self.classes_)
        if self.__sklearn_is_fitted__():
            earlier = self.net_.module_
            before, now = earlier.queries.source, queries.source
            if before != now:
                raise ValueError(
                    "backbone and layers must stay those of the first call, "
                    f"{before}, got {now}."
                )
            module.take(earlier, _places(earlier.labels, module.labels))
        return module

    def _check_backbone(self, backbone: Backbone) -> None:
        if self.layers is not None:
            check_layers("layers", self.layers, backbone)

    def _row_weights(self, weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
        # As they are: a sum over calls has no mean of one call to be divided by.
        super()._row_weights(weights, kept)
        return np.where(np.isin(np.arange(len(weights)), kept), weights, 0.0)

    def _train(
        self,
        module: StreamedModule,
        train: Subset,
        held_out: Subset,
        draws: RandomStream,
    ) -> Net:
        start = time.perf_counter()
        net = self._make_net(module, draws.device)
        labels = np.asarray(train.dataset.targets)[train.indices]
        weights = np.asarray(train.dataset.weights)[train.indices]
        parts = group_parts(labels, len(self.classes_), weights)
        with self._progress(len(train), "fit") as bar:
            read = net.read(train, type(module).features, bar.update)
        features = torch.cat(read)
        self._refuse_not_finite(train.dataset.rows, train.indices, features.numpy())
        vectors, present = module.split(features)
        # An image that is damaged by now may have been all that a row had.
        module.add(vectors, present, parts * present.any(dim=1)[:, None])
        module.solve()
        loss = self._loss(module, vectors, present, labels, weights)
        _record(net, train_loss=loss, dur=time.perf_counter() - start)
        return net

    def _loss(self, module, vectors, present, labels, weights) -> float:
        to = next(module.readout.parameters()).device
        with torch.inference_mode():
            moved = [v.to(to) for v in vectors], present.to(to)
            logits = module.read(*moved).cpu().double().numpy()
        if self._multilabel:
            return float(np.nanmean(np.logaddexp(0, logits) - labels * logits))
        return float(np.average(row_losses(logits, labels), weights=weights))

    def _keep(self, net: Net) -> None:
        super()._keep(net)
        # There was none: it is the default of the net.
        self.history_ = self.history_.drop(columns="lr")


def _places(some: np.ndarray, among: np.ndarray) -> list[int]:
    place = {label: i for i, label in enumerate(among.tolist())}
    return [place[label] for label in some.tolist()]


def _record(net: Net, **values: float) -> None:
    """Write one epoch into the history of a net."""
    net.history.new_epoch()
    net.history.new_batch()
    for name, value in {"epoch": 1, **values}.items():
        net.history.record(name, value)
