"""Frozen classes behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

import pytest

from jammi_duck.frozen import dataclass

MAKERS: list[Callable[..., Any]] = [dataclass, dataclasses.dataclass]


def worlds() -> list[tuple[type[Any], type[Any]]]:
    """A class and one that inherits from it, made either way."""
    made: list[tuple[type[Any], type[Any]]] = []
    for maker in MAKERS:

        @maker(frozen=True)
        class Place:
            """A place."""

            name: str
            visits: list[str] = field(default_factory=list, hash=False)
            secret: str = field(default="", repr=False)
            note: float = field(default=float("nan"), compare=False)

        @maker(frozen=True, kw_only=True)
        class City(Place):
            """A city."""

            people: int
            mayor: str | None = None

            def __post_init__(self) -> None:
                """Check."""
                if self.people < 0:
                    raise ValueError(self.people)

        made.append((Place, City))
    return made


def seen(work: Callable[[], object]) -> object:
    """What comes of it: a value, or the error and its text."""
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    "look",
    [
        lambda place, city: repr(place("a", ["b"], "c")),
        lambda place, city: repr(city("a", people=3)),
        lambda place, city: place("a") == place("a", note=1.0),
        lambda place, city: place("a") == place("b"),
        lambda place, city: place("a") == city("a", people=1),
        lambda place, city: place("a").__eq__("a"),
        lambda place, city: hash(place("a", ["b"])) == hash(("a", "")),
        lambda place, city: len({city("a", people=1), city("a", people=1)}),
        lambda place, city: place("a").visits is place("a").visits,
        lambda place, city: place(),
        lambda place, city: place("a", wrong=1),
        lambda place, city: city("a"),
        lambda place, city: city("a", [], "", 0.0, 5),
        lambda place, city: city("a", people=-1),
        lambda place, city: setattr(place("a"), "name", "b"),
        lambda place, city: delattr(place("a"), "name"),
        lambda place, city: dataclasses.asdict(city("a", ["b"], note=0.0, people=3)),
        lambda place, city: repr(dataclasses.replace(city("a", people=3), people=4)),
        lambda place, city: repr(copy.deepcopy(city("a", ["b"], people=3))),
        lambda place, city: [each.name for each in dataclasses.fields(city)],
        lambda place, city: city.__match_args__,
        lambda place, city: list(inspect.signature(city).parameters),
        lambda place, city: city.__init__.__annotations__,
        lambda place, city: (city.__doc__, city.__init__.__qualname__, city.__init__.__module__),
    ],
)
def test_frozen_classes_are_as_those_of_the_standard_library(look: Callable[[type[Any], type[Any]], object]) -> None:
    ours, theirs = (seen(lambda classes=classes: look(*classes)) for classes in worlds())  # type: ignore[misc]
    assert ours == theirs


@dataclass(frozen=True)
class Kept:
    """One that pickle finds by its name."""

    parts: Sequence[int]


def test_they_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Kept((1, 2)))) == Kept((1, 2))


def test_their_own_methods_stay() -> None:
    @dataclass(frozen=True)
    class Named:
        """One with methods of its own."""

        name: str

        def __repr__(self) -> str:
            return "named"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    assert (repr(Named("a")), Named("a") == Named("b"), hash(Named("a"))) == ("named", True, 7)


def test_one_without_fields_equals_another() -> None:
    @dataclass(frozen=True)
    class Nothing:
        """No fields."""

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(())
