"""Which columns estimators read, so that nobody has to say it twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from ..data.frame import Rows, read_rows


class Columns(NamedTuple):
    """Where the cells of a table are, and what a blank image is."""

    image_column: str = "image"
    text_column: str = "text"
    blank_image: str = "bad"

    @property
    def names(self) -> tuple[str, str]:
        """The two columns, image and text."""
        return self.image_column, self.text_column

    def rows(self, X: pd.DataFrame) -> Rows:
        """Read a table."""
        return read_rows(X, *self.names, blank_image=self.blank_image)


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
    >>> columns_of([model])
    Columns(image_column='poster', text_column='text', blank_image='bad')
    """
    estimators = list(estimators)
    given = {"image_column": image_column, "text_column": text_column}
    for name in ("image_column", "text_column", "blank_image"):
        if given.get(name) is None:
            given[name] = common_value(estimators, name, Columns._field_defaults[name])
    return Columns(**given)


def common_value(estimators: Iterable, name: str, default=None):
    """Return the one value of a parameter, of estimators or of those inside.

    Raises
    ------
    ValueError
        If it has several.
    """
    values = [value for one in estimators for value in _values(one, name)]
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
