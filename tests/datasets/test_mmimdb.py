"""MM-IMDb in miniature: rows per plot, genres in order, files that are not there."""

import pandas as pd
import pytest
from dataset_cases import write_mmimdb

from robustmm import drop_modalities
from robustmm.data import read_rows
from robustmm.datasets import load_mmimdb
from robustmm.datasets.mmimdb import GENRES


@pytest.fixture(params=["original", "prompts"])
def root(request, tmp_path):
    return write_mmimdb(tmp_path, layout=request.param)


def test_every_plot_is_a_row(root):
    X, y = load_mmimdb(root)
    assert list(X) == ["image", "text"]
    films = ["0000005", "0000005", "0000008", "0000012"]
    assert X.index.tolist() == y.index.tolist() == films
    assert X["text"].tolist() == [
        "Plot 0 of 0000005.",
        "Plot 1 of 0000005.",
        "Plot 0 of 0000008.",
        None,
    ]
    assert X["image"].iloc[0] == X["image"].iloc[1]
    assert X["image"].map(lambda cell: cell.endswith(".jpeg")).all()
    patterns = read_rows(X).patterns.tolist()
    assert patterns == ["complete", "complete", "complete", "text_missing"]


def test_genres_are_those_of_the_papers_in_their_order(root):
    _, y = load_mmimdb(root)
    assert list(y) == list(GENRES)
    assert y.shape == (4, 23)
    assert y.columns[[0, 1, 19, 22]].tolist() == [
        "Drama",
        "Comedy",
        "Western",
        "Film-Noir",
    ]
    # "News" is none of the 23.
    assert y.sum(axis=1).tolist() == [2, 2, 1, 2]
    assert y["Western"].tolist() == [1, 1, 0, 1]
    assert y["Comedy"].tolist() == [0, 0, 1, 0]


def test_one_plot_per_film(root):
    X, _ = load_mmimdb(root, plots="first")
    assert X["text"].tolist() == ["Plot 0 of 0000005.", "Plot 0 of 0000008.", None]
    X, _ = load_mmimdb(root, plots="outline")
    texts = ["Plot 0 of 0000005.", "Outline of 0000008.", None]
    assert X["text"].tolist() == texts


def test_the_other_splits(root):
    assert len(load_mmimdb(root, "dev")[0]) == 3
    assert load_mmimdb(root, "test")[1].index.tolist() == ["0000439", "0001111"]


def test_films_lose_all_their_plots_or_none(root):
    X, _ = load_mmimdb(root, "dev")
    X = pd.concat([X, load_mmimdb(root, "test")[0]])
    dropped = drop_modalities(X, 0.5, "text", random_state=0, groups=X.index)
    missing = dropped["text"].isna().groupby(X.index)
    assert missing.nunique().eq(1).all()
    assert missing.first().sum() == 1


def test_the_archive_one_folder_down(tmp_path):
    write_mmimdb(tmp_path / "mmimdb")
    assert len(load_mmimdb(str(tmp_path))[0]) == 4


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"split.json .* not there.*archive.org"
    ):
        load_mmimdb(tmp_path)
    root = write_mmimdb(tmp_path, layout="prompts")
    (root / "labels" / "0000008.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels.0000008.json, which is not"):
        load_mmimdb(root)
    (root / "labels").rename(root / "annotations")
    with pytest.raises(FileNotFoundError, match=r"labels \(or dataset\), which"):
        load_mmimdb(root)


def test_posters_that_are_not_there(root):
    poster = next(root.rglob("0000005.jpeg"))
    poster.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images of MM-IMDb .*0000005.jpeg"):
        load_mmimdb(root)
    X, _ = load_mmimdb(root, on_missing_image="missing")
    assert X["image"].isna().tolist() == [True, True, False, False]


def test_unknown_choices_are_named(root):
    with pytest.raises(ValueError, match=r"split must be one of .* got 'validation'"):
        load_mmimdb(root, "validation")
    with pytest.raises(ValueError, match=r"plots must be one of .* got 'longest'"):
        load_mmimdb(root, plots="longest")
    with pytest.raises(ValueError, match=r"on_missing_image must be .* got 'skip'"):
        load_mmimdb(root, on_missing_image="skip")
