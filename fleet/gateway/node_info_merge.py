"""One description of all nodes from those of several servers: every node that any has, with the choices of all."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Info = dict[str, Any]
UPLOAD_KINDS: tuple[Literal["image", "video", "audio"], ...] = ("image", "video", "audio")


def merged(infos: Iterable[Mapping[str, Any]], uploads: Mapping[str, list[str]]) -> Info:
    """``{class: description}``; of a class that several describe the first counts, its lists of choices (models, files) are joined.

    *uploads*: names of the gateway's own files by kind (``image`` …), which inputs that take uploads offer too. Nothing that is given is
    changed.
    """
    result: Info = {}
    for info in infos:
        for class_type, description in info.items():
            result[class_type] = _joined(result[class_type], description) if class_type in result else description
    return {class_type: _with_uploads(description, uploads) for class_type, description in result.items()}


def _joined(first: Any, second: Any) -> Any:
    groups, others = _groups(first), _groups(second)
    if groups is None or others is None or groups == others:
        return first
    inputs = {
        name: {key: _joined_spec(spec, others[name].get(key)) for key, spec in group.items()} if isinstance(group, dict) else group
        for name, group in groups.items()
        if isinstance(others.get(name), dict) or not isinstance(group, dict)
    }
    return {**first, "input": {**groups, **inputs}}


def _groups(description: Any) -> dict[str, Any] | None:
    groups = description.get("input") if isinstance(description, dict) else None
    return groups if isinstance(groups, dict) else None


def _joined_spec(spec: Any, other: Any) -> Any:
    choices, more = choices_of(spec), choices_of(other)
    return spec if choices is None or more is None or choices == more else _with_choices(spec, [*choices, *more])


def choices_of(spec: Any) -> list[Any] | None:
    """The choices of an input: ``[[…], options]`` or ``["COMBO", {"options": […]}]``; None for inputs of other types."""
    if not isinstance(spec, list) or not spec:
        return None
    if isinstance(spec[0], list):
        return spec[0]
    options = _options(spec).get("options") if spec[0] == "COMBO" else None
    return options if isinstance(options, list) else None


def _options(spec: list[Any]) -> dict[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}


def _with_choices(spec: list[Any], choices: list[Any]) -> list[Any]:
    """*spec* with *choices*, each once."""
    once = [choice for at, choice in enumerate(choices) if choice not in choices[:at]] if len(choices) < 50 else _once(choices)
    if isinstance(spec[0], list):
        return [once, *spec[1:]]
    return [spec[0], {**_options(spec), "options": once}, *spec[2:]]


def _once(choices: list[Any]) -> list[Any]:
    seen: dict[tuple[type, str], Any] = {}
    for choice in choices:
        seen.setdefault((type(choice), str(choice)), choice)
    return list(seen.values())


def _with_uploads(description: Any, uploads: Mapping[str, list[str]]) -> Any:
    groups = _groups(description)
    if groups is None:
        return description
    changed = {
        name: {key: _spec_with_uploads(spec, uploads) for key, spec in group.items()}
        for name, group in groups.items()
        if isinstance(group, dict) and any(_takes(spec) for spec in group.values())
    }
    return {**description, "input": {**groups, **changed}} if changed else description


def _takes(spec: Any) -> str | None:
    """Which kind of file an input lets people upload."""
    if choices_of(spec) is None:
        return None
    options = _options(spec)
    return next((kind for kind in UPLOAD_KINDS if options.get(f"{kind}_upload") is True), None)


def _spec_with_uploads(spec: Any, uploads: Mapping[str, list[str]]) -> Any:
    kind = _takes(spec)
    names = uploads.get(kind, []) if kind is not None else []
    return _with_choices(spec, [*(choices_of(spec) or ()), *names]) if names else spec
