"""Distances and angles on vectors whose answers are known."""

import numpy as np
import pytest

from robustmm.backbones.geometry import modality_geometry


def embeddings(image, text):
    return {"image": np.array(image, float), "text": np.array(text, float)}


def everything(n):
    return {name: np.ones(n, bool) for name in ("image", "text")}


def test_known_distances_and_angles():
    adapted = embeddings([[2, 0], [4, 0]], [[0, 3], [0, 5]])
    frozen = embeddings([[0, 2], [4, 0]], [[0, 3], [0, 5]])
    found = modality_geometry(adapted, frozen, everything(2))
    assert found["distance"] == pytest.approx(5)
    assert found["angle"] == pytest.approx(90)
    assert found["frozen_distance"] == pytest.approx(np.hypot(2, 3))
    assert found["image_drift"] == pytest.approx(np.sqrt(8) / 2)
    assert found["image_drift_angle"] == pytest.approx(45)
    assert found["text_drift"] == found["text_drift_angle"] == 0


def test_only_present_rows_count_and_none_gives_nan():
    adapted = embeddings([[1, 0], [9, 9]], [[0, 1], [0, 1]])
    present = {"image": np.array([True, False]), "text": np.zeros(2, bool)}
    found = modality_geometry(adapted, adapted, present)
    assert (found["n_images"], found["n_texts"]) == (1, 0)
    assert found["image_drift"] == 0
    assert np.isnan([found["distance"], found["angle"], found["text_drift"]]).all()
