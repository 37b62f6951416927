"""Which columns estimators read, so that nobody has to say it twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from ..data.frame import MODALITIES, Rows, check_modalities, read_rows


class Columns(NamedTuple):
    """Where the cells of a table are, what is in them, and what a blank image is."""

    image_column: str = "image"
    text_column: str = "text"
    blank_image: str = "bad"
    modalities: tuple[str, ...] = MODALITIES
    audio_column: str = "audio"
    video_column: str = "video"

    @property
    def by_modality(self) -> dict[str, str]:
        """The column of each modality that is read, in order."""
        return {name: getattr(self, f"{name}_column") for name in self.modalities}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read: by default two, image and text."""
        return tuple(self.by_modality.values())

    def rows(self, X: pd.DataFrame) -> Rows:
        """Read a table."""
        return read_rows(X, blank_image=self.blank_image, columns=self.by_modality)


def columns_of(
    estimators: Iterable, image_column: str | None = None, text_column=None
) -> Columns:
    """Return what estimators read; a name that is given prevails.

    Parameters
    ----------
    estimators : iterable of estimator
        Classifiers, or pipelines, searches and other estimators with one inside.
    image_column, text_column : str or None
        Names that the caller gives.

    Raises
    ------
    ValueError
        If they read different columns, and no name is given.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from robustmm import LinearProbeClassifier
    >>> model = make_pipeline(LinearProbeClassifier(image_column="poster"))
    >>> columns_of([model]).by_modality
    {'image': 'poster', 'text': 'text'}
    """
    estimators = list(estimators)
    given = {"image_column": image_column, "text_column": text_column}
    for name, default in Columns._field_defaults.items():
        if given.get(name) is None:
            given[name] = common_value(estimators, name, default)
    given["modalities"] = check_modalities("modalities", given["modalities"])
    return Columns(**given)


def common_value(estimators: Iterable, name: str, default=None):
    """Return the one value of a parameter, of estimators or of those inside.

    Raises
    ------
    ValueError
        If it has several.
    """
    values = [value for one in estimators for value in _values(one, name)]
    # A list of modalities has no hash.
    values = [tuple(v) if isinstance(v, list) else v for v in values]
    values = list(dict.fromkeys(values))
    if len(values) > 1:
        raise ValueError(
            f"{name} must be the same in all estimators, or be passed here, got "
            f"{values}."
        )
    return values[0] if values else default


def _values(estimator, name: str) -> list:
    """A parameter of an estimator, or those of its name of the parts inside."""
    # A search may have chosen among several.
    estimator = getattr(estimator, "best_estimator_", estimator)
    steps = getattr(estimator, "steps", None)
    if steps and (last := _values(steps[-1][1], name)):
        return last
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        return []
    params = estimator.get_params()
    if name in params:
        return [params[name]]
    return [value for key, value in params.items() if key.endswith(f"__{name}")]
