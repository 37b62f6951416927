"""Every kind of picture becomes upright RGB; everything else says why it cannot."""

import io
import os
import signal
import socket
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, JpegImagePlugin

from robustmm.data import decode
from robustmm.data.decode import decode_image, regular_file
from robustmm.data.faults import BadImage

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def photo(width=640, height=480):
    """A smooth picture without symmetry, as a photograph is."""
    y, x = np.mgrid[:height, :width]
    channels = [
        255 * x / width,
        255 * y / height,
        127 + 127 * np.sin(6 * x / width + 9 * y / height),
    ]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def difference(one, other):
    one, other = (np.asarray(image).astype(float) for image in (one, other))
    assert one.shape == other.shape
    return np.abs(one - other)


# ------------------------------------------------------------------------ cell types


def test_every_cell_type_gives_the_same_pixels(tmp_path):
    image = photo(20, 10)
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    cells = [
        str(tmp_path / "a.png"),
        np.str_(tmp_path / "a.png"),
        tmp_path / "a.png",
        image,
        Image.open(tmp_path / "a.png"),
        data,
        bytearray(data),
        memoryview(data),
        np.asarray(image),
    ]
    for cell in cells:
        decoded = decode_image(cell)
        assert decoded.mode == "RGB"
        assert difference(decoded, image).max() == 0


def test_relative_paths_start_from_image_root(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    photo(8, 8).save(tmp_path / "sub" / "a.png")
    assert decode_image("sub/a.png", tmp_path).size == (8, 8)
    assert decode_image(Path("a.png"), str(tmp_path / "sub")).size == (8, 8)
    assert decode_image(tmp_path / "sub" / "a.png", "/elsewhere").size == (8, 8)
    monkeypatch.chdir(tmp_path)
    assert decode_image("sub/a.png").size == (8, 8)


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays(channels):
    shape = (5, 7) if channels is None else (5, 7, channels)
    array = np.full(shape, 40, dtype=np.uint8)
    if channels in (2, 4):
        array[..., -1] = 0  # transparent
    decoded = decode_image(array)
    assert decoded.size == (7, 5)
    expected = WHITE if channels in (2, 4) else (40, 40, 40)
    assert decoded.getpixel((3, 3)) == expected


def test_the_cell_is_never_handed_out():
    image = photo(6, 6)
    decode_image(image).paste("black", (0, 0, 6, 6))
    assert difference(image, photo(6, 6)).max() == 0
    array = np.asarray(photo(6, 6)).copy()
    decode_image(array).paste("black", (0, 0, 6, 6))
    assert difference(array, photo(6, 6)).max() == 0


def test_strided_and_read_only_arrays():
    array = np.asarray(photo(8, 6))
    array.flags.writeable = False
    flipped = array[::-1, ::2]
    assert difference(decode_image(flipped), flipped).max() == 0


# ------------------------------------------------------------------------------ modes


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, WHITE),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), WHITE),
        ("La", (0, 0), WHITE),
        ("RGB", RED, RED),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("RGBa", (128, 0, 0, 128), (255, 127, 127)),
        ("RGBX", (255, 0, 0, 0), RED),
        ("CMYK", (0, 255, 255, 0), RED),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (0, 255, 255), RED),
        ("I", 77, (77, 77, 77)),
        ("F", 77.0, (77, 77, 77)),
        ("F", 0.5, (128, 128, 128)),
        ("I;16", 257 * 77, (77, 77, 77)),
        ("I;16B", 257 * 77, (77, 77, 77)),
        ("I", 257 * 77, (77, 77, 77)),
    ],
)
def test_modes(mode, colour, expected):
    decoded = decode_image(Image.new(mode, (3, 2), colour))
    assert (decoded.mode, decoded.size) == ("RGB", (3, 2))
    assert difference(decoded.getpixel((1, 1)), expected).max() <= 1


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    decoded = decode_image(encoded(image))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [RED, (0, 0, 255)]
    for transparency in (1, b"\xff\x00"):
        decoded = decode_image(encoded(image, transparency=transparency))
        assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_a_colour_key_is_transparent():
    image = Image.new("RGB", (2, 1), "red")
    image.putpixel((1, 0), (1, 2, 3))
    decoded = decode_image(encoded(image, transparency=(1, 2, 3)))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_sixteen_bit_files():
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        decoded = decode_image(encoded(Image.fromarray(values), format))
        assert np.asarray(decoded)[0, :, 1].tolist() == [0, 100, 255]


