"""Blank cells of a complete table on purpose, with exact counts.

The protocol is that of missing-aware prompts (Lee et al., CVPR 2023): one fixed draw
per table, shared by every epoch and every method that is compared.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd

from .data.frame import (
    MODALITIES,
    check_modalities,
    column_position,
    pattern_names,
    read_rows,
)
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
    modalities: Sequence[str] = MODALITIES,
) -> np.ndarray:
    """Draw which rows lose which modality.

    Exactly ``int(n * rate)`` rows are affected, drawn without replacement. In scenario
    "both", ``int(affected * 0.5)`` of them lose the image and the others the text; no
    row loses both. "each" is the same for any number of modalities: every affected row
    loses one of them, each equally often.

    Parameters
    ----------
    n : int
        Number of rows.
    rate : float in [0, 1]
        The share of rows that lose a modality.
    scenario : {"text", "image", "both"}
        The modality that is *missing*, one of ``modalities``; "both" if there are two,
        or "each".
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
        ``random.Random(0)``, which may be passed as `random_state`; for two modalities.
    modalities : sequence of str
        Those of the table, in order.

    Returns
    -------
    ndarray of int, shape (n,)
        0 complete, 1 text missing, 2 image missing; in general, powers of two from the
        last modality to the first.

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
    >>> missing_table(4, 1.0, "audio", modalities=("audio", "video")).tolist()
    [2, 2, 2, 2]
    """
    modalities = check_modalities("modalities", modalities)
    _check(n, rate, scenario, modalities)
    _check_order(order, random_state, modalities)
    if groups is not None:
        members = _group_numbers(n, groups)
        n_groups = int(members.max(initial=-1)) + 1
        drawn = missing_table(
            n_groups, rate, scenario, random_state, order=order, modalities=modalities
        )
        return drawn[members]
    if order == "map":
        return _map_table(n, rate, scenario, random_state, modalities)
    # Counts are rounded down, twice for "both", as in the protocol's code: 70% of
    # 15,552 films are 10,886, of which 5,443 lose the image.
    affected = _generator(random_state).permutation(n)[: int(n * rate)]
    table = np.zeros(n, dtype=np.int64)
    size = len(modalities)
    if scenario not in ("both", "each"):
        table[affected] = missing_code(scenario, modalities)
        return table
    for i in range(size):
        # Alternately, a row keeps its code when more rows follow it: the last modality
        # is the first to be lost, as it always was of two.
        part = affected[size - 1 - i :: size]
        if order == "split":
            part = affected[len(affected) * i // size : len(affected) * (i + 1) // size]
        table[part] = missing_code(modalities[i], modalities)
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
    modalities: Sequence[str] | Mapping[str, str] | None = None,
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
    modalities: Sequence[str] | Mapping[str, str] | None = None,
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
    modalities: Sequence[str] | Mapping[str, str] | None = None,
) -> pd.DataFrame | tuple[pd.DataFrame, np.ndarray]:
    """Return a copy of `X` in which some rows have lost their image or their text.

    The rows are drawn by `missing_table`. A row never loses its last modality: where
    all other cells are already missing, the row is left as it is. A drawn cell that is
    already missing stays missing. `X` itself is not changed.

    Parameters
    ----------
    X : DataFrame of shape (n, n_columns)
        Must hold the two columns; the others are copied.
    rate : float in [0, 1]
        The share of rows that lose a modality.
    scenario : {"text", "image", "both"}
        The modality that is *missing*, one of ``modalities``; "both" if there are two,
        or "each".
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
    modalities : sequence of str, mapping from str to column, or None
        The modalities of the table, such as ``("audio", "video")``, in columns of their
        names or in those that a mapping says. None is image and text.

    Returns
    -------
    DataFrame of shape (n, n_columns)
        Dtypes are those of `X`. A blanked cell is its column's null: None in an object
        column, NaN or pd.NA in a string column.
    table : ndarray of int, shape (n,)
        Only with `return_table`: 1 where the text was drawn, 2 where the image was, 0
        elsewhere and where the row was left as it is; see `missing_table`.

    Raises
    ------
    ValueError
        If `rate`, `scenario` or the length of `groups` is wrong or a column is absent.

    Examples
    --------
    >>> df = pd.DataFrame({"image": ["a.png", "b.png"], "text": ["a cat", "a dog"]})
    >>> drop_modalities(df, 1.0, "text").isna().sum().to_dict()
    {'image': 0, 'text': 2}
    >>> df = pd.DataFrame({"audio": ["a.wav", "b.wav"], "video": ["a.mp4", "b.mp4"]})
    >>> drop_modalities(df, 1.0, "audio", modalities=("audio", "video"))["audio"].isna()
    0    True
    1    True
    Name: audio, dtype: bool
    """
    X, columns = as_frame(X), _columns(modalities, image_column, text_column)
    drawn = len(X), rate, scenario, random_state, groups
    table = missing_table(*drawn, order=order, modalities=tuple(columns))
    result, table = _apply(X, table, columns)
    return (result, table) if return_table else result


def apply_missing_table(
    X: pd.DataFrame,
    table: Sequence[int],
    image_column: str = "image",
    text_column: str = "text",
    *,
    modalities: Sequence[str] | Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return a copy of `X` without the cells that a given table names.

    For a table that others published, or one drawn by `missing_table`. As with
    `drop_modalities`, a row never loses its last modality.

    Parameters
    ----------
    X : DataFrame of shape (n, n_columns)
        Must hold the two columns; the others are copied.
    table : sequence of int, shape (n,)
        0 leaves the row as it is, 1 takes its text away, 2 its image. With other
        modalities a sum of powers of two, 1 for the last of them.
    image_column, text_column : str
        Names of the two columns.
    modalities : sequence of str, mapping from str to column, or None
        As in `drop_modalities`.

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
    columns = _columns(modalities, image_column, text_column)
    # Not the last pattern: no row loses all it has.
    known = range(len(pattern_names(tuple(columns))) - 1)
    unknown = sorted(set(codes.tolist()) - set(known))
    if unknown:
        listed = f"{', '.join(map(str, known[:-1]))} and {known[-1]}"
        raise ValueError(f"table must have the codes {listed} only, got {unknown}.")
    return _apply(X, codes, columns)[0]


def _columns(modalities, image_column: str, text_column: str) -> dict[str, str]:
    """Return the column of each modality."""
    if modalities is None:
        return {"image": image_column, "text": text_column}
    names = check_modalities("modalities", list(modalities))
    if isinstance(modalities, Mapping):
        return dict(modalities)
    return dict(zip(names, names, strict=True))


def missing_code(modality: str, modalities: tuple[str, ...] = MODALITIES) -> int:
    """Return the code of rows that miss one modality.

    Examples
    --------
    >>> missing_code("text"), missing_code("image")
    (1, 2)
    """
    return 2 ** (len(modalities) - 1 - modalities.index(modality))


def _apply(
    X: pd.DataFrame, table: np.ndarray, columns: Mapping[str, str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the blanked copy, and the table of what was drawn and done."""
    modalities = tuple(columns)
    bits = np.array([missing_code(modality, modalities) for modality in modalities])
    drawn = (table[:, None] & bits) > 0
    # What counts as missing is decided where fit and predict read it: blank texts too.
    present = read_rows(X, columns=columns).present
    # Codes are taken back in a copy: the caller's table may be a published one.
    drawn[~(present & ~drawn).any(axis=1)] = False
    result = X.copy()
    for place, column in enumerate(columns.values()):
        at = column_position(X, column)
        result.isetitem(at, _blank(X.iloc[:, at], drawn[:, place]))
    return result, drawn @ bits


