"""Image cells whose text is the picture: ``data:`` URIs and base64."""

import base64
import re

from .faults import BadImage, short

# Of one cell, before it is decoded: three quarters as many bytes.
MAX_CHARACTERS = 2**26

_ALPHABET = r"[A-Za-z0-9+/ \t\r\n]*+"
# How the first bytes of JPEG, PNG, GIF and WebP files read in base64.
_FIRST = ("/9j/", "iVBORw0KGgoAAAANSUhEUg", "R0lGODdh", "R0lGODlh", "UklGR")
_PICTURE = re.compile(rf"(?!UklGR(?!.{{6}}XRUJQ)){_ALPHABET}={{0,2}}")
# The smallest picture of these formats has about as many; nobody types a name like it.
_SHORTEST = 40
_DATA = re.compile(r"data:", re.IGNORECASE)
_HEADER = re.compile(
    r"data:image/[a-z0-9.+-]{1,40}(;[a-z0-9=._-]{1,40}){0,3};base64,", re.IGNORECASE
)


def is_inline(text: str) -> bool:
    """Whether a text is a picture itself, where others are paths; by the text alone.

    It is one if it begins with ``data:``, or if it is base64 throughout and begins as
    the files of JPEG, PNG, GIF or WebP do. No file is looked for, so that a text means
    the same wherever it is read; and no such text ever opens a file, as a path of this
    kind, without a dot, would be none of an image.

    Examples
    --------
    >>> is_inline("data:image/png;base64,iVBORw0KGgo="), is_inline("/9j/a.jpg")
    (True, False)
    """
    if _DATA.match(text):
        return True
    if not text.startswith(_FIRST) or len(text) < _SHORTEST:
        return False
    return len(text) > MAX_CHARACTERS or bool(_PICTURE.fullmatch(text.rstrip()))


def inline_bytes(text: str) -> bytes:
    """Return the bytes of the file that a text of `is_inline` spells.

    Raises
    ------
    BadImage
        If it is longer than ``MAX_CHARACTERS``, no base64, or a ``data:`` URI of
        anything but an image.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadImage(
            f"base64 text must have at most {MAX_CHARACTERS} characters, got "
            f"{len(text)}"
        )
    start = 0
    if _DATA.match(text):
        header = _HEADER.match(text)
        if header is None:
            raise BadImage(
                "a data: URI must begin with data:image/...;base64, and no other is "
                f"read, got {short(text)}"
            )
        start = header.end()
    letters = "".join(text[start:].split()).rstrip("=")
    try:
        # Many programs leave out the padding.
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except ValueError as error:
        raise BadImage(f"not valid base64 ({error}): {short(text)}") from error
