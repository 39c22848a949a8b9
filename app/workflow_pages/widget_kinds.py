"""Makes the widgets that the page makes for an input's type, with their first values, and marks those that are saved and sent."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from app.workflow_pages.graph import FIXED, Widget
from app.workflow_pages.input_specs import InputSpec
from app.workflow_pages.values import UNSET, is_truthy

SEED_NAMES = ("seed", "noise_seed")
CONTROL_MODES = ("fixed", "increment", "decrement", "randomize", "increment-wrap")
CONTROL_NAME = "control_after_generate"

Maker = Callable[[InputSpec], list[Widget]]


def default_of(options: Mapping[str, Any], fallback: Any) -> Any:
    """The declared default, also where a widget keeps it below ``options``."""
    value = options.get("default")
    if value is None and isinstance(options.get("options"), Mapping):
        value = options["options"].get("default")
    return fallback if value is None else value


def control_widget(options: Mapping[str, Any], start: str) -> Widget:
    """The list beside a seed that says what happens to it after a run: saved, never sent."""
    declared = options.get(CONTROL_NAME)
    prefix = options.get("control_prefix")
    name = f"{prefix} {CONTROL_NAME}" if prefix else CONTROL_NAME
    if isinstance(declared, str) and declared.strip() and declared not in CONTROL_MODES:
        name = declared
    value = declared if isinstance(declared, str) and declared in CONTROL_MODES else start
    return Widget(name, "combo", value, sent=False, choices=CONTROL_MODES)


def _number(spec: InputSpec) -> str:
    shown = spec.options.get("display")
    return shown if shown in ("slider", "knob", "gradientslider", "color") else "number"


def _int(spec: InputSpec) -> list[Widget]:
    widgets = [Widget(spec.name, _number(spec), default_of(spec.options, 0), spec=spec)]
    declared = spec.options.get(CONTROL_NAME)
    if is_truthy(declared) if declared is not None else spec.name in SEED_NAMES:
        widgets.append(control_widget(spec.options, "randomize"))
    return widgets


def _float(spec: InputSpec) -> list[Widget]:
    widgets = [Widget(spec.name, _number(spec), default_of(spec.options, 0), spec=spec)]
    return [*widgets, control_widget(spec.options, "fixed")] if spec.options.get(CONTROL_NAME) else widgets


def _combo(spec: InputSpec) -> list[Widget]:
    if spec.options.get("multi_select"):
        widgets = [Widget(spec.name, "multiselect", [], spec=spec)]
    else:
        start: Any = spec.options.get("default")
        if not is_truthy(start):
            start = spec.choices[0] if spec.choices else "Loading..." if spec.options.get("remote") else UNSET
        widgets = [Widget(spec.name, "combo", start, spec=spec, choices=spec.choices)]
    if spec.options.get(CONTROL_NAME):
        widgets += [control_widget(spec.options, "randomize"), Widget("control_filter_list", "string", "", sent=False)]
    return widgets


def _string(spec: InputSpec) -> list[Widget]:
    kind = "customtext" if spec.options.get("multiline") else "text"
    return [Widget(spec.name, kind, default_of(spec.options, ""), spec=spec)]


def _bounding_box(spec: InputSpec) -> list[Widget]:
    box = spec.options.get("default")
    box = dict(box) if isinstance(box, Mapping) else {"x": 0, "y": 0, "width": 512, "height": 512}
    parts = [Widget(part, "number", box.get(part, UNSET), sent=False) for part in ("x", "y", "width", "height")]
    return [Widget(spec.name, "boundingbox", box, spec=spec), *parts]


def _simple(kind: str, start: Any, saved: bool = True, sent: bool = True) -> Maker:
    def make(spec: InputSpec) -> list[Widget]:
        return [Widget(spec.name, kind, default_of(spec.options, start), saved, sent, spec)]

    return make


def _button(value: Any) -> Maker:
    return lambda spec: [Widget(spec.name, "button", value, sent=False, spec=spec)]


def _viewer(spec: InputSpec) -> list[Widget]:
    """A three-dimensional view: without a browser there is nothing to take a picture of."""
    return [Widget(spec.name, FIXED, "", spec=spec)]


def _recorder(spec: InputSpec) -> list[Widget]:
    return [Widget(spec.name, FIXED, "", spec=spec), Widget(f"{spec.name}#1", "button", "", sent=False)]


def _video_edit(spec: InputSpec) -> list[Widget]:
    features = spec.options.get("features") or ("trim", "crop")
    start = {"trim": {"start_time": 0, "duration": 0}, "crop": {"x": 0, "y": 0, "width": 0, "height": 0}}
    return _simple("videoedit", {part: value for part, value in start.items() if part in features})(spec)


STRAIGHT_CURVE: Final = {"points": [[0, 0], [1, 1]], "interpolation": "monotone_cubic"}

MAKERS: Final[Mapping[str, Maker]] = {
    "INT": _int,
    "FLOAT": _float,
    "COMBO": _combo,
    "STRING": _string,
    "BOUNDING_BOX": _bounding_box,
    "VIDEO_EDIT": _video_edit,
    "BOOLEAN": _simple("toggle", False),
    "MARKDOWN": _simple("MARKDOWN", ""),
    "COLOR": _simple("color", "#000000"),
    "IMAGECOMPARE": _simple("imagecompare", ["", ""], saved=False),
    "CHART": _simple("chart", {}),
    "GALLERIA": _simple("galleria", []),
    "PAINTER": _simple("painter", UNSET),
    "COMPOSITOR": _simple("compositor", UNSET),
    "TEXTAREA": _simple("textarea", ""),
    "CURVE": _simple("curve", STRAIGHT_CURVE),
    "RANGE": _simple("range", {"min": 0, "max": 1}),
    "RESOLUTION_PREVIEW": _simple("resolutionpreview", None, saved=False, sent=False),
    "BOUNDING_BOXES": _simple("boundingboxes", []),
    "LIGHT_INFO_PREVIEW": _simple("lightinfo", []),
    "COLORS": _simple("colors", []),
    "IMAGEUPLOAD": _button("image"),
    "AUDIOUPLOAD": _button(""),
    "AUDIO_UI": _simple("audioUI", "", saved=False, sent=False),
    "AUDIO_RECORD": _recorder,
    "WEBCAM": _viewer,
    "LOAD_3D_ADVANCED": _viewer,
    "PREVIEW_3D": _viewer,
    "CAMERA_INFO_STATE": _simple("cameraInfo", "", saved=False, sent=False),
    "CAMERA_ANGLE_VIEW": _simple("cameraAngle", "", sent=False),
    "COMFY_BRANCH_SELECTOR": _simple("combo", ""),
}

DYNAMIC_WIDGETS: Final = frozenset({"COMFY_DYNAMICCOMBO_V3", "COMFY_DYNAMICGROUP_V3", "LOAD_3D"})


def makes_widget(widget_type: str) -> bool:
    """Whether the page shows a widget, not only a socket, for that type."""
    return widget_type in MAKERS or widget_type in DYNAMIC_WIDGETS
