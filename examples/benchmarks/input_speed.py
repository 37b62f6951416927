"""What reading a table costs, each claim beside what it is measured against.

One command per claim. Both sides are run in turn, in one process and one thread, and
timed in seconds of the processor, which other programs disturb less than the clock.
Printed are the median of the ratios of the pairs and the lowest and the highest. Needs
no network; a minute each, ``mora`` several.

    python examples/benchmarks/input_speed.py CLAIM

where CLAIM is normalize, fit, overhead, screening, grid, large_grid, cache, mora or
rows.
"""

import argparse
import multiprocessing
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mora_speed import make_rows, write_clip
from PIL import Image
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from robustmm import CMPTClassifier, LinearProbeClassifier, MoRAClassifier
from robustmm.data import (
    IMAGES,
    STATES,
    ImageCells,
    ImageTransform,
    Rows,
    find_bad_images,
)
from robustmm.datasets import make_scenes


def seconds(function: Callable) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(
    claim: str, one: Callable, other: Callable, repeats: int, limit: float | None = None
) -> None:
    """Time two functions in turn, and print the ratio."""
    one(), other()
    pairs = np.array([[seconds(one), seconds(other)] for _ in range(repeats)])
    ratios, (ours, theirs) = pairs[:, 0] / pairs[:, 1], np.median(pairs, axis=0)
    asked = "" if limit is None else f", at most {limit} asked"
    print(
        f"{claim}: {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f}"
        f"{asked}); {1e3 * ours:.1f} against {1e3 * theirs:.1f} ms, {repeats} pairs",
        flush=True,
    )


@contextmanager
def budgets(images: int | None = None, states: int | None = None):
    """Give the process's caches other budgets, empty."""
    before = IMAGES.max_bytes, STATES.max_bytes
    wanted = zip((IMAGES, STATES), (images, states), before, strict=True)
    for cache, given, usual in wanted:
        cache.clear()
        cache.max_bytes = usual if given is None else given
    try:
        yield
    finally:
        for cache, usual in zip((IMAGES, STATES), before, strict=True):
            cache.clear()
            cache.max_bytes = usual


def write_jpegs(folder: str, n: int, size=(640, 480)) -> tuple[pd.DataFrame, pd.Series]:
    """Write scenes as photographs of a camera's kind, with noise that files have."""
    X, y = make_scenes(n, n_classes=2, random_state=0)
    random, paths = np.random.default_rng(0), []
    for i, image in enumerate(X["image"]):
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.int16)
        pixels = pixels + random.integers(-12, 13, pixels.shape)
        paths.append(f"{folder}/{i}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            paths[-1], quality=90
        )
    return X.assign(image=pd.Series(paths, index=X.index, dtype=object)), y


# Claims -------------------------------------------------------------------------------


def measure_normalize(repeats: int) -> None:
    """Pixels of a batch, in place, against the formula on the whole batch."""
    for size in (48, 224, 384):
        transform = ImageTransform(mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
        batch = torch.randint(0, 256, (32, size, size, 3), dtype=torch.uint8)
        mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)

        def formula(batch=batch, mean=mean, std=std, factor=transform.rescale):
            values = (batch.float() * factor - mean) / std
            return values.permute(0, 3, 1, 2).contiguous()

        def in_place(batch=batch, transform=transform):
            return transform.normalize(batch)

        if not torch.equal(formula(), in_place()):
            raise SystemExit("The two differ.")
        claim = f"normalising 32 pictures of {size} pixels, equal to the bit"
        compare(claim, in_place, formula, repeats)


