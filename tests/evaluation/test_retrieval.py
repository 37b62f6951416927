"""Composed retrieval: ranks by hand, what is left out, and what cannot be."""

import numpy as np
import pandas as pd
import pytest
import torch
from contract import small

from robustmm import (
    CMPTClassifier,
    LinearProbeClassifier,
    MoRAClassifier,
    load_backbone,
    retrieval_scores,
)
from robustmm.datasets import make_modified_scenes, make_scenes
from robustmm.evaluation import retrieval

QUERIES, GALLERY = make_modified_scenes(12, random_state=0)
VECTORS = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.8, 0.6]])
NAMES = pd.Series(["w", "x", "y", "z"], index=list("abcd"))


@pytest.fixture
def clip():
    return load_backbone("robustmm/tiny-clip")


@pytest.fixture
def by_hand(monkeypatch):
    """Pictures a, b, c, d of known vectors; images ask (1, 0) and texts (0, 2)."""

    def embed(backbone, rows, size):
        if rows.images[0] == "w":
            return VECTORS, np.zeros((4, 2))
        n = len(rows)
        return np.tile([1.0, 0.0], (n, 1)), np.tile([0.0, 2.0], (n, 1))

    monkeypatch.setattr(retrieval, "_embed", embed)


def table(**columns):
    cells = {"image": ["p"], "text": ["t"], "target": ["a"]} | columns
    return pd.DataFrame(cells, dtype=object)


def test_recall_is_that_of_the_ranks(by_hand, clip):
    scores = retrieval_scores(clip, table(), NAMES, k=(1, 3, 4))
    # a is first for the picture, last for the text. For both, (1, 2), c is first,
    # b and d are next, and a is last.
    assert scores.loc["image", ["R@1", "R@3", "R@4"]].tolist() == [1, 1, 1]
    assert scores.loc["text", ["R@1", "R@3", "R@4"]].tolist() == [0, 0, 1]
    assert scores.loc["both", ["R@1", "R@3", "R@4"]].tolist() == [0, 0, 1]
    assert scores.loc["chance"].tolist() == [1, 4, 0.25, 0.75, 1]


def test_a_tie_counts_against_the_target(by_hand, clip):
    scores = retrieval_scores(clip, table(target=["b"]), NAMES, k=(1, 2, 3))
    assert scores.loc["image", ["R@1", "R@2", "R@3"]].tolist() == [0, 0, 1]


def test_embeddings_are_added_as_they_are_or_as_units(by_hand, clip):
    # (1, 2) is nearest to b, then c; of units, (1, 1), b again but a like c.
    query = table(target=["c"])
    plain = retrieval_scores(clip, query, NAMES, k=(3,))
    units = retrieval_scores(clip, query, NAMES, k=(3,), combine="unit_sum")
    assert plain.loc["both", "R@3"] == 1
    assert units.loc["both", "R@3"] == 0


def test_the_reference_is_not_searched_where_it_is_named(by_hand, clip):
    query = table(target=["b"], reference=["a"])
    for column, expected in (("reference", [0, 1]), (None, [0, 0])):
        scores = retrieval_scores(clip, query, NAMES, k=(1, 2), reference_column=column)
        assert scores.loc["image", ["R@1", "R@2"]].tolist() == expected
    assert scores.loc["chance", "R@1"] == 1 / 4
    named = retrieval_scores(clip, query, NAMES, k=(1, 5))
    assert named.loc["chance", ["R@1", "R@5"]].tolist() == [1 / 3, 1]


def test_a_subset_is_searched_on_its_own(by_hand, clip):
    query = table(target=["b"], reference=["a"], subset=[["a", "b", "c"]])
    scores = retrieval_scores(clip, query, NAMES, k=(1,))
    assert scores.loc["image", ["R@1", "R_subset@1"]].tolist() == [0, 1]
    subset = scores.loc["chance", [f"R_subset@{n}" for n in (1, 2, 3)]]
    assert subset.tolist() == [0.5, 1, 1]


def test_a_missing_cell_leaves_the_other_to_ask(by_hand, clip):
    queries = table(
        image=["p", None, "p"], text=["t", "t", None], target=["a", "a", "a"]
    )
    scores = retrieval_scores(clip, queries, NAMES, k=(1,))
    assert scores["n_queries"].tolist() == [2, 2, 3, 3]
    assert scores.loc["both", "R@1"] == pytest.approx(1 / 3)


def test_scores_of_scenes_are_above_chance_and_both_above_one(clip):
    queries, gallery = make_modified_scenes(60, random_state=1)
    scores = retrieval_scores(clip, queries, gallery, batch_size=50)
    assert scores.loc["both", "R@10"] > scores.loc["image", "R@10"]
    assert scores.loc["image", "R@10"] > 2 * scores.loc["chance", "R@10"]
    again = retrieval_scores(clip, queries, gallery.to_dict(), batch_size=7)
    pd.testing.assert_frame_equal(scores, again)


def test_a_fitted_mora_is_scored_with_its_adapters(clip):
    X, y = make_scenes(24, n_classes=2, random_state=0)
    fitted = small(MoRAClassifier, max_epochs=3, lr=1e-1).fit(X, y)
    frozen = retrieval_scores(clip, QUERIES, GALLERY)
    adapted = retrieval_scores(fitted, QUERIES, GALLERY)
    assert not frozen.equals(adapted)
    probe = small(LinearProbeClassifier, backbone="robustmm/tiny-clip").fit(X, y)
    pd.testing.assert_frame_equal(retrieval_scores(probe, QUERIES, GALLERY), frozen)


def test_what_is_no_model_is_refused(clip):
    X, y = make_scenes(12, n_classes=2, random_state=0)
    for model in (small(CMPTClassifier).fit(X, y), MoRAClassifier(), "tiny-clip"):
        with pytest.raises(TypeError, match="model must be a Backbone, or a fitted"):
            retrieval_scores(model, QUERIES, GALLERY)
    for name in ("robustmm/tiny-vilt", "robustmm/tiny-bert"):
        with pytest.raises(ValueError, match="with one common space"):
            retrieval_scores(load_backbone(name), QUERIES, GALLERY)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"target": ["q"]}, {}, r"'target' must be in the gallery, got \['q'\]"),
        ({"target": [None]}, {}, r"must be in the gallery, got \[None\]"),
        ({"reference": ["q"]}, {}, "'reference' must be in the gallery"),
        ({"reference": ["a"]}, {}, "target must not be its reference"),
        ({"subset": [["a", "q"]]}, {}, "'subset' must be in the gallery"),
        ({"image": [None], "text": [" "]}, {}, "must have an image or a text"),
        ({}, {"target_column": "goal"}, "must have a column 'goal'"),
        ({}, {"k": (0,)}, r"k must be in \[1"),
        ({}, {"combine": "mean"}, "combine must be one of"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(by_hand, clip, columns, options, message):
    with pytest.raises(ValueError, match=message):
        retrieval_scores(clip, table(**columns), NAMES, **options)


def test_a_gallery_without_a_picture_is_refused(clip):
    holes = GALLERY.copy()
    holes.iloc[3] = None
    with pytest.raises(ValueError, match="must have a picture, not"):
        retrieval_scores(clip, QUERIES, holes)
    twice = pd.concat([GALLERY, GALLERY.iloc[:1]])
    with pytest.raises(ValueError, match="must be different"):
        retrieval_scores(clip, QUERIES, twice)


def test_global_generators_are_left_alone(clip):
    state = torch.get_rng_state()
    retrieval_scores(clip, QUERIES, GALLERY)
    assert torch.equal(torch.get_rng_state(), state)
