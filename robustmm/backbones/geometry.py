"""Where the embeddings of two encoders lie to each other, and how far they moved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Embeddings = Mapping[str, np.ndarray]  # "image" and "text", (n, p) each


def modality_geometry(
    adapted: Embeddings,
    frozen: Embeddings,
    present: Mapping[str, np.ndarray],
    *,
    normalize: bool = False,
    of: str = "means",
) -> dict[str, float]:
    """Compare image with text embeddings, and adapted with frozen ones.

    Parameters
    ----------
    adapted, frozen : mapping of {"image", "text"} to ndarray of shape (n, p)
        Embeddings of the same rows.
    present : mapping of {"image", "text"} to bool ndarray of shape (n,)
        The rows to count.
    normalize : bool
        Give each embedding length 1 first.
    of : {"means", "pairs"}
        Compare the mean image with the mean text; or each complete row's image with its
        text, and average.

    Returns
    -------
    dict
        Counts; distance and angle in degrees between images and texts; mean distance
        and angle that an embedding has moved. NaN for a mean of nothing.
    """
    result: dict[str, float] = {f"n_{m}s": int(present[m].sum()) for m in present}
    if normalize:
        adapted, frozen = (
            {m: _unit(rows) for m, rows in e.items()} for e in (adapted, frozen)
        )
    for prefix, embeddings in (("", adapted), ("frozen_", frozen)):
        distance, angle = _gap(embeddings, present, of)
        result[f"{prefix}distance"], result[f"{prefix}angle"] = distance, angle
    for modality, rows in present.items():
        after, before = adapted[modality][rows], frozen[modality][rows]
        shift = np.linalg.norm(after - before, axis=1)[:, None]
        result[f"{modality}_drift"] = float(_mean(shift)[0])
        angles = _angles(after, before)[:, None]
        result[f"{modality}_drift_angle"] = float(_mean(angles)[0])
    return result


def _gap(embeddings: Embeddings, present, of: str) -> tuple[float, float]:
    """Distance and angle between images and texts."""
    if of == "pairs":
        complete = present["image"] & present["text"]
        image, text = (embeddings[m][complete] for m in ("image", "text"))
        distances = np.linalg.norm(image - text, axis=1)[:, None]
        angles = _angles(image, text)[:, None]
        return float(_mean(distances)[0]), float(_mean(angles)[0])
    image, text = (_mean(embeddings[m][present[m]]) for m in ("image", "text"))
    return float(np.linalg.norm(image - text)), float(_angles(image, text))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1], np.nan)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles in degrees between the last axes."""
    a, b = _unit(a), _unit(b)
    # Exact for equal vectors too, where the arc cosine loses half of the digits.
    chord = np.linalg.norm(a - b, axis=-1)
    return np.degrees(2 * np.arctan2(chord, np.linalg.norm(a + b, axis=-1)))
