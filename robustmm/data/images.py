"""A table's image cells: named by content, looked up or decoded, and checked."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageFile
from tqdm.auto import tqdm

from .cache import ByteCache
from .decode import (
    MAX_PIXELS,
    check_array,
    check_picture,
    orientation,
    regular_file,
)
from .faults import BadImage, bad_image_reasons
from .folder_cache import FolderCache
from .frame import Rows
from .inline import inline_bytes, is_inline
from .lazy import LazyCells
from .pictures import Unread
from .preprocess import ImageTransform

KEY_BYTES = 20
# Names of pictures by table and by what is made of it.
_KEYS: WeakKeyDictionary[Rows, dict] = WeakKeyDictionary()


class ImageCells:
    """The image cells of a table as pictures of one kind.

    Parameters
    ----------
    rows : Rows
        Open pictures among them are read now: those of `Image.open` are read late.
    transform : ImageTransform or None
        None leaves all images closed.
    cache : ByteCache, FolderCache or None
        Holds transformed images by content.

    Examples
    --------
    >>> rows = Rows([np.zeros((9, 9, 3), dtype=np.uint8), b""], ["cat", None], [0, 1])
    >>> cells = ImageCells(rows, ImageTransform(size=(4, 4)))
    >>> picture, key, reason = cells.read(0)
    >>> picture.shape, key, reason
    ((4, 4, 3), None, None)
    >>> cells.read(1)
    (None, None, 'it is empty (zero bytes)')
    """

    def __init__(
        self,
        rows: Rows,
        transform: ImageTransform | None,
        cache: ByteCache | FolderCache | None = None,
    ) -> None:
        self.rows = rows
        self.transform = transform
        self.cache = cache
        # Of one table and kind of picture: the screening's are the training's.
        kind = transform and (transform.key, transform.max_pixels)
        self._keys: dict[int, bytes] = _KEYS.setdefault(rows, {}).setdefault(kind, {})
        if transform is not None:
            # Before a loader forks its workers.
            settle(rows, transform.max_pixels)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def named(self) -> bool:
        """Whether pictures have keys."""
        return self.cache is not None and self.transform is not None

    def read(
        self, i: int, is_needed: Callable[[bytes], bool] | None = None
    ) -> tuple[np.ndarray | Unread | None, bytes | None, str | None]:
        """Return row `i`'s picture, its key and the reason why there is none.

        The picture is uint8 (H, W, 3); the key, (20,) bytes, is there where there is a
        cache and a picture; the reason where a picture should be there and cannot be
        read. Where `is_needed` says of its key that it will hardly be looked at, an
        `Unread` stands for the picture.

        Raises
        ------
        MemoryError
            If the picture does not fit into memory; it names the row's label.
        """
        cell = self.rows.images[i]
        if cell is None or self.transform is None:
            return None, None, None
        try:
            with _named(self.rows.index[i]):
                return *self._transformed(i, cell, is_needed), None
        except BadImage as error:
            return None, None, str(error)

    def _transformed(self, i: int, cell: Any, is_needed) -> tuple:
        root = self.rows.image_root
        if self.cache is None:
            return self.transform(cell, root), None
        key = self._key(i, cell)
        if is_needed is not None and not is_needed(key):
            return Unread(cell, self.rows.index[i], root, key, self.cache), key
        picture = self.cache.get(key)
        if picture is None or not self.transform.may_make(picture):
            picture = self.transform(cell, root)
            self.cache.put(key, picture)
        return picture, key

    def _key(self, i: int, cell: Any) -> bytes:
        key = self._keys.get(i) or image_key(cell, self.rows.image_root, self.transform)
        if not _is_path(cell):
            # Hashing pixels costs about as much as resizing them; files may change.
            self._keys[i] = key
        return key

    def check(
        self, i: int, is_needed: Callable[[bytes], bool] | None = None
    ) -> str | None:
        """Return why row `i` has no picture, if it should have one.

        A picture that the cache has room for is made and kept there; of any other, and
        of one that is not needed, no more is done than tells whether it can be read.
        """
        cell = self.rows.images[i]
        if cell is None or self.transform is None:
            return None
        try:
            with _named(self.rows.index[i]):
                self._check(i, cell, is_needed)
        except BadImage as error:
            return str(error)
        return None

    def _check(self, i: int, cell: Any, is_needed) -> None:
        root = self.rows.image_root
        if self.cache is None:
            self.transform.check(cell, root)
            return
        key = self._key(i, cell)
        # What the frozen layers made of it, or what was decoded of it, is at hand.
        if (is_needed is not None and not is_needed(key)) or key in self.cache:
            return
        if self.cache.is_full:
            self.transform.check(cell, root)
        else:
            self.cache.put(key, self.transform(cell, root))

    def claim(self, i: int) -> None:
        """Use what the cache has of row `i`, so that it is not dropped for others."""
        cell = self.rows.images[i]
        with suppress(BadImage):
            if cell is not None and self.named:
                _ = self._key(i, cell) in self.cache


def _is_path(cell: Any) -> bool:
    return isinstance(cell, os.PathLike) or (
        isinstance(cell, str) and not is_inline(cell)
    )


def find_bad_images(
    cells: ImageCells,
    num_workers: int = 0,
    progress: bool = False,
    is_needed: Callable[[int, bytes], bool] | None = None,
    dealt: tuple[int, int] = (0, 1),
) -> dict[int, str]:
    """Decode every image once, which also fills the cache.

    Parameters
    ----------
    cells : ImageCells
    is_needed : callable (position, key) -> bool, optional
        Whether the picture of a row will be looked at; one that will not, as what is
        computed from it is known, was readable.
    num_workers : int
        Threads that decode, 0 for none: Pillow works outside Python's lock, and threads
        share the cache.
    progress : bool
        Show a bar.
    dealt : tuple (first, every)
        Of several processes, which images are decoded in this one.

    Returns
    -------
    dict
        From the row's position to the reason, for each image that cannot be read.

    Examples
    --------
    >>> rows = Rows([b"", None], ["cat", "dog"], ["a", "b"])
    >>> find_bad_images(ImageCells(rows, ImageTransform(size=(4, 4))))
    {0: 'it is empty (zero bytes)'}
    """
    first, every = dealt
    positions = np.flatnonzero(cells.rows.present[:, 0])[first::every].tolist()
    if cells.transform is None or not positions:
        return {}

    def check(position: int) -> str | None:
        needed = None if is_needed is None else partial(is_needed, position)
        return cells.check(position, needed)

    if cells.named and cells.cache.is_crowded:
        # Before anything new is put there: a row further down may have its picture.
        for _ in in_order(cells.claim, positions, num_workers):
            pass
    reasons = in_order(check, positions, num_workers)
    bar = tqdm(reasons, "images", len(positions), disable=not progress, leave=False)
    return {
        position: reason
        for position, reason in zip(positions, bar, strict=True)
        if reason is not None
    }


def in_order(
    function: Callable[[int], Any], values: list[int], num_workers: int
) -> Iterable[Any]:
    """Iterate over a function's values, computed by threads; 0 of them for none."""
    # The backend is said here, or a context of the caller's could mean processes. Eight
    # at a time, as handing over one costs more than looking it up in a cache.
    pool = Parallel(
        max(1, num_workers),
        backend="threading",
        return_as="generator",
        batch_size=8,
    )
    return pool(delayed(function)(value) for value in values)


