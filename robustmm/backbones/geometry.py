"""Where the embeddings of two encoders lie to each other, and how far they moved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Embeddings = Mapping[str, np.ndarray]  # "image" and "text", (n, p) each


def modality_geometry(
    adapted: Embeddings, frozen: Embeddings, present: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Compare image with text embeddings, and adapted with frozen ones.

    Parameters
    ----------
    adapted, frozen : mapping of {"image", "text"} to ndarray of shape (n, p)
        Embeddings of the same rows.
    present : mapping of {"image", "text"} to bool ndarray of shape (n,)
        The rows to count.

    Returns
    -------
    dict
        Counts; distance and angle in degrees between the mean embeddings; mean distance
        and angle that an embedding has moved. NaN for a mean of nothing.
    """
    result: dict[str, float] = {f"n_{m}s": int(present[m].sum()) for m in present}
    for prefix, embeddings in (("", adapted), ("frozen_", frozen)):
        image, text = (_mean(embeddings[m][present[m]]) for m in ("image", "text"))
        result[f"{prefix}distance"] = float(np.linalg.norm(image - text))
        result[f"{prefix}angle"] = float(_angles(image, text))
    for modality, rows in present.items():
        after, before = adapted[modality][rows], frozen[modality][rows]
        shift = np.linalg.norm(after - before, axis=1)[:, None]
        result[f"{modality}_drift"] = float(_mean(shift)[0])
        angles = _angles(after, before)[:, None]
        result[f"{modality}_drift_angle"] = float(_mean(angles)[0])
    return result


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1], np.nan)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles in degrees between the last axes."""
    a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b))
    # Exact for equal vectors too, where the arc cosine loses half of the digits.
    chord = np.linalg.norm(a - b, axis=-1)
    return np.degrees(2 * np.arctan2(chord, np.linalg.norm(a + b, axis=-1)))
