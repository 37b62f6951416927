"""What all classifiers share: rows, labels, prediction, pickles; not the training."""

from __future__ import annotations

import inspect
import logging
import operator
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_consistent_length, check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from torch import nn
from torch.utils.data import Subset
from tqdm.auto import tqdm

from ._version import __version__
from .backbones import Backbone, MissingStream, fitted_on, load_encoders
from .checks import check_choice, check_folder, check_number
from .data import (
    IMAGES,
    MAX_PIXELS,
    STATES,
    ByteCache,
    Collate,
    FolderCache,
    ImageTransform,
    MultimodalDataset,
    Rows,
    TextTokenizer,
    bad_images_of,
    find_bad_images,
    open_cache,
    read_rows,
)
from .data.frame import numbered_names
from .data.screening import (
    missing_report,
    refuse_not_finite,
    report_bad_images,
    report_damage,
    rows_to_train,
    warn_of_empty_rows,
    warn_of_left_out,
    without_images,
)
from .data.targets import Targets, check_sum, encode_targets, mean_one
from .parameters import Parameters
from .storage.left_out import can_pickle, without_unstorable
from .storage.tensors import dump_tensors, load_tensors
from .training.device import (
    PRECISIONS,
    RandomStream,
    autocast_type,
    resolve_device,
)
from .training.net import Net, history_frame, make_net, restore_history
from .training.tasks import FitTasks

logger = logging.getLogger("robustmm")

