"""A node class's inputs, in the page's order, from its ``/object_info`` entry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One declared input; *choices* are a combo's."""

    name: str
    type: str
    optional: bool = False
    options: Mapping[str, Any] = field(default_factory=lambda: NO_OPTIONS)
    choices: tuple[Any, ...] = ()

    @property
    def widget_type(self) -> str:
        """The type that says which widget the page makes."""
        named = self.options.get("widgetType")
        return named if isinstance(named, str) and named else self.type

    @property
    def forced(self) -> bool:
        """Whether the input is only a socket."""
        return bool(self.options.get("forceInput")) or (self.optional and bool(self.options.get("defaultInput")))

    def named(self, name: str) -> "InputSpec":
        """The same input under another name."""
        return replace(self, name=name)


def as_list(value: Any) -> list[Any] | tuple[Any, ...]:
    """*value* if it is a list, else an empty list: packs declare all kinds of values."""
    return value if isinstance(value, list | tuple) else ()


def plain_name(value: Any) -> str:
    """*value* as a plain ``str``, also where a pack gives a member of an enumeration or a subclass of ``str``."""
    return str.__str__(value) if isinstance(value, str) else str(value)


def input_spec(name: str, entry: Any, optional: bool = False) -> InputSpec:
    """Read one ``[type, options]`` entry; anything else is a socket that accepts everything."""
    if not isinstance(entry, list | tuple) or not entry:
        return InputSpec(name, "*", optional)
    options = entry[1] if len(entry) > 1 and isinstance(entry[1], Mapping) else NO_OPTIONS
    if isinstance(entry[0], list | tuple):
        return InputSpec(name, "COMBO", optional, options, tuple(entry[0]))
    choices = tuple(as_list(options.get("options"))) if plain_name(entry[0]) == "COMBO" else ()
    return InputSpec(name, plain_name(entry[0]), optional, options, choices)


def section_specs(inputs: Any) -> Iterator[InputSpec]:
    """The required, then the optional inputs of an ``input`` mapping."""
    if not isinstance(inputs, Mapping):
        return
    for section in ("required", "optional"):
        entries = inputs.get(section)
        if isinstance(entries, Mapping):
            for name, entry in entries.items():
                yield input_spec(str(name), entry, section == "optional")


def class_specs(class_name: str, info: Mapping[str, Any]) -> list[InputSpec]:
    """Every input of a class in the order in which the page lays them out, with those that the page itself adds."""
    by_name = {spec.name: spec for spec in section_specs(info.get("input"))}
    required = {name: spec for name, spec in by_name.items() if not spec.optional}
    for spec in _page_additions(class_name, required):
        required[spec.name] = spec
    merged = required | {name: spec for name, spec in by_name.items() if spec.optional and name not in required}
    order = info.get("input_order")
    if not isinstance(order, Mapping):
        return list(merged.values())
    listed = [
        merged[name]
        for section in ("required", "optional")
        for name in as_list(order.get(section))
        if isinstance(name, str) and name in merged and merged[name].optional == (section == "optional")
    ]
    names = {spec.name for spec in listed}
    return listed + [spec for spec in merged.values() if spec.name not in names]


def _page_additions(class_name: str, required: Mapping[str, InputSpec]) -> Iterator[InputSpec]:
    """The page's own buttons and viewers: they take a place among the saved values."""
    if class_name in ("Preview3D", "SaveGLB"):
        yield InputSpec("image", "PREVIEW_3D")
    if class_name in ("LoadAudio", "SaveAudio", "PreviewAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveAudioAdvanced"):
        yield InputSpec("audioUI", "AUDIO_UI")
    if "audio" in required and required["audio"].options.get("audio_upload") is True:
        yield InputSpec("upload", "AUDIOUPLOAD")
    for spec in required.values():
        flags = (spec.options.get(flag) is True for flag in ("image_upload", "video_upload", "animated_image_upload"))
        if spec.type == "COMBO" and any(flags):
            yield InputSpec("upload", "IMAGEUPLOAD")
            return
