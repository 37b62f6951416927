"""What all classifiers share: rows, labels, prediction, pickles; not the training."""

from __future__ import annotations

import inspect
import logging
import operator
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_is_fitted,
)
from torch import nn
from torch.utils.data import Subset

from ._version import __version__
from .annotations import TableLike
from .backbones import (
    Backbone,
    MissingStream,
    fitted_on,
    load_encoders,
    pin,
    revisions_by_name,
)
from .backbones.onnx import Prediction, need_onnx, write_onnx
from .backbones.quantized import is_quantized, quantize_layers
from .data import (
    IMAGES,
    MODALITIES,
    STATES,
    ByteCache,
    FolderCache,
    MultimodalDataset,
    Rows,
    bad_images_of,
    digest_rows,
    holding,
    open_cache,
)
from .data.dataset import BAD
from .data.screening import (
    refuse_not_finite,
    report_bad_images,
    report_damage,
    rows_to_train,
    warn_of_empty_rows,
    warn_of_left_out,
    without_images,
)
from .data.targets import Targets, log_odds_of, mean_one
from .storage.left_out import can_pickle, without_unstorable
from .storage.tensors import dump_tensors, load_tensors, own_tensors
from .table import TableClassifier
from .training.device import (
    RandomStream,
    autocast_type,
    resolve_device,
)
from .training.net import Net, history_frame, make_net, restore_history
from .training.processes import Processes, current, together

logger = logging.getLogger("robustmm")

# Rows per forward pass of a prediction, whatever the training used.
PREDICT_BATCH = 64
# Parameters that are the same where they look the same.
_PLAIN = (str, int, float, type(None))
# What a method can stand on, and names to pass: one that is worth it, one to try.
_EXAMPLES = {
    ("joint",): (
        "one encoder that reads image and text together, such as ViLT",
        "dandelin/vilt-b32-mlm",
        "robustmm/tiny-vilt",
    ),
    ("image", "text"): (
        "an image and a text encoder, such as the two of CLIP",
        "openai/clip-vit-base-patch16",
        "robustmm/tiny-clip",
    ),
}


class BaseMultimodalClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, TableClassifier
):
    """Base class of image+text classifiers for rows with missing modalities.

    What every classifier has: rows, labels, prediction and pickles. How the module
    comes to its weights is left to subclasses, of which
    :class:`MultimodalClassifier` trains by gradient descent. Parameters are annotated
    fields: a subclass declares its own, and again those that it gives another default.

    Parameters
    ----------
    revision : str, dict or None
        Branch, tag or commit that ``backbone`` is taken from on the hub, or those of
        several backbones by parameter, as ``{"text_backbone": "86b5e09"}``. None means
        the main branch. A saved model keeps it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    class_prior_ : ndarray of shape (n_classes,)
        Frequency of each class; the prediction for a row without any modality.
    n_iter_ : int
        Epochs that were run.
    history_ : DataFrame
        A row per epoch: losses, learning rate and seconds.
    missing_report_ : dict
        Counts of training rows per pattern, and ``"bad_images"``, reason by row.
    net_ : Net
        The fitted skorch net; ``net_.module_`` is the torch module.
    n_parameters_, n_trainable_parameters_ : int
        Parameters in the module, and those of them that are trained.
    n_features_in_, feature_names_in_
        The columns that are read, ``image_column`` and ``text_column``, whatever others
        a table has.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier
    >>> issubclass(LinearProbeClassifier, BaseMultimodalClassifier)
    True
    >>> LinearProbeClassifier(image_column="photo").image_column
    'photo'
    """

    # The streams that the method stands on; None where any backbone will do.
    STREAMS: ClassVar[tuple[str, ...] | None] = None

    revision: str | dict | None = None

    # What a method writes -----------------------------------------------------------

    @abstractmethod
    def _build_module(self, backbone: Backbone, n_outputs: int) -> nn.Module:
        """Return the untrained module for ``n_outputs`` classes around ``backbone``.

        The module keeps ``backbone`` as an attribute of that name, and has
        ``features(**batch) -> (B, d)`` and ``forward(**batch)``, which returns logits
        (B, n_outputs), or ``(logits, penalty)`` while training. Called in ``fit``, with
        torch seeded and ``missing_report_`` set, and again when a pickle is opened.
        """

    @abstractmethod
    def _train(
        self, module: nn.Module, train: Subset, held_out: Subset, draws: RandomStream
    ) -> Net:
        """Give the module its weights, and return the net around it."""

    def _load_backbone(self, device: torch.device) -> Backbone:
        """Return a fresh view of the shared frozen backbone.

        That of the parameter ``backbone``, with the text encoder of ``text_backbone``
        in the place of its own where there is such a parameter and it is set.
        """
        return load_encoders(
            self._pinned("backbone"),
            self._pinned("text_backbone"),
            device=device,
            max_text_length=self.max_text_length,
        )

    def _pinned(self, parameter: str) -> str | Path | None:
        """Return a backbone's name with its revision; None where there is none."""
        revision = self._revisions().get(parameter)
        return pin(getattr(self, parameter, None), revision)

    def _revisions(self) -> dict[str, str]:
        parameters = inspect.signature(type(self)).parameters
        return revisions_by_name(self.revision, parameters)

    def _check_backbone(self, backbone: Backbone) -> None:
        """Raise if the method cannot stand on a backbone that has its streams.

        Called in ``fit`` before any image is opened.
        """

    @classmethod
    def _small(cls, **params) -> Self:
        """Return an instance on embedded backbones that is fitted in a moment.

        Checks and tests take it; a method with larger parts than these settings make
        small extends it, with ``super()._small(**{"rank": 1} | params)``.
        """
        joint = cls.STREAMS is not None and "joint" in cls.STREAMS
        small = {
            "backbone": f"robustmm/tiny-{'vilt' if joint else 'clip'}",
            "batch_size": 8,
            "max_epochs": 1,
            "random_state": 0,
            "device": "cpu",
        }
        # Not every class trains in epochs: a linear probe has no max_epochs.
        taken = inspect.signature(cls).parameters
        small = {name: value for name, value in small.items() if name in taken}
        return cls(**small).set_params(**params)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for parameter in self._revisions():
            self._pinned(parameter)

    # Fitting ------------------------------------------------------------------------

    def fit(
        self, X: TableLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train on rows whose image or text may be missing.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells, of pandas, polars or pyarrow; also a list of dicts, or
            a dict or Series for one row. Only ``image_column`` and ``text_column`` are
            read; an array is read by position: image, text.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels, all texts, all numbers or all dates; an indicator matrix means
            multilabel.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in the loss; a row of weight zero is left out. Finite and
            not negative, with a sum in [1e-300, 1e300].

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For parameters, columns, cells, labels, weights or images that cannot be
            used, each with the rule and what was received; and for a training whose
            loss is not finite any more, with the epoch and what to try.
        """
        with self._unchanged_on_failure():
            self._check_parameters()
            # Before the callbacks hear of a fit: what is refused here was never begun.
            rows, targets = self._check_X(X, reset=True), self._encode(y)
            fit = partial(self._fit_rows, rows, targets, sample_weight)
            self._fit_as_task(fit, X, y, sample_weight)
        return self

    def _fit_rows(self, rows: Rows, targets: Targets, sample_weight) -> None:
        """Train on rows that were read; what ``fit`` and ``partial_fit`` share."""
        with self._holding(), together(resolve_device(self.device)):
            self._fit_held(rows, targets, sample_weight)

    def _fit_held(self, rows: Rows, targets: Targets, sample_weight) -> None:
        weights = self._check_weights(rows, targets, sample_weight)
        # One number is all that a generator of the caller's gives: how far it moves
        # does not depend on the method or its epochs.
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        processes = current()
        seed = processes.from_first(lambda: seed)
        if processes.size > 1:
            self._refuse_other_fits(processes, rows, targets, weights)
        draws = RandomStream(seed, resolve_device(self.device))
        # Before the module, which has an output for each of ``classes_``.
        self._take_labels(targets, weights)
        module, data, kept = self._prepare(rows, targets, weights, draws)
        train, held_out = self._split(kept, targets, seed)
        watched = self._watched(module, data, held_out)
        net = self._train(module, Subset(data, train), watched, draws)
        if processes.size > 1:
            processes.share_tensors(own_tensors(module).values())
        for damaged in processes.gather(net.damaged_):
            net.damaged_ |= damaged
        self._keep(net)
        report = report_damage(data.rows, net.damaged_, self.missing_report_)
        self.missing_report_ = report

    def _refuse_other_fits(
        self, processes: Processes, rows: Rows, targets: Targets, weights: np.ndarray
    ) -> None:
        """Raise in all processes unless they are about to learn the same."""
        # Where a process computes, what it shows and where it keeps files is its own.
        own = {"device", "verbose", "cache", "checkpoint_dir", "image_root"}
        # Of an object, all that can be said is of what class it is.
        params = {
            name: value if isinstance(value, _PLAIN) else type(value)
            for name, value in self.get_params(deep=False).items()
            if name not in own
        }
        processes.refuse_others("parameters", repr((type(self), params)).encode())
        processes.refuse_others("rows", digest_rows(rows))
        labels = np.ascontiguousarray(targets.encoded).tobytes()
        processes.refuse_others("labels and weights", labels + weights.tobytes())

    def _prepare(
        self, rows: Rows, targets: Targets, weights: np.ndarray, draws: RandomStream
    ) -> tuple[nn.Module, MultimodalDataset, np.ndarray]:
        """Return the module, all rows as it reads them, and which of them count."""
        # First what costs nothing: wrong weights are named before a backbone is loaded,
        # and a backbone that does not fit before any image is decoded.
        in_loss = targets.weights(self.class_weight, weights)
        backbone = self._open_backbone(draws.device)
        rows = self._screen(rows, backbone)
        kept = rows_to_train(rows, weights)
        # Weights count by their ratios alone: a mean of 1 leaves the learning rate and
        # a method's penalties what they are. Rows that are left out must not shift it.
        in_loss = self._row_weights(in_loss, kept)
        module = self._new_module(backbone, draws)
        # What is bad by now was told of by the screening. A file that is damaged later
        # is recorded by the net, for one warning at the end.
        on_bad_image = "raise" if self.on_bad_image == "raise" else "record"
        data = self._dataset(backbone, rows, targets.encoded, in_loss, on_bad_image)
        return module, data, kept

    def _row_weights(self, weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Return the weights (n,) that the training sees, zero where not ``kept``."""
        return mean_one(weights, kept)

    def _open_backbone(self, device: torch.device) -> Backbone:
        """Load the backbone and refuse what the method cannot stand on."""
        try:
            backbone = self._load_backbone(device)
        except MissingStream as error:
            raise ValueError(self._needs(error.name, error.offers)) from error
        if not set(self._streams or ()) <= set(backbone.streams):
            source = next(iter(backbone.sources.values()))
            raise ValueError(self._needs(source, list(backbone.streams)))
        backbone.modalities = self._modalities
        self._check_backbone(backbone)
        return backbone

    @property
    def _streams(self) -> tuple[str, ...] | None:
        """What the method, with these parameters, stands on; None for anything."""
        return self.STREAMS

    def _needs(self, source: str, offers: Sequence[str]) -> str:
        """Say what the method stands on, what was given and what to pass."""
        kind, name, tiny = _EXAMPLES[self._streams or ("image", "text")]
        return (
            f"{type(self).__name__} stands on {kind}, got {source!r}, which offers "
            f"{list(offers)}. Pass for example {name!r}, or {tiny!r} to try it out."
        )

    def _new_module(self, backbone: Backbone, draws: RandomStream, **options):
        """Build a module whose first weights are drawn from ``draws``."""
        with draws.lent():
            # Moved as a whole: a Parameter that is moved alone comes back as a plain
            # tensor, which nobody trains or saves.
            module = self._build_module(backbone, len(self.classes_), **options)
            return module.to(draws.device)

    def _untrained(self, backbone: Backbone, device: torch.device, **options):
        """Build a module whose first weights do not matter."""
        # A stream all the same: who opens a pickle keeps torch's global generator.
        return self._new_module(backbone, RandomStream(0, device), **options)

    def _split(self, rows: np.ndarray, targets: Targets, seed: int) -> tuple:
        """Return the rows to train on and the rows to hold out."""
        return rows, rows[:0]

    def _watched(
        self, module: nn.Module, data: MultimodalDataset, held_out: np.ndarray
    ) -> Subset:
        """Return the rows that are scored while training: those held out."""
        return Subset(data, held_out)

    def _make_net(
        self, module: nn.Module, device: torch.device, callbacks=(), **options
    ) -> Net:
        loss = nn.BCEWithLogitsLoss if self._multilabel else nn.CrossEntropyLoss
        params = {
            "criterion": loss,
            "batch_size": self.batch_size,
            "iterator_valid__batch_size": max(PREDICT_BATCH, self.batch_size),
            # skorch would hold out a fifth of the rows.
            "train_split": None,
            "device": str(device),
            "autocast": autocast_type(self.precision, device),
            "owner": type(self).__name__,
        }
        params |= options | self._net_options(module)
        # The user's are added. In the place of ours they would switch off the schedule,
        # early stopping and the progress bar without a word.
        params["callbacks"] = [*callbacks, *params.get("callbacks", [])]
        return make_net(module, self._collate(module.backbone), params)

    def _net_options(self, module: nn.Module) -> dict:
        """Return what the skorch net needs for a training."""
        return {}

    def _keep(self, net: Net) -> None:
        """Set what a fit leaves: the net, its record and its size."""
        vars(self).pop("quantization_error_", None)
        self.net_ = net
        self.n_iter_ = len(net.history)
        self.history_ = history_frame(net)
        parameters = list(net.module_.parameters())
        self.n_parameters_ = sum(p.numel() for p in parameters)
        trained = [p for p in parameters if p.requires_grad]
        self.n_trainable_parameters_ = sum(p.numel() for p in trained)

    # Data ---------------------------------------------------------------------------

    def _state_cache(self) -> ByteCache | FolderCache | None:
        """Return where a method may keep the states of frozen layers, if anywhere."""
        return open_cache(self.cache, STATES)

    def _holding(self) -> AbstractContextManager:
        """Keep in the caches what is used inside the block, as far as it fits."""
        states = self._state_cache()
        return holding(IMAGES if states is STATES else None, states)

    def _recall(self, backbone: Backbone) -> Callable | None:
        """Return what tells whether the frozen states that a row's image goes into are
        at hand, or None where a method keeps none.

        Called as ``recall(present, image_key, ids)`` with whether image and text are
        there and a function that returns the tokens. An image of which it says so is
        not decoded before the module asks for it: the module, which says ``recalls``,
        gets ``host.pictures`` in the place of ``pixel_values``.
        """
        return None

    def _number(self, device: torch.device) -> torch.dtype:
        """Return the type that matrix products run in."""
        return autocast_type(self.precision, device) or torch.float32

    def _dataset(self, backbone: Backbone, rows: Rows, *args, **options):
        data = super()._dataset(backbone, rows, *args, **options)
        data.recall = self._recall(backbone)
        return data

    def _blank_batch(self, backbone: Backbone) -> dict[str, torch.Tensor]:
        """Return the batch of one row without any modality: white image, empty text."""
        rows = Rows.of({modality: [None] for modality in self._modalities}, [0])
        data = self._dataset(backbone, rows)
        batch, _ = self._collate(backbone)([data[0]])
        pictures = batch.pop("pictures", None)
        return batch if pictures is None else batch | pictures.pixels()

    # Prediction ---------------------------------------------------------------------

    def _evaluate(
        self, X, read: Callable = operator.call
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return outputs (n, k) and which rows had no modality to compute them from.

        ``read(module, **batch)`` turns a batch into (B, k), see :meth:`Net.evaluate`.
        """
        # Before anything fitted is touched: NotFittedError, not AttributeError.
        check_is_fitted(self)
        with self._holding():
            return self._evaluate_rows(self._check_X(X, reset=False), read)

    def _evaluate_rows(self, rows: Rows, read: Callable) -> tuple:
        data = self._dataset(self.net_.module_.backbone, rows, on_bad_image="record")
        filled = np.flatnonzero(rows.present.any(axis=1))
        # A batch is padded to its longest text, so those of about one length go
        # together. Padding is never attended to: the outputs do not depend on it.
        order = filled[np.argsort(data.text_lengths[filled], kind="stable")]
        values, bad = self._run(Subset(data, order), read)
        report_bad_images(rows, bad, self.on_bad_image)
        self._refuse_not_finite(rows, order, values)
        rows = without_images(rows, bad)
        empty = warn_of_empty_rows(rows)
        result = np.zeros((len(rows), values.shape[1]))
        result[order] = values
        # Rows whose only image was bad were computed, from dummies.
        result[empty] = 0.0
        return result, empty

    def _run(self, data: Subset, read: Callable) -> tuple[np.ndarray, dict[int, str]]:
        """Outputs in the order of ``data``, and reasons for images that are bad."""
        values, done, bad = None, 0, {}
        batches = self.net_.batches(data)
        with self._progress(len(data), "predict", quiet=len(batches) <= 1) as bar:
            for batch, _ in batches:
                bad |= bad_images_of(batch)
                # Texts in an object array, which cannot be moved to a device.
                for name in BAD & batch.keys():
                    batch.pop(name)
                bar.update(len(batch["row"]))
                # It will end in an error: decode on for its list, and compute nothing.
                if any(bad.values()) and self.on_bad_image == "raise":
                    continue
                part = self.net_.evaluate(batch, read).numpy()
                if values is None:
                    # Small arrays of each batch, if kept, would pin the memory of the
                    # large ones between them: kilobytes per row.
                    values = np.zeros((len(data), part.shape[1]), part.dtype)
                values[done : done + len(part)] = part
                done += len(part)
        if values is None:
            values = np.zeros((0, self._width(read)))
        return values, bad

    def _refuse_not_finite(self, rows: Rows, positions, values: np.ndarray) -> None:
        """Raise if one of ``values`` (m, k), of rows at positions (m,), is not."""
        refuse_not_finite(rows, positions, values, type(self).__name__)

    def _width(self, read: Callable) -> int:
        """Columns of what ``read`` returns."""
        batch = self._blank_batch(self.net_.module_.backbone)
        batch["present"] = torch.ones_like(batch["present"])
        return self.net_.evaluate(batch, read).shape[1]

    def _log_odds(self, X) -> np.ndarray:
        """Logits (n, C); for a row without any modality, those of the prior."""
        logits, empty = self._evaluate(X)
        logits[empty] = log_odds_of(self.class_prior_, self._multilabel)
        return logits

    def transform(self, X: TableLike) -> np.ndarray:
        """Return the fused features that the head classifies, (n, d).

        Zeros for a row without any modality. Of rows that ``fit`` has seen, and so of
        ``fit_transform``, they are in-sample: where the method trains inside of its
        encoders they know the labels, and what is fitted on them trusts them too much.
        :class:`OutOfFoldFeatures` gives cross-fitted columns.
        """
        return self._evaluate(X, _features)[0]

    # Export -------------------------------------------------------------------------

    def to_onnx(self, path: str | Path) -> None:
        """Write :meth:`predict_proba` as one file for onnxruntime, in float32.

        The graph maps ``pixel_values`` (B, 3, H, W) float32, ``input_ids`` and
        ``attention_mask`` (B, T) int64, and ``present`` (B, 2) bool, whether image and
        text are there, to ``probabilities`` (B, n_classes) float32; B and T may be any.
        What stands in a missing cell does not matter. An encoder whose images have
        several sizes also reads ``pixel_mask`` (B, H, W) int64, 1 inside the image;
        what an encoder does not read is left out. The metadata ``"robustmm"`` of the
        file, in JSON, has the ``classes``, and the ``tokenizer`` and ``image`` settings
        that make these inputs: :doc:`/performance` shows how.

        Parameters
        ----------
        path : path-like
            The file, which is overwritten. Weights of more than 2 GiB go beside it.

        Raises
        ------
        ImportError
            If onnx or onnxscript is not installed: ``pip install "robustmm[export]"``.
        NotImplementedError
            If the module decides something from what a batch holds, or a second model
            reads the cells.
        ValueError, OSError
            If the backbone's files have changed since the training, or are gone.
        """
        check_is_fitted(self)
        need_onnx()
        if self._modalities != MODALITIES:
            raise NotImplementedError(
                f"{type(self).__name__} can be exported if it reads images and texts, "
                f"got modalities={self._modalities}."
            )
        module = self._anew().net_.module_
        backbone, blank = module.backbone, self._blank_batch(module.backbone)
        if backbone.second is not None:
            raise NotImplementedError(
                f"{type(self).__name__} cannot be exported: a second model reads the "
                "cells, and prepares them in its own way."
            )
        collate, ragged = self._collate(backbone), False
        about = {"classes": self.classes_.tolist(), "multilabel": self._multilabel}
        about |= {"classifier": type(self).__name__, "version": __version__}
        if collate.transform is not None:
            about["image"], ragged = backbone.image_config, collate.transform.is_ragged
        if collate.tokenizer is not None:
            tokenizer = collate.tokenizer
            about |= {"tokenizer": tokenizer.to_json(), "pad_id": tokenizer.pad_id}
        prediction = Prediction(
            module,
            blank,
            torch.from_numpy(self.class_prior_),
            multilabel=self._multilabel,
            pad_id=about.get("pad_id", 0),
        )
        write_onnx(prediction, about, path, ragged)

    def quantized(self, X: TableLike) -> Self:
        """Return a twin that predicts with 8-bit linears on the CPU: an approximation.

        The weights of the encoders' layers are rounded to whole numbers with a scale
        for each output, their inputs to others with a scale for each token. Heads,
        poolers and what adapters train beside the linears stay in float32.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows to compare the two on, such as those that are held out.

        Returns
        -------
        classifier
            Another one, that cannot be saved: save this one. Its attribute
            ``quantization_error_`` is a dict of ``"max_probability"`` and
            ``"mean_probability"``, how far apart the probabilities are, and
            ``"changed"``, the part of the labels of ``X`` that differ.

        Raises
        ------
        ValueError
            If there is no row.
        """
        check_is_fitted(self)
        twin = self._anew()
        for stream in twin.net_.module_.backbone.streams.values():
            quantize_layers(stream)
        logits = self._log_odds(X), twin._log_odds(X)
        exact, found = map(self._to_proba, logits)
        labels = [self._to_labels(values) for values in logits]
        apart = np.abs(exact - found)
        twin.quantization_error_ = {
            "max_probability": float(apart.max()),
            "mean_probability": float(apart.mean()),
            "changed": float((labels[0] != labels[1]).mean()),
        }
        return twin

    def _anew(self) -> Self:
        """Return a twin of its own module: on the CPU, and looking nothing up."""
        twin = copy(self)
        twin.device, twin.precision, twin.cache = "cpu", "float32", None
        twin.compile = False  # its layers are traced as they are
        del twin.net_
        twin._restore(self._state())
        twin.net_.module_.eval()
        return twin

    # scikit-learn -------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    @property
    def _n_features_out(self) -> int:
        """Width of what :meth:`transform` returns; scikit-learn names the columns."""
        return self._width(_features)

    def __copy__(self) -> Self:
        """Share the net, which a copy by way of a pickle would not."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __getstate__(self) -> dict:
        """Return parameters, labels and the trained tensors, but no frozen weight."""
        # scikit-learn's own adds its version, and warns where another one opens it.
        state = dict(super().__getstate__())
        state["_robustmm_version"] = __version__
        if state.pop("net_", None) is not None:
            # ``_trained`` has it as arrays: no pickled DataFrame, which pandas may not
            # open in a later version.
            del state["history_"]
            state["_trained"] = self._state()
            # One that is not fitted is to be trained: it must not lose a callback.
            state, left = without_unstorable(state, can_pickle)
            warn_of_left_out(left, "pickle")
        return state

    def __setstate__(self, state: dict) -> None:
        state = dict(state)
        trained = state.pop("_trained", None)
        state.pop("_robustmm_version", None)
        super().__setstate__(state)
        self._forget_other_columns()
        if trained is not None:
            self._restore(trained)

    def _forget_other_columns(self) -> None:
        """Keep the two names of an earlier version's model, which had all of them."""
        names, read = getattr(self, "feature_names_in_", ()), self._columns
        if len(names) > len(read) and set(read) <= set(names):
            self.feature_names_in_ = np.array(read, dtype=object)
            self.n_features_in_ = len(read)

    def _state(self) -> dict:
        """Return what pickles and saved models hold in the place of ``net_``.

        Only JSON values and arrays. A method that has more to keep extends this and
        :meth:`_restore`.
        """
        module = self.net_.module_
        if is_quantized(module):
            raise ValueError(
                "A quantised classifier cannot be saved or exported: save the one it "
                "was made of, and call quantized(X) again where it is opened."
            )
        return {
            "fingerprint": module.backbone.fingerprint,
            "inputs": module.backbone.inputs,
            "history": {name: c.to_numpy() for name, c in self.history_.items()},
            "tensors": dump_tensors(module),
        }

    def _restore(self, trained: dict) -> None:
        """Set ``net_`` and ``history_`` from what :meth:`_state` returned."""
        device = resolve_device(self.device, fall_back=True)
        known = trained["fingerprint"], type(self).__name__, trained.get("inputs")
        with fitted_on(*known) as check:
            backbone = check(self._load_backbone(device))
        backbone.modalities = self._modalities
        module = self._untrained(backbone, device)
        load_tensors(module, trained["tensors"])
        self.history_ = pd.DataFrame(trained["history"])
        self.net_ = self._make_net(module, device)
        restore_history(self.net_, self.history_)


def _features(module: nn.Module, **batch: torch.Tensor) -> torch.Tensor:
    """What the head of any method's module classifies, (B, d)."""
    return module.features(**batch)
