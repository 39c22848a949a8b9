"""Small tools for classes that are used as values: locked clones, computed class attributes, and a search for overrides."""

from collections.abc import Callable, Mapping
from typing import Any


class classproperty:  # noqa: N801 - used like the builtin property
    """A read-only attribute that is computed from the class, with or without an instance."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: object, owner: type) -> Any:
        return self.compute(owner)


def prune_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of *values* that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def is_class(thing: object) -> bool:
    """Whether *thing* is a class and not an instance."""
    return isinstance(thing, type)


def first_real_override(cls: type, name: str, *, base: type | None = None) -> Callable[..., Any] | None:
    """The method *name* of *cls*, bound to *cls*, if a class below *base* defines it, else None.

    Without *base*, ``cls.GET_BASE_CLASS()`` gives it. Raises ``ValueError`` when there is neither.
    """
    if base is None:
        if not hasattr(cls, "GET_BASE_CLASS"):
            raise ValueError(f"{cls.__name__} has no GET_BASE_CLASS(): pass the base whose methods count as not overridden")
        base = cls.GET_BASE_CLASS()
    for owner in cls.__mro__:
        if owner is base:
            return None
        if name in vars(owner):
            return getattr(cls, name)
    return None


class _Locked(type):
    """Precedes the metaclass of a locked class."""

    def __setattr__(cls, name: str, value: object) -> None:
        if not vars(cls).get("_is_locked"):  # ABCMeta sets attributes while it makes the class
            return super().__setattr__(name, value)
        raise AttributeError(f"{cls.__name__}.{name} cannot be set: while a node runs its class is read-only. Keep state elsewhere.")

    def __delattr__(cls, name: str) -> None:
        raise AttributeError(f"{cls.__name__}.{name} cannot be deleted: while a node runs its class is read-only.")


_locked_metaclasses: dict[type, type] = {}


def lock_class(cls: type, extra: Mapping[str, Any]) -> type:
    """A subclass of *cls* with the attributes *extra*, whose attributes cannot be set or deleted afterwards.

    It keeps the name, module and docstring of *cls*, and ``super()`` inside the author's methods works as before.
    """
    metaclass = type(cls)
    locked = _locked_metaclasses.get(metaclass)
    if locked is None:
        locked = _locked_metaclasses[metaclass] = type(f"Locked{metaclass.__name__}", (_Locked, metaclass), {})
    identity = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    clone = locked(cls.__name__, (cls,), {**identity, **extra})
    clone._is_locked = True
    return clone
