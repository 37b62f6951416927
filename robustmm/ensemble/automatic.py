"""A classifier that tries others, averages the best and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..annotations import TableLike
from ..backbones import Backbone
from ..checks import check_number
from ..clips import ClipColumns
from ..data import (
    IMAGES,
    ImageTransform,
    Rows,
    find_bad_images,
    holding,
    open_cache,
)
from ..data.clips import ClipCells, find_bad_clips
from ..data.frame import MODALITIES, column_position, pattern_names
from ..data.images import ImageCells
from ..data.screening import (
    by_modality,
    missing_report,
    report_bad_images,
    rows_to_train,
    warn,
    warn_of_empty_rows,
    without_images,
)
from ..data.tables import as_frame
from ..data.targets import Targets, log_odds_of
from ..methods.linear_probe import LinearProbeClassifier
from ..table import N_THREADS
from ..training.device import resolve_device
from ..training.processes import fit_alone
from .baselines import TfidfClassifier, check_array
from .calibration import at_temperature
from .candidates import (
    Candidate,
    backbones_of,
    check_given,
    default_candidates,
    given_candidates,
    image_config_of,
)
from .leaderboard import check_records, leaderboard_frame
from .outputs import combine, log_outputs
from .rungs import shown
from .search import search
from .trials import Bench, Clock, varied

# What the candidates have in common with this class.
_SHARED = (
    *("image_column", "text_column", "image_root", "max_text_length", "on_bad_image"),
    *("blank_image", "max_pixels", "batch_size", "class_weight"),
    *("device", "precision", "cache", "modalities", "audio_column", "video_column"),
)


class AutoMultimodalClassifier(ClipColumns):
    """Try what stands on the given encoders, average the best, and say why.

    Candidates from cheap to dear, from the class frequencies to full fine-tuning, are
    fitted on one part of the rows and scored on another, which misses what all rows
    miss. Those far behind after a few epochs are dropped, the others are trained to the
    end, a few are chosen greedily, and those are fitted again on all rows. What they
    say is averaged as logarithms of probabilities, and calibrated per missing pattern.

    Parameters
    ----------
    backbones : str, path-like or sequence of them
        Hub ids, local folders or embedded names of encoders, in any mixture. What is
        tried follows from what they offer.
    candidates : "default" or list of (str, classifier)
        What is tried in its place: any scikit-learn classifier of the whole table with
        ``predict_proba``, whose other columns it may read, or of this package; the
        string ``"default"`` in the list adds the default ones.
    time_limit : float, optional
        Seconds that ``fit`` may take. At least one candidate is always fitted. One that
        is not of this package cannot be stopped.
    scoring : str, callable or None
        What candidates are compared by, and what the ensemble raises, as in
        scikit-learn; ties are broken by log-loss. None is mean average precision for
        indicators; otherwise accuracy, while the ensemble lowers the log-loss.
    validation_fraction : float
        The part of the rows that is held out.
    cv : int or splitter, optional
        Hold out each part of the rows in turn instead: as many fits of every candidate,
        and a choice on all rows.
    ensemble_size : int
        Steps of the greedy selection, so the most members there can be; 1 takes a
        single candidate.
    max_epochs : int
        Passes over the rows of the default candidates that are trained in epochs.
    calibrate : bool
        Divide logits by a temperature for each missing pattern.
    refit : bool
        Fit the members again on all rows; otherwise they stay as they were compared.
    on_bad_image : {"raise", "missing"}
        What to do with an image that cannot be read: raise one error that lists the
        rows, or treat the cells as missing, with one warning.
    class_weight : "balanced", dict or None
        Weights of the classes, in the original labels, for the default candidates and
        for the scores.
    verbose : int
        0 is silent, 1 shows one bar for the whole fit.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    class_prior_ : ndarray of shape (n_classes,)
        Frequency of each class; the prediction for a row without any modality.
    leaderboard_ : DataFrame
        A row per candidate and one of the ensemble, the best first: scores on all
        held-out rows and on those of each missing pattern, calibration error, weight in
        the ensemble, seconds of the fit, milliseconds per predicted row, trained
        parameters, and what became of it and why.
    members_ : list of (str, classifier)
        The fitted members.
    weights_ : ndarray of shape (n_members,)
        How much each counts; the sum is 1.
    temperatures_ : dict from pattern to float
        What logits are divided by.
    n_trainable_parameters_ : int
        Trained parameters of all members.
    missing_report_ : dict
        Counts of training rows per pattern, and ``"bad_images"``, reason by row.
    n_features_in_, feature_names_in_
        Columns seen in ``fit``.

    See Also
    --------
    EnsembleSelection : Chooses among classifiers that are fitted already.
    LeaderboardDisplay : Draws the leaderboard.

    Examples
    --------
    >>> from robustmm import AutoMultimodalClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = AutoMultimodalClassifier(
    ...     "robustmm/tiny-clip", max_epochs=1, time_limit=20, random_state=0
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    >>> clf.leaderboard_.loc["ensemble", "status"]
    'ensemble'
    """

    backbones: str | Path | Sequence[str | Path] = field(
        default=("openai/clip-vit-base-patch16",), kw_only=False
    )
    candidates: str | Sequence = "default"
    time_limit: float | None = None
    scoring: str | Callable | None = None
    validation_fraction: float = 0.2
    cv: object = None
    ensemble_size: int = 25
    max_epochs: int = 12
    calibrate: bool = True
    refit: bool = True

    _KEPT = (
        *("members_", "weights_", "temperatures_", "n_trainable_parameters_"),
        "_leaderboard",
    )

    @classmethod
    def _small(cls, **params) -> AutoMultimodalClassifier:
        """Return an instance that is fitted in a moment, for checks and tests."""
        candidates = [
            ("words", TfidfClassifier()),
            ("probe", LinearProbeClassifier("robustmm/tiny-clip", C=0.1)),
        ]
        small = {"backbones": "robustmm/tiny-clip", "candidates": candidates}
        return cls(**small, random_state=0, device="cpu").set_params(**params)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, Real, 0, open="low")
        fraction = self.validation_fraction
        check_number("validation_fraction", fraction, Real, 0, 1, open="both")
        check_number("ensemble_size", self.ensemble_size, Integral, 1)
        check_number("max_epochs", self.max_epochs, Integral, 1)
        if isinstance(self.cv, Integral):
            check_number("cv", self.cv, Integral, 2)
        check_given(self.candidates)
        backbones = self._encoders()
        if not all(isinstance(b, str | Path) for b in backbones):
            raise ValueError(
                "backbones must be a checkpoint's name or path, or a list of them, got "
                f"{self.backbones!r}."
            )

    # Fitting ------------------------------------------------------------------------

    def fit(
        self, X: TableLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Try, choose and fit on rows whose image or text may be missing.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells, and columns that candidates of yours read.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels; an indicator matrix means multilabel.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in losses and scores; a row of weight zero is left out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For parameters, columns, cells, labels, weights or images that cannot be
            used, and if every candidate fails, with the reason of each.
        """
        clock = Clock(self.time_limit)
        # By the clock of each process they would come to different candidates.
        with self._unchanged_on_failure(), fit_alone():
            self._check_parameters()
            rows, targets = self._check_X(X, reset=True), self._encode(y)
            fit = partial(self._fit_rows, X, rows, targets, sample_weight, clock)
            self._fit_as_task(fit, X, y, sample_weight)
        return self

    def _fit_rows(self, X, rows: Rows, targets: Targets, sample_weight, clock) -> None:
        weights = self._check_weights(rows, targets, sample_weight)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self._take_labels(targets, weights)
        in_loss = targets.weights(self.class_weight, weights)
        # Encoders first: one that cannot be found costs no decoded image.
        candidates = self._candidates()
        bad = self._read_images(rows, candidates)
        rows = without_images(rows, bad)
        kept = rows_to_train(rows, weights)
        bench = Bench(
            self._table(X, bad).iloc[kept],
            targets.take(kept),
            rows.patterns[kept],
            varied(weights[kept]),
            varied(in_loss[kept]),
            seed,
        )
        bench.split(self.validation_fraction, self.cv)
        with shown(clock, bool(self.verbose), type(self).__name__) as tell:
            found = search(bench, candidates, self, clock, tell)
        self.members_, self.weights_ = found.members, found.weights
        self.temperatures_, self._leaderboard = found.temperatures, found.records
        counts = [getattr(m, "n_trainable_parameters_", 0) for _, m in self.members_]
        self.n_trainable_parameters_ = int(sum(counts))
        for message in bench.messages:
            warn(message)

    def _candidates(self) -> list[Candidate]:
        device = resolve_device(self.device)
        shared = {name: getattr(self, name) for name in _SHARED}
        pairs, with_default = check_given(self.candidates)
        found = given_candidates(pairs, shared)
        if with_default:
            found += default_candidates(
                self._encoders(), shared, self.max_epochs, device
            )
        return found

    def _encoders(self) -> list:
        several = isinstance(self.backbones, list | tuple)
        # Once each: a name that stands twice would make every candidate twice.
        return list(dict.fromkeys(self.backbones if several else [self.backbones]))

    def _read_images(self, rows: Rows, candidates: Sequence[Candidate]) -> dict:
        """Decode every image once, and return reasons for those that are bad."""
        device = resolve_device(self.device)
        config = image_config_of(candidates, device) if "image" in rows.cells else None
        bad = self._bad_images(rows, config)
        bad |= self._bad_clips(rows, backbones_of(candidates, device))
        rows = without_images(rows, bad)
        self.missing_report_ = missing_report(rows, bad)
        warn_of_empty_rows(rows, fitting=True)
        return bad

    def _bad_images(self, rows: Rows, config: dict | None) -> dict[int, str]:
        """Decode as a member would, so that members find the images in the cache."""
        # What cannot be read is said even where nobody looks at images.
        transform = ImageTransform(size=(32, 32), max_pixels=self.max_pixels)
        if config is not None:
            transform = ImageTransform.from_config(config, self.max_pixels)
        cells = ImageCells(rows, transform, open_cache(self.cache, IMAGES))
        with holding(cells.cache):
            bad = find_bad_images(cells, N_THREADS)
        report_bad_images(rows, bad, self.on_bad_image)
        return bad

    def _bad_clips(self, rows: Rows, backbones: Iterable[Backbone]) -> dict:
        """Decode sounds and videos as the first member does that reads them."""
        bad: dict = {}
        if not rows.clips:
            return bad
        transforms: dict = {}
        for backbone in backbones:
            transforms = self._collate(backbone).clips | transforms
        for name, transform in transforms.items():
            cells = ClipCells(rows, name, transform, open_cache(self.cache, IMAGES))
            with holding(cells.cache):
                bad |= find_bad_clips(cells, N_THREADS)
        report_bad_images(rows, bad, self.on_bad_image)
        return bad

    def _table(self, X, bad: dict) -> pd.DataFrame:
        """Return the table with names, and without the cells that are bad."""
        if isinstance(X, np.ndarray):
            X = pd.DataFrame(X, columns=self._columns, dtype=object)
        # One row is a table of one.
        X = as_frame([dict(X)] if isinstance(X, Mapping | pd.Series) else X)
        if not bad:
            return X
        X = X.copy()
        for modality, lost in by_modality(self._modalities, bad).items():
            place = column_position(X, self._columns_by_modality[modality])
            cells = X.iloc[:, place].tolist()
            for i in lost:
                cells[i] = None
            X.isetitem(place, pd.Series(cells, index=X.index, dtype=object))
        return X

    # Prediction ---------------------------------------------------------------------

    @property
    def leaderboard_(self) -> pd.DataFrame:
        """What was tried: a row per candidate and one of the ensemble."""
        check_is_fitted(self)
        return leaderboard_frame(self._leaderboard)

    def _log_odds(self, X) -> np.ndarray:
        check_is_fitted(self)
        rows = self._check_X(X, reset=False)
        nets = [m.net_ for _, m in self.members_ if hasattr(m, "net_")]
        backbones = [net.module_.backbone for net in nets]
        configs = [backbone.image_config for backbone in backbones]
        bad = self._bad_images(rows, next(filter(None, configs), None))
        bad |= self._bad_clips(rows, backbones)
        rows = without_images(rows, bad)
        empty = warn_of_empty_rows(rows)
        logits = np.tile(
            log_odds_of(self.class_prior_, self._multilabel), (len(rows), 1)
        )
        filled = np.flatnonzero(~empty)
        if len(filled):
            mixed = self._mixed(self._table(X, bad).iloc[filled])
            patterns = rows.patterns[filled]
            logits[filled] = at_temperature(mixed, patterns, self.temperatures_)
        return logits

    def _mixed(self, X: pd.DataFrame) -> np.ndarray:
        known = self.classes_, self._multilabel
        outputs = np.stack([log_outputs(m, X, *known) for _, m in self.members_])
        return combine(outputs, self.weights_, self._multilabel)

    def to_onnx(self, path) -> None:
        """Raise NotImplementedError: several networks are averaged here."""
        raise NotImplementedError(
            "to_onnx writes one network, and AutoMultimodalClassifier averages "
            "several: fit the best one of leaderboard_ alone, and export that."
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")

    def _saved_parameters(self) -> dict:
        """Return the parameters, without the objects that only a fit needs."""
        parameters, fresh = super()._saved_parameters(), type(self)()
        plain = str | int | float | None
        for name in ("candidates", "cv", "scoring"):
            if not isinstance(parameters[name], plain):
                parameters[name] = getattr(fresh, name)
        return parameters

    @classmethod
    def _check_saved(cls, state: dict) -> None:
        check_array(state, "weights_", (len(state.get("members_", state["weights_"])),))
        temperatures = state.get("temperatures_")
        proper = isinstance(temperatures, dict) and all(
            isinstance(temperatures.get(name), float) and temperatures[name] > 0
            for name in ("all", *_patterns_of(temperatures))
        )
        if not proper or not (state["weights_"] > 0).all():
            raise ValueError("weights_ and temperatures_ must be positive numbers.")
        check_records(state.get("_leaderboard"))


def _patterns_of(temperatures: dict) -> tuple[str, ...]:
    """Return the patterns that saved temperatures must be of."""
    if "image_missing" in temperatures or len(temperatures) < 3:
        return pattern_names(MODALITIES)
    return tuple(name for name in temperatures if name != "all")
