"""Whose fault it is: pictures become reasons, time limits pass, warnings stay in."""

import binascii
import errno
import gzip
import io
import lzma
import multiprocessing
import signal
import struct
import subprocess
import sys
import threading
import time
import types
import warnings
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError

from robustmm.data import faults
from robustmm.data.decode import decode_image
from robustmm.data.faults import (
    BadAudio,
    BadImage,
    BadVideo,
    bad_image_reasons,
    clip_reasons,
    kept,
    short,
)


class TimeLimitExceeded(Exception):
    """As task queues raise it, from a signal handler."""


class JobTimeout(RuntimeError):
    """As others do: from a class of Python's."""


PICTURES = [
    SyntaxError("not a PNG file"),
    struct.error("unpack requires a buffer"),
    zlib.error("invalid block type"),
    binascii.Error("odd length"),
    EOFError("no more frames"),
    gzip.BadGzipFile("not a gzipped file"),
    lzma.LZMAError("corrupt input data"),
    ElementTree.ParseError("no element found"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    AssertionError(),
    AttributeError("no fp"),
    RecursionError("too deep"),
    UnidentifiedImageError("what is it"),
    Image.DecompressionBombError("too large"),
    np.exceptions.AxisError("no such axis"),
    OSError("image file is truncated"),
    OSError(errno.EIO, "input/output error"),
    TimeoutError(errno.ETIMEDOUT, "the network drive does not answer"),
]
OTHERS = [
    TimeLimitExceeded("time is up"),
    JobTimeout("time is up"),
    TimeoutError("time is up"),
    TimeoutError(),
    subprocess.TimeoutExpired("gs", 3),
    multiprocessing.TimeoutError("time is up"),
    MemoryError("no room"),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("error", PICTURES, ids=lambda error: type(error).__name__)
def test_what_a_picture_does_is_a_reason(error):
    reason = str(error) or type(error).__name__
    with (
        pytest.raises(BadImage, match="cannot be decoded") as caught,
        bad_image_reasons(),
    ):
        raise error
    assert reason in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_what_others_do_passes(error):
    with pytest.raises(type(error)) as caught, bad_image_reasons():
        raise error
    assert caught.value is error


def test_a_reason_is_not_wrapped_again():
    with pytest.raises(BadImage, match=r"^a reason$"), bad_image_reasons():
        raise BadImage("a reason")


def test_a_reader_from_elsewhere_has_errors_of_its_own(monkeypatch):
    error = TimeLimitExceeded("damaged")
    monkeypatch.setattr(TimeLimitExceeded, "__module__", "pillow_new.errors")

    class Reader(ImageFile.ImageFile):
        __module__ = "pillow_new"

    monkeypatch.setitem(Image.OPEN, "NEW", (Reader, None))
    with pytest.raises(BadImage, match="damaged"), bad_image_reasons():
        raise error


def test_a_reason_has_a_length():
    assert short("a" * 160) == repr("a" * 160)
    assert len(short("a" * 10**6)) < 200


# ------------------------------------------------------------------------- time limits


def encoded(format="PNG", **options):
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("place", ["load", "getexif"])
def test_a_time_limit_inside_a_codec_passes(place, monkeypatch):
    def expired(*args):
        raise TimeLimitExceeded

    def slow(*args):
        time.sleep(30)

    owner = ImageFile.ImageFile if place == "load" else Image.Image
    monkeypatch.setattr(owner, place, slow)
    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeLimitExceeded):
            decode_image(encoded("BMP"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# -------------------------------------------------------------------- Pillow's warnings

BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"


def tiff_with_a_broken_tag():
    data = bytearray(encoded("TIFF"))
    place = struct.unpack("<L", data[4:8])[0]
    (n_tags,) = struct.unpack("<H", data[place : place + 2])
    entry = place + 2 + 12 * (n_tags - 1)
    # Ten million numbers that are nowhere in the file.
    data[entry : entry + 12] = struct.pack("<HHLL", 65000, 4, 10**7, 8)
    return bytes(data)


def png_with_a_broken_animation():
    data = encoded("PNG")
    body = b"acTL" + struct.pack(">LL", 0, 0)
    chunk = struct.pack(">L", 8) + body + struct.pack(">L", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


NOISY = {
    "exif of a JPEG": lambda: encoded("JPEG", exif=BROKEN_EXIF),
    "exif of a PNG": lambda: encoded("PNG", exif=BROKEN_EXIF),
    "exif of a WEBP": lambda: encoded("WEBP", exif=BROKEN_EXIF),
    "tag of a TIFF": tiff_with_a_broken_tag,
    "animation of a PNG": png_with_a_broken_animation,
}


@pytest.mark.parametrize("make", NOISY.values(), ids=list(NOISY))
@pytest.mark.parametrize("action", ["always", "error"])
def test_what_pillow_warns_of_is_not_shown(make, action, capfd):
    data = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = Image.open(io.BytesIO(data))
        opened.getexif()
    assert caught  # Pillow's own way
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        assert decode_image(data).size == (64, 64)
        assert decode_image(opened).size == (64, 64)
    assert caught == []
    assert capfd.readouterr() == ("", "")


def test_what_pillow_logs_is_not_shown(caplog):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "TIFF")
    tag = struct.pack("<HHLL", 277, 3, 1, 3)
    data = stream.getvalue().replace(tag, struct.pack("<HHLL", 277, 3, 1, 1536))
    with pytest.raises(BadImage, match="not an image"):
        decode_image(data)
    assert caplog.text == ""
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))
    assert "More samples per pixel" in caplog.text  # Pillow's own way


def test_outside_and_in_other_threads_pillow_warns_as_ever():
    data = encoded("JPEG", exif=BROKEN_EXIF)
    entered, done = threading.Event(), threading.Event()

    def hold():
        with bad_image_reasons():
            entered.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(20)
    with pytest.warns(UserWarning, match="Corrupt EXIF") as caught:
        Image.open(io.BytesIO(data))
    assert {warning.filename.rpartition("/")[2] for warning in caught} == {
        "TiffImagePlugin.py"
    }
    done.set()
    thread.join()


def test_the_process_wide_filters_are_never_touched(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("filters were changed")

    filters = list(warnings.filters)
    for name in ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"):
        monkeypatch.setattr(warnings, name, forbidden)
    decode_image(encoded("JPEG", exif=BROKEN_EXIF))
    assert list(warnings.filters) == filters


def test_pillows_modules_still_have_all_of_warnings():
    with bad_image_reasons():
        pass
    standing_in = sys.modules["PIL.TiffImagePlugin"].warnings
    assert standing_in.catch_warnings is warnings.catch_warnings
    with pytest.warns(DeprecationWarning, match="as ever") as caught:
        standing_in.warn("as ever", DeprecationWarning, stacklevel=1)
    assert caught[0].filename == __file__


def test_a_plug_in_that_another_thread_fails_to_import_is_no_matter(monkeypatch):
    class Fleeting(types.ModuleType):
        def __getattr__(self, name):
            sys.modules.pop("PIL.gone", None)  # as a failed import does
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, "PIL.fleeting", Fleeting("PIL.fleeting"))
    monkeypatch.setitem(sys.modules, "PIL.gone", types.ModuleType("PIL.gone"))
    faults._hush_pillow.__wrapped__()
    assert "PIL.gone" not in sys.modules


class TestClipReasons:
    def fails(self, error, *readers):
        with clip_reasons(BadAudio, *readers):
            raise error

    def test_what_reading_a_file_said_is_said_of_this_kind(self):
        with pytest.raises(BadAudio, match=r"^no such file: a$"):
            self.fails(BadImage("no such file: a"))

    def test_readers_fail_in_classes_of_their_own(self):
        class Broken(Exception):
            __module__ = "av.error"

        with pytest.raises(BadAudio, match="cannot be decoded"):
            self.fails(Broken(), "av")
        with pytest.raises(Broken):
            self.fails(Broken())

    @pytest.mark.parametrize(
        "error", [MemoryError(), TimeoutError("of a queue"), ImportError("install it")]
    )
    def test_what_is_no_files_fault_passes(self, error):
        with pytest.raises(type(error)):
            self.fails(error, "av")


def test_a_rule_for_cells_becomes_a_reason():
    def hold(cell):
        raise ValueError(f"A cell must be good, got {cell}.")

    with pytest.raises(BadVideo, match=r"^A cell must be good, got 3$"):
        kept(hold, 3, BadVideo)
    assert kept(str, 3, BadVideo) == "3"