def test_float_files_are_stretched_only_beyond_the_usual_ranges():
    def gray(*values):
        image = Image.fromarray(np.array([values], dtype=np.float32))
        return np.asarray(decode_image(encoded(image, "TIFF")))[0, :, 0].tolist()

    assert gray(0, 0.2, 1) == [0, 51, 255]
    assert gray(0, 51, 200) == [0, 51, 200]
    assert gray(-1, 0, 1) == [0, 128, 255]
    assert gray(1000, 2000) == [0, 255]
    assert gray(-3, -3) == [0, 0]
    with pytest.raises(BadImage, match="not all finite"):
        gray(0, np.nan)


def test_cmyk_jpeg():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode_image(encoded(image, "JPEG", quality=95))
    assert difference(decoded.getpixel((8, 8)), RED).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_several(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {} if format == "TIFF" else {"duration": 50}
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **options
    )
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert difference(decode_image(data).getpixel((4, 4)), RED).max() <= 3


def test_first_picture_of_a_multi_picture_jpeg():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert difference(decode_image(data).getpixel((4, 4)), RED).max() <= 3


def test_a_damaged_list_of_pictures_warns_of_nothing():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    place = data.index(b"MPF\0") + 8
    data = data[:place] + b"\xff" * 4 + data[place + 4 :]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data))
    assert any("malformed MPO" in str(warning.message) for warning in caught)
    assert difference(decode_image(data).getpixel((4, 4)), RED).max() <= 3


# ------------------------------------------------------------------------ orientation


