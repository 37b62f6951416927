"""``robustmm info``: what is installed here, or what is in a model."""

from __future__ import annotations

import argparse
import inspect
import platform
import re
import sys
from importlib import resources
from importlib.metadata import PackageNotFoundError, version

import torch

import robustmm

from .settings import DEFAULT_METHOD, known_methods

LIBRARIES = (
    "torch",
    "transformers",
    "scikit-learn",
    "skorch",
    "pandas",
    "numpy",
    "pillow",
)


def info(arguments: argparse.Namespace) -> None:
    """Print facts of the installation, or of a saved model."""
    facts = _installation() if arguments.model is None else _model(arguments.model)
    for title, lines in facts.items():
        width = max((len(name) for name, _ in lines), default=0)
        text = "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)
        sys.stdout.write(f"{title}\n{text}\n")


def _installation() -> dict[str, list[tuple[str, str]]]:
    return {
        "Versions": [
            ("robustmm", robustmm.__version__),
            ("python", platform.python_version()),
            *((name, _version(name)) for name in LIBRARIES),
        ],
        "Devices": list(_devices()),
        "Embedded backbones": [
            (
                f"robustmm/{folder.name}",
                "for learning the interface, not for photographs",
            )
            for folder in sorted(
                resources.files("robustmm.backbones").joinpath("embedded").iterdir(),
                key=lambda folder: folder.name,
            )
            if folder.is_dir()
        ],
        "Methods": [
            (name, _summary(cls) + (" (default)" if name == DEFAULT_METHOD else ""))
            for name, cls in sorted(known_methods().items())
        ],
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _devices():
    yield "cpu", f"{torch.get_num_threads()} threads"
    for i in range(torch.cuda.device_count()):
        yield f"cuda:{i}", torch.cuda.get_device_name(i)
    if torch.backends.mps.is_available():
        yield "mps", "Apple"


def _summary(cls: type) -> str:
    first = inspect.getdoc(cls).splitlines()[0]
    return re.sub(r"\s*\[\d+\]_", "", first)


def _model(path: str) -> dict[str, list[tuple[str, str]]]:
    # Nothing is computed, so any machine will do.
    model = robustmm.load(path, device="cpu")
    parameters = model.get_params(deep=False)
    classes = [str(name) for name in getattr(model, "classes_", [])]
    facts = [
        (
            "classes",
            f"{len(classes)}: {', '.join(classes[:10])}"
            + (", ..." * (len(classes) > 10)),
        )
    ]
    for name in ("n_iter_", "n_parameters_", "n_trainable_parameters_"):
        if hasattr(model, name):
            facts.append((name, f"{getattr(model, name):,}"))
    if hasattr(model, "missing_report_"):
        counts = {k: v for k, v in model.missing_report_.items() if k != "bad_images"}
        facts.append(("training rows", str(counts)))
    # "auto" where it was loaded for this command alone.
    parameters.pop("device", None)
    return {
        type(model).__name__: facts,
        "Parameters": [(name, repr(value)) for name, value in parameters.items()],
    }
