"""Builds inputs that make other inputs: combos whose choice brings its own, lists that grow, groups of rows, types that must match."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph import FIXED, Autogrow, Node, Socket, Widget
from app.workflow_pages.input_specs import InputSpec, as_list, section_specs
from app.workflow_pages.values import is_same
from app.workflow_pages.viewports import VIEWPORT_CLASSES, view_state
from app.workflow_pages.widget_kinds import MAKERS, makes_widget


def add_input(node: Node, spec: InputSpec) -> None:
    """Add one input, socket or widget with socket, at the end."""
    add_socket(node, spec)
    add_widget(node, spec)


def add_socket(node: Node, spec: InputSpec) -> None:
    """Add the socket of an input that has no widget."""
    if makes_widget(spec.widget_type) and not spec.forced:
        return
    if spec.type == "COMFY_AUTOGROW_V3":
        _add_autogrow(node, spec)
    elif spec.type == "COMFY_MATCHTYPE_V3":
        template = spec.options.get("template")
        allowed = template.get("allowed_types") if isinstance(template, Mapping) else None
        add_input(node, replace(spec, type=allowed if isinstance(allowed, str) and allowed != spec.type else "*"))
    else:
        node.inputs.append(Socket(spec.name, spec.type, spec=spec))


def add_widget(node: Node, spec: InputSpec) -> None:
    """Add the widgets of an input and the socket that can replace their value."""
    kind = spec.widget_type
    if not makes_widget(kind) or spec.forced:
        return
    if kind == "COMFY_DYNAMICGROUP_V3":
        _add_group(node, spec)
        return
    if kind == "COMFY_DYNAMICCOMBO_V3":
        _add_combo(node, spec)
    elif kind != "COLOR" or all((one.name, one.kind) != (spec.name, "color") for one in node.widgets):
        node.widgets += _view(node) if kind == "LOAD_3D" else MAKERS[kind](spec)
    node.inputs.append(Socket(spec.name, spec.type, spec.name, spec=spec))


def grow_behind(node: Node, socket_name: str) -> None:
    """Let the list that a connected socket belongs to have an entry behind it."""
    for grower in list(node.growers.values()):
        ordinal = grower.ordinal(socket_name)
        if ordinal is not None and (grower.name, ordinal + 1) not in node.grown:
            _add_entry(node, grower, ordinal + 1)


def _view(node: Node) -> list[Widget]:
    """A three-dimensional view, with buttons where there is a file to choose; a page without a screen takes no picture of it."""
    if node.kind in VIEWPORT_CLASSES:
        return [Widget("viewport_state", FIXED, view_state(node.saved.properties))]
    buttons = [("upload 3d model", "upload3dmodel"), ("upload extra resources", "uploadExtraResources"), ("clear", "clear")]
    shown = buttons if node.widget("model_file") is not None else []
    return [*(Widget(name, "button", value) for name, value in shown), Widget("image", FIXED, "")]


def _add_autogrow(node: Node, spec: InputSpec) -> None:
    template = spec.options.get("template")
    if not isinstance(template, Mapping):
        return
    names = tuple(str(name) for name in as_list(template.get("names")))
    least, most = _count(template.get("min"), 1), _count(template.get("max"), 100)
    grower = Autogrow(
        spec.name, tuple(section_specs(template.get("input"))), least, len(names) or most, names, str(template.get("prefix") or "")
    )
    if not grower.specs:
        return
    node.growers[spec.name] = grower
    for entry in range(max(1, least + 1)):
        _add_entry(node, grower, entry)


def _add_entry(node: Node, grower: Autogrow, ordinal: int) -> None:
    """Add one entry. An existing one is made again; its widget stays, under a name of its own."""
    if ordinal >= grower.most:
        return
    if not any(makes_widget(spec.widget_type) and not spec.forced for spec in grower.specs):
        node.grown.add((grower.name, ordinal))
    names = grower.entry_names(ordinal)
    old = {one.name: one for one in node.inputs if one.name in names}
    before = len(node.inputs)
    for spec, name in zip(grower.specs, names):
        add_input(node, replace(spec.named(name), optional=spec.optional or ordinal >= grower.least))
    added, rest = node.inputs[before:], [one for one in node.inputs[:before] if one.name not in old]
    for socket in added:
        _take_link(socket, old.get(socket.name))
    previous = grower.entry_names(ordinal - 1)[-1] if ordinal else None
    at = max((index + 1 for index, one in enumerate(rest) if previous is not None and one.name.startswith(previous)), default=len(rest))
    node.inputs = rest[:at] + added + rest[at:]


def _take_link(socket: Socket, former: Socket | None) -> None:
    """Let *socket* have the link and label of the one it replaces."""
    if former is None:
        return
    socket.label, socket.link = former.label, former.link
    if former.link is not None:
        former.link.socket = socket


def _count(value: Any, fallback: int) -> int:
    return min(max(value, 0), 1000) if isinstance(value, int) and not isinstance(value, bool) else fallback


def _add_combo(node: Node, spec: InputSpec) -> None:
    options = [one for one in as_list(spec.options.get("options")) if isinstance(one, Mapping) and "key" in one]
    keys = tuple(one["key"] for one in options)
    [widget, *_] = MAKERS["COMBO"](InputSpec(spec.name, "COMBO", spec.optional, choices=keys))
    widget.changed = lambda changed, value: _choose(node, changed, value, options)
    node.widgets.append(widget)
    widget.put(widget.value)


def _choose(node: Node, combo: Widget, value: Any, options: list[Mapping[str, Any]]) -> None:
    """Replace the inputs of the former choice by those of *value*, behind the combo."""
    prefix = f"{combo.name}."
    old = {one.name: one for one in node.inputs if one.name.startswith(prefix)}
    node.inputs = [one for one in node.inputs if not one.name.startswith(prefix)]
    node.widgets = [one for one in node.widgets if not one.name.startswith(prefix)]
    node.growers = {name: one for name, one in node.growers.items() if not name.startswith(prefix)}
    node.grown = {one for one in node.grown if not one[0].startswith(prefix)}
    chosen = next((one for one in options if is_same(one["key"], value)), None)
    if chosen is None:
        _cut_links(old.values())
        return
    widgets_before, inputs_before = len(node.widgets), len(node.inputs)
    for spec in section_specs(chosen.get("inputs")):
        add_input(node, spec.named(prefix + spec.name))
    for socket in node.inputs[inputs_before:]:
        _take_link(socket, old.pop(socket.name, None))
    _cut_links(old.values())
    connected = [socket.name for socket in node.inputs[inputs_before:] if socket.link is not None]
    added = node.widgets[widgets_before:]
    del node.widgets[widgets_before:]
    at = node.widgets.index(combo) + 1
    node.widgets[at:at] = added
    own = node.socket(combo.name)
    if own is not None:
        sockets = node.inputs[inputs_before:]
        del node.inputs[inputs_before:]
        at = node.inputs.index(own) + 1
        node.inputs[at:at] = sockets
    for name in connected:
        grow_behind(node, name)


def _cut_links(sockets: Iterable[Socket]) -> None:
    for socket in sockets:
        if socket.link is not None:
            socket.link.socket, socket.link.removed = None, True


def _add_group(node: Node, spec: InputSpec) -> None:
    """A group whose count is saved like a value: as many rows of the template's inputs follow it."""
    template = spec.options.get("template")
    least, most = _count(spec.options.get("min"), 0), _count(spec.options.get("max"), 100)
    fields = tuple(section_specs(template))
    controller = Widget(spec.name, "number", 0, sent=False)
    node.widgets.append(controller)

    def resize(widget: Widget, value: Any) -> None:
        rows = max(least, int(value)) if isinstance(value, int | float) and value == value and abs(value) < 1e6 else widget_rows()
        saved = node.saved.values
        if rows > max(most, len(saved) if isinstance(saved, list) else 0):
            raise WorkflowFormatError(f"node {node.id} ({node.kind}): {spec.name} is saved with {rows} rows; at most {most} are allowed")
        widget.value = rows
        for row in range(widget_rows(), rows):
            _add_row(node, controller, f"{spec.name}.{row}", fields)

    def widget_rows() -> int:
        names = {one.name.split(".")[1] for one in node.widgets if one.name.startswith(f"{spec.name}.")}
        return len(names)

    controller.changed = resize
    controller.put(least)


def _add_row(node: Node, controller: Widget, prefix: str, fields: tuple[InputSpec, ...]) -> None:
    before = len(node.widgets)
    group = prefix.rpartition(".")[0]
    for spec in fields:
        start = len(node.widgets)
        add_input(node, spec.named(f"{prefix}.{spec.name}"))
        for number, extra in enumerate(one for one in node.widgets[start:] if one.name != f"{prefix}.{spec.name}"):
            extra.name = f"{prefix}.{spec.name}.{number}"
    added = node.widgets[before:]
    del node.widgets[before:]
    last = max((index for index, one in enumerate(node.widgets) if one is controller or one.name.startswith(f"{group}.")))
    node.widgets[last + 1 : last + 1] = added
