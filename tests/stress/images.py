"""Throw hostile image cells at a classifier and count what becomes of them.

``python tests/stress/images.py --cells 12000 --seed 0`` mutates files of every format
that Pillow writes (cut, flipped, overwritten, swapped, spliced, with huge numbers in
the header) and hands them over as bytes, files and open pictures, among cells that are
no pictures at all: PostScript, WMF, FIFOs, folders, sockets, devices, links, URLs,
endless arrays, and files that become something else while they are opened. Each must
end in a prediction or as a named row. Prints how many did, by kind of cell, and what
was watched meanwhile: programs started, connections, files opened elsewhere,
descriptors left open, warnings and output that are not ours, memory. libtiff's own
messages, which it writes past Python, are counted apart. Ends with status 1 if anything
was not as it must be, at once if a batch takes 60 s. Not part of the test suite.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import logging
import os
import random
import re
import resource
import socket
import struct
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

BATCH = 40
# What no cell may lead to; a hook of Python's sees it wherever it comes from.
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "socket.connect",
    "socket.getaddrinfo",
    "ctypes.dlopen",
    "exec",
)


LIBTIFF = re.compile(r"(tempfile\.tif|\w+): ")


class Watch:
    """Counts what happens while `on`: forbidden events, and files opened elsewhere."""

    def __init__(self, allowed):
        self.allowed = tuple(map(str, allowed))
        self.on = False
        self.events = collections.Counter()
        self.elsewhere = collections.Counter()
        sys.addaudithook(self)

    def __call__(self, event, args):
        if not self.on:
            return
        if event in FORBIDDEN:
            self.events[event] += 1
        elif event == "open" and isinstance(args[0], str | bytes):
            path = os.fsdecode(args[0])
            if not path.startswith(self.allowed):
                self.elsewhere[path] += 1


# Files to start from ------------------------------------------------------------------

OPTIONS = {
    "TIFF": [{}, *({"compression": c} for c in ("tiff_lzw", "tiff_deflate", "jpeg"))],
    "JPEG": [{}, {"progressive": True}, {"optimize": True, "quality": 20}],
    "WEBP": [{}, {"lossless": True}],
    "PNG": [{}, {"optimize": True}],
}


def seed_files():
    """Small pictures in every format and mode that Pillow writes and reads, by name."""
    from hostile import photographs, picture_files

    whole = Image.open(io.BytesIO(photographs()[0])).resize((48, 32))
    files = dict(picture_files())
    Image.init()
    readable = {name for name in Image.ID if Image.OPEN[name][1] is not None}
    for format in sorted(readable & set(Image.SAVE) - {"EPS", "PDF"}):
        for mode in ("RGB", "L", "P", "1", "RGBA", "I;16"):
            for i, options in enumerate(OPTIONS.get(format, [{}])):
                stream = io.BytesIO()
                try:
                    whole.convert("L" if mode == "I;16" else mode).convert(mode).save(
                        stream, format, **options
                    )
                except Exception:  # not every format has every mode
                    continue
                files[f"{format} {mode} {i}"] = stream.getvalue()
    return files


def bombs():
    """Headers that promise more pixels than there are, just within and over the cap."""
    made, sizes = {}, [(2_000, 2_400), (60_000, 80), (13_000, 13_700)]
    for width, height in [*sizes, (2**31 - 1, 2**31 - 1)]:
        size = f"{width} x {height}"
        made[f"PNG {size}"] = png(width, height)
        bmp = bytearray(encoded("BMP"))
        bmp[18:26] = struct.pack("<LL", width, height)
        made[f"BMP {size}"] = bytes(bmp)
        made[f"PPM {size}"] = f"P6 {width} {height} 255\n".encode() + b"abc"
        made[f"plain PPM {size}"] = f"P3 {width} {height} 255\n".encode() + b"1 2 3 "
        made[f"QOI {size}"] = b"qoif" + struct.pack(">LLBB", width, height, 3, 0) + b"x"
        made[f"FITS {size}"] = fits(width, height)
        gif = bytearray(encoded("GIF"))
        gif[6:10] = struct.pack("<HH", width % 65536, height % 65536)
        made[f"GIF {size}"] = bytes(gif)
        made[f"DDS {size}"] = dds(width, height)
    return made


def encoded(format):
    """A small plain picture."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, format)
    return stream.getvalue()


