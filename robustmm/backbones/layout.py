"""Where the parts of a transformer layer are, per architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Where the parts of a transformer layer are, as paths inside it.

    ``norms`` stand before attention and feed-forward where ``pre_norm``, else after
    the two residual sums. ``scales`` multiply the two updates (DINOv2). ``gate`` is the
    second linear of a gated feed-forward, activated instead of ``up``.
    """

    name: str
    linears: dict[str, str]
    activation: str
    norms: tuple[str, str]
    pre_norm: bool = True
    scales: tuple[str, str] | None = None
    gate: str | None = None

    def paths(self) -> list[str]:
        """All parts that hold parameters, in a fixed order."""
        gate = () if self.gate is None else (self.gate,)
        return [*self.linears.values(), *self.norms, *(self.scales or ()), *gate]