# Rows per forward pass of a prediction, whatever the training used.
PREDICT_BATCH = 64
# Threads that decode all images once before the training.
N_THREADS = min(4, os.cpu_count() or 1)
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
    # Mixins stand left of BaseEstimator: scikit-learn checks the order.
    Parameters,
    FitTasks,
    ClassNamePrefixFeaturesOutMixin,
    ClassifierMixin,
    TransformerMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base class of image+text classifiers for rows with missing modalities.

    What every classifier has: rows, labels, prediction and pickles. How the module
    comes to its weights is left to subclasses, of which
    :class:`MultimodalClassifier` trains by gradient descent. Parameters are annotated
    fields: a subclass declares its own, and again those that it gives another default.

    Parameters
    ----------
    image_column : str
        Name of the column of images. A null cell is a missing modality. Columns that
        are not named are ignored.
    text_column : str
        Name of the column of texts. A null cell or a blank text is a missing modality.
    image_root : path-like, optional
        Folder that relative image paths start from; the working directory if None.
    max_text_length : int, optional
        Longest text in tokens; None means what the checkpoint was trained with.
    on_bad_image : {"raise", "missing"}
        What to do with an image that cannot be read: raise one error that lists the
        rows, or treat the cells as missing, with one warning.
    max_pixels : int
        An image of more pixels is one that cannot be read, known from its header before
        it is decoded. Some formats have a limit of Pillow's, which is the default.
    batch_size : int
        Rows per optimiser step.
    class_weight : "balanced", dict or None
        Weights of the classes, in the original labels: finite, not negative, not all
        zero. A class that is left out has weight 1.
    device : str
        ``"auto"`` (CUDA if there is one, else Apple's MPS, else the CPU), ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``, ``"mps"``, ...
    precision : {"auto", "float32", "bfloat16"}
        ``"auto"`` is bfloat16 autocast on CUDA devices that have it, else float32.
    cache : {"memory", None} or path-like
        Whether decoded images are kept, so that epochs, folds and grid candidates share
        them: in the process, up to one GiB for all estimators together, or in an
        existing folder, as files of up to 64 GiB, for later processes as well.
    random_state : int, RandomState instance or None
        Seeds initialisation, order of rows, dropout and the held-out part.
    verbose : int
        0 is silent, 1 shows progress bars.

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
        Columns seen in ``fit``.
    """

    _doc_link_module = "robustmm"
    _doc_link_template = (
        "https://robustmm.readthedocs.io/en/latest/"
        "generated/robustmm.{estimator_name}.html"
    )

    # The streams that the method stands on; None where any backbone will do.
    STREAMS: ClassVar[tuple[str, ...] | None] = None

    image_column: str = "image"
    text_column: str = "text"
    image_root: str | Path | None = None
    max_text_length: int | None = None
    on_bad_image: str = "raise"
    max_pixels: int = MAX_PIXELS
    batch_size: int = 32
    class_weight: str | dict | None = None
    device: str = "auto"
    precision: str = "auto"
    cache: str | Path | None = "memory"
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    # Attributes of the fitted classifier that a method adds to those listed above, for
    # `load`, which takes no others.
    _KEPT = ()

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
            self.backbone,
            getattr(self, "text_backbone", None),
            device=device,
            max_text_length=self.max_text_length,
        )

    def _check_backbone(self, backbone: Backbone) -> None:
        """Raise if the method cannot stand on a backbone that has its streams.

        Called in ``fit`` before any image is opened.
        """

    @classmethod
    def _small(cls, **params) -> BaseMultimodalClassifier:
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
        """Raise for a parameter that is out of its range; methods extend this."""
        check_number("batch_size", self.batch_size, Integral, 1)
        check_choice("on_bad_image", self.on_bad_image, ("raise", "missing"))
        check_number("max_pixels", self.max_pixels, Integral, 1)
        check_choice("precision", self.precision, PRECISIONS)
        check_folder("cache", self.cache, ("memory", None))
        if self.max_text_length is not None:
            check_number("max_text_length", self.max_text_length, Integral, 2)

    # Fitting ------------------------------------------------------------------------

    def fit(
        self, X: pd.DataFrame, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> BaseMultimodalClassifier:
        """Train on rows whose image or text may be missing.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells; an array is read by position: image, text.
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
        weights = self._check_weights(rows, targets, sample_weight)
        # One number is all that a generator of the caller's gives: how far it moves
        # does not depend on the method or its epochs.
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        draws = RandomStream(seed, resolve_device(self.device))
        # Before the module, which has an output for each of ``classes_``.
        self._take_labels(targets, weights)
        module, data, kept = self._prepare(rows, targets, weights, draws)
        train, held_out = self._split(kept, targets, seed)
        watched = self._watched(module, data, held_out)
        net = self._train(module, Subset(data, train), watched, draws)
        self._keep(net)
        report = report_damage(data.rows, net.damaged_, self.missing_report_)
        self.missing_report_ = report

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
        in_loss = mean_one(in_loss, kept)
        module = self._new_module(backbone, draws)
        # What is bad by now was told of by the screening. A file that is damaged later
        # is recorded by the net, for one warning at the end.
        on_bad_image = "raise" if self.on_bad_image == "raise" else "record"
        data = self._dataset(backbone, rows, targets.encoded, in_loss, on_bad_image)
        return module, data, kept

    def _open_backbone(self, device: torch.device) -> Backbone:
        """Load the backbone and refuse what the method cannot stand on."""
        try:
            backbone = self._load_backbone(device)
        except MissingStream as error:
            raise ValueError(self._needs(error.name, error.offers)) from error
        if not set(self.STREAMS or ()) <= set(backbone.streams):
            source = next(iter(backbone.sources.values()))
            raise ValueError(self._needs(source, list(backbone.streams)))
        self._check_backbone(backbone)
        return backbone

    def _needs(self, source: str, offers: Sequence[str]) -> str:
        """Say what the method stands on, what was given and what to pass."""
        kind, name, tiny = _EXAMPLES[self.STREAMS or ("image", "text")]
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

    def _encode(self, y, classes=None, multilabel: bool = False) -> Targets:
        """Check and encode labels; see ``encode_targets``."""
        return encode_targets(y, classes, multilabel)

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        """Set ``classes_`` and ``class_prior_`` from the rows to train on."""
        self.classes_, self._multilabel = targets.classes, targets.multilabel
        self.class_prior_ = targets.prior(weights)

    def _check_X(self, X: pd.DataFrame, reset: bool) -> Rows:
        """Read the table; the one place where input of any kind comes in."""
        if not isinstance(X, (pd.DataFrame, np.ndarray)):
            raise TypeError(
                "X must be a DataFrame, or an object ndarray of shape (n, 2), got "
                f"{type(X).__name__}."
            )
        named = numbered_names(X) if isinstance(X, pd.DataFrame) else X
        # For names, their order and scikit-learn's messages; its check of the values
        # would make numbers of the cells.
        validate_data(self, named, reset=reset, skip_check_array=True)
        rows = read_rows(X, self.image_column, self.text_column, self.image_root)
        if len(rows) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 "
                f"is required by {type(self).__name__}."
            )
        return rows

    def _check_weights(self, rows: Rows, targets: Targets, weights) -> np.ndarray:
        check_consistent_length(rows.texts, targets.encoded)
        # Stands for X, of which scikit-learn only asks how long it is.
        shape = np.empty((len(rows), 1))
        weights = _check_sample_weight(
            weights, shape, dtype=np.float64, ensure_non_negative=True
        )
        if not weights.any():
            raise ValueError("sample_weight must not be zero for every row.")
        check_sum("sample_weight", weights)
        return weights

    def _screen(self, rows: Rows, backbone: Backbone) -> Rows:
        """Decode every image once, so that all bad ones are known before training."""
        rows, bad = self._decoded(rows, backbone)
        self.missing_report_ = missing_report(rows, bad)
        warn_of_empty_rows(rows, fitting=True)
        return rows

    def _decoded(self, rows: Rows, backbone: Backbone) -> tuple[Rows, dict[int, str]]:
        """Return rows without images that cannot be read, and reasons; or raise."""
        # Recorded even where they will raise, so that one error names all of them.
        probe = self._dataset(backbone, rows, on_bad_image="record")
        bad = find_bad_images(probe.images, N_THREADS, bool(self.verbose))
        report_bad_images(rows, bad, self.on_bad_image)
        return without_images(rows, bad), bad

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
        self.net_ = net
        self.n_iter_ = len(net.history)
        self.history_ = history_frame(net)
        parameters = list(net.module_.parameters())
        self.n_parameters_ = sum(p.numel() for p in parameters)
        trained = [p for p in parameters if p.requires_grad]
        self.n_trainable_parameters_ = sum(p.numel() for p in trained)

    # Data ---------------------------------------------------------------------------

    def _dataset(
        self,
        backbone: Backbone,
        rows: Rows,
        targets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        on_bad_image: str = "raise",
    ) -> MultimodalDataset:
        collate = self._collate(backbone)
        return MultimodalDataset(
            rows,
            collate.transform,
            collate.tokenizer,
            targets=targets,
            weights=weights,
            cache=open_cache(self.cache, IMAGES),
            on_bad_image=on_bad_image,
        )

    def _state_cache(self) -> ByteCache | FolderCache | None:
        """Return where a method may keep the states of frozen layers, if anywhere."""
        return open_cache(self.cache, STATES)

    def _blank_batch(self, backbone: Backbone) -> dict[str, torch.Tensor]:
        """Return the batch of one row without any modality: white image, empty text."""
        data = self._dataset(backbone, Rows([None], [None], [0]))
        return self._collate(backbone)([data[0]])[0]

    def _collate(self, backbone: Backbone) -> Collate:
        config, tokenizer, transform = backbone.image_config, backbone.tokenizer, None
        if config is not None:
            transform = ImageTransform.from_config(config, self.max_pixels)
        if tokenizer is not None:
            tokenizer = TextTokenizer(tokenizer, backbone.max_text_length)
        return Collate(transform, tokenizer)

    @contextmanager
    def _progress(self, total: int, what: str, quiet: bool = False) -> Iterator[tqdm]:
        name = f"{type(self).__name__}.{what}"
        with tqdm(total=total, desc=name, disable=quiet or not self.verbose) as bar:
            yield bar

    @contextmanager
    def _unchanged_on_failure(self) -> Iterator[None]:
        """Leave the estimator as it was when the block raises, Ctrl-C included.

        Checkpoints are kept until the outermost block has ended well.
        """
        # A shallow copy will do: fitted attributes are replaced, never changed in
        # place.
        before = dict(vars(self))
        # A block inside another, as of partial_fit in a fit with tasks, adds to its
        # list.
        self._checkpoints = before.get("_checkpoints", [])
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
        if "_checkpoints" not in before:
            for file in vars(self).pop("_checkpoints"):
                file.unlink(missing_ok=True)

    # Prediction ---------------------------------------------------------------------

    def _evaluate(
        self, X, read: Callable = operator.call
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return outputs (n, k) and which rows had no modality to compute them from.

        ``read(module, **batch)`` turns a batch into (B, k), see :meth:`Net.evaluate`.
        """
        # Before anything fitted is touched: NotFittedError, not AttributeError.
        check_is_fitted(self)
        rows = self._check_X(X, reset=False)
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
        batches = self.net_.get_iterator(data, training=False)
        with self._progress(len(data), "predict", quiet=len(batches) <= 1) as bar:
            for batch, _ in batches:
                bad |= bad_images_of(batch)
                # Texts in an object array, which cannot be moved to a device.
                batch.pop("bad", None)
                bar.update(len(batch["row"]))
                # It will end in an error: decode on for its list, and compute nothing.
                if bad and self.on_bad_image == "raise":
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
        with np.errstate(divide="ignore"):
            log_prior = np.log(self.class_prior_)
            if self._multilabel:
                log_prior -= np.log1p(-self.class_prior_)
        # Finite, as scores are that can be ranked and averaged; and so far out that the
        # probability of a class that was never seen is exactly 0.
        logits[empty] = np.clip(log_prior, -1e3, 1e3)
        return logits

    def decision_function(self, X: pd.DataFrame) -> np.ndarray:
        """Return logits, (n, n_classes), or (n,) for two classes.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the columns seen in ``fit``.
        """
        return self._to_decision(self._log_odds(X))

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Return probabilities (n, n_classes), in the order of ``classes_``.

        Multiclass rows sum to one; multilabel entries are independent. A row without
        any modality gets ``class_prior_``.
        """
        return self._to_proba(self._log_odds(X))

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Return labels (n,) as they were given to ``fit``, or indicators (n, L).

        A label of a multilabel target is set where its probability exceeds 0.5.
        """
        return self._to_labels(self._log_odds(X))

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return the fused features that the head classifies, (n, d).

        Zeros for a row without any modality.
        """
        return self._evaluate(X, _features)[0]

    def _to_decision(self, logits: np.ndarray) -> np.ndarray:
        if not self._multilabel and logits.shape[1] == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    def _to_proba(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits) if self._multilabel else softmax(logits, axis=1)

    def _to_labels(self, logits: np.ndarray) -> np.ndarray:
        if self._multilabel:
            return (logits > 0).astype(np.int64)
        return self.classes_[logits.argmax(axis=1)]

    # scikit-learn -------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    @property
    def _n_features_out(self) -> int:
        """Width of what :meth:`transform` returns; scikit-learn names the columns."""
        return self._width(_features)

    def __copy__(self) -> BaseMultimodalClassifier:
        """Share the net, which a copy by way of a pickle would not."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # No tag says tables of images and texts, and none can be added.
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_label = True
        # Backward passes of gather and of attention add in any order there.
        cuda = self.device == "auto" and torch.cuda.is_available()
        tags.non_deterministic = cuda or str(self.device).startswith("cuda")
        return tags

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
        if trained is not None:
            self._restore(trained)

    def _state(self) -> dict:
        """Return what pickles and saved models hold in the place of ``net_``.

        Only JSON values and arrays. A method that has more to keep extends this and
        :meth:`_restore`.
        """
        module = self.net_.module_
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
        module = self._untrained(backbone, device)
        load_tensors(module, trained["tensors"])
        self.history_ = pd.DataFrame(trained["history"])
        self.net_ = self._make_net(module, device)
        restore_history(self.net_, self.history_)


def _features(module: nn.Module, **batch: torch.Tensor) -> torch.Tensor:
    """What the head of any method's module classifies, (B, d)."""
    return module.features(**batch)