class Loop:
    """What a user would write: decode, tokenise, forward, loss, AdamW."""

    def __init__(self, clf: CMPTClassifier, X: pd.DataFrame, y: np.ndarray):
        self.clf, self.X, self.y = clf, X, y
        backbone = clf.net_.module_.backbone
        self.pictures: dict[str, torch.Tensor] | None = None
        self.transform = clf._collate(backbone).transform
        self.tokenizer = backbone.tokenizer
        settings = backbone.image_config
        self.mean = torch.tensor(settings["image_mean"])[:, None, None]
        self.std = torch.tensor(settings["image_std"])[:, None, None]

    def picture(self, path: str) -> torch.Tensor:
        """Decode as torchvision's loaders do, at full size, or look it up."""
        if self.pictures is not None and path in self.pictures:
            return self.pictures[path]
        size = self.transform.crop_size or self.transform.size
        with Image.open(path) as image:
            image = image.convert("RGB").resize(size[::-1], self.transform.resample)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if self.pictures is not None:
            self.pictures[path] = pixels
        return pixels

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Make what the module reads."""
        part = self.X.iloc[rows]
        pixels = torch.stack([self.picture(path) for path in part["image"]]).float()
        pixels = pixels.mul_(1 / 255).sub_(self.mean).div_(self.std)
        words = self.tokenizer(list(part["text"]), padding=True, return_tensors="pt")
        present = torch.ones(len(rows), 2, dtype=torch.bool)
        text = {name: words[name] for name in ("input_ids", "attention_mask")}
        return {"present": present, "pixel_values": pixels, **text}

    def run(self, n_epochs: int) -> None:
        """Train a new module."""
        clf = self.clf
        backbone = clf._load_backbone(torch.device("cpu"))
        module = clf._build_module(backbone, len(clf.classes_)).train()
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=clf.lr)
        random, loss_of = np.random.default_rng(0), nn.CrossEntropyLoss()
        for _ in range(n_epochs):
            order = random.permutation(len(self.X))
            for start in range(0, len(order), clf.batch_size):
                rows = order[start : start + clf.batch_size]
                logits, penalty = module(**self.batch(rows))
                loss = loss_of(logits, torch.from_numpy(self.y[rows])) + penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()


def measure_fit(repeats: int) -> None:
    """A fit of 500 JPEGs against a loop by hand, three epochs each."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = write_jpegs(folder, 500)
        options = {"max_epochs": 3, "batch_size": 32, "device": "cpu"}
        names = ("robustmm/tiny-clip", "robustmm/tiny-bert")
        clf = CMPTClassifier(*names, random_state=0, **options)
        loop = Loop(clf.fit(X, y), X, np.unique(y, return_inverse=True)[1])

        def fit(cache):
            with budgets():
                clf.set_params(cache=cache).fit(X, y)

        def by_hand(cached):
            loop.pictures = {} if cached else None
            loop.run(3)

        claims = [
            ("both keep pictures", "memory", True, 1.02),
            ("fit keeps pictures, loop does not", "memory", False, 0.95),
            ("none keeps pictures", None, False, 0.95),
        ]
        for claim, cache, cached, limit in claims:
            pair = (lambda c=cache: fit(c)), (lambda k=cached: by_hand(k))
            compare(f"fit of 500 JPEGs, {claim}", *pair, repeats, limit)


class Kept(CMPTClassifier):
    """Keeps what a fit hands to its training: module, rows and draws."""

    def _train(self, module, train, held_out, draws):
        self.handed = module, train, held_out, draws
        return super()._train(module, train, held_out, draws)


