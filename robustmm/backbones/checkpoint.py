"""Find the files of a pretrained model and read them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .image_config import image_config

_PREFIX = "robustmm/"
_EMBEDDED = Path(__file__).parent / "embedded"
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model")
_IMAGE_SETTINGS = ("preprocessor_config.json", "processor_config.json")
_TIMEOUT = 5.0  # seconds to wait for the hub before giving up

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
        """Read the weights, as float32 whatever the files hold."""
        import torch
        from transformers import AutoModel

        try:
            model, report = AutoModel.from_pretrained(
                self.location,
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=self.local_only,
                trust_remote_code=False,
            )
        except OSError as error:
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

    def tokenizer(self):
        """Read the tokenizer."""
        from transformers import AutoTokenizer

        # Without files transformers would quietly make a tokenizer of no words.
        if not _has_any(self.location, _TOKENIZER, self.local_only):
            raise OSError(
                f"A text encoder must come with its tokenizer, but {self.name!r} has "
                f"none of {list(_TOKENIZER)}: save it next to the weights with "
                "tokenizer.save_pretrained."
            )
        return AutoTokenizer.from_pretrained(
            self.location, local_files_only=self.local_only, trust_remote_code=False
        )

    def image_config(self) -> dict:
        """Read how images are prepared, with the architecture's defaults."""
        own, combined = (
            read_file(self.location, name, self.local_only) for name in _IMAGE_SETTINGS
        )
        stored = own or (combined or {}).get("image_processor") or {}
        return image_config(self.config, stored)


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
        config = read_file(location, "config.json", local_only)
        stamp = _stamp(folder)
    else:
        location, stamp = name, ""
        config, local_only = _from_hub(name, offers)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in offers:
        rule = f"A backbone must be of a supported architecture, {list(offers)}"
        raise ValueError(f"{rule}, got {found!r} in the config.json of {name!r}.")
    return Checkpoint(name, location, stamp, config, local_only)


def embedded_names() -> list[str]:
    """Return the names of the backbones inside the package."""
    return sorted(
        _PREFIX + config.parent.name for config in _EMBEDDED.glob("*/config.json")
    )


def read_file(location: str, filename: str, local_only: bool) -> dict | str | None:
    """Return the content of a JSON file, the path of another file, None if absent."""
    from transformers.utils import cached_file

    path = cached_file(
        location,
        filename,
        local_files_only=local_only,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None or not filename.endswith("config.json"):
        return path
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{filename} of {location!r} must be JSON: {error}."
        ) from error


def _folder(name: str) -> Path | None:
    """Return the folder a name stands for, None if it can only be on the hub."""
    inside = name.removeprefix(_PREFIX)
    if name.startswith(_PREFIX) and not Path(name).is_dir():
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
        config = read_file(name, "config.json", local_only=True)
        lacking = _not_cached(name, config, offers)
        if not lacking:
            return config, True
        tried.append(f"the hub's local cache has none of {lacking[0]}")
        fresh, answer = _ask_hub(name)
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        fresh, answer = None, f"the hub answered {type(error).__name__}: {first_line}"
    if fresh is not None:
        return fresh, False
    reasons = "; ".join([*tried, answer])
    raise OSError(
        f"The backbone {name!r} cannot be found: {reasons}. If this machine is "
        "offline, pass a local folder made with save_pretrained (model and tokenizer) "
        f"or an embedded name, {embedded_names()}. Supported architectures: "
        f"{list(offers)}."
    )


def _ask_hub(name: str) -> tuple[dict | None, str]:
    """Return the configuration the hub has, or why there is none."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return None, "the hub was not asked, as HF_HUB_OFFLINE is set"
    # One request that gives up soon, before the many patient ones of loading.
    HfApi().model_info(name, timeout=_TIMEOUT)
    config = read_file(name, "config.json", local_only=False)
    return config, "the hub has no config.json under this name"


def _not_cached(name: str, config: dict | None, offers: Offers) -> list[list[str]]:
    """Return the groups of alternative files that are not in the hub's cache."""
    if config is None:
        return [["config.json"]]
    streams = set(offers.get(config.get("model_type"), ()))
    groups = [_WEIGHTS]
    groups += [_TOKENIZER] if {"joint", "text"} & streams else []
    groups += [_IMAGE_SETTINGS] if {"joint", "image"} & streams else []
    return [list(g) for g in groups if not _has_any(name, g, local_only=True)]


def _has_any(location: str, filenames: tuple[str, ...], local_only: bool) -> bool:
    return any(read_file(location, f, local_only) is not None for f in filenames)
