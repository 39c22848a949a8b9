"""How an object made of parts shows their attributes and methods under its own names, one line each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

Value = TypeVar("Value")
Whole = TypeVar("Whole")
Part = TypeVar("Part")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Held(Generic[Value]):
    """An attribute that one of an object's parts holds: reading and assigning reach the part.

    *part* is the name of the attribute that holds the part, *name* the part's attribute (empty: it has the same name).
    """

    def __init__(self, part: str, name: str = "") -> None:
        self._part = part
        self._name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = self._name or name

    @overload
    def __get__(self, whole: None, owner: type) -> Held[Value]: ...

    @overload
    def __get__(self, whole: object, owner: type) -> Value: ...

    def __get__(self, whole: object | None, owner: type) -> Held[Value] | Value:
        return self if whole is None else getattr(getattr(whole, self._part), self._name)

    def __set__(self, whole: object, value: Value) -> None:
        setattr(getattr(whole, self._part), self._name, value)


class HeldShared(Held[Value]):
    """The same for a part that several objects share: one who assigns gets a part of its own, and the others keep theirs."""

    def __set__(self, whole: object, value: Value) -> None:
        setattr(whole, self._part, dataclasses.replace(getattr(whole, self._part), **{self._name: value}))


def forward(
    part_of: Callable[[Whole], Part], method: Callable[Concatenate[Part, Arguments], Result]
) -> Callable[Concatenate[Whole, Arguments], Result]:
    """A method that calls *method* of the part that *part_of* finds or makes. It has *method*'s signature and docstring."""

    @functools.wraps(method)
    def call(whole: Whole, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return method(part_of(whole), *args, **kwargs)

    return call


def forwards_to(bound: Any, method: Callable[..., Any]) -> bool:
    """Whether the bound method *bound* is still what ``forward(…, method)`` made: no subclass or node pack replaced it."""
    return getattr(getattr(bound, "__func__", None), "__wrapped__", None) is method