def measure_overhead(repeats: int) -> None:
    """A training by skorch against the bare steps on the batches of the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = write_jpegs(folder, 500)
        options = {"max_epochs": 3, "batch_size": 32, "head_init": "random"}
        names = ("robustmm/tiny-clip", "robustmm/tiny-bert")
        clf = Kept(*names, random_state=0, device="cpu", **options)
        with budgets():
            module, train, held_out, draws = clf.fit(X, y).handed
            trained = [p for p in module.parameters() if p.requires_grad]
            collate, loss_of = clf._collate(module.backbone), nn.CrossEntropyLoss()
            outside = ("bad", "row", "sample_weight", "key")

            def bare():
                optimizer = torch.optim.AdamW(trained, lr=clf.lr)
                module.train()
                options = {"batch_size": 32, "shuffle": True, "collate_fn": collate}
                for _ in range(3):
                    for batch, targets in DataLoader(train, **options):
                        batch |= batch.pop("pictures").pixels()
                        batch = {k: v for k, v in batch.items() if k not in outside}
                        logits, penalty = module(**batch)
                        loss = loss_of(logits, targets) + penalty
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        loss.item()

            def by_skorch():
                clf._train(module, train, held_out, draws)

            claim = "training of 500 JPEGs by skorch against bare steps"
            compare(claim, by_skorch, bare, repeats, 1.03)


def measure_screening(repeats: int) -> None:
    """Looking whether files can be read, against making their pictures."""
    with tempfile.TemporaryDirectory() as folder:
        X, _ = write_jpegs(folder, 40)
        rows = Rows(list(X["image"]), list(X["text"]), list(X.index))
        for size in (224, 384):
            cells = ImageCells(rows, ImageTransform(size=(size, size), resample=3))

            def make(cells=cells):
                for i in range(len(cells)):
                    cells.read(i)

            def check(cells=cells):
                find_bad_images(cells)

            claim = f"screening of 40 JPEGs of 640 x 480 for {size} pixels"
            compare(claim, check, make, repeats)


def measure_grid(repeats: int) -> None:
    """A search of 3 x 3 candidates in 3 folds, with and without the caches."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = write_jpegs(folder, 96)
        tiny = "robustmm/tiny-clip"
        pair = (
            lambda: search_ranks(tiny, "memory", X, y),
            lambda: search_ranks(tiny, None, X, y),
        )
        compare("grid 3x3x3 of MoRA, 96 JPEGs", *pair, repeats, 0.25)


def measure_large_grid(repeats: int) -> None:
    """The same on CLIP ViT-B/16, whose frozen layers are most of a search.

    Twelve JPEGs and random weights; no warming up, as a search takes minutes.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as clip:
        (X, y), _ = write_jpegs(folder, 12), write_clip(clip)
        for pair in range(repeats):
            ours, theirs = (
                seconds(lambda cache=cache: search_ranks(clip, cache, X, y))
                for cache in ("memory", None)
            )
            found = f"{ours / theirs:.3f} (at most 0.25 asked)"
            print(f"pair {pair + 1}: {found}, {ours:.0f} against {theirs:.0f} s")


def search_ranks(backbone: str, cache: str | None, X, y) -> None:
    """Search MoRA's rank and strength in 3 folds."""
    clf = MoRAClassifier(backbone, cache=cache, device="cpu", max_epochs=3)
    clf.set_params(batch_size=16, random_state=0)
    grid = {"rank": [1, 2, 4], "strength": [0.001, 0.01, 0.1]}
    with budgets():
        GridSearchCV(clf, grid, cv=3).fit(X, y)


def measure_cache(repeats: int) -> None:
    """Hit rates of epochs over a table that is larger than the cache."""
    X, y = make_scenes(400, n_classes=2, random_state=0)
    clf = CMPTClassifier("robustmm/tiny-clip", "robustmm/tiny-bert", device="cpu")
    clf.set_params(max_epochs=4, random_state=0)
    get, n_bytes = IMAGES.get, 400 * 48 * 48 * 3
    for part in (0.25, 0.5, 0.8):
        counts, asked = np.zeros(2, dtype=int), []

        def counted(key, counts=counts, asked=asked):
            found = get(key)
            asked.append(found is not None)
            return found

        with budgets(images=int(part * n_bytes)):
            IMAGES.get = counted
            try:
                clf.fit(X, y)
            finally:
                IMAGES.get = get
        rate = float(np.mean(asked[-4 * len(X) :]))
        print(f"budget of {part} of the pictures: {rate:.3f} found in 4 epochs")


