"""Parameters as fields: constructor, signature, docstring, and what is refused."""

import inspect
import pickle
import typing  # noqa: F401 - a string below names it
from dataclasses import field
from typing import ClassVar

import pytest
from contract import public_classifiers
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression

from robustmm.parameters import Parameters, documented


class Shared(Parameters, BaseEstimator):
    """Has what all have.

    Parameters
    ----------
    left, right : int
        A side.
    seed : int, optional
        Where to start.

    Attributes
    ----------
    net_ : object
        Fitted.
    """

    KIND: ClassVar[str] = "shared"
    net_: ClassVar[object]

    left: int = 1
    right: int = 2
    seed: int | None = None


class Own(Shared):
    """Adds some.

    More words.

    Parameters
    ----------
    model : str
        By position.
    right : int
        Another side.

    Notes
    -----
    None.
    """

    model: str = field(default="a", kw_only=False)
    rank: int = 4
    right: int = 5


def test_the_constructor_takes_own_parameters_first_and_backbones_by_position():
    assert str(inspect.signature(Own)) == (
        "(model='a', *, rank=4, left=1, right=5, seed=None)"
    )
    own = Own("b", left=7)
    assert (own.model, own.rank, own.left, own.right, own.seed) == ("b", 4, 7, 5, None)
    with pytest.raises(TypeError):
        Own("b", 3)
    with pytest.raises(TypeError, match="rnak"):
        Own(rnak=3)


def test_class_variables_are_no_parameters():
    assert set(Own().get_params()) == {"model", "rank", "left", "right", "seed"}
    assert Own.KIND == "shared"


def test_it_is_an_estimator_like_any_other():
    own = Own("b", rank=2)
    twin = pickle.loads(pickle.dumps(clone(own).set_params(left=3)))
    assert twin.get_params() == own.get_params() | {"left": 3}
    assert repr(own) == "Own(model='b', rank=2)"
    assert own != clone(own)
    assert len({own, twin}) == 2


def test_entries_come_from_the_parents_each_alone_and_with_this_class_s_default():
    lines = inspect.getdoc(Own).splitlines()
    start = lines.index("Parameters")
    assert lines[start + 2 : lines.index("Attributes") - 1] == [
        "model : str, default='a'",
        "    By position.",
        "left : int, default=1",
        "    A side.",
        "right : int, default=5",
        "    Another side.",
        "seed : int or None, default=None",
        "    Where to start.",
    ]
    assert lines[:3] == ["Adds some.", "", "More words."]
    assert lines[-3:] == ["Notes", "-----", "None."]
    assert documented(Own) == ["model", "left", "right", "seed"]


def test_a_class_without_the_section_gets_one_before_the_next_or_at_the_end():
    class Short(Shared):
        """Says little."""

        left: int = 9

    class Noted(Shared):
        """Says little.

        Notes
        -----
        Something.
        """

    assert inspect.getdoc(Short).splitlines()[:5] == [
        "Says little.",
        "",
        "Parameters",
        "----------",
        "left : int, default=9",
    ]
    lines = inspect.getdoc(Noted).splitlines()
    assert lines.index("Parameters") < lines.index("Notes")
    assert lines[lines.index("Notes") - 1] == ""


def test_fitted_attributes_come_from_the_parent_unless_a_class_lists_its_own():
    class Listed(Own):
        """Lists its own.

        Attributes
        ----------
        tree_ : object
            Grown.
        """

    class Heir(Listed):
        """Says little."""

    lines = inspect.getdoc(Own).splitlines()
    start = lines.index("Attributes")
    told = ["Attributes", "----------", "net_ : object", "    Fitted.", "", "Notes"]
    assert lines[start : start + 6] == told
    assert lines[start - 1] == ""
    for cls in (Listed, Heir):
        text = inspect.getdoc(cls)
        assert text.count("Attributes\n----------\ntree_ : object\n    Grown.") == 1
        assert "net_ : object" not in text


def test_a_class_without_docstring_gets_none_made_up():
    class Silent(Shared):
        left: int = 9

    assert Silent.__doc__ is None
    assert Silent().left == 9


def test_an_entry_for_what_is_no_parameter_stays_to_be_found():
    class Stale(Shared):
        """Documents a ghost.

        Parameters
        ----------
        ghost : int
            Gone.
        """

    assert documented(Stale)[-1] == "ghost"


def test_an_override_without_a_type_is_refused():
    with pytest.raises(TypeError, match=r"\['left'\] of Bare must have a type"):

        class Bare(Shared):
            left = 3


@pytest.mark.parametrize("name", ["net_", "_cache"])
def test_private_names_and_fitted_attributes_are_refused_as_parameters(name):
    with pytest.raises(TypeError, match=rf"\['{name}'\] of Odd must be ClassVar"):
        type("Odd", (Shared,), {"__annotations__": {name: int}, name: 3})


@pytest.mark.parametrize("kind", ["ClassVar", "ClassVar[int]", "typing.ClassVar[int]"])
def test_an_annotation_that_is_a_string_may_say_class_variable(kind):
    made = type("Fine", (Shared,), {"__annotations__": {"net_": kind}, "net_": 3})
    assert "net_" not in made().get_params()


def test_a_parameter_without_default_is_refused_even_if_a_method_has_its_name():
    with pytest.raises(TypeError, match=r"\['get_params'\] of Bare must have a def"):

        class Bare(Shared):
            get_params: int


def test_a_fielded_child_of_a_constructor_written_by_hand_is_refused():
    class Hand(Shared):
        def __init__(self, left=1):
            super().__init__(left=left)

    with pytest.raises(TypeError, match=r"a constructor for \['rank'\]: that of Hand"):

        class Child(Hand):
            rank: int = 3


def test_a_constructor_written_by_hand_stays_and_so_do_its_children():
    class Hand(Own):
        """By hand."""

        def __init__(self, width=3, *, left=2):
            super().__init__(left=left)
            self.width = width

    class Child(Hand):
        """No parameters more."""

    assert set(Child().get_params()) == {"width", "left"}
    assert (Child(4).width, Child().left, Child().rank) == (4, 2, 4)
    assert clone(Child(5)).width == 5
    assert Hand.__doc__ == "By hand."


def test_a_default_that_can_change_is_refused():
    with pytest.raises(ValueError, match="mutable default"):

        class Changing(Shared):
            names: list = []  # noqa: RUF012


# The toy, whose constructor is written by hand, is the last of them.
@pytest.mark.parametrize("cls", public_classifiers()[:-1], ids=lambda c: c.__name__)
def test_every_parameter_of_a_public_class_has_its_tooltip(cls):
    if "param-doc-description" not in LogisticRegression()._repr_html_():
        pytest.skip("this scikit-learn shows no tooltips")
    shown = cls()._repr_html_().count('class="param-doc-description"')
    assert shown == len(cls().get_params()) == len(documented(cls))


def test_no_public_class_but_the_toy_writes_a_constructor():
    by_hand = [
        cls.__name__
        for cls in public_classifiers()
        if cls.__init__.__code__.co_filename != "<string>"
    ]
    assert by_hand == ["ToyClassifier"]
