"""A folder of answers that a kill leaves resumable: whole files and a manifest."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pandas as pd

MANIFEST = "_robustmm.json"
_MODEL = "_model-{}.zip"
# Readers of parquet folders pass over names that begin like this.
_DRAFT = "_draft-"


def need_parquet() -> None:
    """Raise ImportError, with the remedy, unless parquet files can be read."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow: pip install "robustmm[dask]".'
        ) from error


def _rename(files, old: str, new: str) -> None:
    # Not fsspec's mv, for which brackets in a name are a pattern.
    if "file" in files.protocol:
        os.replace(old, new)
        return
    files.cp_file(old, new)
    files.rm_file(old)


@dataclass(frozen=True)
class Output:
    """A folder on any file system of fsspec's; it travels to workers.

    Parameters
    ----------
    url : str
        A path or a URL.
    storage_options : dict
        Of the file system.

    Examples
    --------
    >>> out = Output("memory://answers")
    >>> out.begin({"model": "ab12"})
    >>> out.write("part.parquet", pd.DataFrame({"prediction": ["cat"]}))
    >>> out.written()
    {'part.parquet'}
    >>> out.begin({"model": "cd34"})
    Traceback (most recent call last):
    ValueError: output must be new or of the same model, input and question, ...
    """

    url: str
    storage_options: dict = field(default_factory=dict)

    @property
    def _place(self) -> tuple:
        from fsspec.core import url_to_fs

        files, base = url_to_fs(self.url, **self.storage_options)
        return files, base.rstrip("/")

    def begin(self, about: dict) -> None:
        """Write what the answers are of, or compare it with what stands there.

        Raises
        ------
        ValueError
            If the folder holds other answers, or anything else.
        """
        files, base = self._place
        files.makedirs(base, exist_ok=True)
        try:
            known = json.loads(files.cat_file(f"{base}/{MANIFEST}"))
        except FileNotFoundError:
            self._refuse_others(files, base)
            self._put(MANIFEST, json.dumps(about, indent=1).encode())
            return
        except ValueError as error:
            raise ValueError(f"{self.url}/{MANIFEST} is damaged: {error}") from error
        if not isinstance(known, dict):
            raise ValueError(f"{self.url}/{MANIFEST} is damaged: it is no object.")
        if known != about:
            parts = {*known, *about}
            other = sorted(k for k in parts if known.get(k) != about.get(k))
            raise ValueError(
                "output must be new or of the same model, input and question, "
                f"{self.url!r} differs in {other}; choose another folder or remove it."
            )

    def _refuse_others(self, files, base: str) -> None:
        inside = [f.rsplit("/", 1)[-1] for f in files.find(base)]
        if others := [name for name in inside if not name.startswith(_DRAFT)]:
            raise ValueError(
                f"output must be a new or empty folder, {self.url!r} holds "
                f"{sorted(others)[:3]} and no {MANIFEST}."
            )

    def written(self) -> set[str]:
        """Return the names of the files that are whole."""
        files, base = self._place
        # Another process may have written here since it was last listed.
        files.invalidate_cache()
        found = (files._strip_protocol(f)[len(base) + 1 :] for f in files.find(base))
        return {name for name in found if not name.rsplit("/", 1)[-1].startswith("_")}

    def write(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as a file that is there only when it is whole."""
        with self.draft(name) as stream:
            frame.to_parquet(stream)

    @contextmanager
    def draft(self, name: str) -> Iterator:
        """Open a file for writing that gets its name at the end of the block."""
        files, base = self._place
        folder, _, last = f"{base}/{name}".rpartition("/")
        files.makedirs(folder, exist_ok=True)
        draft = f"{folder}/{_DRAFT}{last}.{secrets.token_hex(4)}"
        try:
            with files.open(draft, "wb") as stream:
                yield stream
            _rename(files, draft, f"{folder}/{last}")
        except BaseException:
            with suppress(OSError):
                files.rm_file(draft)
            raise

    def _put(self, name: str, content: bytes) -> None:
        with self.draft(name) as stream:
            stream.write(content)

    def put_model(self, digest: str, content: bytes) -> None:
        """Lay the model where workers find it."""
        files, base = self._place
        if not files.exists(f"{base}/{_MODEL.format(digest)}"):
            self._put(_MODEL.format(digest), content)

    def model(self, digest: str) -> bytes:
        """Return the model's bytes."""
        files, base = self._place
        return files.cat_file(f"{base}/{_MODEL.format(digest)}")

    def finish(self) -> list[str]:
        """Remove the model and what killed workers left; return the answers' files."""
        files, base = self._place
        files.invalidate_cache()
        for file in files.find(base):
            name = file.rsplit("/", 1)[-1]
            if name.startswith((_DRAFT, "_model-")):
                with suppress(OSError):
                    files.rm_file(file)
        return sorted(f"{self.url.rstrip('/')}/{name}" for name in self.written())
