"""Types, inputs and outputs of V3 nodes: the base classes, and the decorator that connects them with a type name."""

from abc import ABC
from collections.abc import Callable
from enum import Enum
from types import new_class
from typing import Any, TypeVar, cast

from comfy_api.internal.class_tools import prune_dict

T = TypeVar("T", bound=type)


class _ComfyType(ABC):  # noqa: B024 - a marker that isinstance and issubclass are asked about
    """A kind of value that travels along links. ``io_type`` is its name in JSON, ``Type`` a Python annotation for it."""

    Type: Any = Any
    io_type: str | None = None


class _Socket:
    """The base of inputs and outputs, which knows their type (set by ``comfytype``)."""

    Parent: Any = None

    def validate(self) -> None:
        """Raise ``ValueError`` when the declaration is not valid. The base class accepts everything."""

    @property
    def io_type(self) -> str:
        """The type's name in JSON."""
        return self.Parent.io_type

    @property
    def Type(self) -> Any:  # noqa: N802 - the public name
        """The Python annotation of the type."""
        return self.Parent.Type


def plain(value: Any) -> Any:
    """*value*, or its value if it is an enum member, so that it prints as plain JSON."""
    return value.value if isinstance(value, Enum) else value


class Input(_Socket):
    """One input of a node.

    *id* is the argument's name in ``execute``. A *lazy* value is computed only when ``check_lazy_status`` names it; with *raw_link* the
    node receives the link instead of the value; *extra_dict* adds options that the page knows and this class does not.
    """

    # The attributes that a subclass prints as options: a name, or (attribute, printed name). Those that are None are left out.
    PRINTED: tuple[str | tuple[str, str], ...] = ()

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.lazy = lazy
        self.extra_dict = {} if extra_dict is None else extra_dict
        self.rawLink = raw_link
        self.advanced = advanced

    def as_dict(self) -> dict[str, Any]:
        """The options as ``/object_info`` prints them, plus ``optional``, which decides the section and is not printed."""
        common = ("display_name", "optional", "tooltip", "lazy", "rawLink", "advanced")
        printed = prune_dict({name: getattr(self, name) for name in common}) | prune_dict(self.extra_dict)
        for owner in reversed(type(self).__mro__):
            for option in vars(owner).get("PRINTED", ()):
                attribute, name = (option, option) if isinstance(option, str) else option
                value = plain(getattr(self, attribute))
                if value is not None:
                    printed[name] = value
        return printed

    def get_io_type(self) -> str:
        """The type string that ``INPUT_TYPES`` shows for this input."""
        return self.io_type

    def get_all(self) -> list["Input"]:
        """This input, and if it is dynamic every input that it may grow."""
        return [self]


class WidgetInput(Input):
    """An input that can be set on the node itself. *socketless* removes its socket, *force_input* its widget."""

    PRINTED: tuple[str | tuple[str, str], ...] = ("default", "socketless", ("widget_type", "widgetType"), ("force_input", "forceInput"))

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        widget_type: str | None = None,
        force_input: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
        self.default = default
        self.socketless = socketless
        self.widget_type = widget_type
        self.force_input = force_input

    def get_io_type(self) -> str:
        """The widget's type where it differs from the value's, else the value's."""
        return self.io_type if self.widget_type is None else self.widget_type


class Output(_Socket):
    """One output of a node. *is_output_list* marks a list; nodes that receive it run once per item."""

    def __init__(
        self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None, is_output_list: bool = False
    ) -> None:
        self.id = id
        self.display_name = display_name or id
        self.tooltip = tooltip
        self.is_output_list = is_output_list

    def as_dict(self) -> dict[str, Any]:
        """The output's options, without those that are None."""
        shown = {"display_name": self.display_name or self.id, "tooltip": self.tooltip, "is_output_list": self.is_output_list}
        return prune_dict(shown)

    def get_io_type(self) -> str:
        """The type string of this output."""
        return self.io_type


class ComfyTypeI(_ComfyType):
    """A type that only occurs as an input."""

    class Input(Input):
        """An input of this type."""


class ComfyTypeIO(ComfyTypeI):
    """A type with inputs and outputs."""

    class Output(Output):
        """An output of this type."""


def comfytype(io_type: str, **kwargs: Any) -> Callable[[T], T]:
    """Class decorator that declares a type named *io_type*.

    The class may define ``Type`` (an annotation), ``Input`` and ``Output``, and inherits the others. A class that is not a
    ``ComfyTypeI`` becomes a ``ComfyTypeIO``. Its inputs and outputs are classes of its own, so that a declaration does not change another
    type. Further keyword arguments are accepted and ignored.
    """

    def declare(author_class: T) -> T:
        cls: type = author_class
        if not issubclass(cls, _ComfyType):
            identity = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
            cls = new_class(cls.__name__, (cls, ComfyTypeIO), exec_body=lambda body: body.update(identity))
        cast(type[_ComfyType], cls).io_type = io_type
        for side in ("Input", "Output"):
            declared = getattr(cls, side, None)
            if declared is not None:
                names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{side}", "__doc__": declared.__doc__}
                setattr(cls, side, type(declared)(side, (declared,), {**names, "Parent": cls}))
        return cast(T, cls)

    return declare


def Custom(io_type: str) -> Any:  # noqa: N802 - the public name
    """A type with the given name and plain inputs and outputs; two calls give two classes with equal names."""
    return comfytype(io_type=io_type)(type("CustomType", (ComfyTypeIO,), {"__doc__": f"Values of type {io_type}."}))
