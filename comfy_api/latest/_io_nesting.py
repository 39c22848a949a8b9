"""Converts between the flat inputs of a prompt (``group.name``) and the nested dictionaries that ``execute`` receives."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._io_base import Input
from ._io_dynamic import Autogrow, DynamicCombo, DynamicInput, DynamicSlot, add_to_dict_v1


def has_dynamic_inputs(inputs: Sequence[Input]) -> bool:
    """Whether any of *inputs* is built from several flat inputs."""
    return any(isinstance(declared, DynamicInput) for declared in inputs)


def _chosen(declared: Any, value: Any) -> Any:
    """The option of a dynamic choice that *value* selects, or None; a list of one item counts as the item."""
    key = value[0] if isinstance(value, list) and len(value) == 1 else value
    return next((option for option in declared.options if option.key == key), None)


def expand_inputs(inputs: Sequence[Input], live_inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``INPUT_TYPES`` for a prompt with *live_inputs* ({input id: value or link}), in which groups have flat ids.

    A growing list shows all its possible sockets, the first ones as required. A choice shows the inputs of the chosen option; for an
    unknown key it becomes a plain combo of the keys, so that validation refuses it by name. A required choice that is missing stays
    required, except within an option: prompts from before a node's options had choices of their own leave them out, and ComfyUI
    accepts those (Save Video's codec).
    """
    sections: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    _expand(inputs, live_inputs, "", sections)
    return sections


def _expand(inputs: Sequence[Input], live: Mapping[str, Any], prefix: str, sections: dict[str, dict[str, Any]]) -> None:
    for declared in inputs:
        flat_id = prefix + declared.id
        if isinstance(declared, Autogrow.Input):
            _expand_autogrow(declared, flat_id, sections)
        elif isinstance(declared, DynamicCombo.Input):
            _expand_combo(declared, live, flat_id, sections)
        elif isinstance(declared, DynamicSlot.Input):
            if flat_id in live:
                _add(declared, flat_id, sections, declared.slot.get_io_type())
                _expand(declared.inputs, live, f"{flat_id}.", sections)
        else:
            _add(declared, flat_id, sections)


def _add(declared: Input, flat_id: str, sections: dict[str, dict[str, Any]], io_type: str | None = None) -> None:
    one: dict[str, dict[str, Any]] = {}
    add_to_dict_v1(declared, one)
    for section, entry in one.items():
        kind, options = entry[declared.id]
        sections[section][flat_id] = (io_type or kind, options)


def _expand_autogrow(declared: Any, flat_id: str, sections: dict[str, dict[str, Any]]) -> None:
    template = declared.template
    options = template.input.as_dict()
    is_optional = options.pop("optional", False)
    for position, name in enumerate(template.names):
        section = "required" if position < template.min and not is_optional else "optional"
        sections[section][f"{flat_id}.{name}"] = (template.input.get_io_type(), options)


def _expand_combo(declared: Any, live: Mapping[str, Any], flat_id: str, sections: dict[str, dict[str, Any]]) -> None:
    if flat_id not in live:
        if not declared.optional and flat_id == declared.id:
            _add(declared, flat_id, sections)
        return
    option = _chosen(declared, live[flat_id])
    if option is None:
        keys = [one.key for one in declared.options]
        sections["optional" if declared.optional else "required"][flat_id] = ("COMBO", {"multiselect": False, "options": keys})
        return
    _add(declared, flat_id, sections)
    _expand(option.inputs, live, f"{flat_id}.", sections)


def nest_arguments(inputs: Sequence[Input], flat: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``execute`` for the *flat* inputs: groups become dictionaries, everything else stays unchanged.

    A growing list without sockets becomes ``{}``; inputs of a choice that have no value become None.
    """
    rest = dict(flat)
    grouped: dict[str, Any] = {}
    for declared in inputs:
        if isinstance(declared, DynamicInput):
            _nest(declared, "", rest, grouped)
    return rest | grouped


def _nest(declared: Input, prefix: str, rest: dict[str, Any], into: dict[str, Any]) -> None:
    """Move what belongs to *declared* from the flat *rest* into the dictionary *into*."""
    flat_id = prefix + declared.id
    if isinstance(declared, Autogrow.Input):
        names = [name for name in declared.template.names if f"{flat_id}.{name}" in rest]
        into[declared.id] = {name: rest.pop(f"{flat_id}.{name}") for name in names}
    elif isinstance(declared, DynamicCombo.Input | DynamicSlot.Input):
        if flat_id not in rest:
            return
        value = rest.pop(flat_id)
        group = into[declared.id] = {declared.id: value}
        option = declared if isinstance(declared, DynamicSlot.Input) else _chosen(declared, value)
        for brought in option.inputs if option is not None else ():
            _nest(brought, f"{flat_id}.", rest, group)
    else:
        into[declared.id] = rest.pop(flat_id, None)
