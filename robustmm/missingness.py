"""Blank cells of a complete table on purpose, with exact counts.

The protocol is that of missing-aware prompts (Lee et al., CVPR 2023): one fixed draw
per table, shared by every epoch and every method that is compared.
"""

import random
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd

from .data.frame import column_position, read_rows
from .data.tables import as_frame

SCENARIOS = ("text", "image", "both")
ORDERS = ("split", "nested", "map")

Seed: TypeAlias = (
    int | np.random.Generator | np.random.RandomState | random.Random | None
)


def missing_table(
    n: int,
    rate: float,
    scenario: str,
    random_state: Seed = None,
    groups: Sequence | None = None,
    *,
    order: str = "split",
) -> np.ndarray:
    """Draw which rows lose which modality.

    Exactly ``int(n * rate)`` rows are affected, drawn without replacement. In scenario
    "both", ``int(affected * 0.5)`` of them lose the image and the others the text; no
    row loses both.

    Parameters
    ----------
    n : int
        Number of rows.
    rate : float in [0, 1]
        The share of rows that lose a modality.
    scenario : {"text", "image", "both"}
        The modality that is *missing*.
    random_state : int, Generator, RandomState or None
        Seed. An int gives the same table every time.
    groups : sequence of length n, or None
        Rows of one group share a code, such as the plots of one movie. The counts are
        then exact over groups, not over rows.
    order : {"split", "nested", "map"}
        How the affected rows of scenario "both" are drawn. ``"split"``: the first half
        of a permutation's beginning loses the image. ``"nested"``: every second one, so
        that with the same seed a higher rate only adds holes to those of a lower one.
        ``"map"``: as the authors of missing-aware prompts draw, with Python's
        generator; they draw for training, validation and test in turn, from one
        ``random.Random(0)``, which may be passed as `random_state`.

    Returns
    -------
    ndarray of int, shape (n,)
        0 complete, 1 text missing, 2 image missing.

    Raises
    ------
    ValueError
        If `rate`, `scenario`, `n`, `order` or the length of `groups` is wrong, or
        `random_state` is a ``random.Random`` and `order` is not ``"map"``.

    References
    ----------
    Lee, Tsai, Chiu, Lee. Multimodal Prompting with Missing Modalities for Visual
    Recognition. CVPR 2023.

    Examples
    --------
    >>> table = missing_table(10, 0.7, "both", random_state=0)
    >>> np.bincount(table).tolist()
    [3, 4, 3]
    >>> low, high = (
    ...     missing_table(10, rate, "both", random_state=0, order="nested")
    ...     for rate in (0.3, 0.8)
    ... )
    >>> bool((high == low)[low > 0].all())
    True
    """
    _check(n, rate, scenario)
    _check_order(order, random_state)
    if groups is not None:
        members = _group_numbers(n, groups)
        n_groups = int(members.max(initial=-1)) + 1
        drawn = missing_table(n_groups, rate, scenario, random_state, order=order)
        return drawn[members]
    if order == "map":
        return _map_table(n, rate, scenario, random_state)
    # Counts are rounded down, twice for "both", as in the protocol's code: 70% of
    # 15,552 films are 10,886, of which 5,443 lose the image.
    affected = _generator(random_state).permutation(n)[: int(n * rate)]
    n_image = {"text": 0, "image": len(affected), "both": int(len(affected) * 0.5)}
    table = np.zeros(n, dtype=np.int64)
    table[affected] = 1
    # Alternately, a row keeps its code when more rows follow it.
    nested = order == "nested" and scenario == "both"
    table[affected[1::2] if nested else affected[: n_image[scenario]]] = 2
    return table


@overload
def drop_modalities(
    X: pd.DataFrame,
    rate: float,
    scenario: str,
    random_state: Seed = None,
    groups: Sequence | None = None,
    image_column: str = "image",
    text_column: str = "text",
    return_table: Literal[False] = False,
    *,
    order: str = "split",
) -> pd.DataFrame: ...


@overload
def drop_modalities(
    X: pd.DataFrame,
    rate: float,
    scenario: str,
    random_state: Seed = None,
    groups: Sequence | None = None,
    image_column: str = "image",
    text_column: str = "text",
    *,
    return_table: Literal[True],
    order: str = "split",
) -> tuple[pd.DataFrame, np.ndarray]: ...


def drop_modalities(
    X: pd.DataFrame,
    rate: float,
    scenario: str,
    random_state: Seed = None,
    groups: Sequence | None = None,
    image_column: str = "image",
    text_column: str = "text",
    return_table: bool = False,
    *,
    order: str = "split",
) -> pd.DataFrame | tuple[pd.DataFrame, np.ndarray]:
    """Return a copy of `X` in which some rows have lost their image or their text.

    The rows are drawn by `missing_table`. A row never loses its last modality: where
    the other cell is already missing, the row is left as it is. A drawn cell that is
    already missing stays missing. `X` itself is not changed.

    Parameters
    ----------
    X : DataFrame of shape (n, n_columns)
        Must hold the two columns; the others are copied.
    rate : float in [0, 1]
        The share of rows that lose a modality.
    scenario : {"text", "image", "both"}
        The modality that is *missing*.
    random_state : int, Generator, RandomState or None
        Seed. An int gives the same cells every time.
    groups : sequence of length n, or None
        Rows of one group lose the same modality; see `missing_table`.
    image_column, text_column : str
        Names of the two columns.
    return_table : bool
        Also return what was done.
    order : {"split", "nested", "map"}
        How rows are drawn; see `missing_table`.

    Returns
    -------
    DataFrame of shape (n, n_columns)
        Dtypes are those of `X`. A blanked cell is its column's null: None in an object
        column, NaN or pd.NA in a string column.
    table : ndarray of int, shape (n,)
        Only with `return_table`: 1 where the text was drawn, 2 where the image was, 0
        elsewhere and where the row was left as it is.

    Raises
    ------
    ValueError
        If `rate`, `scenario` or the length of `groups` is wrong or a column is absent.

    Examples
    --------
    >>> df = pd.DataFrame({"image": ["a.png", "b.png"], "text": ["a cat", "a dog"]})
    >>> drop_modalities(df, 1.0, "text").isna().sum().to_dict()
    {'image': 0, 'text': 2}
    """
    X = as_frame(X)
    table = missing_table(len(X), rate, scenario, random_state, groups, order=order)
    result, table = _apply(X, table, image_column, text_column)
    return (result, table) if return_table else result