def settle(rows: Rows, max_pixels: int = MAX_PIXELS) -> None:
    """Read the pictures of `Image.open` among the rows; damaged ones stay as they are.

    Forked workers share the file position of a picture that is not read yet, and would
    read each other's bytes. A damaged one is reported when it is decoded.
    """
    if isinstance(rows.images, LazyCells):
        return
    for label, cell in zip(rows.index, rows.images, strict=True):
        if isinstance(cell, ImageFile.ImageFile):
            with suppress(BadImage), _named(label), bad_image_reasons():
                check_picture(cell, max_pixels)
                cell.load()


@contextmanager
def _named(label: Any) -> Iterator[None]:
    """Say whose picture it was that the memory did not suffice for."""
    try:
        yield
    except MemoryError as error:
        more = f" ({error})" if str(error) else ""
        raise MemoryError(
            f"row {label!r}: its image does not fit into memory{more}"
        ) from error


def image_key(
    cell: Any, image_root: str | Path | None, transform: ImageTransform
) -> bytes:
    """Name what `transform` makes of an image cell, by the cell's content.

    A path is named by the file it leads to, that file's size and its time of change;
    anything else by its bytes or pixels, base64 by those that it spells.

    Raises
    ------
    BadImage
        If the cell is not even there: no such file, a URL, a damaged open picture.
    """
    if isinstance(cell, str) and is_inline(cell):
        cell = inline_bytes(cell)
    digest = blake2b(
        repr((type(cell).__name__, transform.key)).encode(), digest_size=KEY_BYTES
    )
    with bad_image_reasons():
        for part in _content(cell, image_root, transform):
            digest.update(part)
    return digest.digest()


def _content(
    cell: Any, image_root: str | Path | None, transform: ImageTransform
) -> list:
    """The parts of `cell` that its picture depends on."""
    # A file says its size when it is opened. Until then the cap is part of the name, or
    # a picture that is too large here would be found where it was not.
    cap = transform.max_pixels
    if isinstance(cell, str | os.PathLike):
        path, status = regular_file(cell, image_root)
        # realpath, as a link may be turned to another file of equal size and age.
        stamp = (os.path.realpath(path), status.st_size, status.st_mtime_ns, cap)
        return [repr(stamp).encode("utf-8", "backslashreplace")]
    if isinstance(cell, np.ndarray):
        check_array(cell, cap)
        # Checked here, as the name does not depend on the cap: the cache may know this
        # picture from an estimator that allows larger ones.
        transform.resized(cell.shape[:2])
        # Equal bytes in another shape are another picture.
        about = (cell.shape, cell.dtype.str)
        return [repr(about).encode(), np.ascontiguousarray(cell)]
    if isinstance(cell, Image.Image):
        check_picture(cell, cap)
        transform.resized(cell.size[::-1])
        # Pixels of a palette say nothing without it, nor how see-through they are.
        about = (cell.mode, cell.size, cell.info.get("transparency"), cell.getpalette())
        return [repr((*about, orientation(cell))).encode(), cell.tobytes()]
    return [repr(cap).encode(), cell]
