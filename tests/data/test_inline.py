"""Base64 is told from paths by the text alone, bounded, and read like the bytes."""

import base64
import time

import numpy as np
import pytest
from hostile import encoded, picture_files
from PIL import Image

from robustmm.data import ByteCache, ImageTransform, Rows, decode_image, image_key
from robustmm.data import inline as module
from robustmm.data.faults import BadImage
from robustmm.data.images import ImageCells
from robustmm.data.inline import inline_bytes, is_inline

KINDS = ("PNG", "JPEG", "GIF", "WEBP")
TRANSFORM = ImageTransform(size=(8, 8))
DOT = Image.new("RGB", (1, 1), "red")


def spelled(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def text_of(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("picture", [DOT, Image.new("RGB", (30, 20), "blue")])
def test_pictures_of_known_formats_need_no_header(kind, picture):
    data = encoded(picture, kind)
    text = text_of(data)
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\r\n"
    for written in (text, lines, text.rstrip("="), np.str_(text)):
        assert is_inline(written)
        assert inline_bytes(written) == data
        np.testing.assert_array_equal(decode_image(written), decode_image(data))


@pytest.mark.parametrize("name", picture_files())
def test_data_uris_of_any_picture(name):
    data = picture_files()[name]
    for header in ("data:image/png;", "DATA:Image/X-any;charset=utf-8;"):
        text = f"{header}base64,{text_of(data)}"
        assert is_inline(text)
        np.testing.assert_array_equal(decode_image(text), decode_image(data))


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        "",
        "/9j/a.jpg",
        "/9j/" + "a" * 35,
        "/9j/" + "a" * 60 + ".jpg",
        "/9j/" + "a" * 60 + "/../b",
        "R0lGODlh/" + "b" * 40 + "_c",
        "iVBORw0KGgo" + "a" * 60,
        "UklGR" + "a" * 60,
        "data/a.png",
        "data",
        "x" * 4000,
        "/9j/" + "a" * 60 + "=a",
        "/9j/" + "a" * 60 + "\0",
        "/9j/" + "a" * 60 + "\u00e9",
    ],
)
def test_paths_are_no_pictures(path):
    assert not is_inline(path)


def test_a_file_of_the_name_makes_no_difference(tmp_path, monkeypatch):
    text = text_of(encoded(DOT, "GIF"))
    assert "/" not in text[:40]
    monkeypatch.chdir(tmp_path)
    (tmp_path / text.replace("/", "")[:80]).write_bytes(b"secret")
    assert decode_image(text, tmp_path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data:,hello", "must begin with data:image/...;base64,"),
        ("data:text/html;base64,PGI+", "must begin with data:image/...;base64,"),
        ("data:image/svg+xml,<svg/>", "must begin with data:image/...;base64,"),
        ("data:image/png,iVBORw0KGgo=", "must begin with data:image/...;base64,"),
        ("data:image/png;base64,@@@@", "not valid base64"),
        ("data:image/png;base64,A", "not valid base64"),
        ("data:image/png;base64,\ud800", "not valid base64"),
        ("data:image/png;base64,", "zero bytes"),
        ("data:image/png;base64,iVBORw0KGgo=", "cannot be|damaged"),
        ("data:image/svg+xml;base64," + text_of(b"<svg/>"), "not an image"),
        (spelled(b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n"), "not an image"),
    ],
)
def test_what_holds_no_picture(text, reason):
    with pytest.raises(BadImage, match=reason):
        decode_image(text)


def test_the_length_is_known_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHARACTERS", 1000)
    monkeypatch.setattr(module.base64, "b64decode", None)
    for text in ("data:image/png;base64," + "A" * 1000, "/9j/" + "A" * 1000):
        assert is_inline(text)
        with pytest.raises(BadImage, match="at most 1000 characters, got 10"):
            inline_bytes(text)


def test_no_text_takes_long_to_be_told():
    start = time.perf_counter()
    for tail in (" " * 10**6, "= " * 10**6, "A " * 10**6 + "\0", "=" * 10**6):
        assert not is_inline("/9j/" + tail + "!")
        is_inline("UklGR" + tail)
    assert time.perf_counter() - start < 5


def test_keys_are_those_of_the_bytes():
    data, other = (encoded(DOT.resize((9, n)), "PNG") for n in (9, 8))
    key = image_key(data, None, TRANSFORM)
    assert image_key(spelled(data), None, TRANSFORM) == key
    assert image_key(text_of(data), "/tmp", TRANSFORM) == key
    assert image_key(text_of(other), None, TRANSFORM) != key


def test_one_picture_in_the_cache_for_all_spellings(monkeypatch):
    data = encoded(Image.new("RGB", (9, 9), "green"), "PNG")
    images = [data, spelled(data), text_of(data), text_of(data)]
    calls = []
    original = ImageTransform.__call__
    monkeypatch.setattr(
        ImageTransform,
        "__call__",
        lambda self, *a: calls.append(a) or original(self, *a),
    )
    cells = ImageCells(
        Rows(images, [None] * 4, [0, 1, 2, 3]), TRANSFORM, ByteCache(10**6)
    )
    first = [cells.read(i) for i in range(4)]
    assert len({key for _, key, _ in first}) == 1
    assert len(calls) == 1
    bad = ImageCells(Rows(["data:,x"], [None], [0]), TRANSFORM, ByteCache(10**6))
    assert "data:image" in bad.read(0)[2]
