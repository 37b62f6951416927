"""A frozen model: its streams, and what is needed to prepare their inputs."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .host import COLUMNS
from .inputs import audio_fingerprint, image_fingerprint, text_fingerprint
from .stream import Stream


class Identity:
    """The fingerprint of one frozen stream, computed when first asked for.

    One object is shared by all copies of the stream, so it is computed once.
    """

    def __init__(self, stream: Stream):
        self._stream = stream
        self._value: str | None = None

    def __deepcopy__(self, memo: dict) -> Identity:
        return self

    @property
    def value(self) -> str:
        """A 256-bit hash of configuration and float32 weights, in hexadecimal."""
        if self._value is None:
            self._value = _fingerprint(self._stream)
        return self._value


def _hash(data: bytes):
    # Twice as fast as SHA-256 on a processor without instructions for that.
    return hashlib.blake2b(data, digest_size=32)


def _fingerprint(stream: Stream) -> str:
    total = _hash(json.dumps(stream.facts(), sort_keys=True).encode())
    in_layers = set()
    for name, tensor in stream.layer_parts():
        in_layers.add(id(tensor))
        total.update(name.encode() + _digest(tensor))
    # Tensors outside the layers count without their names, which change between
    # releases of transformers.
    others = [p for p in stream.parameters() if id(p) not in in_layers]
    for digest in sorted(map(_digest, others)):
        total.update(digest)
    return total.hexdigest()


def _digest(tensor: Tensor) -> bytes:
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    state = _hash(str(tuple(values.shape)).encode())
    state.update(memoryview(values.view(-1).numpy()))
    return state.digest()


class Backbone(nn.Module):
    """Frozen streams with their tokenizer and image settings.

    Get one from :func:`robustmm.load_backbone`. Its frozen parameters are the same
    objects in all copies, in ``copy.deepcopy`` as well.

    Attributes
    ----------
    streams : ModuleDict
        By name: ``"joint"``, or some of ``"image"``, ``"text"``, ``"audio"`` and
        ``"video"``; ``backbone["image"]`` is short for ``backbone.streams["image"]``.
    sources : dict of str to str
        Where each stream was loaded from, as given.
    image_config : dict or None
        What the checkpoint's ``preprocessor_config.json`` says about images, which the
        frames of a video are too.
    audio_config : dict or None
        The same about sound.
    tokenizer : transformers tokenizer or None
    max_text_length : int or None
        Longest text in tokens, special tokens included.
    second : Backbone or None
        Another frozen model, which prepares the cells in its own way and is no part of
        ``streams``; its sources are here as ``"second_image"`` and so on.

    Examples
    --------
    >>> from robustmm import load_backbone
    >>> backbone = load_backbone("robustmm/tiny-clip")
    >>> list(backbone.streams), "joint" in backbone
    (['image', 'text'], False)
    >>> backbone["text"].width
    128
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        *,
        sources: Mapping[str, str],
        identities: Mapping[str, Identity],
        image_config: dict | None = None,
        audio_config: dict | None = None,
        tokenizer=None,
        max_text_length: int | None = None,
        second: Backbone | None = None,
    ):
        super().__init__()
        self.streams = nn.ModuleDict(streams)
        self.sources = dict(sources)
        self.image_config = image_config
        self.audio_config = audio_config
        self.tokenizer = tokenizer
        self.max_text_length = max_text_length
        self._identities = dict(identities)
        self.second = second
        self._modalities: tuple[str, ...] | None = None
        if second is not None:
            self.sources |= {f"second_{m}": s for m, s in second.sources.items()}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The columns of ``present``, in order: image and text, or those of streams.

        To be set where rows have them in another order.
        """
        if self._modalities is not None:
            return self._modalities
        # One encoder of the two reads rows that have both.
        if set(self.streams) <= {"joint", *COLUMNS}:
            return tuple(COLUMNS)
        return tuple(self.streams)

    @modalities.setter
    def modalities(self, names: tuple[str, ...]) -> None:
        self._modalities = tuple(names)

    def __getitem__(self, name: str) -> Stream:
        if name not in self.streams:
            raise ValueError(
                f"A stream must be one of {list(self.streams)}, got {name!r}."
            )
        return self.streams[name]

    def __contains__(self, name: str) -> bool:
        return name in self.streams

    @property
    def fingerprint(self) -> str:
        """A 256-bit hash of configuration and frozen float32 weights, in hexadecimal.

        It does not depend on the path, the device or ``max_text_length``.
        """
        parts = {name: self._identities[name].value for name in sorted(self.streams)}
        if self.second is not None:
            parts["second"] = self.second.fingerprint
        return _hash(json.dumps(parts).encode()).hexdigest()

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of what prepares cells: ``"images"``, ``"audio"``, ``"tokenizer"``."""
        found = {}
        if self.image_config is not None:
            found["images"] = image_fingerprint(self.image_config)
        if self.audio_config is not None:
            found["audio"] = audio_fingerprint(self.audio_config)
        if self.tokenizer is not None:
            found["tokenizer"] = text_fingerprint(self.tokenizer)
        if self.second is not None:
            more = self.second.inputs
            found |= {f"second_{name}": value for name, value in more.items()}
        return found

    def with_second(self, second: Backbone) -> Backbone:
        """Return this model with another one beside it; both are taken over."""
        return type(self)(
            self.streams,
            sources=self.sources,
            identities=self._identities,
            image_config=self.image_config,
            audio_config=self.audio_config,
            tokenizer=self.tokenizer,
            max_text_length=self.max_text_length,
            second=second,
        )

    def part_from(self, source: str) -> Backbone:
        """Return the model that a source is of: this one, or the second."""
        second = self.second
        is_second = second is not None and source in second.sources.values()
        return second if is_second else self

    def is_same(self, name: str, stream: Stream) -> bool:
        """Tell whether a stream has the frozen weights of one of this backbone's."""
        return self._identities[name].value == Identity(stream).value

    def is_shared(self, tensor: Tensor) -> bool:
        """Tell whether a tensor belongs to the frozen model, shared by all copies."""
        parts = [*self.streams.values(), *filter(None, [self.second])]
        return any(part.is_shared(tensor) for part in parts)

    def copy(self) -> Backbone:
        """Return a module tree of its own around the same frozen parameters."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict) -> Backbone:
        memo[id(self.tokenizer)] = self.tokenizer
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    @classmethod
    def join(cls, **parts: Backbone) -> Backbone:
        """Combine streams of several backbones, each under the name of its stream.

        The streams are taken over, not copied.

        Parameters
        ----------
        **parts : Backbone
            Such as ``image=`` and ``text=``, or ``audio=`` and ``video=``.

        Raises
        ------
        ValueError
            If images and frames of videos are to be prepared in different ways.
        """
        pictures = [parts[name] for name in ("image", "video") if name in parts]
        settings = [part.image_config for part in pictures]
        if len(settings) == 2 and len(set(map(image_fingerprint, settings))) == 2:
            raise ValueError(
                "Images and frames of videos must be prepared in one way, got the "
                f"settings of {[part.sources for part in pictures]}."
            )
        audio, text = parts.get("audio"), parts.get("text")
        return cls(
            {name: part[name] for name, part in parts.items()},
            sources={name: part.sources[name] for name, part in parts.items()},
            identities={name: part._identities[name] for name, part in parts.items()},
            image_config=pictures[0].image_config if pictures else None,
            audio_config=None if audio is None else audio.audio_config,
            tokenizer=None if text is None else text.tokenizer,
            max_text_length=None if text is None else text.max_text_length,
        )


@contextmanager
def fitted_on(
    fingerprint: str, owner: str, inputs: dict[str, str] | None = None
) -> Iterator[Callable[[Backbone], Backbone]]:
    """Refuse a backbone that a classifier was not fitted on.

    Parameters
    ----------
    fingerprint : str
        That of the backbone it was fitted on.
    owner : str
        The name of the classifier's class.
    inputs : dict of str to str, optional
        The backbone's ``inputs``; models of the first release have none.

    Yields
    ------
    callable
        Returns the backbone it is given, if it is the same.

    Raises
    ------
    OSError
        If the backbone cannot be found inside the block.
    ValueError
        If it is another one.
    """

    def check(backbone: Backbone) -> Backbone:
        if backbone.fingerprint != fingerprint:
            raise ValueError(
                f"The backbone {backbone.sources} differs from the one this {owner} "
                f"was fitted on (fingerprint {backbone.fingerprint[:12]}, expected "
                f"{fingerprint[:12]}): put the original files back, or fit again."
            )
        if inputs is not None and inputs != backbone.inputs:
            raise ValueError(
                f"The tokenizer or the image settings of {backbone.sources} differ "
                f"from those this {owner} was fitted on: put the original files back, "
                "or fit again."
            )
        return backbone

    try:
        yield check
    except OSError as error:
        raise OSError(
            f"The backbone that this {owner} was fitted on (fingerprint "
            f"{fingerprint[:12]}) cannot be loaded: {error}"
        ) from error
