"""What is tried by default: what stands on the given encoders, cheap ones first.

A method's ``STREAMS`` say what it stands on; what it is tried with, and how much it
costs beside a linear probe, stands in one table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import torch
from sklearn.base import BaseEstimator, clone

from ..backbones import Backbone, MissingStream, load_backbone
from ..base import BaseMultimodalClassifier
from ..data.frame import MODALITIES
from ..methods.cmpt import CMPTClassifier
from ..methods.fine_tune import FineTuneClassifier
from ..methods.linear_probe import LinearProbeClassifier
from ..methods.mail import MAILClassifier
from ..methods.mora import MoRAClassifier
from ..table import TableClassifier
from .baselines import PriorClassifier, TfidfClassifier

logger = logging.getLogger("robustmm")


@dataclass(frozen=True)
class Candidate:
    """One estimator to try.

    Attributes
    ----------
    name : str
        What the leaderboard calls it.
    estimator : classifier
        Not fitted, never fitted itself.
    family : str
        What candidates share that differ in a rate only: the best of them is kept.
    cost : float
        Seconds of an epoch beside those of a linear probe of the same rows, roughly.
    order : int
        Which of the rates of its family it has; the first ones are tried first.
    """

    name: str
    estimator: BaseEstimator
    family: str
    cost: float = 0.0
    order: int = 0

    @property
    def epochs(self) -> int | None:
        """Passes over the rows; None for what is not trained in epochs."""
        return self.estimator.get_params(deep=False).get("max_epochs")


@dataclass(frozen=True)
class Recipe:
    """A method, and what it is tried with: the likeliest value first."""

    name: str
    cls: type[BaseMultimodalClassifier]
    parameter: str
    values: tuple[float, ...]
    cost: float
    fixed: dict = field(default_factory=dict)
    # Also on the image encoder of one checkpoint and the text encoder of another.
    on_pairs: bool = False


# Rates that won, and the cost of an epoch, on 600 rows of fashion products with the
# embedded encoders; smaller rates for larger encoders.
RECIPES = (
    Recipe("probe", LinearProbeClassifier, "C", (0.1, 1.0, 0.01), 1, on_pairs=True),
    Recipe("LoRA", FineTuneClassifier, "lr", (3e-3, 1e-3), 1.3, {"tune": "lora"}),
    Recipe("MoRA", MoRAClassifier, "lr", (3e-2, 1e-2, 3e-3), 1.3),
    Recipe("MAIL", MAILClassifier, "lr", (3e-3, 1e-3), 2),
    Recipe("CMPT", CMPTClassifier, "lr", (1e-2, 3e-3, 1e-3), 2.5, on_pairs=True),
    Recipe(
        "full",
        FineTuneClassifier,
        "backbone_lr",
        (3e-4, 1e-4, 3e-5),
        3,
        {"tune": "full"},
    ),
)


def default_candidates(
    backbones: Sequence[str | Path],
    shared: dict,
    max_epochs: int,
    device: torch.device,
) -> list[Candidate]:
    """Return what is tried on these encoders, in the order in which it is.

    Parameters
    ----------
    backbones : sequence of str or path-like
        Any mixture of checkpoints.
    shared : dict
        Parameters that all candidates get that have them.
    max_epochs : int
        Passes over the rows.
    device : torch.device
        Where the encoders are loaded, which tells what can stand on them.
    """
    offers = {b: _offers(b, device, shared.get("max_text_length")) for b in backbones}
    modalities = tuple(shared.get("modalities", MODALITIES))
    found = [Candidate("prior", PriorClassifier(), "prior")]
    if "text" in modalities:
        found += [
            Candidate(f"TF-IDF, C={C:g}", TfidfClassifier(C=C), "TF-IDF", 0.0, i)
            for i, C in enumerate((5.0, 0.5))
        ]
    for recipe in RECIPES:
        if modalities != MODALITIES:
            if "modalities" not in recipe.cls().get_params(deep=False):
                continue
            fixed = {**recipe.fixed, "modalities": modalities}
            recipe = replace(recipe, fixed=fixed)
        for stand in _stands(recipe, offers, device):
            found += _of_recipe(recipe, stand)
    for candidate in found:
        give(candidate.estimator, {**shared, "max_epochs": max_epochs})
    # First each method with its likeliest rate: with little time, different methods are
    # worth more than rates of one.
    return sorted(found, key=lambda c: (c.cost > 1 and c.order > 0, c.cost, c.order))


def give(estimator: BaseEstimator, params: dict) -> None:
    """Set those of ``params`` that an estimator has."""
    taken = estimator.get_params(deep=False)
    estimator.set_params(**{k: v for k, v in params.items() if k in taken})


def check_given(candidates) -> tuple[list[tuple], bool]:
    """Return the user's pairs, and whether the default ones are tried as well.

    Raises
    ------
    ValueError
        For what is neither, and for names that are not distinct.
    """
    listed = [candidates] if isinstance(candidates, str) else candidates
    listed = list(listed) if isinstance(listed, list | tuple) else []
    pairs = [tuple(p) for p in listed if isinstance(p, list | tuple)]
    words = [item for item in listed if item == "default"]
    proper = all(
        len(p) == 2
        and isinstance(p[0], str)
        and hasattr(p[1], "fit")
        and not isinstance(p[1], type)
        for p in pairs
    )
    if not listed or not proper or len(pairs) + len(words) < len(listed):
        raise ValueError(
            'candidates must be "default" or a list of (name, classifier), got '
            f"{candidates!r:.200}."
        )
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names) or "ensemble" in names:
        raise ValueError(
            f'Names of candidates must differ, also from "ensemble", got {names}.'
        )
    return pairs, bool(words)


def given_candidates(pairs: Sequence[tuple], shared: dict) -> list[Candidate]:
    """Return the user's candidates, copied; in their order, those of epochs last.

    What one of this package's classifiers leaves at its default of ``shared`` is taken
    from there.
    """
    found = []
    for name, estimator in pairs:
        estimator = clone(estimator)
        if isinstance(estimator, TableClassifier):
            fresh, own = type(estimator)(), estimator.get_params(deep=False)
            left = {k for k in shared if k in own and own[k] == getattr(fresh, k)}
            give(estimator, {k: shared[k] for k in left - {"batch_size"}})
        found.append(Candidate(name, estimator, name))
    return sorted(found, key=lambda c: c.epochs is not None)


def _offers(backbone: str | Path, device: torch.device, length) -> tuple[str, ...]:
    return tuple(load_backbone(backbone, device=device, max_text_length=length).streams)


def _stands(recipe: Recipe, offers: dict, device: torch.device) -> Iterator[dict]:
    """Yield the encoders that a method can stand on, as parameters."""
    for stand in _combinations(recipe, offers):
        estimator = recipe.cls(**stand, **recipe.fixed)
        try:
            estimator._open_backbone(device)
        except (MissingStream, ValueError) as error:
            logger.info("%s is not tried on %s: %s", recipe.name, stand, error)
        else:
            yield stand


def _combinations(recipe: Recipe, offers: dict) -> Iterator[dict]:
    """Yield single checkpoints and pairs of an image and a text encoder."""
    names = recipe.cls().get_params(deep=False)
    if "modalities" in recipe.fixed:
        yield from _by_modality(recipe, offers)
        return
    needed = set(recipe.cls.STREAMS or ())
    two = {"image", "text"}
    alone = [b for b, streams in offers.items() if needed <= set(streams)]
    whole = [b for b in alone if two <= set(offers[b])]
    pairs = [
        (i, t)
        for i, t in product(offers, repeat=2)
        # Two checkpoints that have both would make pairs of everything.
        if "image" in offers[i] and offers[t] == ("text",)
    ]
    if "image_backbone" in names:
        # Its own text encoder where there is no other.
        for i, t in pairs or [(b, b) for b in whole]:
            yield {"image_backbone": i, "text_backbone": t}
        return
    paired = {b for pair in pairs for b in pair}
    for b in alone:
        # Half of a pair is tried only where it is all there is.
        if b in whole or b not in paired:
            yield {"backbone": b}
    for i, t in pairs:
        if "text_backbone" in names and (recipe.on_pairs or offers[i] == ("image",)):
            yield {"backbone": i, "text_backbone": t}


def _by_modality(recipe: Recipe, offers: dict) -> Iterator[dict]:
    """Yield an encoder for each modality, in all combinations."""
    modalities = recipe.fixed["modalities"]
    estimator = recipe.cls(modalities=modalities)
    # Frames of a video are read by an encoder of images.
    stream = {name: "image" if name == "video" else name for name in modalities}
    fitting = [[b for b in offers if stream[name] in offers[b]] for name in modalities]
    parameters = [
        "text_backbone" if name == "text" else estimator._encoder_of(name)
        for name in modalities
    ]
    for chosen in product(*fitting):
        yield dict(zip(parameters, chosen, strict=True))


def _of_recipe(recipe: Recipe, stand: dict) -> list[Candidate]:
    """Return a candidate for each of a method's rates."""
    where = " + ".join(dict.fromkeys(Path(str(b)).name for b in stand.values()))
    family = f"{recipe.name}, {where}"
    return [
        Candidate(
            f"{family}, {recipe.parameter}={value:g}",
            recipe.cls(**stand, **recipe.fixed, **{recipe.parameter: value}),
            family,
            recipe.cost,
            i,
        )
        for i, value in enumerate(recipe.values)
    ]


def backbones_of(
    candidates: Sequence[Candidate], device: torch.device
) -> Iterator[Backbone]:
    """Yield the encoders of the candidates that have some."""
    for candidate in candidates:
        if isinstance(candidate.estimator, BaseMultimodalClassifier):
            try:
                yield candidate.estimator._open_backbone(device)
            except (ValueError, OSError):
                continue  # its fit will say so


def image_config_of(
    candidates: Sequence[Candidate], device: torch.device
) -> dict | None:
    """Return how the first candidate that opens images reads them, if any does."""
    found = backbones_of(candidates, device)
    return next((b.image_config for b in found if b.image_config is not None), None)
