"""Every null and every cell type of every kind of column becomes the same rows."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robustmm.data.frame import (
    PATTERNS,
    Rows,
    check_modalities,
    digest_rows,
    format_rows,
    is_null,
    read_rows,
)

PICTURE = Image.new("RGB", (4, 3), "red")


def _encoded() -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, "PNG")
    return stream.getvalue()


NULLS = {
    "None": None,
    "nan": float("nan"),
    "numpy nan": np.float64("nan"),
    "float32 nan": np.float32("nan"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "datetime64 NaT": np.datetime64("NaT", "ns"),
}
CELLS = {
    "str": "a.png",
    "numpy str": np.str_("a.png"),
    "Path": Path("a.png"),
    "PIL": PICTURE,
    "bytes": _encoded(),
    "bytearray": bytearray(_encoded()),
    "memoryview": memoryview(_encoded()),
    "gray array": np.zeros((4, 3), dtype=np.uint8),
    "colour array": np.zeros((4, 3, 3), dtype=np.uint8),
}
STRING_DTYPES = ["object", "string", "category"]
EMPTY_DTYPES = ["object", "float64", "datetime64[ns]"]
if pd.__version__ >= "3":  # before, it made texts of missing values
    STRING_DTYPES, EMPTY_DTYPES = [*STRING_DTYPES, "str"], [*EMPTY_DTYPES, "str"]
if importlib.util.find_spec("pyarrow"):
    STRING_DTYPES += ["string[pyarrow]"]


def object_column(*cells, index=None):
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = cell
    return pd.Series(column, index=index, dtype=object)


def frame(images, texts, index=None):
    columns = {"image": object_column(*images), "text": object_column(*texts)}
    result = pd.DataFrame(columns)
    return result if index is None else result.set_axis(index)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("null", NULLS.values(), ids=NULLS)
def test_every_null_beside_every_image_type(null, cell):
    rows = read_rows(frame([cell, null, cell], ["a", "b", null]))
    assert rows.images[0] is cell
    assert rows.images[1] is None
    assert rows.texts == ["a", "b", None]
    assert rows.present.tolist() == [[True, True], [False, True], [True, False]]


@pytest.mark.parametrize("null", [*NULLS.values(), "", " ", "\n\t", "\u3000\xa0"])
def test_null_and_blank_texts_are_missing(null):
    assert read_rows(frame(["a.png"], [null])).texts == [None]


@pytest.mark.parametrize("text", ["nan", "None", "NA", "0", ".", " a "])
def test_words_that_look_like_nulls_are_texts(text):
    assert read_rows(frame(["a.png"], [text])).texts == [text]


@pytest.mark.parametrize("cell", ["", b"", np.empty((0, 3), dtype=np.uint8), "nan"])
def test_empty_images_are_not_missing(cell):
    assert read_rows(frame([cell], ["a"])).present[0, 0]


@pytest.mark.parametrize("cell", [[None], [], np.array(np.nan), {}, "", b""])
def test_only_scalars_are_null(cell):
    assert not is_null(cell)


@pytest.mark.parametrize(
    ("cell", "image"),
    [
        ({"bytes": b"x", "path": "a.png"}, b"x"),
        ({"bytes": b"", "path": "a.png"}, b""),
        ({"bytes": None, "path": "a.png"}, "a.png"),
        ({"bytes": np.nan, "path": Path("a.png")}, Path("a.png")),
        ({"path": "a.png"}, "a.png"),
        ({"bytes": bytearray(b"x")}, bytearray(b"x")),
        ({"bytes": None, "path": None}, None),
        ({"bytes": None, "path": ""}, ""),
    ],
)
def test_what_a_dict_of_hugging_face_holds(cell, image):
    assert read_rows(frame([cell], ["a"])).images == [image]


@pytest.mark.parametrize("cell", ["", " \t", {"bytes": None, "path": ""}])
def test_a_blank_image_is_missing_by_option(cell):
    table = frame([cell, "a.png"], ["a", None])
    assert read_rows(table, blank_image="missing").images == [None, "a.png"]
    assert read_rows(table).present[:, 0].all()
    assert read_rows(frame([b""], ["a"]), blank_image="missing").images == [b""]


def test_patterns():
    rows = read_rows(frame(["a", "b", None, None], ["x", None, "y", " "]))
    assert rows.patterns.tolist() == list(PATTERNS)
    assert rows.present.dtype == bool


@pytest.mark.parametrize("dtype", STRING_DTYPES)
def test_string_dtypes(dtype):
    df = pd.DataFrame({"image": ["a.png", None], "text": [None, "a dog"]})
    rows = read_rows(df.astype(dtype))
    assert rows.images == ["a.png", None]
    assert rows.texts == [None, "a dog"]
    assert type(rows.images[0]) is str


@pytest.mark.parametrize("dtype", EMPTY_DTYPES)
def test_a_column_without_any_value_is_legal(dtype):
    empty = pd.Series([None, None]).astype(dtype)
    df = pd.DataFrame({"image": empty, "text": ["a", "b"]})
    assert read_rows(df).patterns.tolist() == ["image_missing"] * 2
    df = pd.DataFrame({"image": ["a", "b"], "text": empty})
    assert read_rows(df).patterns.tolist() == ["text_missing"] * 2


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (pd.Index(["a", "a", "b"]), ["a", "a", "b"]),
        (
            pd.MultiIndex.from_tuples([(0, "x"), (0, "y"), (1, "x")]),
            [(0, "x"), (0, "y"), (1, "x")],
        ),
        (pd.Index([7, 5, 3]), [7, 5, 3]),
    ],
)
def test_indices(index, labels):
    rows = read_rows(frame(["a", "b", None], ["x", None, "z"], index))
    assert rows.index == labels
    assert rows.images == ["a", "b", None]


def test_other_columns_and_orders_and_names():
    df = pd.DataFrame({"plot": ["x"], "year": [1999], "poster": ["p.jpg"]})
    rows = read_rows(df, "poster", "plot", image_root="posters")
    assert (rows.images, rows.texts) == (["p.jpg"], ["x"])
    assert rows.image_root == Path("posters")


def test_one_column_may_be_both():
    df = pd.DataFrame({"a": ["p.jpg"]})
    assert read_rows(df, "a", "a").present.all()


def test_an_empty_frame_has_no_rows():
    rows = read_rows(pd.DataFrame({"image": [], "text": []}))
    assert len(rows) == 0
    assert rows.present.shape == (0, 2)
    assert rows.patterns.tolist() == []


def test_array_by_position():
    X = np.empty((2, 2), dtype=object)
    X[0] = [PICTURE, "a cat"]
    X[1] = [None, float("nan")]
    rows = read_rows(X)
    assert rows.images == [PICTURE, None]
    assert rows.texts == ["a cat", None]
    assert rows.index == [0, 1]


def test_the_table_is_not_changed():
    df = frame([PICTURE, None], ["", "b"])
    before = df.copy()
    read_rows(df)
    pd.testing.assert_frame_equal(df, before)


def test_take():
    rows = Rows(["a", None, "c"], [None, "y", "z"], ["i", "j", "k"], Path("root"))
    taken = rows.take(np.array([2, 0]))
    assert (taken.images, taken.texts) == (["c", "a"], ["z", None])
    assert (taken.index, taken.image_root) == (["k", "i"], Path("root"))


def test_absent_column_is_named():
    df = pd.DataFrame({"picture": ["a"], "text": ["b"]})
    with pytest.raises(ValueError, match=r"column 'image'.*\['picture', 'text'\]"):
        read_rows(df)


def test_duplicates_among_unused_columns_do_not_matter():
    rows = frame(["a.png"], ["a cat"])
    table = pd.concat([rows, pd.DataFrame([[1, 2]], columns=["a", "a"])], axis=1)
    assert read_rows(table).texts == ["a cat"]


def test_duplicate_column_is_named():
    df = pd.DataFrame([["a", "b", "c"]], columns=["image", "text", "text"])
    with pytest.raises(ValueError, match="unique, X has 2 columns named 'text'"):
        read_rows(df)


@pytest.mark.parametrize("X", [[["a", "b"]], {"image": ["a"]}, pd.Series(["a"]), None])
def test_other_tables_are_refused(X):
    with pytest.raises(TypeError, match=f"DataFrame.*got {type(X).__name__}"):
        read_rows(X)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 2, 1)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"2 columns.*got shape \(4"):
        read_rows(np.empty(shape, dtype=object))


UNHELD = [{}, {"url": "a.png"}, {"bytes": "a.png"}, {"bytes": None, "path": 3}]


@pytest.mark.parametrize("cell", [3, 1.5, ["a.png"], *UNHELD, True, object()])
def test_unsupported_image_types_are_listed(cell):
    df = frame(["a.png", cell, None], ["x", "y", "z"], ["r0", "r1", "r2"])
    with pytest.raises(
        ValueError, match=r"image cell must .*got 1 other: row 'r1'"
    ) as error:
        read_rows(df)
    assert type(cell).__name__ in str(error.value)
    assert "r0" not in str(error.value)


@pytest.mark.parametrize("cell", [3, 1.5, ["a"], b"bytes", True, PICTURE])
def test_unsupported_text_types_are_listed(cell):
    df = frame(["a.png", None], ["x", cell], ["r0", "r1"])
    with pytest.raises(
        ValueError, match=r"text cell must .*got 1 other: row 'r1'"
    ) as error:
        read_rows(df)
    assert type(cell).__name__ in str(error.value)


def test_numbers_in_an_array_are_refused():
    with pytest.raises(ValueError, match=r"image cell .* got 12 other.*\(and 2 more\)"):
        read_rows(np.zeros((12, 2)))


def test_format_rows_names_ten():
    exactly = format_rows(dict.fromkeys(range(10), "bad"), "cells")
    assert exactly.startswith("10 cells: row 0: bad; ")
    assert "more" not in exactly
    message = format_rows(dict.fromkeys(range(12), "bad"), "cells")
    assert "row 9" in message
    assert "row 10" not in message
    assert message.endswith("(and 2 more)")


def test_format_rows_keeps_duplicate_labels():
    assert format_rows([("a", "x"), ("a", "y")], "cells").count("row 'a'") == 2


# Other modalities ---------------------------------------------------------------------


def test_rows_of_three_modalities():
    cells = {"image": ["a.png", None, None], "text": ["a", None, None]}
    rows = Rows.of({**cells, "audio": ["a.wav", "b.wav", None]}, [0, 1, 2])
    expected = ["complete", "image+text_missing", "all_missing"]
    assert rows.patterns.tolist() == expected
    assert rows.take([2, 1]).patterns.tolist() == expected[:0:-1]
    left = rows.without("audio", [0])
    assert left.patterns[0] == "audio_missing"
    assert rows.patterns[0] == "complete"
    assert left.images == rows.images


def test_columns_say_what_is_read_and_in_which_order():
    df = pd.DataFrame({"film": ["a.mp4", None], "sound": [None, "b.wav"], "text": "x"})
    rows = read_rows(df, columns={"video": "film", "audio": "sound"})
    assert rows.modalities == ("video", "audio")
    assert rows.patterns.tolist() == ["audio_missing", "video_missing"]
    assert rows.images == rows.texts == [None, None]
    array = df[["film", "sound"]].to_numpy(dtype=object)
    same = read_rows(array, columns={"video": "v", "audio": "a"})
    assert same.cells == rows.cells
    with pytest.raises(ValueError, match="2 columns, audio and video, in that order"):
        read_rows(array[:, :1], columns={"audio": "a", "video": "v"})


def test_cells_that_are_no_clips_are_named_by_row():
    cells = pd.Series([np.zeros(9), "a.wav", 3.5], index=[7, 8, 9])
    said = r"2 cells are no audio: row 7.*row 9"
    with pytest.raises(ValueError, match=said) as error:
        read_rows(cells.to_frame("audio"), columns={"audio": "audio"})
    assert "row 8" not in str(error.value)


def test_one_row_may_be_a_dict_of_clips():
    row = {"audio": (16000, np.zeros(9, "int16")), "video": [np.zeros((3, 3, 3))] * 2}
    rows = read_rows(row, columns={"audio": "audio", "video": "video"})
    assert len(rows) == 1
    assert len(rows.cells["video"][0]) == 2


def test_a_blank_path_of_a_clip_is_missing_if_asked():
    df = pd.DataFrame({"audio": ["", " ", "a.wav"]})
    columns = {"audio": "audio"}
    assert read_rows(df, columns=columns).present.all()
    rows = read_rows(df, columns=columns, blank_image="missing")
    assert rows.present[:, 0].tolist() == [False, False, True]


@pytest.mark.parametrize("value", [(), "audio", ("audio", "smell"), ("text", "text")])
def test_modalities_are_checked(value):
    with pytest.raises(ValueError, match="modalities must"):
        check_modalities("modalities", value)


def test_tables_of_other_sounds_and_films_are_told_apart():
    def rows(n_samples, n_frames, path="a.wav"):
        sounds = [(16000, np.zeros(n_samples, np.int16)), path]
        films = [np.zeros((n_frames, 4, 4, 3), np.uint8), None]
        return Rows.of({"audio": sounds, "video": films}, [0, 1])

    same = digest_rows(rows(20_000, 3))
    assert digest_rows(rows(20_000, 3)) == same
    others = [rows(20_001, 3), rows(20_000, 4), rows(20_000, 3, "b.wav")]
    assert same not in map(digest_rows, others)
