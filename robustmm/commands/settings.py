"""The classifier that a command line asks for."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect

import robustmm

# What `fit` fits where no --method is given.
DEFAULT_METHOD = "AutoMultimodalClassifier"
# Options whose names are those of parameters, where a class has them.
SHARED = ("image_column", "text_column", "image_backbone", "text_backbone", "device")


class UsageError(Exception):
    """Words that no command can mean; exit code 2, with the usage."""


def known_methods() -> dict[str, type]:
    """Return the classifiers of the namespace that can be made from options alone."""
    found = {}
    for name, thing in vars(robustmm).items():
        complete = inspect.isclass(thing) and not inspect.isabstract(thing)
        if complete and name.endswith("Classifier") and hasattr(thing, "predict"):
            taken = inspect.signature(thing).parameters.values()
            if all(p.default is not p.empty for p in taken):
                found[name] = thing
    return found


def find_method(name: str) -> type:
    """Return a classifier by name, with or without the ``Classifier`` at its end.

    Examples
    --------
    >>> find_method("mail").__name__
    'MAILClassifier'
    """
    by_name = {
        key.lower(): cls
        for full, cls in known_methods().items()
        for key in (full, full.removesuffix("Classifier"))
    }
    if name.lower() not in by_name:
        raise UsageError(
            f"--method must be one of {sorted(known_methods())}, got {name!r}."
        )
    return by_name[name.lower()]


def parse_setting(words: str) -> tuple[str, object]:
    """Read ``NAME=VALUE``; a value that is no Python literal is a text.

    Examples
    --------
    >>> parse_setting("rank=8"), parse_setting("class_weight=balanced")
    (('rank', 8), ('class_weight', 'balanced'))
    """
    name, equals, value = words.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {words!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def make_classifier(arguments: argparse.Namespace):
    """Return the unfitted classifier of a ``fit``."""
    cls = find_method(arguments.method)
    taken = inspect.signature(cls).parameters
    asked = _asked(arguments, taken)
    if unknown := [name for name in asked if name not in taken]:
        raise UsageError(_unknown(cls, unknown[0], list(taken)))
    options = {"verbose": int(not arguments.quiet)}
    options["on_bad_image"] = arguments.on_bad_image or "raise"
    return cls(**{k: v for k, v in options.items() if k in taken} | asked)


def _asked(arguments: argparse.Namespace, taken) -> dict:
    """Parameters by name, as options and as --set, which prevails."""
    given = {name: getattr(arguments, name) for name in SHARED}
    given |= {"random_state": arguments.seed, "time_limit": arguments.time_limit}
    given |= _backbones(arguments, taken, given)
    asked = {name: value for name, value in given.items() if value is not None}
    return asked | dict(arguments.set)


def _backbones(arguments: argparse.Namespace, taken, given: dict) -> dict:
    """What --backbone means for a class: one encoder, the two of it, or a list."""
    names = arguments.backbone
    if not names:
        return {}
    if "backbones" in taken:
        return {"backbones": names}
    if len(names) > 1:
        raise UsageError(f"--backbone must be given once for this class, got {names}.")
    if "backbone" not in taken and "image_backbone" in taken:
        pair = ("image_backbone", "text_backbone")
        return {name: given.get(name) or names[0] for name in pair}
    return {"backbone": names[0]}


def _unknown(cls: type, name: str, taken: list[str]) -> str:
    close = difflib.get_close_matches(name, taken, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"{cls.__name__} has no parameter {name!r}.{meant} It has {sorted(taken)}."
