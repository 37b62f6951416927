"""CIRR and FashionIQ, from folders of their layout."""

import json

import pytest
from PIL import Image

from robustmm.datasets import load_cirr, load_fashion_iq


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.fixture(params=["", "cirr"])
def cirr(request, tmp_path):
    names = ["dev-1", "dev-2", "dev-3"]
    places = {name: f"./dev/{name}.png" for name in names}
    pair = {"pairid": 7, "reference": "dev-1", "target_hard": "dev-2"}
    pair |= {"caption": "more of it", "img_set": {"id": 0, "members": names}}
    inside = tmp_path / request.param
    write(inside / "captions" / "cap.rc2.val.json", [pair, {**pair, "caption": " "}])
    write(inside / "image_splits" / "split.rc2.val.json", places)
    for name in names:
        draw(tmp_path / "img_raw" / "dev" / f"{name}.png")
    return tmp_path


def test_cirr(cirr):
    queries, gallery = load_cirr(cirr)
    assert list(gallery.index) == ["dev-1", "dev-2", "dev-3"]
    assert gallery["dev-3"] == str(cirr / "img_raw" / "dev" / "dev-3.png")
    row = queries.iloc[0]
    assert row["image"] == gallery["dev-1"]
    assert (row["reference"], row["target"]) == ("dev-1", "dev-2")
    assert row["subset"] == list(gallery.index)
    assert queries["text"].tolist() == ["more of it", None]
    assert queries.index.name == "pair"


def test_cirr_without_a_picture_or_a_file(cirr):
    (cirr / "img_raw" / "dev" / "dev-2.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 images of CIRR are not there"):
        load_cirr(cirr)
    assert load_cirr(cirr, on_missing_image="missing")[1]["dev-2"] is None
    with pytest.raises(FileNotFoundError, match=r"cap\.rc2\.train\.json"):
        load_cirr(cirr, "train")
    with pytest.raises(ValueError, match=r"split must be one of .*, got 'test1'"):
        load_cirr(cirr, "test1")


def test_fashion_iq(tmp_path):
    pair = {"candidate": "B1", "target": "B2", "captions": ["is red", "is long"]}
    write(tmp_path / "captions" / "cap.dress.val.json", [pair])
    write(tmp_path / "image_splits" / "split.dress.val.json", ["B1", "B2"])
    draw(tmp_path / "images" / "B1.jpg")
    draw(tmp_path / "images" / "B2.png")
    queries, gallery = load_fashion_iq(tmp_path, "dress")
    assert gallery["B2"] == str(tmp_path / "images" / "B2.png")
    assert queries.loc[0].tolist() == [gallery["B1"], "is red and is long", "B1", "B2"]
    with pytest.raises(ValueError, match="category must be one of"):
        load_fashion_iq(tmp_path, "shoe")
    (tmp_path / "images" / "B1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"B1\.jpg"):
        load_fashion_iq(tmp_path, "dress")
