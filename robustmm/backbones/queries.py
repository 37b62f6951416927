"""What a frozen layer makes of each modality of a row: the vectors it is found by."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from .backbone import Backbone
from .features import FrozenVectors, encode_streams, projected, projected_width
from .host import COLUMNS, HostBatch, upload
from .prefix import Store
from .stream import Stream
from .tokens import Tokens

# The pooled token instead of a mean, behind the projection where there is one.
POOLED = "pooled"
Layers = Sequence[int | str]


class FrozenQueries(FrozenVectors):
    """Map a batch to a vector for the image and one for the text, side by side.

    Each is the mean of the tokens of its modality (padding never counts) after some
    layers of a frozen encoder; :meth:`split` takes the two apart. Vectors of a missing
    modality mean nothing.

    Parameters
    ----------
    backbone : Backbone
    layers : pair of int or "pooled"
        After how many layers the image is read, and the text: 0 is what enters the
        first, -1 what leaves the last, behind the final norm. "pooled" is the pooled
        token, for an encoder of one modality.
    store : Store or None
        Where vectors are kept.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> queries = FrozenQueries(load_backbone("robustmm/tiny-vilt"), layers=(1, 0))
    >>> queries.modalities, queries.widths
    (('image', 'text'), (128, 128))
    """

    def __init__(
        self, backbone: Backbone, layers: Layers = (1, 0), store: Store | None = None
    ):
        check_layers("layers", layers, backbone)
        super().__init__(backbone, store, "queries", *layers)
        self.layers = tuple(layers)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are read, of which there may be one."""
        return tuple(m for m in COLUMNS if _stream_of(self.backbone, m) is not None)

    @property
    def places(self) -> tuple[int, ...]:
        """Their columns in ``present``."""
        return tuple(COLUMNS[name] for name in self.modalities)

    @property
    def source(self) -> str:
        """Names the encoder and the layers: what vectors may be compared by."""
        return f"{self.backbone.fingerprint} at {list(self.layers)}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Entries of the vector of each modality."""
        widths = []
        for name in self.modalities:
            stream = _stream_of(self.backbone, name)
            pooled = self.layers[COLUMNS[name]] == POOLED
            widths.append(projected_width(stream) if pooled else stream.width)
        return tuple(widths)

    @property
    def width(self) -> int:
        """Entries of both vectors together."""
        return sum(self.widths)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Take the vectors of a batch apart by modality, [(B, d), ...]."""
        return list(vectors.split(self.widths, dim=1))

    @torch.no_grad()
    def _encode(self, present: Tensor, batch: dict[str, Tensor]) -> Tensor:
        parts = encode_streams(self.backbone, present, batch, self._of_stream)
        return torch.cat(parts, dim=1).float()

    def _of_stream(self, stream: Stream, present: Tensor, batch: dict) -> Tensor:
        tokens, host = stream.embed(**batch), HostBatch.of(present, batch)
        if len(stream.segments) > 1:
            return torch.cat(read_queries(stream, tokens, host, self.layers), dim=1)
        (name,) = stream.segments
        layer = self.layers[COLUMNS[name]]
        if layer == POOLED:
            return projected(stream, stream.pool(stream.run(tokens)))
        return _mean(stream, stream.run(tokens, **_until(stream, layer)), name, layer)


def read_queries(
    stream: Stream, tokens: Tokens, host: HostBatch, layers: Sequence[int]
) -> list[Tensor]:
    """Return the mean of the tokens of image and text after some layers, [(B, d)] * 2.

    Only rows that have a modality are run for it.

    Parameters
    ----------
    stream : Stream
        A joint one. Its adapters take part, unless the context says otherwise.
    tokens : Tokens
        What :meth:`~robustmm.backbones.Stream.embed` returned.
    host : HostBatch
    layers : pair of int
        After how many layers the image is read, and the text.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-vilt")["joint"]
    >>> ids, pixels = torch.tensor([[2, 7, 3]]), torch.zeros(1, 3, 48, 48)
    >>> tokens = stream.embed(
    ...     pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)
    ... )
    >>> host = HostBatch(torch.tensor([[True, True]]))
    >>> image, text = read_queries(stream, tokens, host, layers=(1, 0))
    >>> bool((text == tokens.mean("text")).all()), image.shape
    (True, torch.Size([1, 128]))
    """
    found = [tokens.mean(name) for name in COLUMNS]
    depth = [_after(stream, layer) for layer in layers]
    for name, place in COLUMNS.items():
        rows = host.rows(name)
        if depth[place] and len(rows):
            rows = upload(rows, tokens.values.device)
            until = _until(stream, layers[place])
            after = stream.run(tokens.select(rows), **until)
            mean = _mean(stream, after, name, layers[place])
            found[place] = found[place].index_copy(0, rows, mean.to(found[place].dtype))
    return found


def check_layers(name: str, layers: Layers, backbone: Backbone) -> None:
    """Raise unless layers are a pair that a backbone has.

    Raises
    ------
    ValueError
        With the rule and what was received.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> check_layers("layers", (9, 0), load_backbone("robustmm/tiny-vilt"))
    Traceback (most recent call last):
    ValueError: layers must have for the image an int in [-5, 4], got (9, 0).
    """
    pair = isinstance(layers, Sequence) and not isinstance(layers, str)
    if not pair or len(layers) != len(COLUMNS):
        raise ValueError(
            f"{name} must be a pair, for the image and for the text, got {layers!r}."
        )
    for modality, layer in zip(COLUMNS, layers, strict=True):
        stream = _stream_of(backbone, modality)
        if stream is None:
            continue
        alone, n = len(stream.segments) == 1, stream.n_layers
        whole = isinstance(layer, Integral) and not isinstance(layer, bool)
        if not (whole and -n - 1 <= layer <= n) and not (alone and layer == POOLED):
            choices = f"an int in [{-n - 1}, {n}]" + ' or "pooled"' * alone
            raise ValueError(
                f"{name} must have for the {modality} {choices}, got {layers!r}."
            )


def _stream_of(backbone: Backbone, modality: str) -> Stream | None:
    """Return the stream that reads a modality, if any."""
    return next((s for s in backbone.streams.values() if modality in s.segments), None)


def _after(stream: Stream, layer: int) -> int:
    return layer + stream.n_layers + 1 if layer < 0 else layer


def _until(stream: Stream, layer: int) -> dict:
    """Return the options of a run up to the state that is read."""
    whole = _after(stream, layer) == stream.n_layers
    return {"keep": "all"} if whole else {"stop": _after(stream, layer)}


def _mean(stream: Stream, tokens: Tokens, name: str, layer: int) -> Tensor:
    if _after(stream, layer) == stream.n_layers:
        tokens = tokens.replace(stream.norm(tokens.values))
    return tokens.mean(name)
