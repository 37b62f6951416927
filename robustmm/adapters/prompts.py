"""Prompts for a joint encoder: by what a row has, or read from a memory.

Everything here is indexed or multiplied for the whole batch at once. Of a prompt that
depends only on which modalities a row has there are three versions, so three are
computed, and indexed by :func:`pattern_index`. All prompts start from a random normal:
a constant row, as in the public code of missing-aware prompts, is a zero vector behind
a layer norm, whose gradient Hugging Face's eps of 1e-12 multiplies by a million; Adam
would remember that first gradient for hundreds of steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .head import init_linears
from .whole_batch import mean_of_rows

# What a row has: all, no text, no image.
N_PATTERNS = 3


def pattern_index(present: Tensor) -> Tensor:
    """Return 0 for a complete row, 1 where the text is missing, 2 for the image.

    ``present`` (B, 2) says whether a row has (image, text). A row with neither, whose
    output nobody reads, counts as 2.

    Examples
    --------
    >>> pattern_index(torch.tensor([[True, True], [True, False], [False, True]]))
    tensor([0, 1, 2])
    """
    image, text = present.unbind(dim=1)
    return torch.where(image, (~text).long(), 2)


def sum_present(prompts: Tensor) -> Tensor:
    """Add the prompts of the modalities that are there, (2, l, d) -> (3, l, d).

    ``prompts`` is in the order (image, text), the result in that of
    :func:`pattern_index`.

    Examples
    --------
    >>> sum_present(torch.tensor([[[1.0]], [[2.0]]])).flatten()
    tensor([3., 1., 2.])
    """
    image, text = prompts
    return torch.stack([image + text, image, text])


def normal_prompts(*shape: int) -> nn.Parameter:
    """Return a trained tensor that starts as N(0, 0.02^2).

    Examples
    --------
    >>> normal_prompts(2, 4, 8).shape
    torch.Size([2, 4, 8])
    """
    return nn.Parameter(0.02 * torch.randn(*shape))


def layer_indices(name: str, layers: int | Iterable[int], n_layers: int) -> list[int]:
    """Return the layers that a parameter means: the first n, or those it lists.

    Of a backbone with fewer than n layers, all of them.

    Raises
    ------
    ValueError, TypeError
        If they are no number, and no different layers of a backbone of ``n_layers``.

    Examples
    --------
    >>> layer_indices("prompt_layers", 3, n_layers=12)
    [0, 1, 2]
    >>> layer_indices("prompt_layers", (2, 5), n_layers=12)
    [2, 5]
    """
    # True is an Integral as well, and would mean the first layer.
    if isinstance(layers, Integral) and not isinstance(layers, bool):
        if layers < 0:
            raise ValueError(f"{name} must not be negative, got {layers!r}.")
        return list(range(min(layers, n_layers)))
    if isinstance(layers, str | bytes) or not isinstance(layers, Iterable):
        raise TypeError(
            f"{name} must be an integer or a sequence of layers, got {layers!r}."
        )
    indices = list(layers)
    known = range(n_layers)
    if any(isinstance(i, bool) or i not in known for i in indices):
        raise ValueError(
            f"{name} must list layers in [0, {n_layers - 1}] of the backbone, got "
            f"{layers!r}."
        )
    if len(set(indices)) < len(indices):
        raise ValueError(f"{name} must list each layer once, got {layers!r}.")
    return sorted(int(i) for i in indices)


def add_prompt(tokens, name: str, prompt: Tensor, prompt_type: str):
    """Add a prompt (B, l, d) to what enters a layer.

    Parameters
    ----------
    tokens : Tokens
        What enters the layer.
    name : str
        Name of the new segment.
    prompt : Tensor of shape (B, l, d)
    prompt_type : {"input", "attention"}
        ``"input"`` puts it in front, as a segment that stays. ``"attention"`` puts its
        first half beside the keys and its second half beside the values of this layer.

    Examples
    --------
    >>> from robustmm.backbones import Tokens
    >>> tokens = Tokens(torch.randn(3, 5, 8), None, {"text": (0, 5)})
    >>> longer = add_prompt(tokens, "prompt", torch.randn(3, 2, 8), "input")
    >>> longer.names, longer["prompt"].shape
    (('prompt', 'text'), torch.Size([3, 2, 8]))
    """
    if prompt_type == "attention":
        return tokens.with_prefix(*prompt.chunk(2, dim=1))
    # Nobody has to count what stands in front now: the pooled token is found by the
    # name of its segment.
    return tokens.insert(name, prompt, before=tokens.names[0])


class PromptMemory(nn.Module):
    r"""A memory of prompts that is read by similarity (MemPrompt [1]_).

    With :math:`K` prompts :math:`p_k` and keys :math:`q_k`, a query :math:`f` reads
    :math:`\sum_{k \in T} w_k p_k` (equation 6), where :math:`T` are the ``top_k``
    nearest keys and :math:`w` the softmax of :math:`\cos(f, q_k)` (equation 5): over
    :math:`T`, as in the authors' code, or over all :math:`K`, as printed.

    Parameters
    ----------
    size : int
        :math:`K`.
    length, width : int
        Shape of a prompt.
    top_k : int
        Prompts that are added.
    renormalize : bool
        Whether the softmax runs over the chosen ones, so that weights sum to 1.
    temperature : float
        The cosines are divided by it.
    center : bool
        Whether a running mean of the queries, kept while training, is taken from them
        first: pooled hidden states point nearly the same way for all rows.

    Notes
    -----
    Shapes: ``prompts`` (K, l, d), ``keys`` (K, d); query (B, d), result (B, l, d).

    References
    ----------
    .. [1] Zhao et al., "Enhancing Multimodal Model Robustness Under Missing Modalities
       via Memory-Driven Prompt Learning", IJCAI 2025.

    Examples
    --------
    >>> memory = PromptMemory(size=4, length=2, width=8, top_k=3)
    >>> memory(torch.randn(5, 8)).shape
    torch.Size([5, 2, 8])
    >>> (memory.weights(torch.randn(5, 8)) > 0).sum(dim=1)
    tensor([3, 3, 3, 3, 3])
    """

    def __init__(
        self,
        size: int,
        length: int,
        width: int,
        top_k: int,
        renormalize: bool = True,
        temperature: float = 1.0,
        center: bool = False,
    ):
        super().__init__()
        self.top_k = top_k
        self.renormalize = renormalize
        self.temperature = temperature
        self.prompts = nn.Parameter(torch.empty(size, length, width))
        self.keys = nn.Parameter(torch.empty(size, width))
        for tensor in (self.prompts, self.keys):
            # As in the authors' code: a deviation of 0.005 for prompts, as torch takes
            # l * d for the fan-in of a tensor (K, l, d), and 0.02 for keys.
            nn.init.kaiming_normal_(tensor, a=math.sqrt(5))
        self.center = center
        if center:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("n_batches", torch.zeros(()))

    def forward(self, query: Tensor) -> Tensor:
        """Read prompts (B, l, d) for queries (B, d), with one matrix product."""
        read = self.weights(query) @ self.prompts.flatten(1)  # (B, l * d)
        return read.unflatten(1, self.prompts.shape[1:])

    def weights(self, query: Tensor) -> Tensor:
        """Return the weight of every entry, (B, K), zero where it is not read."""
        # Not in half precision, which would make ties of what are different entries.
        with torch.autocast(query.device.type, enabled=False):
            if self.center:
                query = self._centred(query.float())
            keys = F.normalize(self.keys.float(), dim=1)  # (K, d)
            cosines = F.normalize(query.float(), dim=1) @ keys.T / self.temperature
        best, places = cosines.topk(self.top_k, dim=1)  # (B, top_k)
        if self.renormalize:
            chosen = best.softmax(dim=1)
        else:
            chosen = cosines.softmax(dim=1).gather(1, places)
        return torch.zeros_like(cosines).scatter(1, places, chosen)

    def _centred(self, query: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                # Of the first batches all, later the last ones: queries drift.
                self.n_batches += 1
                step = (1 / self.n_batches).clamp(min=0.1)
                self.mean += step * (mean_of_rows(query) - self.mean)
        return query - self.mean


class SharedPrompts(nn.Module):
    r"""One prompt mapped into each modality (MemPrompt [1]_, equation 7).

    :math:`p_m = G_m(s)`, with :math:`G_m` a bottleneck of width :math:`d / 16`. The
    paper has one :math:`s` per layer; the authors' code has one per modality and adds
    those of the modalities that a row has.

    Parameters
    ----------
    length, width : int
        Shape of a prompt.
    by_pattern : bool
        Whether :math:`s` depends on what a row has.
    init : {"normal", "scaled"}
        Bottlenecks of deviation 0.02, as in the authors' code, whose outputs are so
        small that their last bias soon says all; or of :math:`1 / \sqrt{d_{in}}`, and
        without that bias.

    Notes
    -----
    Shapes: ``sources`` (2 or 1, l, d), in the order (image, text); result (B, l, d)
    for each modality.

    References
    ----------
    .. [1] Zhao et al., "Enhancing Multimodal Model Robustness Under Missing Modalities
       via Memory-Driven Prompt Learning", IJCAI 2025.

    Examples
    --------
    >>> prompts = SharedPrompts(length=2, width=32)(torch.tensor([0, 1, 2, 0]))
    >>> prompts["text"].shape, prompts["image"].shape
    (torch.Size([4, 2, 32]), torch.Size([4, 2, 32]))
    """

    def __init__(
        self, length: int, width: int, by_pattern: bool = True, init: str = "normal"
    ):
        super().__init__()
        self.by_pattern = by_pattern
        self.sources = normal_prompts(2 if by_pattern else 1, length, width)
        self.maps = nn.ModuleDict(
            {m: _bottleneck(width, init) for m in ("text", "image")}
        )

    def forward(self, pattern: Tensor) -> dict[str, Tensor]:
        """Return the prompts of each modality for patterns (B,)."""
        if self.by_pattern:
            distinct = sum_present(self.sources)
        else:
            distinct, pattern = self.sources, torch.zeros_like(pattern)
        # Three prompts are mapped, whatever the batch; the authors' code maps each
        # row's.
        return {
            m: to_modality(distinct)[pattern] for m, to_modality in self.maps.items()
        }


def _bottleneck(width: int, init: str) -> nn.Sequential:
    # The configuration of the authors' code says 8, which nothing there reads.
    narrow, scaled = max(1, width // 16), init == "scaled"
    layers = nn.Sequential(
        nn.Linear(width, narrow), nn.GELU(), nn.Linear(narrow, width, bias=not scaled)
    )
    init_linears(layers)
    if scaled:
        for linear in (layers[0], layers[2]):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    return layers