def chunk(kind, data):
    """A chunk of a PNG file with its check."""
    body = kind + data
    return struct.pack(">L", len(data)) + body + struct.pack(">L", zlib.crc32(body))


def png(width, height):
    """A PNG of a hundred bytes."""
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def fits(width, height):
    """A FITS file whose pixels are to be inflated, of which it has ten."""
    import gzip

    words = {
        "XTENSION": "'BINTABLE'",
        "BITPIX": 8,
        "NAXIS": 2,
        "NAXIS1": 8,
        "NAXIS2": 1,
        "PCOUNT": 0,
        "GCOUNT": 1,
        "ZIMAGE": "T",
        "ZCMPTYPE": "'GZIP_1  '",
        "ZBITPIX": 8,
        "ZNAXIS": 2,
        "ZNAXIS1": width,
        "ZNAXIS2": height,
    }
    first = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 0}
    blocks = [
        b"".join(f"{k:8}= {v!s:>20}".ljust(80).encode() for k, v in block.items())
        + b"END".ljust(80)
        for block in (first, words)
    ]
    data = gzip.compress(random.Random(0).randbytes(200))
    return b"".join(b.ljust(2880) for b in blocks) + bytes(8) + data


def dds(width, height):
    """A DDS file of plain pixels, of which it has few."""
    flags = struct.pack("<7L44x", 124, 0x1007, height % 2**32, width % 2**32, 0, 0, 0)
    form = struct.pack("<8L", 32, 0x40, 0, 24, 0xFF0000, 0xFF00, 0xFF, 0)
    return b"DDS " + flags + form + struct.pack("<5L", 0x1000, 0, 0, 0, 0) + b"abc"


# Damage -------------------------------------------------------------------------------


def cut(data, draw, files):
    """Leave a beginning."""
    del data[draw.randrange(len(data)) :]