def _blank(column: pd.Series, where: np.ndarray) -> pd.Series:
    # Series.mask would write NaN for None into object columns.
    values = column.array.copy()
    values[where] = None
    return pd.Series(values, index=column.index, name=column.name, dtype=column.dtype)


def _check(n: Any, rate: Any, scenario: Any, modalities: tuple[str, ...]) -> None:
    if n != int(n) or n < 0:
        raise ValueError(f"n must be a non-negative integer, got {n!r}.")
    if isinstance(rate, str) or not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate!r}.")
    known = scenarios_of(modalities)
    # "each" is also what the papers call "both".
    if scenario not in (*known, "each"):
        raise ValueError(f"scenario must be one of {known}, got {scenario!r}.")


def scenarios_of(modalities: tuple[str, ...] = MODALITIES) -> tuple[str, ...]:
    """Return the names of what rows of some modalities may lose.

    Examples
    --------
    >>> scenarios_of()
    ('text', 'image', 'both')
    >>> scenarios_of(("image", "text", "audio"))
    ('audio', 'text', 'image', 'each')
    """
    return (*reversed(modalities), "both" if len(modalities) == 2 else "each")


def _check_order(order: Any, random_state: Any, modalities: tuple[str, ...]) -> None:
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}.")
    if order == "map" and len(modalities) != 2:
        raise ValueError(
            f'order must not be "map" for other than two modalities, got {modalities}.'
        )
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


def _map_table(
    n: int, rate: float, scenario: str, random_state: Any, modalities: tuple[str, ...]
) -> np.ndarray:
    """Draw as the program of missing-aware prompts does, call by call."""
    if not isinstance(random_state, random.Random):
        random_state = random.Random(int(random_state))
    table = np.zeros(n, dtype=np.int64)
    affected = random_state.sample(range(n), int(n * rate))
    table[affected] = 2 if scenario == modalities[0] else 1
    if scenario in ("both", "each"):
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