def stored(upright, turn):
    """What a camera writes for `upright` with EXIF orientation `turn`."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    return (upright if back is None else upright.transpose(back)), exif


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientations(turn, format):
    image, exif = stored(photo(40, 24), turn)
    options = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 95, "subsampling": 0},
    }.get(format, {})
    data = encoded(image, format, exif=exif, **options)
    for cell in (data, Image.open(io.BytesIO(data))):
        decoded = decode_image(cell)
        assert decoded.size == (40, 24)
        bound = 12 if format == "JPEG" else 0
        assert difference(decoded, photo(40, 24)).max() <= bound


@pytest.mark.parametrize("turn", [0, 9])
def test_unknown_orientations_are_ignored(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(photo(12, 8), exif=exif)
    assert difference(decode_image(data), photo(12, 8)).max() == 0


def test_damaged_exif_is_ignored():
    data = encoded(
        photo(12, 8), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    )
    assert decode_image(data).size == (12, 8)  # Pillow's own warning is not shown


# ---------------------------------------------------------------------- reduced scale


@pytest.fixture
def loaded_sizes(monkeypatch):
    """The (width, height) that JPEGs are decoded in."""
    sizes = []
    load = ImageFile.ImageFile.load

    def spy(self):
        if isinstance(self, JpegImagePlugin.JpegImageFile):
            sizes.append(self.size)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", spy)
    return sizes


@pytest.mark.parametrize(
    ("min_size", "expected"),
    [
        ((50, 60), (200, 150)),  # 1/8 has 150 rows, 100 are needed
        ((75, 100), (200, 150)),
        ((76, 100), (400, 300)),
        ((75, 101), (400, 300)),
        ((150, 200), (400, 300)),
        ((301, 400), (1600, 1200)),
        ((5000, 5000), (1600, 1200)),
        (None, (1600, 1200)),
    ],
)
def test_large_jpegs_are_decoded_at_a_fraction(loaded_sizes, min_size, expected):
    data = encoded(photo(1600, 1200), "JPEG")
    decoded = decode_image(data, min_size=min_size)
    assert decoded.size == expected
    assert loaded_sizes[0] == expected


def test_only_jpegs_from_files_are_reduced(tmp_path):
    photo(400, 400).save(tmp_path / "a.jpg")
    cell = Image.open(tmp_path / "a.jpg")
    assert decode_image(cell, min_size=(20, 20)).size == (400, 400)
    assert cell.size == (400, 400)
    assert decode_image(encoded(photo(400, 400)), min_size=(20, 20)).size == (400, 400)


@pytest.mark.parametrize("turn", range(1, 9))
def test_reduced_and_turned_stays_the_same_picture(turn, loaded_sizes):
    # One column and row more than a multiple of 8: the last reduced ones are mostly
    # filling, which must be left out on the side where turning has put it.
    y, x = np.mgrid[:801, :1201]
    waves = [127 + 60 * np.sin(x / 16 + i) + 60 * np.cos(y / 16 - i) for i in range(3)]
    upright = Image.fromarray(np.stack(waves, -1).astype(np.uint8))
    image, exif = stored(upright, turn)
    data = encoded(image, "JPEG", quality=95, exif=exif)
    decoded = decode.decode(data, needed=lambda size: (50, 75))
    assert max(loaded_sizes[0]) == 151
    assert decoded.size == (801, 1201)
    small = decoded.image.resize((75, 50), Image.Resampling.BICUBIC, box=decoded.box)
    full = decode_image(data).resize((75, 50), Image.Resampling.BICUBIC)
    assert difference(small, full).max() <= 8
    boxless = decoded.image.resize((75, 50), Image.Resampling.BICUBIC)
    assert difference(boxless, full).max() > 30


def test_needed_sees_the_upright_size():
    seen = []
    image, exif = stored(photo(64, 32), 6)
    data = encoded(image, "JPEG", exif=exif)
    decode.decode(data, needed=lambda size: seen.append(size) or (1, 1))
    assert seen == [(32, 64)]


# ------------------------------------------------------------------------- bad images


def test_truncated_files():
    for format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        data = encoded(photo(200, 100), format)
        for kept in (len(data) // 2, 30):
            with pytest.raises(BadImage, match=r"truncated|damaged|decoded"):
                decode_image(data[:kept])


@pytest.mark.parametrize(
    "data",
    [
        b"a",
        b"II",
        b"BM",
        b"not an image at all",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"%PDF-1.4 etc etc etc",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n\nshowpage\n",
        b"\0" * 1000,
    ],
)
def test_bytes_that_are_no_image(data):
    with pytest.raises(BadImage, match=r"not an image|cannot be decoded"):
        decode_image(data)


def test_no_program_is_started_for_postscript(monkeypatch):
    data = encoded(photo(9, 9), "EPS")
    assert Image.open(io.BytesIO(data)).format == "EPS"
    with pytest.raises(BadImage, match="not an image in a format"):
        decode_image(data)


@pytest.fixture
def programs(monkeypatch):
    """The programs that were to be started."""
    started = []

    def start(*args, **kwargs):
        started.append(args)
        raise OSError("no program may be started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def test_no_program_is_started_for_open_postscript(programs):
    picture = Image.open(io.BytesIO(encoded(photo(9, 9), "EPS")))
    with pytest.raises(BadImage, match=r"EPS pictures are never rendered.*copy\(\)"):
        decode_image(picture)
    assert programs == []
    with pytest.raises(OSError, match="no program"):
        picture.load()  # what would have happened
    assert len(programs) == 1


@pytest.mark.parametrize("cell", [b"", bytearray(), memoryview(b"")])
def test_no_bytes(cell):
    with pytest.raises(BadImage, match=r"empty \(zero bytes\)"):
        decode_image(cell)


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(BadImage, match=r"empty \(zero bytes\)"):
        decode_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 4), np.uint8), r"must have pixels, got shape \(0, 4\)"),
        (np.zeros((4, 0, 3), np.uint8), "must have pixels"),
        (np.zeros((4, 4, 0), np.uint8), "must have pixels"),
        (np.zeros((4, 4), np.float32), "must be uint8 .* got float32"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8 .* got int64"),
        (np.zeros(4, np.uint8), r"of shape \(H, W\).* got uint8 of shape \(4,\)"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \(1, 4, 4, 3\)"),
        (np.array(["a"], dtype=object), "got object"),
    ],
)
def test_bad_arrays(array, reason):
    with pytest.raises(BadImage, match=reason):
        decode_image(array)


def test_a_picture_without_pixels():
    with pytest.raises(BadImage, match=r"1 to .* pixels, got 0 x 5"):
        decode_image(Image.new("RGB", (0, 5)))


def test_other_types():
    with pytest.raises(BadImage, match="no image cell has the type int"):
        decode_image(7)


def bmp_header(width, height):
    """A BMP that claims to be large and has no pixels behind its header."""
    data = bytearray(encoded(Image.new("RGB", (1, 1)), "BMP"))
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


def test_pixel_cap_is_checked_before_decoding(monkeypatch):
    def forbidden(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)
    with pytest.raises(BadImage, match="1 to 178956970 pixels, got 20000 x 20000"):
        decode_image(bmp_header(20000, 20000))
    with pytest.raises(BadImage, match="1 to 99 pixels, got 10 x 10"):
        decode_image(encoded(photo(10, 10)), max_pixels=99)
    for cell in (photo(10, 10), np.zeros((10, 10), np.uint8)):
        with pytest.raises(BadImage, match="1 to 99 pixels"):
            decode_image(cell, max_pixels=99)
    monkeypatch.undo()
    assert decode_image(encoded(photo(10, 10)), max_pixels=100).size == (10, 10)


def test_a_large_picture_under_the_cap_warns_of_nothing():
    # Pillow warns of a bomb above 89 million pixels.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(BadImage, match="truncated"):
            decode_image(bmp_header(10000, 10000))
    assert not caught


def test_global_state_of_pillow_is_unchanged():
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    filters = list(warnings.filters)
    decode_image(encoded(photo(64, 64), "JPEG"), min_size=(4, 4))
    with pytest.raises(BadImage):
        decode_image(bmp_header(20000, 20000))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert list(warnings.filters) == filters


def test_memory_errors_are_no_bad_images(monkeypatch):
    def exhausted(self):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(MemoryError):
        decode_image(encoded(photo(4, 4)))


# ------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.png",
        "HTTPS://example.org/a.png",
        "s3://bucket/a.png",
        "file:///tmp/a.png",
    ],
)
def test_urls_are_never_opened(url, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    with pytest.raises(BadImage, match="URLs are never opened"):
        decode_image(url, "/tmp")


def test_missing_file_and_the_hint(tmp_path):
    with pytest.raises(BadImage, match=r"no such file: .*a\.png'$"):
        decode_image("a.png", tmp_path)
    with pytest.raises(BadImage, match=r"no such file.*image_root is not set"):
        decode_image("there/is/none.png")
    with pytest.raises(BadImage, match="no such file") as error:
        decode_image(str(tmp_path / "a.png"))
    assert "image_root" not in str(error.value)


def test_a_file_used_as_a_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(BadImage, match="Not a directory"):
        decode_image(tmp_path / "a" / "b.png")


@pytest.mark.parametrize("root", [None, "images"])
def test_empty_path(root):
    with pytest.raises(BadImage, match="empty string"):
        decode_image("", root)


@pytest.mark.parametrize("path", ["a\0b.png", "a" * 5000 + ".png"])
def test_impossible_paths(path):
    with pytest.raises(BadImage, match="cannot be opened") as error:
        decode_image(path)
    assert len(str(error.value)) < 300


def test_directory(tmp_path):
    with pytest.raises(BadImage, match="not a regular file"):
        decode_image(tmp_path)


def test_fifo_and_socket_and_device_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "fifo", tmp_path / "socket", "/dev/zero"):
            with pytest.raises(BadImage, match="not a regular file"):
                decode_image(path)


@pytest.fixture
def nothing_waits():
    """End a test that waits for ever."""

    def expired(*args):
        raise Hanging

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


class Hanging(Exception):
    pass


def test_a_fifo_that_takes_a_files_place_does_not_hang(
    tmp_path, monkeypatch, nothing_waits
):
    path = tmp_path / "a.png"
    photo(6, 6).save(path)
    before = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(decode, "regular_file", lambda *args: (str(path), before))
    with pytest.raises(BadImage, match="not a regular file"):
        decode_image(path)


def test_what_else_may_take_a_files_place(tmp_path, monkeypatch, nothing_waits):
    path = tmp_path / "a.png"
    path.touch()
    monkeypatch.setattr(
        decode, "regular_file", lambda *args: (str(path), os.stat(__file__))
    )
    path.unlink()
    with pytest.raises(BadImage, match="no such file"):
        decode_image(path)
    path.mkdir()
    with pytest.raises(BadImage, match=r"cannot be opened.*directory"):
        decode_image(path)
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(BadImage, match="cannot be opened"):
            decode_image(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BadImage, match="not a regular file"):
        decode_image(path)


def test_a_files_descriptor_is_not_inherited(tmp_path, monkeypatch):
    photo(6, 6).save(tmp_path / "a.png")
    seen, fstat = [], os.fstat

    def spy(descriptor):
        seen.append(os.get_inheritable(descriptor))
        return fstat(descriptor)

    monkeypatch.setattr(decode.os, "fstat", spy)
    decode_image(tmp_path / "a.png")
    assert seen
    assert not any(seen)


def test_symlinks(tmp_path):
    photo(6, 6).save(tmp_path / "a.png")
    (tmp_path / "link").symlink_to("a.png")
    assert decode_image(tmp_path / "link").size == (6, 6)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadImage, match=r"cannot be opened.*symbolic links"):
        decode_image(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(BadImage, match="no such file"):
        decode_image(tmp_path / "dangling")


def test_files_are_closed(tmp_path, monkeypatch):
    opened = []

    def recorded(*args, **options):
        opened.append(open(*args, **options))  # noqa: SIM115 - decode closes it
        return opened[-1]

    monkeypatch.setattr(decode, "open", recorded, raising=False)
    photo(6, 6).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    decode_image(tmp_path / "a.png")
    with pytest.raises(BadImage):
        decode_image(tmp_path / "b.png")
    assert [file.closed for file in opened] == [True, True]


def test_regular_file_is_absolute(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    path, status = regular_file("a.png")
    assert path == str(tmp_path / "a.png")
    assert status.st_size == 0
