"""What the class token and an inserted token attend to, as maps and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .image import ImageStream
from .stream import Stream
from .tokens import Tokens

COLUMNS = ("row", "modality", "token", "position", "y", "x", "word", "attention")
# Of one row: by modality and token, (h, w) over an image and (T,) over a text.
RowMaps = dict[tuple[str, str], np.ndarray]


def attention_maps(
    stream: Stream, tokens: Tokens, layer: int, pixel_values: Tensor | None = None
) -> dict[str, np.ndarray]:
    """Return what single tokens attend to in one layer, the mean over its heads.

    Parameters
    ----------
    stream : Stream
        Of images or of texts.
    tokens : Tokens
        What :meth:`Stream.embed` returned, with any inserted segments of one row.
    layer : int
        Counted from 0, or from the end if negative.
    pixel_values : Tensor of shape (B, 3, H, W), optional
        The images that were embedded; an image stream needs them.

    Returns
    -------
    dict of str to ndarray
        Maps of ``"class"``, which a stream without a class token has not, and of every
        inserted segment by name: (B, h, w) over the patches of an image, or (B, T) over
        the tokens of a text with its special tokens.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-clip")["image"]
    >>> pixels = torch.zeros(2, 3, 48, 48)
    >>> tokens = stream.embed(pixels).insert("proxy", torch.zeros(1, stream.width))
    >>> maps = attention_maps(stream, tokens, -1, pixels)
    >>> {name: values.shape for name, values in maps.items()}
    {'class': (2, 6, 6), 'proxy': (2, 6, 6)}
    """
    rows = _asking(stream, tokens)
    if not rows:
        return {}
    layer %= stream.n_layers
    # The norm in front of the first layer is part of a run from there.
    tokens = stream.run(tokens, stop=layer) if layer else stream.enter(tokens)
    asking = torch.stack(list(rows.values()), dim=1)  # (B, R)
    weights = stream.attention(layer, tokens, asking).mean(dim=1)  # (B, R, L)
    start, stop = tokens.span(stream.segments[0])
    read = weights[..., start:stop]
    if isinstance(stream, ImageStream):
        patches = read[..., len(stream.special_tokens()) :]
        read = patches.unflatten(-1, stream.grid(pixel_values))  # (B, R, h, w)
    values = read.float().cpu().numpy()
    return {name: values[:, place] for place, name in enumerate(rows)}


def _asking(stream: Stream, tokens: Tokens) -> dict[str, Tensor]:
    """Positions (B,) of the class token and of the inserted ones, by name."""
    own = stream.segments[0]
    rows = {}
    if tokens.anchor is not None:
        rows["class"] = tokens.span(own)[0] + tokens.anchor
    for name in tokens.names:
        if name != own:
            place = torch.tensor(tokens.span(name)[0], device=tokens.values.device)
            rows[name] = place.expand(len(tokens))
    return rows


def attention_frame(
    labels: Sequence,
    maps: Iterable[RowMaps],
    words: Iterable[tuple[list[str], list[int | None]]],
) -> pd.DataFrame:
    """Return maps as a table with a line for each patch and word.

    Parameters
    ----------
    labels : sequence of length n
        Names of the rows.
    maps : iterable of n dicts
        By (modality, token), an array (h, w), or (T,) over the tokens of a text, of
        which the word is None for special tokens. Padding may follow.
    words : iterable of n pairs
        The words of the text, and the word of each of its tokens.

    Examples
    --------
    >>> maps = {("text", "class"): np.array([0.25, 0.125, 0.125, 0.5])}
    >>> words = ["red", "kite"], [None, 0, 1, 1]
    >>> frame = attention_frame(["a"], [maps], [words])
    >>> frame[["row", "token", "word", "attention"]].to_numpy().tolist()
    [['a', 'class', 'red', 0.125], ['a', 'class', 'kite', 0.625]]
    """
    lines: list[tuple] = []
    for label, of_row, (spelled, word_of) in zip(labels, maps, words, strict=True):
        for (modality, token), values in of_row.items():
            start = label, modality, token
            if modality == "image":
                lines += _patch_lines(start, values)
            else:
                lines += _word_lines(start, values, spelled, word_of)
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    whole = dict.fromkeys(("y", "x"), "Int64")
    return frame.astype(whole | {"position": "int64", "attention": "float64"})


def _patch_lines(start: tuple, values: np.ndarray) -> list[tuple]:
    return [
        (*start, place, y, x, None, float(value))
        for place, ((y, x), value) in enumerate(np.ndenumerate(values))
    ]


def _word_lines(
    start: tuple, values: np.ndarray, words: list[str], word_of: list[int | None]
) -> list[tuple]:
    totals = [0.0] * len(words)
    for value, word in zip(values, word_of, strict=False):
        if word is not None:
            totals[word] += float(value)
    return [
        (*start, place, None, None, word, total)
        for place, (word, total) in enumerate(zip(words, totals, strict=True))
    ]
