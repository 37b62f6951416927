"""Parameters as dataclass fields: declared, inherited and documented once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import dataclass_transform


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Parameters:
    """Mixin: the annotated names of a class are the parameters of its constructor.

    A class with an ``__init__`` keeps it: its parameters are those that it names, as
    ever in scikit-learn. The docstring is completed with what parents say of theirs.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = inspect.get_annotations(cls)
        parent = next(c for c in cls.__mro__ if "__init__" in vars(c))
        if parent is cls:
            return
        if parent is not object and "__dataclass_fields__" not in vars(parent):
            if own:
                raise TypeError(
                    f"{cls.__name__} must have a constructor for {list(own)}: that of "
                    f"{parent.__name__}, written by hand, does not know them."
                )
            return
        _check_names(cls, own)
        written = cls.__doc__  # where there is none, dataclass makes up a signature
        dataclass(kw_only=True, eq=False, repr=False, match_args=False)(cls)
        cls.__doc__ = written
        # They are strings, and mean something in the module they come from only.
        cls.__init__.__annotations__ = {}
        cls.__init__.__signature__ = _own_first(cls)
        if written:
            cls.__doc__ = _complete(cls)


def _check_names(cls: type, own: dict) -> None:
    """Raise for what dataclass would take, or leave, without a word."""
    if odd := [name for name in own if name.strip("_") != name]:
        raise TypeError(f"{odd} of {cls.__name__} must be ClassVar: no parameters.")
    known = set(getattr(cls, "__dataclass_fields__", ()))
    bare = known & set(vars(cls)) - set(own)
    if bare:
        raise TypeError(f"{sorted(bare)} of {cls.__name__} must have a type: int = 3.")


def _own_first(cls: type) -> inspect.Signature:
    """The signature with a method's parameters before those that all share."""
    known = [vars(c).get("__dataclass_fields__", ()) for c in cls.__mro__]
    depth = {f.name: sum(f.name in names for names in known) for f in fields(cls)}
    signature = inspect.signature(cls.__init__)
    self, *given = signature.parameters.values()
    given.sort(key=lambda p: (p.kind, depth[p.name]))
    return signature.replace(parameters=[self, *given])


def _complete(cls: type) -> str:
    """The docstring, with what its parents say of parameters that it leaves out."""
    lines = inspect.cleandoc(cls.__doc__).splitlines()
    start, stop = _section(lines)
    taken, told = inspect.signature(cls).parameters, {}
    for relative in cls.__mro__:
        documented = inspect.cleandoc(vars(relative).get("__doc__") or "").splitlines()
        for name, entry in _entries(documented[slice(*_section(documented))]):
            if name in taken or relative is cls:
                told.setdefault(name, entry)
    head = [] if start < stop else ["Parameters", "----------"]
    body = [line for entry in told.values() for line in entry]
    return "\n".join([*lines[:start], *head, *body, "", *lines[stop:]])


def _section(lines: list[str]) -> tuple[int, int]:
    """Where the entries of "Parameters" are; where they would be, if there are none."""
    heads = [i - 1 for i, line in enumerate(lines) if line and not line.strip("-")]
    for head, following in zip(heads, [*heads[1:], len(lines)], strict=False):
        if lines[head] == "Parameters":
            return head + 2, following
    place = min(heads, default=len(lines))
    return place, place


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each name with an entry of its own: scikit-learn's HTML does not read "a, b"."""
    heads = [i for i, line in enumerate(lines) if line and not line[0].isspace()]
    for head, following in zip(heads, [*heads[1:], len(lines)], strict=False):
        names, _, kind = lines[head].partition(" : ")
        text = [line for line in lines[head + 1 : following] if line.strip()]
        for name in names.split(", "):
            yield name, [f"{name} : {kind}", *text]