class EpochTimes(Callback):
    """Processor seconds at the end of every epoch, in a list that copies share."""

    times: list = []  # noqa: RUF012

    def on_epoch_end(self, net, **kwargs) -> None:
        """Take the time."""
        self.times.append(time.process_time())


def measure_mora(repeats: int) -> None:
    """MoRA's warm epoch at four times the budget of states, against a cold one."""
    X, y = make_rows(16)
    with tempfile.TemporaryDirectory() as folder:
        write_clip(folder)
        options = {"batch_size": 8, "random_state": 0, "device": "cpu"}
        clf = MoRAClassifier(folder, max_epochs=3, **options)
        clf.set_params(net_params={"callbacks": [EpochTimes()]})
        with budgets():
            clf.set_params(max_epochs=1).fit(X, y)
            whole = STATES.nbytes
        print(f"states of {len(X)} rows: {whole / 2**20:.1f} MiB")
        for part in (0.25, 1.0):
            ratios = []
            for _ in range(repeats):
                EpochTimes.times.clear()
                with budgets(states=int(part * whole)):
                    clf.set_params(max_epochs=2, cache="memory").fit(X, y)
                _, warm = np.diff([0.0, *EpochTimes.times])
                EpochTimes.times.clear()
                clf.set_params(max_epochs=2, cache=None).fit(X, y)
                ratios.append(warm / np.diff(EpochTimes.times)[0])
            limit = ", at most 0.85 asked" if part == 0.25 else ""
            print(
                f"warm epoch with a budget of {part} of the states: "
                f"{np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}"
                f"{limit}) of one without a cache, {repeats} pairs",
                flush=True,
            )


@contextmanager
def probe_and_tables(sizes):
    """A probe that knows all features, and tables of so many rows."""
    X, y = make_scenes(60, n_classes=2, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        X["image"].iloc[0].save(path)
        clf = LinearProbeClassifier("robustmm/tiny-clip", device="cpu").fit(X, y)
        texts = np.array(X["text"], dtype=object)
        columns = [texts[np.arange(n) % len(texts)] for n in sizes]
        tables = [pd.DataFrame({"image": str(path), "text": text}) for text in columns]
        # What is made once, whatever the number of rows.
        clf.predict_proba(tables[0][:5000])
        yield clf, tables


def peak_growth(n: int) -> int:
    """Bytes by which a prediction of `n` rows makes this process larger at most."""
    with probe_and_tables([n]) as (clf, (table,)):
        before = resident()
        clf.predict_proba(table)
    return resident() - before


def measure_rows(repeats: int) -> None:
    """Time and memory of one row more in a prediction, by the number of rows.

    Of a linear probe whose features are known, so that what is timed is what stands
    around the encoders: rows, files, tokens, batches, look-ups, results. Tables take
    turns; the memory of each is measured in a process of its own.
    """
    sizes = 25_000, 50_000, 100_000
    with probe_and_tables(sizes) as (clf, tables):
        rounds = [
            [seconds(lambda table=table: clf.predict_proba(table)) for table in tables]
            for _ in range(repeats)
        ]
    start = multiprocessing.get_context("spawn")
    with start.Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(peak_growth, sizes, chunksize=1)
    each = 1e3 * np.array(rounds) / sizes
    for n, took in zip(sizes, each.T, strict=True):
        spread = f"{took.min():.4f} to {took.max():.4f}"
        print(f"{n} rows: {np.median(took):.4f} ms a row ({spread})")
    for i, more in enumerate(np.diff(peaks) / np.diff(sizes)):
        print(f"from {sizes[i]} to {sizes[i + 1]} rows: {more:.0f} bytes for each more")


def resident() -> int:
    """The memory of this process at its largest, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


CLAIMS = {
    name.removeprefix("measure_"): function
    for name, function in list(globals().items())
    if name.startswith("measure_")
}


def main() -> None:
    """Measure one claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    load = Path("/proc/loadavg").read_text().split()[0]
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread, load {load}")
    CLAIMS[given.claim](given.repeats)


if __name__ == "__main__":
    main()
