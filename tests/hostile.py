"""Cells that attackers, old cameras and broken exports send; strategies for more."""

import io
import os
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn.datasets
from hypothesis import strategies as st
from PIL import Image

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")


def encoded(image, format="PNG", **options):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@cache
def photographs():
    """Two photographs as JPEG files, as they come with scikit-learn."""
    folder = Path(sklearn.datasets.__file__).parent / "images"
    return tuple((folder / name).read_bytes() for name in ("china.jpg", "flower.jpg"))


@cache
def picture_files():
    """Small files of many formats and modes, made from the photographs, by name."""
    whole = [Image.open(io.BytesIO(data)) for data in photographs()]
    small, other = (image.resize((48, 32)) for image in whole)
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = np.asarray(small.convert("L")).astype(np.uint16) * 257
    files = {f"plain {kind}": encoded(small, kind) for kind in FORMATS}
    frames = {"save_all": True, "append_images": [other]}
    return files | {
        "progressive": encoded(small, "JPEG", progressive=True),
        "gray": encoded(small.convert("L"), "JPEG"),
        "cmyk": encoded(small.convert("CMYK"), "JPEG"),
        "turned": encoded(small, "JPEG", exif=exif),
        "alpha": encoded(small.convert("RGBA")),
        "palette": encoded(small.convert("P")),
        "one bit": encoded(small.convert("1")),
        "sixteen bits": encoded(Image.fromarray(sixteen)),
        "animated GIF": encoded(small.convert("P"), "GIF", **frames),
        "animated WEBP": encoded(small, "WEBP", **frames),
        "pages": encoded(small, "TIFF", **frames),
        "multi-picture": encoded(small, "MPO", **frames),
    }


def bomb(width=100_000, height=100_000):
    """A PNG of a hundred bytes that claims to have ten thousand million pixels."""

    def chunk(kind, data):
        body = kind + data
        check = struct.pack(">I", zlib.crc32(body))
        return struct.pack(">I", len(data)) + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def good_cells(folder):
    """Image cells that have a picture in them, by name."""
    small = Image.open(io.BytesIO(picture_files()["plain PNG"]))
    mislabelled = folder / "picture.txt"
    mislabelled.write_bytes(picture_files()["plain JPEG"])
    link = folder / "link.png"
    link.symlink_to(mislabelled)
    cells = {
        "one pixel": encoded(small.resize((1, 1))),
        "wide": encoded(small.resize((20_000, 1))),
        "tall": np.zeros((20_000, 1), dtype=np.uint8),
        "mislabelled": str(mislabelled),
        "link": link,
        "photograph": photographs()[0],
        "array": np.asarray(small),
        "open": small,
    }
    return picture_files() | cells


