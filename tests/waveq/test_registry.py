"""Names are checked, and what has one keeps it."""

from __future__ import annotations

import pytest

from waveq._registry import Registry


def make() -> None:
    """Something that is registered."""


def other() -> None:
    """Something else."""


@pytest.mark.parametrize("name", ["", "My", "my method", "-my", "mÿ", 3, None, "my/method"])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="a name of lower-case letters"):
        Registry("thing").add(name, 1, maker=make)  # type: ignore[arg-type]


def test_a_taken_name_is_refused_also_with_other_hyphens_and_as_an_alias() -> None:
    things: Registry[int] = Registry("thing", aliases={"cifar": "cifar10"})
    things.add("cifar10", 1, maker=make)
    for name in ("cifar10", "cifar-10", "ci_far"):
        with pytest.raises(ValueError, match=rf"thing '{name}' is taken: 'cifar10' is .*test_registry.make; choose"):
            things.add(name, 2, maker=other)
    assert dict(things) == {"cifar10": 1}


def test_the_same_source_run_again_takes_the_place() -> None:
    things: Registry[int] = Registry("thing")
    things.add("mine", 1, maker=make)
    things.add("mine", 2, maker=make)
    again = type(make)(make.__code__, {}, "make")  # what a notebook's cell makes when it is run again
    again.__module__ = make.__module__
    things.add("mi-ne", 3, maker=again)
    assert dict(things) == {"mi-ne": 3}


def test_functions_without_a_name_are_never_the_same() -> None:
    things: Registry[int] = Registry("thing")
    things.add("mine", 1, maker=lambda: 1)
    with pytest.raises(ValueError, match="is taken"):
        things.add("mine", 2, maker=lambda: 2)
