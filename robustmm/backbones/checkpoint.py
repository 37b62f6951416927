"""Find the files of a pretrained model and read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .audio_config import audio_config
from .hub import ask_hub, has_any, read_json, token_note
from .image_config import image_config
from .model_config import check_config, model_config
from .revisions import EMBEDDED, split
from .tokenizer_config import TOKENIZER, read_tokenizer
from .weights import WEIGHTS, check_room, read_weights

_EMBEDDED = Path(__file__).parent / "embedded"
_CELL_SETTINGS = ("preprocessor_config.json", "processor_config.json")

Offers = Mapping[str, tuple[str, ...]]  # architecture -> names of its streams


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model whose configuration has been found.

    ``name`` is what was asked for, ``location`` what transformers is given: a folder
    or an identifier on the hub. ``stamp`` changes when the files do.
    """

    name: str
    location: str
    stamp: str
    config: dict
    local_only: bool

    @property
    def architecture(self) -> str:
        """The model type of Hugging Face."""
        return self.config["model_type"]

    def model(self) -> nn.Module:
        """Read the weights, as float32 whatever the files hold.

        Transformers is given a configuration and tensors, and no folder: it would also
        follow adapters, kernels and pickles that it finds there.
        """
        import torch
        from transformers import AutoModel

        config = self._full_config()
        try:
            arrays = read_weights(self.location, self.local_only)
            with torch.device("meta"):
                empty = AutoModel.from_config(config)
            check_room(empty, arrays)
            model, report = type(empty).from_pretrained(
                None,
                config=config,
                state_dict=arrays,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:
            raise OSError(
                f"The weights of {self.name!r} cannot be read: {error}"
            ) from error
        missing = sorted(report["missing_keys"])
        if any(name.startswith("pooler.") for name in missing):
            # It would be random: better none at all.
            model.pooler = None
        needed = [name for name in missing if not name.startswith("pooler.")]
        if needed or report["mismatched_keys"]:
            wrong = needed or [entry[0] for entry in report["mismatched_keys"]]
            raise OSError(
                f"The files of {self.name!r} must hold all weights of a "
                f"{self.architecture!r} model; {len(wrong)} are missing or of another "
                f"shape, the first is {wrong[0]!r}."
            )
        return model

    def _full_config(self):
        try:
            return model_config(self.config)
        except ValueError as error:
            raise ValueError(
                f"The backbone {self.name!r} cannot be used: {error}"
            ) from error

    def tokenizer(self):
        """Read the tokenizer."""
        # Without files transformers would quietly make a tokenizer of no words.
        if not has_any(self.location, TOKENIZER, self.local_only):
            raise OSError(
                f"A text encoder must come with its tokenizer, but {self.name!r} has "
                f"none of {list(TOKENIZER)}: save it next to the weights with "
                "tokenizer.save_pretrained."
            )
        config = self._full_config()
        try:
            return read_tokenizer(self.location, config, self.local_only)
        except (OSError, ValueError) as error:
            raise OSError(
                f"The tokenizer of {self.name!r} cannot be read: {error}"
            ) from error

    def image_config(self) -> dict:
        """Read how images are prepared, with the architecture's defaults."""
        try:
            return image_config(self.config, self._settings("image_processor"))
        except ValueError as error:
            raise ValueError(
                f"The image settings of {self.name!r} cannot be used: {error}"
            ) from error

    def audio_config(self) -> dict:
        """Read how sound is prepared, with the architecture's defaults."""
        try:
            return audio_config(self.config, self._settings("feature_extractor"))
        except ValueError as error:
            raise ValueError(
                f"The audio settings of {self.name!r} cannot be used: {error}"
            ) from error

    def _settings(self, part: str) -> dict:
        """Return what a file of its own says, or a part of a common one; or nothing."""
        own, combined = (
            read_json(self.location, name, self.local_only) for name in _CELL_SETTINGS
        )
        combined = combined if isinstance(combined, dict) else {}
        stored = own or combined.get(part)
        return stored if isinstance(stored, dict) else {}


def find_checkpoint(name: str | Path, offers: Offers) -> Checkpoint:
    """Find a model by embedded name, as a folder, or on the hub.

    ``offers`` are the supported architectures with the streams each has.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(name, str) or not name:
        raise ValueError(
            "A backbone must be a name or a path, as a non-empty str or path-like, "
            f"got {name!r}."
        )
    folder = _folder(name)
    if folder is not None:
        location, local_only = str(folder), True
        config = read_json(location, "config.json", local_only)
        stamp = _stamp(folder)
    else:
        split(name)  # raises where what is behind an "@" is no revision
        location, stamp = name, ""
        config, local_only = _from_hub(name, offers)
    found = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(found, str) or found not in offers:
        rule = f"A backbone must be of a supported architecture, {list(offers)}"
        raise ValueError(f"{rule}, got {found!r} in the config.json of {name!r}.")
    try:
        check_config(config)
    except ValueError as error:
        raise ValueError(f"The backbone {name!r} cannot be used: {error}") from error
    return Checkpoint(name, location, stamp, config, local_only)


def embedded_names() -> list[str]:
    """Return the names of the backbones inside the package."""
    return sorted(
        EMBEDDED + config.parent.name for config in _EMBEDDED.glob("*/config.json")
    )


def _folder(name: str) -> Path | None:
    """Return the folder a name stands for, None if it can only be on the hub."""
    inside = name.removeprefix(EMBEDDED)
    if name.startswith(EMBEDDED) and not Path(name).is_dir():
        if name not in embedded_names():
            raise ValueError(
                f"An embedded backbone must be one of {embedded_names()}, got {name!r}."
            )
        return _EMBEDDED / inside
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    if not (folder / "config.json").is_file():
        raise OSError(
            "A backbone's folder must hold a config.json, as save_pretrained writes, "
            f"got {str(folder)!r}."
        )
    return folder.resolve()


def _stamp(folder: Path) -> str:
    """Describe the state of the files, so that overwritten ones are read again."""
    kinds = (".json", ".safetensors", ".bin", ".txt", ".model")
    files = sorted(f for f in folder.iterdir() if f.suffix in kinds and f.is_file())
    return str([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])


def _from_hub(name: str, offers: Offers) -> tuple[dict, bool]:
    """Return the configuration of a model on the hub, and whether it is all cached."""
    tried = [f"no folder {name!r} from {os.getcwd()!r}"]
    try:
        config = read_json(name, "config.json", local_only=True)
        lacking = _not_cached(name, config, offers)
        if not lacking:
            return config, True
        tried.append(f"the hub's local cache has none of {lacking[0]}")
        answer = ask_hub(name)
        if not answer:
            config = read_json(name, "config.json", local_only=False)
            if config is not None:
                return config, False
            answer = "the hub has no config.json under this name"
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        answer = f"the hub answered {type(error).__name__}: {first_line}"
    reasons = "; ".join([*tried, answer + token_note()])
    raise OSError(
        f"The backbone {name!r} cannot be found: {reasons}. If this machine is "
        "offline, pass a local folder made with save_pretrained (model and tokenizer) "
        f"or an embedded name, {embedded_names()}. Supported architectures: "
        f"{list(offers)}."
    )


def _not_cached(name: str, config: dict | None, offers: Offers) -> list[list[str]]:
    """Return the groups of alternative files that are not in the hub's cache."""
    if config is None:
        return [["config.json"]]
    streams = set(offers.get(config.get("model_type"), ()))
    groups = [WEIGHTS]
    groups += [TOKENIZER] if {"joint", "text"} & streams else []
    groups += [_CELL_SETTINGS] if {"joint", "image", "audio"} & streams else []
    return [list(g) for g in groups if not has_any(name, g, local_only=True)]