def apply_missing_table(
    X: pd.DataFrame,
    table: Sequence[int],
    image_column: str = "image",
    text_column: str = "text",
) -> pd.DataFrame:
    """Return a copy of `X` without the cells that a given table names.

    For a table that others published, or one drawn by `missing_table`. As with
    `drop_modalities`, a row never loses its last modality.

    Parameters
    ----------
    X : DataFrame of shape (n, n_columns)
        Must hold the two columns; the others are copied.
    table : sequence of int, shape (n,)
        0 leaves the row as it is, 1 takes its text away, 2 its image.
    image_column, text_column : str
        Names of the two columns.

    Returns
    -------
    DataFrame of shape (n, n_columns)
        Dtypes are those of `X`.

    Raises
    ------
    TypeError
        If `X` is no DataFrame.
    ValueError
        If `table` has another length or other codes, or a column is absent.

    Examples
    --------
    >>> df = pd.DataFrame({"image": ["a.png", "b.png"], "text": ["a cat", "a dog"]})
    >>> apply_missing_table(df, [0, 2])["image"].isna().tolist()
    [False, True]
    """
    X = as_frame(X)
    codes = np.asarray(table)
    if codes.shape != (len(X),):
        raise ValueError(
            f"table must have {len(X)} entries, one a row, got the shape {codes.shape}."
        )
    unknown = sorted(set(codes.tolist()) - {0, 1, 2})
    if unknown:
        raise ValueError(f"table must have the codes 0, 1 and 2 only, got {unknown}.")
    return _apply(X, codes, image_column, text_column)[0]


def _apply(
    X: pd.DataFrame, table: np.ndarray, image_column: str, text_column: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the blanked copy, and the table of what was drawn and done."""
    # Codes are taken back below, and the caller's table may be a published one.
    table = table.copy()
    # What counts as missing is decided where fit and predict read it: blank texts too.
    has_image, has_text = read_rows(X, image_column, text_column).present.T
    table[(table == 1) & ~has_image] = 0
    table[(table == 2) & ~has_text] = 0
    result = X.copy()
    for column, code in ((text_column, 1), (image_column, 2)):
        place = column_position(X, column)
        result.isetitem(place, _blank(X.iloc[:, place], table == code))
    return result, table


def _blank(column: pd.Series, where: np.ndarray) -> pd.Series:
    # Series.mask would write NaN for None into object columns.
    values = column.array.copy()
    values[where] = None
    return pd.Series(values, index=column.index, name=column.name, dtype=column.dtype)


def _check(n: Any, rate: Any, scenario: Any) -> None:
    if n != int(n) or n < 0:
        raise ValueError(f"n must be a non-negative integer, got {n!r}.")
    if isinstance(rate, str) or not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate!r}.")
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario must be one of {SCENARIOS}, got {scenario!r}.")


def _check_order(order: Any, random_state: Any) -> None:
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}.")
    is_python_s = isinstance(random_state, random.Random)
    if is_python_s and order != "map":
        raise ValueError(f'order must be "map" with a random.Random, got {order!r}.')
    if order == "map" and not (is_python_s or _is_seed(random_state)):
        raise ValueError(
            'random_state must be an int or a random.Random with order="map", got '
            f"{random_state!r}."
        )


def _is_seed(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _map_table(n: int, rate: float, scenario: str, random_state: Any) -> np.ndarray:
    """Draw as the program of missing-aware prompts does, call by call."""
    if not isinstance(random_state, random.Random):
        random_state = random.Random(int(random_state))
    table = np.zeros(n, dtype=np.int64)
    affected = random_state.sample(range(n), int(n * rate))
    table[affected] = 2 if scenario == "image" else 1
    if scenario == "both":
        table[random_state.sample(affected, int(len(affected) * 0.5))] = 2
    return table


def _group_numbers(n: int, groups: Sequence) -> np.ndarray:
    if len(groups) != n:
        raise ValueError(f"groups must have {n} entries, one a row, got {len(groups)}.")
    # Numbered in order of appearance, so that other names for the same groups leave the
    # table as it is.
    numbers, _ = pd.factorize(np.asarray(groups))
    if (numbers < 0).any():
        raise ValueError(
            f"groups must have no missing entry, got {int((numbers < 0).sum())}."
        )
    return numbers


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        # default_rng knows no RandomState, which scikit-learn's users have.
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)
