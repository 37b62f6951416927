"""What classifiers of a table with holes share: rows, labels, weights, answers."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.validation import _check_sample_weight, validate_data
from tqdm.auto import tqdm

from .annotations import TableLike
from .backbones import Backbone
from .checks import check_choice, check_folder, check_number
from .data import (
    IMAGES,
    MAX_PIXELS,
    MODALITIES,
    AudioTransform,
    Collate,
    ImageTransform,
    MultimodalDataset,
    PairedCollate,
    PairedDataset,
    Rows,
    VideoTransform,
    find_bad_images,
    open_cache,
    prepare_tokenizer,
    read_rows,
)
from .data.clips import find_bad_clips
from .data.screening import (
    missing_report,
    report_bad_images,
    warn_of_empty_rows,
    without_images,
)
from .data.targets import Targets, check_sum, encode_targets
from .parameters import Parameters
from .training.device import PRECISIONS
from .training.processes import current
from .training.tasks import FitTasks

# Threads that decode all images once before the training.
N_THREADS = min(4, os.cpu_count() or 1)


class TableClassifier(
    # Mixins stand left of BaseEstimator: scikit-learn checks the order.
    Parameters,
    FitTasks,
    ClassifierMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base class of all that classifies a table of images and texts with holes.

    It reads rows, labels and weights, and turns log-odds into answers: a subclass
    writes ``fit`` and ``_log_odds``. One around a single network is a
    :class:`BaseMultimodalClassifier`, one of several classifiers an
    :class:`AutoMultimodalClassifier`. Parameters are annotated fields.

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
    blank_image : {"bad", "missing"}
        What an image cell is that is a blank text, as ``""`` in a CSV: one that cannot
        be read, or a missing modality.
    max_pixels : int
        An image of more pixels is one that cannot be read, known from its header before
        it is decoded. Some formats have a limit of Pillow's, which is the default.
    batch_size : int
        Rows per optimiser step; of several processes, those of each.
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
    missing_report_ : dict
        Counts of training rows per pattern, and ``"bad_images"``, reason by row.
    n_features_in_, feature_names_in_
        The columns that are read, ``image_column`` and ``text_column``, whatever others
        a table has.
    """

    _doc_link_module = "robustmm"
    _doc_link_template = (
        "https://robustmm.readthedocs.io/en/latest/"
        "generated/robustmm.{estimator_name}.html"
    )

    image_column: str = "image"
    text_column: str = "text"
    image_root: str | Path | None = None
    max_text_length: int | None = None
    on_bad_image: str = "raise"
    blank_image: str = "bad"
    max_pixels: int = MAX_PIXELS
    batch_size: int = 32
    class_weight: str | dict | None = None
    device: str = "auto"
    precision: str = "auto"
    cache: str | Path | None = "memory"
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    # Attributes of the fitted classifier beside those that every one has, for `load`,
    # which takes no others.
    _KEPT = ()

    def _saved_parameters(self) -> dict:
        """Return the parameters that a saved model holds."""
        return self.get_params(deep=False)

    @classmethod
    def _check_saved(cls, state: dict) -> None:
        """Raise ValueError unless a saved state can be that of a fitted classifier.

        Of what ``_KEPT`` names; for classes without a net, whose tensors are checked.
        """

    @abstractmethod
    def _log_odds(self, X) -> np.ndarray:
        """Return logits (n, C); for a row without any modality, those of the prior."""

    def _check_parameters(self) -> None:
        """Raise for a parameter that is out of its range; methods extend this."""
        check_number("batch_size", self.batch_size, Integral, 1)
        check_choice("on_bad_image", self.on_bad_image, ("raise", "missing"))
        check_choice("blank_image", self.blank_image, ("bad", "missing"))
        check_number("max_pixels", self.max_pixels, Integral, 1)
        check_choice("precision", self.precision, PRECISIONS)
        check_folder("cache", self.cache, ("memory", None))
        if self.max_text_length is not None:
            check_number("max_text_length", self.max_text_length, Integral, 2)

    def _encode(self, y, classes=None, multilabel: bool = False) -> Targets:
        """Check and encode labels; see ``encode_targets``."""
        return encode_targets(y, classes, multilabel)

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        """Set ``classes_`` and ``class_prior_`` from the rows to train on."""
        self.classes_, self._multilabel = targets.classes, targets.multilabel
        self.class_prior_ = targets.prior(weights)

    @property
    def _modalities(self) -> tuple[str, ...]:
        """What is read of a row, in the order of the columns of ``present``."""
        return MODALITIES

    @property
    def _columns_by_modality(self) -> dict[str, str]:
        return {name: getattr(self, f"{name}_column") for name in self._modalities}

    @property
    def _columns(self) -> list[str]:
        """The columns that are read: one, if it is both."""
        return list(dict.fromkeys(self._columns_by_modality.values()))

    def _check_X(self, X: pd.DataFrame, reset: bool) -> Rows:
        """Read the table; the one place where input of any kind comes in."""
        rows = read_rows(
            X,
            image_root=self.image_root,
            blank_image=self.blank_image,
            columns=self._columns_by_modality,
        )
        self._check_features(X, reset)
        if len(rows) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={getattr(X, 'shape', (0, 2))}) "
                f"while a minimum of 1 is required by {type(self).__name__}."
            )
        return rows

    def _check_features(self, X, reset: bool) -> None:
        """Set or compare ``feature_names_in_``: no column but the two is a feature."""
        is_array = isinstance(X, np.ndarray)
        known = list(getattr(self, "feature_names_in_", ()))
        # Compared here, as a frame for scikit-learn to look at costs more than a row.
        if not reset and not is_array and known == self._columns:
            return
        # For names, and scikit-learn's messages; its check of the values would make
        # numbers of the cells.
        named = X if is_array else pd.DataFrame(columns=self._columns)
        validate_data(self, named, reset=reset, skip_check_array=True)

    def _check_weights(self, rows: Rows, targets: Targets, weights) -> np.ndarray:
        check_consistent_length(rows.index, targets.encoded)
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
        options = N_THREADS, self._is_shown
        processes = current()
        dealt = processes.rank, processes.size
        found = find_bad_images(probe.images, *options, probe.is_needed, dealt)
        for cells in probe.clips.values():
            found |= find_bad_clips(cells, *options, dealt)
        bad = {i: why for part in processes.gather(found) for i, why in part.items()}
        report_bad_images(rows, bad, self.on_bad_image)
        return without_images(rows, bad), bad

    def _dataset(
        self,
        backbone: Backbone,
        rows: Rows,
        targets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        on_bad_image: str = "raise",
    ) -> MultimodalDataset:
        collate = self._collate(backbone)
        options = {
            "targets": targets,
            "weights": weights,
            "cache": open_cache(self.cache, IMAGES),
            "on_bad_image": on_bad_image,
        }
        if isinstance(collate, PairedCollate):
            return PairedDataset(rows, collate, **options)
        parts = collate.transform, collate.tokenizer
        return MultimodalDataset(rows, *parts, **options, clips=collate.clips)

    def _collate(self, backbone: Backbone) -> Collate:
        config, tokenizer, transform = backbone.image_config, backbone.tokenizer, None
        clips: dict = {}
        if config is not None:
            transform = ImageTransform.from_config(config, self.max_pixels)
        if tokenizer is not None:
            tokenizer = prepare_tokenizer(tokenizer, backbone.max_text_length)
        if "audio" in backbone:
            clips["audio"] = AudioTransform.from_config(backbone.audio_config)
        if "video" in backbone:
            clips["video"] = VideoTransform(transform)
            if not {"image", "joint"} & set(backbone.streams):
                transform = None
        collate = Collate(
            transform, tokenizer, clips=clips, modalities=self._modalities
        )
        if backbone.second is None:
            return collate
        return PairedCollate(collate, self._collate(backbone.second))

    @contextmanager
    def _progress(self, total: int, what: str, quiet: bool = False) -> Iterator[tqdm]:
        name = f"{type(self).__name__}.{what}"
        quiet = quiet or not self._is_shown
        with tqdm(total=total, desc=name, disable=quiet) as bar:
            yield bar

    @property
    def _is_shown(self) -> bool:
        """Whether progress is shown: of several processes, by the first one."""
        return bool(self.verbose) and current().is_first

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

    def decision_function(self, X: TableLike) -> np.ndarray:
        """Return logits, (n, n_classes), or (n,) for two classes.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Rows with the two columns that are read, in any order.
        """
        return self._to_decision(self._log_odds(X))

    def predict_proba(self, X: TableLike) -> np.ndarray:
        """Return probabilities (n, n_classes), in the order of ``classes_``.

        Multiclass rows sum to one; multilabel entries are independent. A row without
        any modality gets ``class_prior_``.
        """
        return self._to_proba(self._log_odds(X))

    def predict(self, X: TableLike) -> np.ndarray:
        """Return labels (n,) as they were given to ``fit``, or indicators (n, L).

        A label of a multilabel target is set where its probability exceeds 0.5.
        """
        return self._to_labels(self._log_odds(X))

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
