"""Whether a value of one declared type may go into an input of another."""

from typing import Any

# Any type, and a type that the page alone matches with those of other inputs.
_FITS_ALL = ("*", "COMFY_MATCHTYPE_V3")


def validate_node_input(received_type: Any, input_type: Any, strict: bool = False) -> bool:
    """Whether an output declared as *received_type* fits an input declared as *input_type*.

    Types are equal, or one of them is ``*``, or an older list of options goes into a ``COMBO``, or lists such as ``"IMAGE,MASK"`` share a
    member; with *strict* every member received must be accepted. String subclasses may decide by their own ``__ne__``.
    """
    if not received_type != input_type:
        return True
    if any(kind in _FITS_ALL for kind in (received_type, input_type) if isinstance(kind, str)):
        return True
    if not (isinstance(received_type, str) and isinstance(input_type, str)):
        return isinstance(received_type, list | tuple) and input_type == "COMBO"
    received, accepted = _members(received_type), _members(input_type)
    if "*" in received or "*" in accepted:
        return True
    return received <= accepted if strict else bool(received & accepted)


def _members(types: str) -> set[str]:
    return {member.strip() for member in types.split(",")}
