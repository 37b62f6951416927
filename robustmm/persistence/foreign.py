"""Members that are scikit-learn's, by skops: only types that it knows."""

from __future__ import annotations

import io
import zipfile

import numpy as np

# The key of such a member in the document.
FOREIGN = "skops"
# Of what is packed in a member, so that a small file cannot ask for any memory.
_MAX_BYTES = 2**30


def _skops():
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "Members that are scikit-learn's are saved and opened with skops: "
            "pip install skops."
        ) from error
    return skops.io


def dump_foreign(member) -> bytes:
    """Return a fitted estimator of scikit-learn's as :func:`load_foreign` takes it.

    Raises
    ------
    TypeError
        If it holds types that skops does not know.
    """
    io_ = _skops()
    content = io_.dumps(member)
    if unknown := io_.get_untrusted_types(data=content):
        raise TypeError(
            "A member that is saved must be made of scikit-learn's types and of this "
            f"package's classifiers, got {type(member).__name__} with {unknown[:5]}."
        )
    return content


def load_foreign(content: np.ndarray):
    """Open a member without executing anything.

    Raises
    ------
    ValueError
        If it is damaged, too large, or holds types that skops does not know.
    """
    io_ = _skops()
    try:
        data = np.asarray(content, dtype=np.uint8).tobytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MAX_BYTES:
            raise ValueError(f"it holds {size} bytes, at most {_MAX_BYTES} are opened")
        return io_.loads(data, trusted=[])
    except (
        Exception
    ) as error:  # of many a kind, for a file that anyone may have written
        raise ValueError(f"A member of a saved model is not opened: {error}") from error
