"""How an object made of components shows their attributes and methods under its own names, one line each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

Value = TypeVar("Value")
Whole = TypeVar("Whole")
Component = TypeVar("Component")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ComponentAttribute(Generic[Value]):
    """An attribute that one of an object's components owns: reading and assigning reach the component.

    *component* is the name of the attribute with the component, *name* that of the component's attribute (empty: the same name).
    """

    def __init__(self, component: str, name: str = "") -> None:
        self._component = component
        self._name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = self._name or name

    @overload
    def __get__(self, whole: None, owner: type) -> ComponentAttribute[Value]: ...

    @overload
    def __get__(self, whole: object, owner: type) -> Value: ...

    def __get__(self, whole: object | None, owner: type) -> ComponentAttribute[Value] | Value:
        return self if whole is None else getattr(getattr(whole, self._component), self._name)

    def __set__(self, whole: object, value: Value) -> None:
        setattr(getattr(whole, self._component), self._name, value)


class SharedAttribute(ComponentAttribute[Value]):
    """The same for a component that several objects share: one that is assigned to gets a component of its own first."""

    def __set__(self, whole: object, value: Value) -> None:
        setattr(whole, self._component, dataclasses.replace(getattr(whole, self._component), **{self._name: value}))


def forward(
    component_of: Callable[[Whole], Component], method: Callable[Concatenate[Component, Arguments], Result]
) -> Callable[Concatenate[Whole, Arguments], Result]:
    """A method that calls *method* of the component that *component_of* finds or makes. It has *method*'s signature and docstring."""

    @functools.wraps(method)
    def call(whole: Whole, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return method(component_of(whole), *args, **kwargs)

    return call


def forwards_to(bound: Any, method: Callable[..., Any]) -> bool:
    """Whether the bound method *bound* is still what ``forward(…, method)`` made: no subclass or node pack replaced it."""
    return getattr(getattr(bound, "__func__", None), "__wrapped__", None) is method
