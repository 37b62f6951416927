"""Text encoders: BERT, RoBERTa and DistilBERT; and text embeddings in general."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .host import HostBatch
from .layout import Layout
from .stream import Stream
from .tokens import Tokens

BERT = Layout(
    "bert",
    {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    activation="intermediate.intermediate_act_fn",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    pre_norm=False,
)
DISTILBERT = Layout(
    "distilbert",
    {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
    },
    activation="ffn.activation",
    norms=("sa_layer_norm", "output_layer_norm"),
    pre_norm=False,
)


class TextPositions:
    """What streams with texts share: a table of positions, with room for longer ones.

    ``position_owner`` is the path of the module that holds ``position_table``;
    ``position_offset`` rows at its start belong to no position (RoBERTa's padding).
    """

    position_owner = "embeddings"
    position_table = "position_embeddings"
    position_offset = 0

    @property
    def capacity(self) -> int:
        """Longest text that has positions, in tokens."""
        return self._positions().num_embeddings - self.position_offset

    def extend_positions(self, length: int) -> None:
        """Interpolate the table linearly to ``length`` positions."""
        table, offset = self._positions(), self.position_offset
        first, rest = table.weight[:offset], table.weight[offset:]
        rest = F.interpolate(rest.T[None], size=length, mode="linear")[0].T
        longer = nn.Embedding.from_pretrained(torch.cat([first, rest]).detach())
        setattr(self.get_submodule(self.position_owner), self.position_table, longer)

    def _positions(self) -> nn.Embedding:
        return getattr(self.get_submodule(self.position_owner), self.position_table)

    def _check_length(self, input_ids: Tensor) -> None:
        if input_ids.shape[1] > self.capacity:
            raise ValueError(
                f"A text must have at most {self.capacity} tokens, got "
                f"{input_ids.shape[1]}: truncate it, or load the backbone with a "
                "larger max_text_length."
            )


class BertStream(TextPositions, Stream):
    """BERT's encoder; pools the last hidden state of the class token."""

    modality = "text"
    segments = ("text",)

    def __init__(self, model: nn.Module, layers: nn.ModuleList, layout: Layout):
        if getattr(model.config, "is_decoder", False):
            raise ValueError(
                "A text encoder must not be a decoder, got is_decoder=True."
            )
        super().__init__(
            model.config, model.embeddings, layers, layout, pooler=dense_pooler(model)
        )

    @classmethod
    def of_bert(cls, model: nn.Module) -> BertStream:
        """Take the encoder out of a BertModel or RobertaModel."""
        return cls(model, model.encoder.layer, BERT)

    @classmethod
    def of_distilbert(cls, model: nn.Module) -> BertStream:
        """Take the encoder out of a DistilBertModel."""
        return cls(model, model.transformer.layer, DISTILBERT)

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        host: HostBatch | None = None,
        **_: Tensor,
    ) -> Tokens:
        """Embed texts (B, T); ``attention_mask`` is 1 where a token counts.

        With ``host``, nothing is asked of the device.
        """
        self._check_length(input_ids)
        values = embed_words(self.embeddings, input_ids, self.positions(input_ids))
        spans = {"text": (0, input_ids.shape[1])}
        mask = unless_full(attention_mask, host and host.attention_mask)
        return Tokens(values, mask, spans, first_row(input_ids))

    def positions(self, input_ids: Tensor) -> Tensor:
        """Return the row of the position table for every token."""
        return torch.arange(input_ids.shape[1], device=input_ids.device)


class RobertaStream(BertStream):
    """RoBERTa's encoder: positions count the tokens that are not padding."""

    def __init__(self, model: nn.Module, layers: nn.ModuleList, layout: Layout):
        super().__init__(model, layers, layout)
        self.padding = model.config.pad_token_id
        self.position_offset = self.padding + 1

    def positions(self, input_ids: Tensor) -> Tensor:
        """Return the row of the position table for every token."""
        real = (input_ids != self.padding).long()
        return real.cumsum(dim=1) * real + self.padding

    def facts(self) -> dict:
        """Add the padding token, from which positions are counted."""
        return super().facts() | {"padding": self.padding}


def embed_words(embeddings: nn.Module, input_ids: Tensor, positions: Tensor) -> Tensor:
    """Add embeddings of words, positions and the first sentence, and norm the sum."""
    values = embeddings.word_embeddings(input_ids)
    kinds = getattr(embeddings, "token_type_embeddings", None)
    if kinds is not None:
        values = values + kinds.weight[0]
    return embeddings.LayerNorm(values + embeddings.position_embeddings(positions))


def unless_full(mask: Tensor | None, *known: Tensor | None) -> Tensor | None:
    """Return a mask as bool, None if it hides nothing: attention is faster without.

    Parameters
    ----------
    mask : Tensor or None
    *known : Tensor or None
        What the mask is made of, on the CPU; without, its device is waited for.
    """
    if mask is None:
        return None
    if torch.compiler.is_compiling():  # one graph for batches of any content
        return mask.bool()
    parts = [part for part in known if part is not None] or [mask]
    return None if all(bool(part.all()) for part in parts) else mask.bool()


def first_row(batch: Tensor) -> Tensor:
    """Return the position of the class token of every sample, (B,)."""
    return torch.zeros(len(batch), dtype=torch.long, device=batch.device)


def dense_pooler(model: nn.Module) -> nn.Sequential | None:
    """Return the checkpoint's dense layer and activation, applied to a pooled row."""
    pooler = getattr(model, "pooler", None)
    return None if pooler is None else nn.Sequential(pooler.dense, pooler.activation)
