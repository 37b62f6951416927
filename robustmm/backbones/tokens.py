"""A batch of token sequences whose segments have names instead of offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

POOLED = "pooled"


# Compared by identity: the == of tensors is no truth value.
@dataclass(frozen=True, eq=False)
class Tokens:
    """Token sequences of a batch, split into named segments.

    Nothing is changed in place: every method returns new tokens.

    Parameters
    ----------
    values : Tensor of shape (B, L, d)
        All segments, one after the other.
    mask : Tensor of shape (B, L), bool, or None
        True where a token may be attended to. None means everywhere.
    spans : mapping of str to (int, int)
        Start and end of each segment, in order and without gaps.
    anchor : Tensor of shape (B,), int64, or None
        Row of the pooled token inside the segment its stream pools: 0 for class
        tokens, the end-of-text position for CLIP texts. None where pooling needs all
        rows of the segment.
    prefix : pair of Tensor of shape (B or 1, l, d), or None
        Extra rows of keys and values for the next step alone.
    context : mapping of str to object
        What the adapters of a layer may want to know beside their input, see
        :meth:`with_context`. Read-only, and carried along through all layers.

    Examples
    --------
    >>> import torch
    >>> tokens = Tokens(torch.zeros(2, 5, 8), None, {"text": (0, 3), "image": (3, 5)})
    >>> tokens = tokens.insert("prompt", torch.ones(4, 8), before="image")
    >>> tokens.names, tokens.length, tokens["prompt"].shape
    (('text', 'prompt', 'image'), 9, torch.Size([2, 4, 8]))
    """

    values: Tensor
    mask: Tensor | None
    spans: Mapping[str, tuple[int, int]]
    anchor: Tensor | None = None
    prefix: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    context: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if not isinstance(self.context, MappingProxyType):
            read_only = MappingProxyType(dict(self.context))
            # The class is frozen, so that no layer changes tokens that another one
            # holds.
            object.__setattr__(self, "context", read_only)

    def __len__(self) -> int:
        return self.values.shape[0]

    def __contains__(self, name: str) -> bool:
        return name in self.spans

    def __getitem__(self, name: str) -> Tensor:
        start, stop = self.span(name)
        return self.values[:, start:stop]

    @property
    def names(self) -> tuple[str, ...]:
        """The segments, in order."""
        return tuple(self.spans)

    @property
    def length(self) -> int:
        """Number of rows of every sequence, L."""
        return self.values.shape[1]

    @property
    def width(self) -> int:
        """Number of features of a token, d."""
        return self.values.shape[2]

    def span(self, name: str) -> tuple[int, int]:
        """Return where the segment starts and ends."""
        if name not in self.spans:
            raise ValueError(
                f"A segment must be one of {list(self.spans)}, got {name!r}."
            )
        return self.spans[name]

    def mask_of(self, name: str) -> Tensor:
        """Return which tokens of a segment may be attended to, (B, l)."""
        start, stop = self.span(name)
        if self.mask is None:
            return self.values.new_ones(len(self), stop - start, dtype=torch.bool)
        return self.mask[:, start:stop]

    def insert(
        self,
        name: str,
        value: Tensor,
        mask: Tensor | None = None,
        before: str | None = None,
    ) -> Tokens:
        """Add a segment before another one, or at the end.

        Parameters
        ----------
        name : str
            A name that is not taken.
        value : Tensor of shape (l, d) or (B, l, d)
            The same rows for the whole batch, or rows per sample.
        mask : Tensor of shape (B, l), bool, or None
            Which of them may be attended to; None means all.
        before : str or None
            The segment that will follow; None puts the new one at the end.
        """
        if name in self.spans or name == POOLED:
            taken = [*self.spans, POOLED]
            raise ValueError(f"A new segment must not be one of {taken}, got {name!r}.")
        value = self._as_rows(name, value)
        at = self.length if before is None else self.span(before)[0]
        order = list(self.spans)
        order.insert(len(order) if before is None else order.index(before), name)
        return self._splice(order, name, value, mask, (at, at))

    def put(
        self,
        name: str,
        value: Tensor,
        mask: Tensor | None = None,
        before: str | None = None,
    ) -> Tokens:
        """Exchange a segment for another one, or :meth:`insert` it, in one copy.

        Parameters
        ----------
        name : str
            A segment that is there keeps its place among the others, and nothing else:
            neither its length nor its mask.
        value : Tensor of shape (l, d) or (B, l, d)
        mask : Tensor of shape (B, l), bool, or None
            As for :meth:`insert`.
        before : str or None
            Where the segment goes if it is not there yet.

        Examples
        --------
        >>> spans = {"text": (0, 3), "image": (3, 5)}
        >>> tokens = Tokens(torch.zeros(2, 5, 8), None, spans)
        >>> for layer in range(2):
        ...     tokens = tokens.put("prompt", torch.ones(4, 8) * layer, before="image")
        >>> tokens.names, tokens["prompt"].unique()
        (('text', 'prompt', 'image'), tensor([1.]))
        """
        if name not in self.spans:
            return self.insert(name, value, mask, before)
        value = self._as_rows(name, value)
        return self._splice(self.names, name, value, mask, self.spans[name])

    def drop(self, name: str) -> Tokens:
        """Remove a segment."""
        order = [other for other in self.spans if other != name]
        nothing = self.values[:, :0]
        return self._splice(order, name, nothing, None, self.span(name))

    def replace(self, values: Tensor) -> Tokens:
        """Put other values into the same layout."""
        if values.shape[:2] != self.values.shape[:2]:
            raise ValueError(
                "New values must have the same batch size and length, "
                f"{tuple(self.values.shape[:2])}, got {tuple(values.shape[:2])}."
            )
        return replace(self, values=values)

    def select(self, index: Tensor) -> Tokens:
        """Take some samples of the batch, by positions or by a bool mask (B,).

        Of tensors in the context, the same rows are taken.
        """
        take = partial(_select, index=index, size=len(self))
        return replace(
            self,
            values=self.values[index],
            mask=None if self.mask is None else self.mask[index],
            anchor=None if self.anchor is None else self.anchor[index],
            prefix=take(self.prefix),
            context={name: take(value) for name, value in self.context.items()},
        )

    def with_context(self, **items: Any) -> Tokens:
        """Add items to the context, or exchange them.

        What an adapter needs beside its input travels here and not on a module, so
        that several threads may run one module, each with tokens of its own.

        Parameters
        ----------
        **items : object
            Tensors, also those inside tuples and named tuples, have a row for each
            sample, (B, ...), or one for all of them, (1, ...). Anything else, such as
            a module or a list to be filled, belongs to all samples.

        Raises
        ------
        ValueError
            For a tensor with another number of rows: wrap what is no row of a sample,
            such as a table, in a module or a list.

        Examples
        --------
        >>> tokens = Tokens(torch.zeros(3, 5, 8), None, {"text": (0, 5)})
        >>> tokens = tokens.with_context(task=torch.tensor([0, 1, 1]), seen=[])
        >>> tokens.select(torch.tensor([2, 0])).context["task"]
        tensor([1, 0])
        """
        for name, value in items.items():
            self._check_rows(name, value)
        return replace(self, context={**self.context, **items})

    def with_prefix(self, keys: Tensor, values: Tensor) -> Tokens:
        """Add rows of keys and values, (B or 1, l, d), for the next step alone.

        They stand next to the projected keys and values, are attended to by every
        token, and produce no output row.
        """
        shapes = tuple(keys.shape), tuple(values.shape)
        batch_fits = keys.ndim == 3 and keys.shape[0] in (1, len(self))
        if shapes[0] != shapes[1] or not batch_fits or keys.shape[2] != self.width:
            raise ValueError(
                f"Keys and values of a prefix must both have shape ({len(self)} or 1, "
                f"l, {self.width}), got {shapes[0]} and {shapes[1]}."
            )
        return replace(self, prefix=(keys, values))

    def mean(self, name: str) -> Tensor:
        """Return the mean of the attended tokens of a segment, (B, d).

        Zeros where none is attended.
        """
        # Padding is left out: a batch is padded to its longest text, and a row's mean
        # must not depend on its neighbours.
        weight = self.mask_of(name).unsqueeze(-1).to(self.values.dtype)  # (B, l, 1)
        return (self[name] * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def max(self, name: str) -> Tensor:
        """Return the maximum of the attended tokens of a segment, (B, d).

        Zeros where none is attended.
        """
        attended = self.mask_of(name).unsqueeze(-1)  # (B, l, 1)
        # Unlike MemPrompt's code, whose maximum runs over padding: it always pads to
        # one length, here the result would depend on the rest of the batch.
        highest = self[name].masked_fill(~attended, float("-inf")).amax(dim=1)
        return highest.masked_fill(~attended.any(dim=1), 0.0)

    def _as_rows(self, name: str, value: Tensor) -> Tensor:
        shape = tuple(value.shape)
        per_sample = value.ndim == 3 and shape[0] == len(self)
        if not (value.ndim == 2 or per_sample) or shape[-1] != self.width:
            raise ValueError(
                f"Segment {name!r} must have shape (l, {self.width}) or "
                f"({len(self)}, l, {self.width}), got {shape}."
            )
        # Not copied: the concatenation that follows writes its own.
        return value.expand(len(self), -1, -1)  # (B, l, d)

    def _splice(
        self,
        order: Iterable[str],
        name: str,
        value: Tensor,
        mask: Tensor | None,
        place: tuple[int, int],
    ) -> Tokens:
        """Put rows (B, l, d) in the place of others, from ``start`` to ``stop``."""
        sizes = {n: b - a for n, (a, b) in self.spans.items()}
        sizes[name] = value.shape[1]
        start, stop = place
        parts = [self.values[:, :start], value, self.values[:, stop:]]
        return replace(
            self,
            values=torch.cat(parts, dim=1),  # (B, L', d)
            mask=self._mask_with(value.shape[1], mask, place),
            spans=spans_of((n, sizes[n]) for n in order),
        )

    def _mask_with(
        self, size: int, mask: Tensor | None, place: tuple[int, int]
    ) -> Tensor | None:
        # None is kept as long as it can be: without a mask, attention is faster.
        if self.mask is None and mask is None:
            return None
        ones = self.values.new_ones(len(self), self.length + size, dtype=torch.bool)
        old = ones[:, : self.length] if self.mask is None else self.mask
        new = ones[:, :size] if mask is None else mask.to(torch.bool)
        if new.shape != (len(self), size):
            raise ValueError(
                f"The mask of a segment must have shape {(len(self), size)}, "
                f"got {tuple(new.shape)}."
            )
        return torch.cat([old[:, : place[0]], new, old[:, place[1] :]], dim=1)

    def _check_rows(self, name: str, value: Any) -> None:
        for part in value if isinstance(value, tuple) else ():
            self._check_rows(name, part)
        # Not "in a set", which would fix the number of rows of a graph.
        if isinstance(value, Tensor) and (
            value.ndim == 0 or not (len(value) == 1 or len(value) == len(self))
        ):
            raise ValueError(
                f"A tensor in the context must have {len(self)} rows or 1, got shape "
                f"{tuple(value.shape)} for {name!r}."
            )


def _select(value: Any, index: Tensor, size: int) -> Any:
    """Take rows of a tensor, or of those in a tuple, that has ``size`` of them."""
    if isinstance(value, tuple):
        parts = [_select(part, index, size) for part in value]
        # A named tuple takes its fields one by one, a plain tuple all at once.
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    per_sample = isinstance(value, Tensor) and len(value) == size
    return value[index] if per_sample else value


def spans_of(sizes) -> dict[str, tuple[int, int]]:
    """Return the spans of segments, given (name, size) pairs in order."""
    spans, start = {}, 0
    for name, size in sizes:
        spans[name] = (start, start + size)
        start += size
    return spans
