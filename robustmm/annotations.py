"""What the package takes, in words of type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd


class ToPandas(Protocol):
    """A table of another library, such as polars or pyarrow.

    Examples
    --------
    >>> class Empty:
    ...     def to_pandas(self) -> pd.DataFrame:
    ...         return pd.DataFrame()
    >>> table: TableLike = Empty()
    """

    def to_pandas(self) -> pd.DataFrame:
        """Return it as a DataFrame."""


# Columns by name; of an array by position; one row as a mapping or a Series.
TableLike: TypeAlias = (
    pd.DataFrame
    | np.ndarray
    | Sequence[Mapping[str, Any]]
    | Mapping[str, Any]
    | pd.Series
    | ToPandas
)
