"""Reading and replacing attributes of nested objects by dotted path, as model patches name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

ATTR_UNSET: dict[str, Any] = {}  # compared by identity: "there was no such attribute", and as a value "delete it"


def resolve_attr(obj: Any, attr: str) -> tuple[Any, str]:
    """The object that holds the last name of the path *attr*, and that name. Raises ``AttributeError``."""
    *outer, last = attr.split(".")
    for name in outer:
        obj = _attribute(obj, name)
    return obj, last


def _attribute(obj: Any, name: str) -> Any:
    """``getattr(obj, name)``; of a module's submodules without the detour that torch makes, since this is done for each weight."""
    own: dict[str, Any] = getattr(obj, "__dict__", None) or {}
    submodules = own.get("_modules")
    if not isinstance(submodules, dict) or name not in submodules or name in own or hasattr(type(obj), name):
        return getattr(obj, name)
    return submodules[name]


def get_attr(obj: Any, attr: str) -> Any:
    """The value at the path *attr*. Raises ``AttributeError``."""
    holder, name = resolve_attr(obj, attr)
    return getattr(holder, name)


def set_attr(obj: Any, attr: str, value: Any) -> Any:
    """Set (with ``ATTR_UNSET``: delete) the attribute at *attr*; returns what was there, or ``ATTR_UNSET``."""
    holder, name = resolve_attr(obj, attr)
    before = getattr(holder, name, ATTR_UNSET)
    if value is ATTR_UNSET:
        delattr(holder, name)
    else:
        setattr(holder, name, value)
    return before


def set_attr_param(obj: Any, attr: str, value: Tensor) -> Any:
    """Set a module's parameter at *attr* to *value*, without gradient; returns what was there.

    A tensor made in inference mode is copied when the mode is off, because it could not become a parameter.
    """
    if value.is_inference() and not torch.is_inference_mode_enabled():
        value = value.clone()
    return set_attr(obj, attr, torch.nn.Parameter(value, requires_grad=False))


def set_attr_buffer(obj: Any, attr: str, value: Tensor) -> Any:
    """Set a module's buffer at *attr*, which stays out of saved state if it was; returns what was there."""
    holder, name = resolve_attr(obj, attr)
    before = getattr(holder, name, ATTR_UNSET)
    holder.register_buffer(name, value, persistent=name not in getattr(holder, "_non_persistent_buffers_set", ()))
    return before


def copy_to_param(obj: Any, attr: str, value: Tensor) -> None:
    """Overwrite the contents of the tensor at *attr* in place."""
    get_attr(obj, attr).data.copy_(value)
