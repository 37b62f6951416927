"""Rows that cannot be used as they are: bad images, and rows with nothing in them."""

from __future__ import annotations

import itertools
import os
import traceback
import warnings
from dataclasses import replace

import numpy as np

from .absent import gather_absent
from .frame import PATTERNS, Rows, format_rows
from .lazy import LazyCells

_PACKAGE = os.path.dirname(os.path.dirname(__file__))


def warn(message: str) -> None:
    """Warn as if from the first line outside this package."""
    # A fixed stacklevel would be wrong: predict, score and a search are different
    # depths away from here.
    files = [frame.filename for frame in reversed(traceback.extract_stack())]
    inside = itertools.takewhile(lambda name: name.startswith(_PACKAGE), files)
    warnings.warn(message, UserWarning, stacklevel=1 + len(list(inside)))


def warn_of_left_out(names: list[str], what: str) -> None:
    """Warn once of parts of parameters that cannot be stored, if there are any."""
    if names:
        warn(
            f"A {what} of a fitted classifier cannot hold {', '.join(names)}: left out "
            "of its parameters, which only a further training needs."
        )


def report_bad_images(rows: Rows, bad: dict[int, str], action: str) -> None:
    """Raise one error for all bad images, or warn of them.

    Parameters
    ----------
    rows : Rows
    bad : dict from position to reason
    action : {"raise", "missing"}

    Raises
    ------
    ValueError
        With ``"raise"``: at most ten rows and reasons, and the count; of absent files
        in many rows, where they were looked for and what to pass.
    """
    if not bad:
        return
    # Of files that are absent in many rows, one sentence and not a reason for each.
    absent, others = gather_absent(rows, bad)
    # By position, as threads find them in any order; and pairs, as labels may repeat.
    problems = [(rows.index[i], others[i]) for i in sorted(others)]
    what = f"{'other ' if absent else ''}image cells cannot be read"
    if action == "raise":
        listed = [f"{format_rows(problems, what)}."] if problems else []
        advice = 'Pass on_bad_image="missing" to treat them as missing.'
        raise ValueError(" ".join([*filter(None, [absent]), *listed, advice]))
    listed = [format_rows(problems, f"{what}, taken as missing")] if problems else []
    taken = [f"{absent} They are taken as missing."] if absent else []
    warn(" ".join(taken + listed))


def report_damage(rows: Rows, damaged: dict[int, str], report: dict) -> dict:
    """Warn of images that could be read when they were screened and no more later.

    Parameters
    ----------
    rows : Rows
        As they were after the screening.
    damaged : dict from position to reason
    report : dict
        What :func:`missing_report` said then.

    Returns
    -------
    dict
        The report with these images among the bad ones and their cells missing.
    """
    if not damaged:
        return report
    problems = [(rows.index[i], damaged[i]) for i in sorted(damaged)]
    what = "image cells were damaged while training, taken as missing"
    warn(format_rows(problems, what))
    later = missing_report(without_images(rows, damaged), damaged)
    return later | {"bad_images": report["bad_images"] | later["bad_images"]}


def refuse_not_finite(
    rows: Rows, positions: np.ndarray, values: np.ndarray, owner: str
) -> None:
    """Raise if what was computed from some rows is not finite.

    Parameters
    ----------
    rows : Rows
    positions : ndarray of shape (m,)
        Of the rows that ``values``, (m, k), were computed from.
    values : ndarray of shape (m, k)
    owner : str
        The class that computed them.

    Raises
    ------
    ValueError
        With at most ten of the rows and the values, and the count.
    """
    odd = {
        positions[i]: values[i][~np.isfinite(values[i])][0]
        for i in np.flatnonzero(~np.isfinite(values).all(axis=1))
    }
    if odd:
        problems = [(rows.index[i], str(odd[i])) for i in sorted(odd)]
        raise ValueError(
            f"{owner} must compute finite numbers, got "
            f"{format_rows(problems, 'rows with others')}. Half precision overflows "
            'early: fit with precision="float32". Otherwise look at these rows, and at '
            "the weights of the backbone."
        )


def without_images(rows: Rows, bad: dict[int, str]) -> Rows:
    """Return the rows with the bad images blanked."""
    if not bad:
        return rows
    if isinstance(rows.images, LazyCells):
        return replace(rows, images=rows.images.without(bad))
    images = [None if i in bad else cell for i, cell in enumerate(rows.images)]
    return replace(rows, images=images)


def missing_report(rows: Rows, bad: dict[int, str]) -> dict:
    """Count rows per pattern and name the bad images by their index label."""
    patterns = rows.patterns
    report = {name: int((patterns == name).sum()) for name in PATTERNS}
    return report | {"bad_images": {rows.index[i]: bad[i] for i in sorted(bad)}}


def rows_to_train(rows: Rows, weights: np.ndarray) -> np.ndarray:
    """Return the positions of the rows that have a modality and a weight.

    Raises
    ------
    ValueError
        If there are none, with the rows that have a weight and nothing else.
    """
    # A weight of zero is removal: not a row of batches that teaches nothing, which
    # would shift the order of the others.
    kept = np.flatnonzero(rows.present.any(axis=1) & (weights > 0))
    if len(kept) == 0:
        idle = [(rows.index[i], f"{weights[i]:g}") for i in np.flatnonzero(weights)]
        raise ValueError(
            "sample_weight must be positive for a row with an image, or a text, that "
            f"can be read, got {format_rows(idle, 'rows of weight, all without')}."
        )
    return kept


def warn_of_empty_rows(rows: Rows, fitting: bool = False) -> np.ndarray:
    """Return which rows have no modality, (n,) bool, after one warning of them.

    Raises
    ------
    ValueError
        While fitting, if no row has one.
    """
    empty = ~rows.present.any(axis=1)
    # Predicting such a table is legal: all its rows get the prior.
    if fitting and empty.all():
        raise ValueError(
            f"At least one row must have an image or a text, got {len(rows)} rows in "
            "which both cells are missing."
        )
    if empty.any():
        effect = "they count in the class prior and train nothing else"
        if not fitting:
            effect = "their prediction is the class prior of the training rows"
        count = f"{empty.sum()} of {len(rows)} rows have neither image nor text"
        warn(f"{count}: {effect}.")
    return empty
