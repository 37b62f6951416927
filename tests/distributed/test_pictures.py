import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robustmm.distributed.pictures import Pictures, is_url

ROOT = "memory://shop/pictures"


@pytest.fixture
def shop(tmp_path, scenes):
    """Pictures of the scenes in memory, and the table of their paths."""
    files = fsspec.filesystem("memory")
    X = scenes[0].iloc[:4].copy()
    for i, picture in enumerate(X["image"]):
        with files.open(f"/shop/pictures/{i}.png", "wb") as stream:
            Image.fromarray(np.asarray(picture)).save(stream, "PNG")
    yield X, X.assign(image=[f"{i}.png" for i in range(4)])
    files.rm("/shop", recursive=True)


def test_fetched_pictures_are_the_same(shop, probe):
    X, paths = shop
    paths.loc[1, "image"] = f"{ROOT}/1.png"
    read = Pictures(ROOT).read(probe, paths)
    found, expected = probe.predict_proba(read), probe.predict_proba(X)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "cell",
    [
        "memory://other/1.png",
        "https://example.org/1.png",
        "simplecache::https://example.org/1.png",
        "/etc/hostname",
        "../secret.png",
        "a/..\\../secret.png",
        f"{ROOT}/../secret.png",
        f"{ROOT}/https://example.org/1.png",
    ],
)
def test_nothing_outside_of_the_root_is_opened(cell, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("opened")

    monkeypatch.setattr("robustmm.distributed.pictures._open_root", refuse)
    with pytest.raises(ValueError, match="only URLs below"):
        Pictures(ROOT).fetch(cell)


def test_without_a_root_no_url_is_opened(probe, shop):
    X = shop[1].assign(image=f"{ROOT}/0.png")
    assert Pictures().read(probe, X) is X
    with pytest.raises(ValueError, match="URLs are never opened"):
        probe.predict(X)


def test_all_that_cannot_be_fetched_is_named(probe, shop):
    X = shop[1].assign(image=["0.png", "gone.png", "memory://x/y.png", None])
    with pytest.raises(ValueError, match=r"row 1: no such file.*row 2: only URLs"):
        Pictures(ROOT).read(probe, X)
    lenient = probe.__copy__().set_params(on_bad_image="missing")
    with pytest.warns(UserWarning, match="taken as missing"):
        read = Pictures(ROOT).read(lenient, X)
    assert read["image"].isna().tolist() == [False, True, True, True]


def test_a_folder_is_where_relative_paths_start(probe, tmp_path):
    assert Pictures("/data").fetch("a.png") == "/data/a.png"
    assert Pictures("/data").fetch("/else/a.png") == "/else/a.png"
    # The model says what it thinks of a URL.
    assert Pictures("/data").fetch("https://example.org/a") == "https://example.org/a"


def test_cells_that_are_no_paths_stay(probe, scenes):
    X = scenes[0].iloc[:4].copy()
    X["image"] = pd.Series([b"abc", X["image"][1], None, " "], dtype=object)
    read = Pictures(ROOT).read(probe, X)
    assert read["image"].tolist()[:3] == X["image"].tolist()[:3]
    assert read["image"][3] == " "


@pytest.mark.parametrize(
    ("path", "expected"),
    [("s3://b", True), ("filecache::s3://b", True), ("C:\\x", False), ("a/b", False)],
)
def test_is_url(path, expected):
    assert is_url(path) is expected
