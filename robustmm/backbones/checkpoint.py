"""Find the files of a pretrained model and read them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .image_config import image_config

_PREFIX = "robustmm/"
_EMBEDDED = Path(__file__).parent / "embedded"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model")
_TIMEOUT = 5.0  # seconds to wait for the hub before giving up


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model whose configuration has been found.

    ``name`` is what was asked for, ``location`` what transformers is given: a folder
    or an identifier on the hub. ``key`` names the files and changes when they do.
    """

    name: str
    location: str
    key: str
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
        if not any(self._read(name) is not None for name in _TOKENIZER_FILES):
            raise OSError(
                f"A text encoder must come with its tokenizer, but {self.name!r} has "
                f"none of {list(_TOKENIZER_FILES)}: save it next to the weights with "
                "tokenizer.save_pretrained."
            )
        return AutoTokenizer.from_pretrained(
            self.location, local_files_only=self.local_only, trust_remote_code=False
        )

    def image_config(self) -> dict:
        """Read how images are prepared, with the architecture's defaults."""
        stored = self._read("preprocessor_config.json")
        if stored is None:
            stored = (self._read("processor_config.json") or {}).get("image_processor")
        return image_config(self.config, stored or {})

    def _read(self, filename: str) -> dict | str | None:
        return read_file(self.location, filename, self.local_only)


def find_checkpoint(name: str | Path, supported: tuple[str, ...]) -> Checkpoint:
    """Find a model by embedded name, as a folder, or on the hub."""
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
        key = f"{location} {_stamp(folder)}"
    else:
        location = key = name
        config, local_only = _from_hub(name, supported)
    if not isinstance(config, dict) or config.get("model_type") not in supported:
        found = config.get("model_type") if isinstance(config, dict) else None
        rule = f"A backbone must be of a supported architecture, {list(supported)}"
        raise ValueError(f"{rule}, got {found!r} in the config.json of {name!r}.")
    return Checkpoint(name, location, key, config, local_only)


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


def _from_hub(name: str, supported: tuple[str, ...]) -> tuple[dict, bool]:
    """Return the configuration of a model on the hub, and whether its cache is used."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    tried = [f"no folder {name!r} from {os.getcwd()!r}"]
    try:
        config = read_file(name, "config.json", local_only=True)
        if config is not None and _has_weights(name):
            return config, True
        tried.append("not in the local cache of the hub")
        if HF_HUB_OFFLINE:
            tried.append("the network was not asked, as HF_HUB_OFFLINE is set")
        else:
            # One request that gives up soon, before the many patient ones of loading.
            HfApi().model_info(name, timeout=_TIMEOUT)
            config = read_file(name, "config.json", local_only=False)
            if config is not None:
                return config, False
            tried.append("the hub has no config.json under this name")
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        tried.append(f"the hub answered {type(error).__name__}: {reason[0]}")
    raise OSError(
        f"The backbone {name!r} cannot be found: {'; '.join(tried)}. If this machine "
        "is offline, pass a local folder made with save_pretrained (model and "
        f"tokenizer) or an embedded name, {embedded_names()}. Supported architectures: "
        f"{list(supported)}."
    )


def _has_weights(name: str) -> bool:
    stems = ("model.safetensors", "model.safetensors.index.json")
    stems += ("pytorch_model.bin", "pytorch_model.bin.index.json")
    return any(read_file(name, stem, local_only=True) is not None for stem in stems)
