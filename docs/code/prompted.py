"""Prompts in both encoders, and an adapter that asks what a row has.

The pieces that ``docs/adding_a_method.rst`` explains; a test runs them.
"""

import torch
from torch import Tensor, nn

from robustmm.backbones import Backbone, Stream, Tokens, encode_streams

MODALITIES = ("image", "text")


# [prompts]
def run_with_prompt(stream: Stream, tokens: Tokens, prompt: Tensor) -> Tokens:
    """Run all layers with a prompt (l, d) that the first one reads."""

    def before_layer(i: int, tokens: Tokens) -> Tokens:
        if i > 0:
            return tokens
        # Here we are behind the norm that some encoders have before their first layer.
        return tokens.put("prompt", prompt, before=tokens.names[0])

    return stream.run(tokens, before_layer)


# [end]


# [context]
class GatedLinear(nn.Module):
    """A frozen linear, whose output is scaled for rows that lack a modality."""

    reads_tokens = True

    def __init__(self, frozen: nn.Linear):
        super().__init__()
        self.frozen = frozen
        self.scale = nn.Parameter(torch.ones(frozen.out_features))

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """Map (B, L, d_in) to (B, L, d_out)."""
        if "complete" not in tokens.context:
            raise RuntimeError("complete must be in the context of the tokens.")
        complete = tokens.context["complete"][:, None, None]  # (B, 1, 1)
        y = self.frozen(x)
        return torch.where(complete, y, self.scale * y)


def with_presence(tokens: Tokens, present: Tensor) -> Tokens:
    """Say which rows are complete, for the adapters of all layers."""
    return tokens.with_context(complete=present.all(dim=1))


# [end]


class PromptedModule(nn.Module):
    """A prompt and a gated last layer in each encoder, and a linear head."""

    def __init__(self, backbone: Backbone, n_outputs: int, length: int = 2):
        super().__init__()
        self.backbone = backbone
        self.prompts = nn.ParameterDict(
            {
                m: nn.Parameter(0.02 * torch.randn(length, backbone[m].width))
                for m in MODALITIES
            }
        )
        for stream in backbone.streams.values():
            last = stream.n_layers - 1
            stream.wrap(last, "down", GatedLinear(stream.linear(last, "down")))
            stream.thaw(lambda name: name.startswith("final_norm"))
        width = sum(stream.width for stream in backbone.streams.values())
        self.head = nn.Linear(width, n_outputs)

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the pooled rows side by side, (B, d)."""
        pooled = encode_streams(self.backbone, present, batch, self._pooled)
        return torch.cat(pooled, dim=1)

    def forward(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return logits, (B, n_outputs)."""
        return self.head(self.features(present, **batch))

    def _pooled(self, stream: Stream, present: Tensor, batch: dict) -> Tensor:
        tokens = with_presence(stream.embed(**batch), present)
        prompt = self.prompts[stream.modality]
        return stream.pool(run_with_prompt(stream, tokens, prompt))