def flip(data, draw, files):
    """Turn some bits."""
    for _ in range(draw.randint(1, 12)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwrite(data, draw, files):
    """Put noise somewhere."""
    start = draw.randrange(len(data))
    noise = draw.randbytes(draw.randint(1, 64))
    data[start : start + len(noise)] = noise


def insert(data, draw, files):
    """Push the rest back."""
    start = draw.randrange(len(data))
    data[start:start] = draw.randbytes(draw.randint(1, 64))


def remove(data, draw, files):
    """Take a piece out."""
    start = draw.randrange(len(data))
    del data[start : start + draw.randint(1, 64)]


def swap(data, draw, files):
    """Exchange two pieces."""
    size = draw.randint(1, max(1, len(data) // 3))
    a, b = sorted(draw.randrange(max(1, len(data) - size)) for _ in range(2))
    b = max(b, a + size)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def splice(data, draw, files):
    """Go on as another file."""
    other = draw.choice(files)
    data[draw.randrange(len(data)) :] = other[draw.randrange(len(other)) :]


def enlarge(data, draw, files):
    """Make a number in the header huge."""
    place = draw.randrange(min(len(data), 64))
    value = draw.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    form = draw.choice(["<L", ">L", "<H", ">H", "B"])
    bits = 8 * struct.calcsize(form)
    number = struct.pack(form, value % 2**bits)
    data[place : place + len(number)] = number


def reorder(data, draw, files):
    """Shuffle the chunks of a PNG and mend their checks, or blocks of anything else."""
    if bytes(data[:8]) != b"\x89PNG\r\n\x1a\n":
        size = draw.choice([4, 16, 64, 512])
        blocks = [data[i : i + size] for i in range(0, len(data), size)]
        a, b = (draw.randrange(len(blocks)) for _ in range(2))
        blocks[a], blocks[b] = blocks[b], blocks[a]
        data[:] = b"".join(blocks)
        return
    chunks, place = [], 8
    while place + 8 <= len(data):
        (size,) = struct.unpack(">L", data[place : place + 4])
        body = bytearray(data[place + 8 : place + 8 + size])
        if body and draw.random() < 0.3:
            body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
        chunks.append(chunk(bytes(data[place + 4 : place + 8]), bytes(body)))
        place += 12 + size
    a, b = (draw.randrange(len(chunks)) for _ in range(2))
    chunks[a], chunks[b] = chunks[b], chunks[a]
    data[8:] = b"".join(chunks)


DAMAGES = [cut, flip, overwrite, insert, remove, swap, splice, enlarge, reorder]


# Cells --------------------------------------------------------------------------------


# Kinds of cells, and how many of a hundred.
SHARES = {"bytes": 40, "buffer": 5, "file": 15, "open": 12, "bomb": 4, "program": 4}
SHARES |= {"path": 8, "array": 5, "changing": 4, "whole": 3}


class Cells:
    """Draws image cells, with a word for the kind of each."""

    def __init__(self, folder, draw):
        self.folder, self.draw = folder, draw
        self.files = list(seed_files().values())
        self.bombs = list(bombs().values())
        self.strange = self._strange_paths()
        self.n_files = 0
        eps = io.BytesIO()
        Image.new("RGB", (9, 9)).save(eps, "EPS")
        self.eps = eps.getvalue()
        # A placeable metafile of which only the header is there.
        self.wmf = struct.pack("<LHhhhhHLH", 0x9AC6CDD7, 0, 0, 0, 99, 99, 72, 0, 0)
        self.wmf += b"\x01\0\t\0" + bytes(40)

    def _strange_paths(self):
        folder = self.folder
        os.mkfifo(folder / "fifo")
        (folder / "folder").mkdir()
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "dangling").symlink_to(folder / "nowhere")
        (folder / "to a fifo").symlink_to(folder / "fifo")
        (folder / "empty").touch()
        (folder / "locked").touch(mode=0)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(folder / "socket"))
        names = ["fifo", "folder", "loop", "dangling", "to a fifo", "empty", "locked"]
        paths = [folder / name for name in [*names, "socket", "absent"]]
        paths += ["/dev/zero", "/dev/stdin", "/dev/tty", "/proc/self/environ"]
        paths += [
            f"{folder}/empty/a",
            "a\0b",
            "",
            " ",
            "\udc80",
            "x" * 10_000,
            "~",
            "-",
        ]
        hosts = [
            "http://127.0.0.1:9/a.png",
            "HTTPS://example.org",
            "ftp://example.org/a",
        ]
        hosts += [f"file://{folder}/empty", "data:image/png;base64,iVBORw0KGgo="]
        return [*paths, *hosts, "//example.org/share/a.png", r"\\example.org\a.png"]

    def damaged(self):
        """Bytes of a file after one to four damages."""
        data = bytearray(self.draw.choice(self.files))
        for _ in range(self.draw.randint(1, 4)):
            if data:
                self.draw.choice(DAMAGES)(data, self.draw, self.files)
        return bytes(data)

    def written(self, data):
        """A file with these bytes, under a name that tells nothing."""
        suffix = self.draw.choice([".png", ".jpg", ".eps", ".txt", ""])
        path = self.folder / f"{self.n_files}{suffix}"
        self.n_files += 1
        path.write_bytes(data)
        return path

    def opened(self, data):
        """A picture that Pillow has opened and not read, or the bytes if it cannot."""
        logging.disable()  # what Pillow says of it here is no matter of ours
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Image.open(io.BytesIO(data))
        except Exception:
            return data
        finally:
            logging.disable(logging.NOTSET)

    def changing(self):
        """A path to a picture that becomes something else after it was looked at."""
        path = Changing(self.written(self.draw.choice(self.files)))
        path.then = self.draw.choice(["fifo", "folder", "gone", "damaged", "device"])
        return path

    def array(self):
        """An array that is, or is not, or cannot be a picture."""
        shape = [self.draw.choice([0, 1, 2, 3, 4, 5, 9, 10**6]) for _ in range(4)]
        shape = shape[: self.draw.randint(0, 4)]
        kind = self.draw.choice(["u1", "u1", "u1", "f4", "?", "O", "U3", "M8[s]"])
        return np.broadcast_to(np.zeros((), kind), shape)

    def __call__(self):
        """Return (kind, cell)."""
        draw = self.draw
        kind = draw.choices(list(SHARES), SHARES.values())[0]
        if kind == "bytes":
            return kind, self.damaged()
        if kind == "buffer":
            buffer = draw.choice([bytearray, memoryview])(self.damaged())
            return kind, buffer[:: draw.choice([1, 1, 2, -1])]
        if kind == "file":
            path = self.written(self.damaged())
            return kind, draw.choice([path, str(path)])
        if kind == "open":
            return kind, self.opened(self.damaged())
        if kind == "bomb":
            data = draw.choice(self.bombs)
            return kind, draw.choice([data, self.written(data), self.opened(data)])
        if kind == "program":
            data = draw.choice([self.eps, self.wmf, self.eps[: draw.randrange(700)]])
            return kind, draw.choice([data, self.written(data), self.opened(data)])
        if kind == "path":
            return kind, draw.choice(self.strange)
        if kind == "array":
            return kind, self.array()
        if kind == "changing":
            return kind, self.changing()
        return kind, draw.choice(self.files)


class Changing(os.PathLike):
    """A path whose file is exchanged when it has been asked for `patience` times."""

    def __init__(self, path):
        self.path, self.then, self.patience = path, "gone", random.randrange(16)

    def __fspath__(self):
        if self.patience == 0 and self.path.is_file():
            self.path.unlink()
            if self.then == "fifo":
                os.mkfifo(self.path)
            elif self.then == "folder":
                self.path.mkdir()
            elif self.then == "damaged":
                self.path.write_bytes(b"no picture any more")
            elif self.then == "device":
                self.path.symlink_to("/dev/zero")
        self.patience -= 1
        return str(self.path)


# The run ------------------------------------------------------------------------------


class Run:
    """Hands batches of cells to a classifier and counts what becomes of them."""

    def __init__(self, clf, watch):
        self.clf, self.watch = clf, watch
        self.outcomes = collections.Counter()
        self.reasons = collections.Counter()
        self.foreign = collections.Counter()
        self.wrong = collections.Counter()
        self.slowest = 0.0
        self.text_only = clf.predict_proba(table_of([None]))[0]

    def __call__(self, drawn):
        kinds, cells = zip(*drawn, strict=True)
        table = table_of(cells)
        faulthandler.dump_traceback_later(60, exit=True)
        start = time.perf_counter()
        self.watch.on = True
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bad = self._screened(table)
            proba = self.clf.set_params(on_bad_image="missing").predict_proba(table)
            refused = self._refusal(table)
        self.watch.on = False
        faulthandler.cancel_dump_traceback_later()
        self.slowest = max(self.slowest, time.perf_counter() - start)
        self._check(kinds, table, bad, proba, refused, caught)

    def _screened(self, table):
        from robustmm.data import find_bad_images, read_rows

        backbone = self.clf.net_.module_.backbone
        dataset = self.clf._dataset(backbone, read_rows(table), on_bad_image="record")
        return find_bad_images(dataset.images, num_workers=2)

    def _refusal(self, table):
        try:
            self.clf.set_params(on_bad_image="raise").predict_proba(table)
        except ValueError as error:
            return str(error)
        return ""

    def _check(self, kinds, table, bad, proba, refused, caught):
        ours = [str(w.message) for w in caught if "image cells" in str(w.message)]
        others = [w for w in caught if "image cells" not in str(w.message)]
        self.foreign.update(f"{w.category.__name__}: {w.message}" for w in others)
        if not np.isfinite(proba).all() or not np.allclose(proba.sum(axis=1), 1):
            self.wrong["a prediction is no distribution"] += 1
        # A file that changes may be bad at one look and not at another.
        steady = [i for i, kind in enumerate(kinds) if kind != "changing"]
        named = [i for i in bad if i in steady]
        for i in steady:
            missing = np.allclose(proba[i], self.text_only, atol=1e-5)
            if (i in bad) and not missing:
                self.wrong[f"row {table.index[i]} is bad and was read"] += 1
            word = "named" if i in bad else "read"
            self.outcomes[kinds[i], word] += 1
            if i in bad:
                self.reasons[bad[i].split("(")[0].split(":")[0][:48]] += 1
        for i in set(range(len(kinds))) - set(steady):
            self.outcomes["changing", "named" if i in bad else "read"] += 1
        if named and not (ours and "image cells cannot be read" in refused):
            self.wrong[f"nobody said that {len(named)} rows are bad"] += 1
        shown = [i for i in sorted(bad)[:3] if i in steady]
        if len(bad) == len(named):
            for i in shown:
                if f"row {table.index[i]!r}: " not in refused:
                    self.wrong[f"row {table.index[i]} is not named: {refused}"] += 1


def table_of(cells):
    """A frame of these image cells, each with the same text."""
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = cell
    index = [f"r{i}" for i in range(len(cells))]
    texts = pd.Series(["a hill"] * len(cells), index=index, dtype=object)
    images = pd.Series(column, index=index, dtype=object)
    return pd.DataFrame({"image": images, "text": texts})


def descriptors():
    """How many files this process holds open (Linux)."""
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def printed_lines():
    """Collect what is written to standard error, past Python too."""
    lines, kept = [], os.dup(2)
    with tempfile.TemporaryFile() as stream:
        os.dup2(stream.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        stream.seek(0)
        lines += stream.read().decode(errors="replace").splitlines()


def report(run, watch, seconds, left_open, printed):
    """Print the counts; return whether all was as it must be."""
    for kind in SHARES:
        read, named = (run.outcomes[kind, word] for word in ("read", "named"))
        print(f"{kind:9} {read + named:6} cells: {read:6} read, {named:6} named")
    total = collections.Counter()
    for (_, word), count in run.outcomes.items():
        total[word] += count
    print("reasons:", dict(run.reasons.most_common(12)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{total.total()} cells in {seconds:.0f} s: {total['read']} read, "
        f"{total['named']} named; slowest batch of {BATCH} {run.slowest:.1f} s, "
        f"peak {peak:.0f} MB"
    )
    of_libtiff = [line for line in printed if LIBTIFF.match(line)]
    wrong = {
        "programs or connections": watch.events,
        "files opened elsewhere": watch.elsewhere,
        "descriptors left open": collections.Counter(descriptors=max(0, left_open)),
        "warnings of others": run.foreign,
        "lines printed": collections.Counter(set(printed) - set(of_libtiff)),
        "wrong outcomes": run.wrong,
    }
    print(", ".join(f"{counts.total()} {name}" for name, counts in wrong.items()))
    print(f"{len(of_libtiff)} lines printed by libtiff")
    for name, counts in wrong.items():
        if counts.total():
            print(f"{name}:", dict(counts.most_common(5)))
    return not any(counts.total() for counts in wrong.values())


def main():
    """Draw the cells and print the counts."""
    from contract import ToyClassifier, frame_with_holes, small

    import robustmm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-pixels", type=int, default=5_000_000)
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--backbone", choices=["clip", "vilt"], default="clip")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cls = {"clip": ToyClassifier, "vilt": robustmm.MAPClassifier}[options.backbone]
    clf = small(cls).fit(*frame_with_holes())
    clf.max_pixels = options.max_pixels
    clf.cache = None if options.no_cache else "memory"
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    random.seed(options.seed)
    draw = Cells(folder, random.Random(options.seed))
    # A warning reads the source lines of those who called.
    sources = [Path(robustmm.__file__).parent, Path(__file__).parents[1]]
    installed = [Path(np.__file__).parents[1], sys.base_prefix, sys.prefix, *sources]
    watch = Watch([folder, *installed, "/proc/self/environ"])  # that is a cell
    run = Run(clf, watch)
    run([draw() for _ in range(BATCH)])  # imports what is imported late
    run.outcomes.clear()
    before, begun = descriptors(), time.perf_counter()
    with printed_lines() as printed:
        for _ in range(0, options.cells, BATCH):
            run([draw() for _ in range(BATCH)])
    seconds = time.perf_counter() - begun
    good = report(run, watch, seconds, descriptors() - before, printed)
    sys.exit(not good)


if __name__ == "__main__":
    main()
