"""Rows that cannot be used as they are: bad images, and rows with nothing in them."""

from __future__ import annotations

import itertools
import os
import traceback
import warnings

import numpy as np

from .absent import gather_absent
from .clips import NO_SOUND
from .frame import Rows, either_of, format_rows, pattern_names

# By the row's position: an image's reason; by position and modality: another cell's.
Bad = dict[int | tuple[int, str], str]
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


def by_modality(modalities: tuple[str, ...], bad: Bad) -> dict[str, dict[int, str]]:
    """Sort bad cells by modality, in their order, and by position.

    Examples
    --------
    >>> by_modality(("image", "audio"), {(0, "audio"): "no file", 0: "no image"})
    {'image': {0: 'no image'}, 'audio': {0: 'no file'}}
    """
    found: dict[str, dict[int, str]] = {name: {} for name in modalities}
    for place, reason in bad.items():
        i, name = place if isinstance(place, tuple) else (place, "image")
        found[name][i] = reason
    # By position, as threads find them in any order.
    return {name: dict(sorted(at.items())) for name, at in found.items() if at}


def report_bad_images(rows: Rows, bad: Bad, action: str) -> None:
    """Raise one error for all bad images, or warn of them; also of sounds and videos.

    Parameters
    ----------
    rows : Rows
    bad : dict from position, or (position, modality), to reason
    action : {"raise", "missing"}

    Raises
    ------
    ValueError
        With ``"raise"``: at most ten rows and reasons, and the count; of absent files
        in many rows, where they were looked for and what to pass.
    """
    bad = _without_silent(bad)
    if not bad:
        return
    end = "" if action == "raise" else ", taken as missing"
    said = []
    for modality, cells in by_modality(rows.modalities, bad).items():
        # Of files that are absent in many rows, one sentence, not a reason for each.
        absent, others = gather_absent(rows, cells, modality)
        # Pairs, as labels may repeat.
        problems = [(rows.index[i], others[i]) for i in sorted(others)]
        what = f"{'other ' if absent else ''}{modality} cells cannot be read{end}"
        if absent:
            said.append(f"{absent} They are taken as missing." if end else absent)
        if problems:
            said.append(format_rows(problems, what) + ("" if end else "."))
    if action != "raise":
        # A sentence ends where another one follows.
        warn(" ".join([*(s.removesuffix(".") + "." for s in said[:-1]), said[-1]]))
        return
    advice = 'Pass on_bad_image="missing" to treat them as missing.'
    raise ValueError(" ".join([*said, advice]))


def report_damage(rows: Rows, damaged: Bad, report: dict) -> dict:
    """Warn of images that could be read when they were screened and no more later.

    Parameters
    ----------
    rows : Rows
        As they were after the screening.
    damaged : dict from position, or (position, modality), to reason
    report : dict
        What :func:`missing_report` said then.

    Returns
    -------
    dict
        The report with these images among the bad ones and their cells missing.
    """
    if not damaged:
        return report
    for modality, cells in by_modality(
        rows.modalities, _without_silent(damaged)
    ).items():
        problems = [(rows.index[i], cells[i]) for i in cells]
        what = f"{modality} cells were damaged while training, taken as missing"
        warn(format_rows(problems, what))
    later = missing_report(without_images(rows, damaged), damaged)
    names = [name for name in later if name.startswith("bad_")]
    return later | {name: report[name] | later[name] for name in names}


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


def without_images(rows: Rows, bad: Bad) -> Rows:
    """Return the rows with the bad images, sounds and videos blanked."""
    for modality, cells in by_modality(rows.modalities, bad).items():
        rows = rows.without(modality, cells)
    return rows


def missing_report(rows: Rows, bad: Bad) -> dict:
    """Count rows per pattern and name the bad cells by their index label.

    Those of images are ``"bad_images"``, which is always there; those of sounds and
    videos ``"bad_audio"`` and ``"bad_video"``, if there are such cells.
    """
    patterns, found = rows.patterns, by_modality(rows.modalities, _without_silent(bad))
    report = {
        name: int((patterns == name).sum()) for name in pattern_names(rows.modalities)
    }
    for modality in ("image", *rows.clips):
        name = "bad_images" if modality == "image" else f"bad_{modality}"
        cells = found.get(modality, {})
        report[name] = {rows.index[i]: cells[i] for i in cells}
    return report


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
            f"sample_weight must be positive for a row with {_readable(rows)}, that "
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
            f"At least one row must have {either_of(rows.modalities)}, got "
            f"{len(rows)} rows in which {_all_cells(rows)} missing."
        )
    if empty.any():
        effect = "they count in the class prior and train nothing else"
        if not fitting:
            effect = "their prediction is the class prior of the training rows"
        names = f"neither {' nor '.join(rows.modalities)}"
        if len(rows.modalities) == 1:
            names = f"no {rows.modalities[0]}"
        count = f"{empty.sum()} of {len(rows)} rows have {names}"
        warn(f"{count}: {effect}.")
    return empty


def _without_silent(bad: Bad) -> Bad:
    """Leave out the files without sound: nothing is wrong with them."""
    return {place: reason for place, reason in bad.items() if reason != NO_SOUND}


def _readable(rows: Rows) -> str:
    return either_of(rows.modalities, "or").replace(" or ", ", or ")


def _all_cells(rows: Rows) -> str:
    n = len(rows.modalities)
    return "the cell is" if n == 1 else f"{'both' if n == 2 else 'all'} cells are"
