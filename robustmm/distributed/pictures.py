"""Image cells that are paths, opened where the user says and nowhere else."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pandas as pd

from ..data.frame import format_rows, is_null
from ..data.inline import is_inline
from ..data.screening import warn

_URL = re.compile(r"[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)
# Pictures that are fetched at a time.
_AT_A_TIME = 8


def is_url(path: str) -> bool:
    """Whether a path names a file system of fsspec's.

    Examples
    --------
    >>> is_url("s3://bucket/pictures"), is_url("/data/pictures")
    (True, False)
    """
    return _URL.match(path) is not None


@dataclass(frozen=True)
class Pictures:
    """Where the image paths of a table start.

    Parameters
    ----------
    root : str or None
        A folder, a URL of fsspec's (``"s3://bucket/pictures"``), or None for the
        model's own ``image_root``. Below a URL, and nowhere else, pictures are fetched:
        cells are paths relative to it, or URLs that begin with it.
    storage_options : dict
        Of the file system.

    Examples
    --------
    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shop/a.png", b"not a picture")
    >>> pictures = Pictures("memory://shop")
    >>> pictures.fetch("a.png"), pictures.fetch("memory://shop/a.png")
    (b'not a picture', b'not a picture')
    >>> pictures.fetch("memory://else/a.png")
    Traceback (most recent call last):
    ValueError: only URLs below 'memory://shop' are opened: 'memory://else/a.png'
    """

    root: str | None = None
    storage_options: dict = field(default_factory=dict)

    def read(self, model, X: pd.DataFrame) -> pd.DataFrame:
        """Return the rows with whole paths, or with the bytes of fetched pictures.

        Raises
        ------
        ValueError
            For pictures that cannot be fetched, with their rows, unless the model takes
            bad ones as missing.
        """
        if self.root is None:
            return X
        parameters = model.get_params(deep=True)
        names = {v for k, v in parameters.items() if _last(k) == "image_column"}
        raises = parameters.get("on_bad_image", "raise") == "raise"
        columns = [name for name in X.columns if name in names]
        return X.assign(**{name: self._column(X[name], raises) for name in columns})

    def _column(self, cells: pd.Series, raises: bool) -> pd.Series:
        problems: list[tuple] = []
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            found = list(pool.map(self._try, cells))
        for label, (_, reason) in zip(cells.index.tolist(), found, strict=True):
            problems += [(label, reason)] if reason else []
        if problems:
            said = format_rows(problems, "image cells cannot be fetched")
            if raises:
                advice = 'A model with on_bad_image="missing" takes them as missing.'
                raise ValueError(f"{said}. {advice}")
            warn(f"{said}: taken as missing.")
        # An array of bytes would become one of fixed width.
        values = pd.Series([None] * len(cells), index=cells.index, dtype=object)
        values.iloc[:] = [value for value, _ in found]
        return values

    def _try(self, cell) -> tuple:
        if not isinstance(cell, str) or not cell.strip() or is_inline(cell):
            return (None if is_null(cell) else cell), None
        try:
            return self.fetch(cell), None
        except (OSError, ValueError) as error:
            reason = f"no such file: {cell!r}"
            return None, reason if isinstance(error, FileNotFoundError) else str(error)

    def fetch(self, cell: str):
        """Return the bytes of a picture below a URL, or its path below a folder.

        Raises
        ------
        ValueError
            For a path that leads elsewhere.
        OSError
            If the file system cannot give it.
        """
        if not is_url(self.root):
            return cell if is_url(cell) else os.path.join(self.root, cell)
        root = f"{self.root.rstrip('/')}/"
        inside = cell.removeprefix(root)
        outside = is_url(inside) or inside.startswith("/")
        if outside or ".." in inside.replace("\\", "/").split("/"):
            raise ValueError(f"only URLs below {self.root!r} are opened: {cell!r}")
        files, base = _open_root(self.root, self.storage_options)
        return files.cat_file(f"{base.rstrip('/')}/{inside}")


def _open_root(url: str, options: dict) -> tuple:
    from fsspec.core import url_to_fs

    # File systems are kept by fsspec: a second call opens no second connection.
    return url_to_fs(url, **options)


def _last(name: str) -> str:
    return name.rpartition("__")[2]
