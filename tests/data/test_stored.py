"""A table in a file teaches what the frames would that were written into it."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from contract import frame_with_holes
from PIL import Image
from toys import QuickClassifier

from robustmm import open_table, store_table
from robustmm.data.decode import decode_image
from robustmm.data.frame import read_rows

X, Y = frame_with_holes()


def png(picture):
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(file, "PNG")
    return file.getvalue()


def stored_cells():
    """As bytes, as arrays and as paths in turn, with holes."""
    frame = X.copy()
    frame["image"] = frame["image"].astype(object)
    frame["image"] = [None if c is None else png(c) for c in read_rows(X).images]
    return frame.assign(label=np.asarray(Y), price=np.arange(len(X)) / 2)


FRAME = stored_cells()


def pieces(frame=FRAME, size=7):
    return (frame[i : i + size] for i in range(0, len(frame), size))


def test_a_fit_is_that_of_one_frame(tmp_path):
    table = store_table(pieces(), tmp_path / "rows.arrow")
    assert table.column_names == ["label", "price", "image", "text"]
    assert table["price"].to_pylist() == FRAME["price"].tolist()
    options = {"max_epochs": 3, "early_stopping": True}
    one = QuickClassifier(**options).fit(FRAME, Y)
    stored = QuickClassifier(**options).fit(table, table["label"])
    np.testing.assert_array_equal(stored.predict_proba(table), one.predict_proba(FRAME))
    assert stored.history_.drop(columns="dur").equals(one.history_.drop(columns="dur"))
    assert stored.missing_report_ == one.missing_report_


def test_it_opens_again(tmp_path):
    path = tmp_path / "rows.arrow"
    written = store_table(FRAME, path)
    assert open_table(str(path)).equals(written)
    assert list(tmp_path.iterdir()) == [path]
    assert not (tmp_path / "rows.arrow.part").exists()


def test_cells_of_every_kind(tmp_path):
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    images = [picture, "a.png", b"x", None, tmp_path / "b.png", {"path": "c.png"}]
    frame = pd.DataFrame({"image": images, "text": ["a", None, " ", "b", "c", "d"]})
    rows = read_rows(store_table([frame], tmp_path / "rows.arrow"))
    made, *others = rows.images
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(made))), picture)
    assert others == ["a.png", b"x", None, str(tmp_path / "b.png"), "c.png"]
    assert list(rows.texts) == ["a", None, None, "b", "c", "d"]


def test_frames_of_any_library(tmp_path):
    frames = [FRAME[:4], pa.Table.from_pandas(FRAME[4:9]), FRAME[9:].to_dict("records")]
    table = store_table(frames, tmp_path / "rows.arrow")
    assert table.num_rows == len(FRAME)

    class Partition:
        def __init__(self, frame):
            self.compute = frame.copy

    class Dask:
        partitions = [Partition(FRAME[:5]), Partition(FRAME[5:])]  # noqa: RUF012

    dask = store_table(Dask(), tmp_path / "dask.arrow")
    assert dask.select(["image", "text"]).equals(table.select(["image", "text"]))


def palette():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.info["transparency"] = 1
    return image


def turned():
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    image.getexif()[0x0112] = 6
    return image


PICTURES = {
    "grey": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "grey, three axes": np.arange(6, dtype=np.uint8).reshape(2, 3, 1),
    "see-through": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "palette": palette(),
    "turned": turned(),
    "bits": Image.new("1", (3, 2), 1),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_an_open_picture_looks_the_same(kind, tmp_path):
    picture = PICTURES[kind]
    frame = pd.DataFrame({"image": [picture], "text": ["a"]})
    stored = read_rows(store_table([frame], tmp_path / "rows.arrow")).images[0]
    before, after = (np.asarray(decode_image(cell)) for cell in (picture, stored))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("frames", "match"),
    [
        ([], "must have a frame at least"),
        (3, "must be an iterable of tables or a Dask DataFrame, got int"),
        ("rows.csv", "must be an iterable of tables or a Dask DataFrame, got str"),
        ([FRAME, FRAME.drop(columns="price")], "frame 1: frames must have the columns"),
        ([FRAME, FRAME.drop(columns="text")], "frame 1: X must have a column 'text'"),
        ([FRAME.assign(image=3)], "frame 0: An image cell must be a path"),
        ([FRAME, FRAME.assign(price="x")], "frame 1: "),
        ([FRAME.assign(image=Image.new("F", (2, 2)))], "'row0': an open picture must"),
    ],
)
def test_what_is_refused_leaves_no_file(frames, match, tmp_path):
    with pytest.raises((TypeError, ValueError), match=match):
        store_table(frames, tmp_path / "rows.arrow")
    assert list(tmp_path.iterdir()) == []


def test_a_file_before_stays_where_the_new_one_fails(tmp_path):
    path = tmp_path / "rows.arrow"
    store_table(FRAME, path)
    with pytest.raises(ValueError, match="frame 1"):
        store_table([FRAME, FRAME.assign(image=3)], path)
    assert open_table(path).num_rows == len(FRAME)


def test_what_is_no_such_file(tmp_path):
    other = tmp_path / "other.arrow"
    other.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="must be a file of store_table"):
        open_table(other)
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "absent.arrow")


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install \"robustmm\[arrow\]\""):
        store_table([FRAME], tmp_path / "rows.arrow")
