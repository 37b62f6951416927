"""Frozen transformers as streams of named tokens.

The layers are Hugging Face's own modules. A :class:`Layout` says where things are in
one architecture's layer, and :meth:`Stream.step` is the one block that runs them all,
so attention is always ``scaled_dot_product_attention`` and any linear can be wrapped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .compiled import compiled
from .frozen import FrozenModule
from .layout import Layout
from .tokens import POOLED, Tokens, spans_of

JOINT = ("query", "key", "value")


class Block(NamedTuple):
    """One layer, and what maps its input to query, key and value at once, if any."""

    layer: nn.Module
    joint: nn.Module | None


class Stream(FrozenModule, ABC):
    """One frozen transformer that turns a batch into tokens, layers and a pooled row.

    Subclasses say how a batch is embedded; the rest follows from ``layout``. All
    parameters are frozen and shared with other copies: to train some, :meth:`thaw`
    them first. The modules stay in evaluation mode; only wrapped adapters follow
    :meth:`train`.

    Attributes
    ----------
    modality : {"joint", "image", "text", "audio", "video"}
    width, n_layers, n_heads : int
    causal : bool
        Whether a token sees only itself and the tokens before it.
    linears : dict of str to str
        ``query``, ``key``, ``value``, ``out``, ``up``, ``down``: our names of the
        linears of a layer, and their paths in the Hugging Face layer.
    compile_blocks : bool
        Whether layers run as torch compiles them. A copy has the same setting.
    pooler : Module or None
        The checkpoint's dense layer and activation, (B, d) -> (B, d), to be applied to
        :meth:`pool`; None where the checkpoint has none.
    projection : Linear or None
        CLIP's projection into the space that images and texts share.
    dropout : float
        Of what enters the first layer and of the layers' updates, while the stream is
        in training mode; 0 if it is not set on the stream. Frozen states that are kept
        are those without it. For encoders with their norms in front, as ViLT and CLIP.

    Examples
    --------
    >>> import torch
    >>> from robustmm import load_backbone
    >>> stream = load_backbone("robustmm/tiny-bert")["text"]
    >>> ids = torch.tensor([[2, 7, 3]])
    >>> tokens = stream.embed(input_ids=ids, attention_mask=torch.ones_like(ids))
    >>> stream.pool(stream.run(tokens)).shape
    torch.Size([1, 128])
    """

    modality: str
    segments: tuple[str, ...]
    causal = False
    dropout = 0.0

    def __init__(
        self,
        config,
        embeddings: nn.Module,
        layers: nn.ModuleList,
        layout: Layout,
        final_norm: nn.Module | None = None,
        pooler: nn.Module | None = None,
        projection: nn.Module | None = None,
    ):
        super().__init__()
        self.layout = layout
        self.linears = layout.linears
        self.width = config.hidden_size
        self.n_layers = len(layers)
        self.n_heads = config.num_attention_heads
        self.embeddings = embeddings
        self.layers = layers
        self.final_norm = final_norm
        self.pooler = pooler
        self.projection = projection
        self.joint_adapters = nn.ModuleDict()
        self.compile_blocks = False
        self._wrapped: list[tuple[int, str]] = []
        self._facts = {
            "activation": getattr(config, "hidden_act", None)
            or getattr(config, "activation", None),
            "eps": getattr(config, "layer_norm_eps", None),
        }
        self.freeze()

    # What a subclass says ------------------------------------------------------------

    @abstractmethod
    def embed(self, **batch: Tensor) -> Tokens:
        """Turn a batch into the tokens that enter the model."""

    def enter(self, tokens: Tokens) -> Tokens:
        """Do what the model does between embedding and its first layer."""
        return tokens

    def norm(self, values: Tensor) -> Tensor:
        """Apply the final norm, if the model has one, to rows of any shape."""
        return values if self.final_norm is None else self.final_norm(values)

    def pool(self, tokens: Tokens) -> Tensor:
        """Return the pooled row after the final norm, (B, d), from :meth:`run`."""
        if POOLED in tokens:
            # A norm is of each row alone, so it can wait until only one is left.
            return self.norm(tokens[POOLED][:, 0])
        rows = self._pooled_row(tokens)[:, None]
        return self.norm(_take(tokens.values, rows)[:, 0])

    def per_row(self, tokens: Tokens, values: Tensor) -> Tensor:
        """Return what was read of tokens as one vector for each row of a table, (B, d).

        That is the same, but for videos, whose tokens have a row for each frame.
        """
        return values

    def facts(self) -> dict:
        """Return what changes the outputs but is in no tensor, for the fingerprint."""
        shape = {"layout": self.layout.name, "n_heads": self.n_heads}
        return {
            "modality": self.modality,
            "causal": self.causal,
            **shape,
            **self._facts,
        }

    # Running -------------------------------------------------------------------------

    def run(
        self,
        tokens: Tokens,
        before_layer: Callable[[int, Tokens], Tokens] | None = None,
        start: int = 0,
        keep: Sequence[str] | str = (),
        stop: int | None = None,
    ) -> Tokens:
        """Run the layers ``start`` to ``stop``.

        The last layer of the model computes only what is read afterwards: the result
        has a segment ``"pooled"`` of one row and the segments in ``keep``. Streams
        that pool all rows keep these instead, under their own names.

        Parameters
        ----------
        tokens : Tokens
            What :meth:`embed` returned, with or without inserted segments; or, with
            ``start``, what entered that layer.
        before_layer : callable (i, tokens) -> tokens, optional
            Called before every layer.
        start, stop : int
            Layers to run. ``stop=None`` means to the end; an earlier ``stop`` returns
            all rows, ready for ``start``.
        keep : sequence of str, or "all"
            Segments to compute in the last layer besides the pooled row.
        """
        stop = self.n_layers if stop is None else stop
        if not 0 <= start <= stop <= self.n_layers:
            raise ValueError(
                "Layers must satisfy 0 <= start <= stop <= "
                f"{self.n_layers}, got start={start}, stop={stop}."
            )
        # With start > 0 it has been done; without a layer, another call is to do it.
        if start == 0 < stop:
            entered = self.enter(tokens)
            tokens = entered.replace(self._dropped(entered.values))
        for i in range(start, stop):
            if before_layer is not None:
                tokens = before_layer(i, tokens)
            # Exact: rows of the last layer only meet in attention, whose keys and
            # values are still those of all tokens.
            reduced = i == self.n_layers - 1 and keep != "all"
            tokens = (
                self._last_step(i, tokens, keep) if reduced else self.step(i, tokens)
            )
        return tokens

    def step(self, i: int, tokens: Tokens, rows: Tensor | None = None) -> Tokens:
        """Run one layer, for all rows or for some of them.

        With ``rows``, (B, R) positions, keys and values still come from all tokens,
        and the result has one segment, ``"rows"``.
        """
        if self.compile_blocks:
            values = self._run_compiled(i, tokens, rows)
        else:
            values = self._run_block(self._block(i), tokens, rows)
        if rows is None:
            # A prefix is of one layer: methods give the next one its own, or none.
            return replace(tokens, values=values, prefix=None)
        mask = None if tokens.mask is None else tokens.mask.gather(1, rows)
        spans = {"rows": (0, rows.shape[1])}
        return replace(tokens, values=values, mask=mask, spans=spans, prefix=None)

    def _run_block(self, block: Block, tokens: Tokens, rows: Tensor | None) -> Tensor:
        """Compute what one layer makes of all rows (B, L, d), or of some, (B, R, d)."""
        values = tokens.values
        pre_norm = self.layout.pre_norm
        norm1, norm2 = (_part(block.layer, path) for path in self.layout.norms)
        asked = norm1(values) if pre_norm else values
        update = self._attend(block, asked, tokens, rows)
        # After attention, which reads all of them.
        values = values if rows is None else _take(values, rows)
        if pre_norm:
            values = values + self._scaled(block, 0, update)
            update = self._feed_forward(block, norm2(values), tokens)
            return values + self._scaled(block, 1, update)
        values = norm1(values + update)
        return norm2(values + self._feed_forward(block, values, tokens))

    def _run_compiled(self, i: int, tokens: Tokens, rows: Tensor | None) -> Tensor:
        """Do the same with what the compiler makes of streams of this kind."""
        adapters = list(self.adapters())
        names = sorted({type(adapter).__name__ for adapter in adapters})
        shape = self.layout.name, self.causal, self.width, self.n_heads
        # Adapters may find what they read in the context under other names per layer.
        layer = i if tokens.context else None
        run = compiled(_run_parts, (*shape, *names, torch.is_grad_enabled(), layer))
        parts = {"mask": tokens.mask, "prefix": tokens.prefix, "spans": {}}
        if any(getattr(adapter, "reads_tokens", False) for adapter in adapters):
            more = {name: getattr(tokens, name) for name in ("spans", "anchor")}
            parts |= more | {"context": tokens.context}
        # Of other segments a block would be compiled anew, which nobody else reads.
        return run(self, self._block(i), tokens.values, parts, rows)

    def _last_step(self, i: int, tokens: Tokens, keep: Sequence[str] | str) -> Tokens:
        keep = (keep,) if isinstance(keep, str) else tuple(keep)
        parts = []
        if tokens.anchor is None:
            # Each once, in order: rows would be computed twice.
            keep = tuple(dict.fromkeys((*self.segments, *keep)))
        else:
            parts.append((POOLED, self._pooled_row(tokens)[:, None]))
        for name in keep:
            place = torch.arange(*tokens.span(name), device=tokens.values.device)
            parts.append((name, place.expand(len(tokens), -1)))
        rows = torch.cat([part for _, part in parts], dim=1)  # (B, R)
        spans = spans_of((name, part.shape[1]) for name, part in parts)
        return replace(self.step(i, tokens, rows), spans=spans)

    def _pooled_row(self, tokens: Tokens) -> Tensor:
        # The anchor counts from the start of its segment, which inserted prompts move.
        return tokens.span(self.segments[0])[0] + tokens.anchor  # (B,)

    def attention(self, i: int, tokens: Tokens, rows: Tensor | None = None) -> Tensor:
        """Return how much rows attend to every token in layer ``i``, (B, heads, R, L).

        Each sums to 1 over the keys: those of a prefix, then the tokens. They are
        computed anew from what entered the layer, with its adapters and masks, and
        nothing is kept.

        Parameters
        ----------
        tokens : Tokens
            What enters the layer.
        rows : Tensor of shape (B, R), int64, optional
            Positions of the rows that ask; None means all.
        """
        self._check_place(i, "query")
        block = self._block(i)
        norm = _part(block.layer, self.layout.norms[0])
        x = norm(tokens.values) if self.layout.pre_norm else tokens.values
        query, key, _, mask = self._heads(block, x, tokens, rows)
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1)

    def _attend(
        self, block: Block, x: Tensor, tokens: Tokens, rows: Tensor | None
    ) -> Tensor:
        query, key, value, mask = self._heads(block, x, tokens, rows)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self._map(block, "out", mixed.transpose(1, 2).flatten(2), tokens)

    def _heads(
        self, block: Block, x: Tensor, tokens: Tokens, rows: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Query, key and value, (B, heads, ., d / heads), and who sees whom."""
        query, key, value = self._project(block, x, tokens, rows)
        n_prefix = 0
        if tokens.prefix is not None:
            key, value = (
                # As they are: MAP's prompts go beside what was projected, not through
                # it.
                torch.cat([more.expand(len(x), -1, -1), own], dim=1)
                for more, own in zip(tokens.prefix, (key, value), strict=True)
            )
            n_prefix = tokens.prefix[0].shape[1]
        query, key, value = (
            t.unflatten(-1, (self.n_heads, -1)).transpose(
                1, 2
            )  # (B, heads, ., d / heads)
            for t in (query, key, value)
        )
        mask = self._attention_mask(tokens, rows, n_prefix)
        return query, key, value, mask

    def _project(
        self, block: Block, x: Tensor, tokens: Tokens, rows: Tensor | None
    ) -> tuple[Tensor, ...]:
        if block.joint is not None:
            query, key, value = _call(block.joint, x, tokens)
            # It maps all rows, as keys and values need; queries nobody asks for are
            # dropped.
            return (query if rows is None else _take(query, rows)), key, value
        parts = [_part(block.layer, self.linears[name]) for name in JOINT]
        together = getattr(type(parts[0]), "together", None)
        if rows is None and together and len({type(part) for part in parts}) == 1:
            return together(parts, x)
        asking = x if rows is None else _take(x, rows)
        inputs = zip(parts, (asking, x, x), strict=True)
        return tuple(_call(part, rows_of, tokens) for part, rows_of in inputs)

    def _map(self, block: Block, name: str, x: Tensor, tokens: Tokens) -> Tensor:
        return _call(_part(block.layer, self.linears[name]), x, tokens)

    def _attention_mask(
        self, tokens: Tokens, rows: Tensor | None, n_prefix: int
    ) -> Tensor | None:
        """Say who sees whom, broadcastable to (B, heads, R, n_prefix + L)."""
        mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        if self.causal:
            place = torch.arange(tokens.length, device=tokens.values.device)
            asking = place[None] if rows is None else rows
            # By position and not is_causal: of some rows, or behind a prefix, torch
            # would align the triangle at the wrong corner.
            past = (place <= asking[..., None])[:, None]  # (1 or B, 1, R, L)
            mask = past if mask is None else past & mask
        if mask is not None and n_prefix:
            # In front, where a prefix stands, and seen by all, in a causal encoder too.
            mask = F.pad(mask, (n_prefix, 0), value=True)
        return mask

    def _feed_forward(self, block: Block, x: Tensor, tokens: Tokens) -> Tensor:
        activation = _part(block.layer, self.layout.activation)
        up = self._map(block, "up", x, tokens)
        if self.layout.gate is None:
            hidden = activation(up)
        else:
            hidden = activation(_part(block.layer, self.layout.gate)(x)) * up
        return self._map(block, "down", hidden, tokens)

    def _scaled(self, block: Block, which: int, update: Tensor) -> Tensor:
        scales, update = self.layout.scales, self._dropped(update)
        return update if scales is None else _part(block.layer, scales[which])(update)

    def _dropped(self, values: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return values
        return F.dropout(values, self.dropout, training=True)

    def _block(self, i: int) -> Block:
        known = str(i) in self.joint_adapters
        return Block(self.layers[i], self.joint_adapters[str(i)] if known else None)

    # Adapting ------------------------------------------------------------------------

    def linear(self, i: int, name: str) -> nn.Module:
        """Return the module that is now in the place of a linear of layer ``i``."""
        self._check_place(i, name)
        return _part(self.layers[i], self.linears[name])

    def wrap(self, i: int, name: str | tuple[str, ...], adapter: nn.Module) -> None:
        """Put ``adapter``, which contains the frozen linear, in that linear's place.

        Parameters
        ----------
        i : int
            The layer.
        name : str, or ("query", "key", "value")
            One of ``linears``; or the three together, for an adapter that maps the
            input of attention to a tuple (query, key, value).
        adapter : Module
            Called as ``adapter(x)``, or, if its class sets ``reads_tokens = True``, as
            ``adapter(x, tokens)`` with what entered the layer: all rows, mask and
            context. In the last layer :meth:`run` drops rows that nobody reads, so
            there ``x`` may have fewer than ``tokens``: only those of the joint
            adapter, ``"key"`` and ``"value"`` are always complete. Where query, key
            and value of a layer have adapters of one class with a ``together``, they
            are called as ``together(adapters, x)``, which returns the three.
        """
        joint = isinstance(name, tuple)
        for part in JOINT if joint and name == JOINT else (name,):
            self._check_place(i, part)
        wrapped = {part for layer, part in self._wrapped if layer == i}
        if joint and wrapped & set(JOINT):
            raise ValueError(
                f"A joint adapter would bypass the adapters of {sorted(wrapped)} in "
                f"layer {i}: wrap either the three together or each alone."
            )
        if name in JOINT and str(i) in self.joint_adapters:
            raise ValueError(
                f"The adapter of {name!r} would be bypassed by the joint adapter of "
                f"layer {i}: wrap either the three together or each alone."
            )
        if joint:
            self.joint_adapters[str(i)] = adapter
        else:
            parent, _, leaf = self.linears[name].rpartition(".")
            setattr(_part(self.layers[i], parent), leaf, adapter)
            self._wrapped.append((i, name))
        # It may come after the stream was set to a mode.
        adapter.train(self.training)

    def adapters(self) -> Iterator[nn.Module]:
        """Iterate over the wrapped modules, each once."""
        single = (self.linear(i, name) for i, name in self._wrapped)
        # One adapter may be in several places.
        seen = dict.fromkeys([*single, *self.joint_adapters.values()])
        return iter(seen)

    def _check_place(self, i: int, name: str) -> None:
        if name not in self.linears:
            choices = [*self.linears, JOINT]
            raise ValueError(f"A linear must be one of {choices}, got {name!r}.")
        if not 0 <= i < self.n_layers:
            raise ValueError(f"A layer must be in [0, {self.n_layers}), got {i}.")

    def layer_parts(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the tensors of the layers under names of our own, in order."""
        for i in range(self.n_layers):
            for path in self.layout.paths():
                # Sorted, as the order must be that of the names and not of a release of
                # transformers: fingerprints depend on it.
                for name, tensor in sorted(
                    _part(self.layers[i], path).named_parameters()
                ):
                    yield f"{i}.{path}.{name}", tensor


def _run_parts(
    stream: Stream, block: Block, values: Tensor, parts: dict, rows: Tensor | None
) -> Tensor:
    """Run a block on tokens of these parts, as none but tensors can be compiled."""
    return stream._run_block(block, Tokens(values, **parts), rows)


def _part(layer: nn.Module, path: str) -> nn.Module:
    """Return what stands at a path inside a layer; itself, for an empty one."""
    return reduce(getattr, path.split("."), layer) if path else layer


def _call(module: nn.Module, x: Tensor, tokens: Tokens) -> Tensor | tuple[Tensor, ...]:
    reads_tokens = getattr(module, "reads_tokens", False)
    return module(x, tokens) if reads_tokens else module(x)


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """Pick rows (B, R) of every sequence, (B, L, d) -> (B, R, d)."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