def bad_cells(folder):
    """Image cells that have none, by name."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("I am a picture.")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "fifo.png")
    names = ("empty", "text", "folder", "loop", "dangling", "fifo", "absent")
    paths = {name: str(folder / f"{name}.png") for name in names}
    jpeg = photographs()[0]
    return paths | {
        "no bytes": b"",
        "no path": "",
        "truncated": jpeg[: len(jpeg) // 2],
        "truncated PNG": picture_files()["plain PNG"][:-40],
        "header only": jpeg[:20],
        "bomb": bomb(),
        "http": "http://127.0.0.1:9/picture.png",
        "data": "data:image/png;base64,iVBORw0KGgo=",
        "file": f"file://{folder}/picture.txt",
        "zero byte in the path": "a\0b.png",
        "long path": "a" * 10_000,
        "device": "/dev/zero",
        "surrogate path": "\udc80.png",
        "no pixels": np.zeros((0, 4, 3), dtype=np.uint8),
        "floats": np.zeros((4, 4, 3)),
        "five channels": np.zeros((4, 4, 5), dtype=np.uint8),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }


TEXTS = {
    "a million letters": "a" * 1_000_000,
    "a million words": "hill " * 200_000,
    "a million spaces and a word": " " * 1_000_000 + "hill",
    "a million accents": "e" + "\u0301" * 1_000_000,
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80 hill",
    "a zero byte": "hill\0hill",
    "lone surrogates": "\ud800 hill \udfff",
    "a split surrogate pair": "\ud83d\ude00",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0633\u0644\u0627\u0645\u202c",
    "private and unassigned": "\ue000 \U000f0000 \U0010ffff \u0378",
    "every special token": "[CLS] [SEP] [MASK] [PAD] <|endoftext|> </s> <pad>",
    "markup": "<script>alert(1)</script> '; DROP TABLE rows; --",
    "only marks": "\u200b\ufeff\u0301",
    "no letters": "🙂" * 300,
}

# Strategies --------------------------------------------------------------------------


@st.composite
def damaged_files(draw):
    """Bytes of a picture file after some random damage."""
    files = [*picture_files().values(), photographs()[1]]
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["set", "flip", "cut", "end", "insert", "splice"]))
        if kind == "set":
            data[start : start + size] = draw(st.binary(min_size=size, max_size=size))
        elif kind == "flip" and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[start : start + size]
        elif kind == "end":
            del data[start:]
        elif kind == "insert":
            data[start:start] = draw(st.binary(max_size=size))
        else:
            other = draw(st.sampled_from(files))
            data[start:] = other[start:]
    return bytes(data)


def arrays():
    """Arrays of any small shape, of which some are pictures."""
    shapes = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)
    dtypes = st.sampled_from(["u1", "u1", "u1", "u2", "f4", "?", "i8"])
    return st.builds(np.zeros, shapes, dtypes)


NULLS = st.sampled_from([None, float("nan"), pd.NA, pd.NaT])


def image_cells():
    """Image cells of every kind; most are damaged files."""
    paths = st.text(max_size=30).map(lambda text: f"nowhere/{text}")
    damaged = damaged_files()
    return st.one_of(damaged, damaged, damaged, NULLS, arrays(), st.binary(), paths)


def text_cells():
    """Text cells of every kind, lone surrogates included."""
    any_text = st.text(st.characters(codec=None), max_size=60)
    known = [text for text in TEXTS.values() if len(text) < 10_000]
    return st.one_of(any_text, st.sampled_from(known), NULLS, st.just(" \n"))


def labels():
    """Index labels; a table may have the same one twice."""
    return st.one_of(st.integers(-3, 3), st.text(max_size=3), NULLS)


@st.composite
def tables(draw, max_rows=6):
    """Frames of a few hostile rows, with any index."""
    n = draw(st.integers(1, max_rows))
    columns = {}
    for name, cells in (("image", image_cells()), ("text", text_cells())):
        column = np.empty(n, dtype=object)
        for i in range(n):
            column[i] = draw(cells)
        columns[name] = pd.Series(column, dtype=object)
    table = pd.DataFrame(columns)
    table.index = pd.Index([draw(labels()) for _ in range(n)], dtype=object)
    return table


def complaint(call, *args):
    """Return a result, or None, and what a call said of bad images, or None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call(*args)
        except ValueError as error:
            return None, str(error)
    said = [str(warning.message) for warning in caught]
    about = [text for text in said if "image cells cannot be read" in text]
    assert len(about) < 2
    return result, about[0] if about else None


def outcome(clf, table):
    """Predict hostile rows together and one by one; return a word per row.

    ``"read"``, ``"bad image"`` or ``"empty"``. Asserts that bad images are named by
    row, that everything else has probabilities, and that every row's are the same as
    when it is predicted alone.
    """
    rows = [table.iloc[[i]] for i in range(len(table))]
    clf.set_params(on_bad_image="raise")
    result, refused = complaint(clf.predict_proba, table)
    assert (result is None) == (refused is not None)
    clf.set_params(on_bad_image="missing")
    together, _ = complaint(clf.predict_proba, table)
    pairs = [complaint(clf.predict_proba, row) for row in rows]
    alone, reasons = zip(*pairs, strict=True)
    assert (refused is None) == (set(reasons) == {None})
    for row, reason in zip(rows, reasons, strict=True):
        name = f"row {row.index.tolist()[0]!r}: "
        assert reason is None or (name in reason and name in refused)
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    empty = (together == clf.class_prior_).all(axis=1)
    return [
        "bad image" if reason else "empty" if nothing else "read"
        for reason, nothing in zip(reasons, empty, strict=True)
    ]
