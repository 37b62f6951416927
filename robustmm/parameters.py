"""Parameters as annotated fields: declared, inherited, checked and documented once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from typing import dataclass_transform


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Parameters:
    """Mixin: the annotated names of a class are the parameters of its constructor.

    A child may add parameters, and declare those of its parents again with another
    default. The constructor assigns and does nothing else, as scikit-learn asks. Own
    parameters come first in the signature; those that are to be given by position are
    declared with ``field(default=..., kw_only=False)``. The docstring is completed with
    what the parents say of their parameters and, where there is no such section, of
    fitted attributes; and every entry with its default.

    A class with an ``__init__`` keeps it: its parameters are those that it names.

    Raises
    ------
    TypeError
        When the class is defined, for what would be misunderstood in silence: a
        parameter without a default, one that is declared again without a type, one
        whose name is private or that of a fitted attribute, or any that the constructor
        of a parent, written by hand, does not know.

    Examples
    --------
    >>> class Ridge(Parameters):
    ...     alpha: float = 1.0
    >>> class Lasso(Ridge):
    ...     alpha: float = 0.1
    ...     positive: bool = False
    >>> inspect.signature(Lasso)
    <Signature (*, positive=False, alpha=0.1)>
    >>> Lasso(positive=True).alpha
    0.1
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = _declared(cls)
        # Whose constructor it would be; that of a mixin may stand in between.
        maker = next(c for c in cls.__mro__ if "__init__" in vars(c))
        if maker is cls:
            return
        if maker is not object and "__dataclass_fields__" not in vars(maker):
            if own:
                raise TypeError(
                    f"{cls.__name__} must have a constructor for {own}: that of "
                    f"{maker.__name__}, written by hand, does not know them."
                )
            return
        _check_declared(cls, own)
        written = cls.__doc__  # where there is none, dataclass makes up a signature
        # Without eq, as a class with an __eq__ loses its hash; without repr, as
        # scikit-learn's shows what differs from the defaults.
        dataclass(kw_only=True, eq=False, repr=False, match_args=False)(cls)
        cls.__doc__ = written
        # They are strings, and mean something in the module they come from only.
        cls.__init__.__annotations__ = {}
        cls.__init__.__signature__ = _own_first(cls)
        if written:
            cls.__doc__ = _complete(cls)


def documented(cls: type) -> list[str]:
    """Return the names that have an entry under "Parameters" in a docstring."""
    lines = (inspect.getdoc(cls) or "").splitlines()
    return [name for name, _ in _entries(lines[slice(*_section(lines))])]


def _declared(cls: type) -> list[str]:
    """The names that a class annotates, but for its class variables."""
    # Annotations are strings wherever a module postpones their evaluation.
    return [
        name
        for name, kind in inspect.get_annotations(cls).items()
        if "ClassVar" not in str(kind).partition("[")[0]
    ]


def _check_declared(cls: type, own: list[str]) -> None:
    """Raise for what dataclass would take, or leave, without a word."""
    if odd := [name for name in own if name.strip("_") != name]:
        raise TypeError(
            f"{odd} of {cls.__name__} must be ClassVar: private names and fitted "
            "attributes are no parameters."
        )
    # Without a value of its own, it would get whatever a parent has under the name.
    if bare := [name for name in own if name not in vars(cls)]:
        raise TypeError(f"{bare} of {cls.__name__} must have a default: int = 3.")
    known = {f.name for f in fields(cls)} if is_dataclass(cls) else set()
    if untyped := sorted(known & set(vars(cls)) - set(own)):
        raise TypeError(f"{untyped} of {cls.__name__} must have a type: int = 3.")


def _own_first(cls: type) -> inspect.Signature:
    """The signature with a class's parameters before those that all share."""
    known = [vars(c).get("__dataclass_fields__", ()) for c in cls.__mro__]
    depth = {f.name: sum(f.name in names for names in known) for f in fields(cls)}
    signature = inspect.signature(cls.__init__)
    self, *given = signature.parameters.values()
    # By kind first, or the signature is not legal: what may be given by position stands
    # before what may not. Then by how many parents know the name.
    given.sort(key=lambda p: (p.kind, depth[p.name]))
    return signature.replace(parameters=[self, *given])


def _complete(cls: type) -> str:
    """The docstring, with what its parents say of parameters that it leaves out."""
    lines = inspect.cleandoc(cls.__doc__).splitlines()
    start, stop = _section(lines)
    taken = inspect.signature(cls).parameters
    told: dict[str, list[str]] = {}
    for relative in cls.__mro__:
        said = inspect.cleandoc(vars(relative).get("__doc__") or "").splitlines()
        for name, entry in _entries(said[slice(*_section(said))]):
            # What a class itself documents stays, even if wrong: a test has to see it.
            if name in taken or relative is cls:
                told.setdefault(name, entry)
    order = [name for name in taken if name in told]
    # Entries of no parameter stay at the end, for the test that looks for them.
    order += [name for name in told if name not in taken]
    body = [line for name in order for line in _with_default(told[name], taken, name)]
    head = [] if start < stop else ["Parameters", "----------"]
    if head and lines[start - 1]:
        head.insert(0, "")
    body += ["", *_attributes(cls)]
    return "\n".join([*lines[:start], *head, *body, *lines[stop:]])


def _attributes(cls: type) -> list[str]:
    """What the nearest parent says of fitted attributes, if a class does not."""
    for relative in cls.__mro__:
        section = _said_of_attributes(relative)
        if section and relative is cls:
            return []
        # What a mixin only repeats of its parents, a nearer one may say better.
        if section and section not in map(_said_of_attributes, relative.__bases__):
            return [*section, ""]
    return []


def _said_of_attributes(cls: type) -> list[str]:
    said = inspect.cleandoc(vars(cls).get("__doc__") or "").splitlines()
    start, stop = _section(said, "Attributes")
    section = said[start - 2 : stop] if start < stop else []
    return "\n".join(section).strip().splitlines()


def _section(lines: list[str], title: str = "Parameters") -> tuple[int, int]:
    """Where the entries of a section are; where they would be, if there are none."""
    heads = [i - 1 for i, line in enumerate(lines) if line and not line.strip("-")]
    for head, following in pairwise([*heads, len(lines)]):
        if lines[head] == title:
            return head + 2, following
    place = min(heads, default=len(lines))
    return place, place


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each name with an entry of its own: scikit-learn's HTML does not read "a, b"."""
    heads = [i for i, line in enumerate(lines) if line and not line[0].isspace()]
    for head, following in pairwise([*heads, len(lines)]):
        names, _, kind = lines[head].partition(" : ")
        text = [line for line in lines[head + 1 : following] if line.strip()]
        for name in names.split(", "):
            yield name, [f"{name} : {kind}", *text]


def _with_default(entry: list[str], taken, name: str) -> list[str]:
    """The entry with the default that this class gives the parameter."""
    if name not in taken:
        return entry
    # A parent's entry was completed when the parent was made, with its default.
    kind = entry[0].partition(", default=")[0].removesuffix(", optional")
    value = taken[name].default
    kind += " or None" if value is None and "None" not in kind else ""
    return [f"{kind}, default={value!r}", *entry[1:]]
