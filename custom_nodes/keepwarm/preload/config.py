"""``preload_config.json``: what it may say, and reading it. What is wrong is told by its place in the file; the rest still counts."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSIONS = ("1.0",)
MOST_BYTES = 4 * 1024**2


class ConfigUnreadable(Exception):
    """The file as a whole cannot be used; the text says why and names it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the file that is not taken, *path* such as ``models.vaes[0].vae_name``."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One model to load: *files* are names as the standard loader nodes list them, *options* the loader's other inputs."""

    kind: str
    path: str
    files: tuple[str, ...]
    options: Mapping[str, str]
    cache_key: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class PreloadConfig:
    """A file's content: the enabled *models* in order, and the settings."""

    models: tuple[Wanted, ...] = ()
    auto_gpu_load: bool = False
    verbose: bool = False
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Field:
    """A field's type for people and for JSON schema, and whether a value is of it."""

    said: str
    schema: Mapping[str, Any]
    accepts: Callable[[Any], bool]


_TEXT = _Field("a text", {"type": "string"}, lambda value: isinstance(value, str))
_NAME = _Field("a file name", {"type": "string", "minLength": 1}, lambda value: isinstance(value, str) and bool(value))
_SWITCH = _Field("true or false", {"type": "boolean"}, lambda value: isinstance(value, bool))
_NAMES = _Field(
    "a list of one to three file names",
    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 3},
    lambda value: isinstance(value, list) and 1 <= len(value) <= 3 and all(isinstance(name, str) and name for name in value),
)
_COMMON = {"cache_key": _TEXT, "enabled": _SWITCH, "description": _TEXT}


@dataclass(frozen=True, slots=True)
class Kind:
    """One list under ``models``: the folder and the field that name files, and the loader's other inputs."""

    name: str
    folder: str
    file_field: str
    files: _Field
    options: Mapping[str, _Field] = field(default_factory=dict)

    def fields(self) -> dict[str, _Field]:
        """Every field that an entry may have."""
        return {self.file_field: self.files, **self.options, **_COMMON}


KINDS = {
    "checkpoints": Kind("checkpoint", "checkpoints", "name", _NAME),
    "text_encoders": Kind("text encoder", "text_encoders", "clip_names", _NAMES, {"type": _NAME, "device": _NAME}),
    "diffusion_models": Kind("diffusion model", "diffusion_models", "model_name", _NAME, {"weight_dtype": _NAME}),
    "vaes": Kind("VAE", "vae", "vae_name", _NAME),
}
_SETTINGS = {"auto_gpu_load": _SWITCH, "verbose": _SWITCH}


def read_config(path: str | Path) -> PreloadConfig:
    """The config in the file *path*. Raises :class:`ConfigUnreadable` when it is missing, too long or not JSON."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigUnreadable(f"The preload config {path} cannot be read: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise ConfigUnreadable(f"The preload config {path} is longer than {MOST_BYTES} bytes")
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigUnreadable(f"The preload config {path} is not JSON: {error}") from None
    return parse_config(data)


def parse_config(data: Any) -> PreloadConfig:
    """The config that *data*, parsed JSON, stands for; entries with problems are left out."""
    problems: list[Problem] = []
    root = _object(data, "the file", {"version", "description", "models", "settings"}, problems)
    if "version" in root and str(root["version"]) not in VERSIONS:
        problems.append(Problem("version", f"{root['version']!r} is not known; this server reads {' and '.join(VERSIONS)}"))
    if not _TEXT.accepts(root.get("description", "")):
        problems.append(Problem("description", f"must be {_TEXT.said}"))
    settings = _checked(_object(root.get("settings", {}), "settings", set(_SETTINGS), problems), "settings", _SETTINGS, problems)
    models = tuple(_models(root.get("models", {}), problems))
    return PreloadConfig(models, settings.get("auto_gpu_load", False), settings.get("verbose", False), tuple(problems))


def _models(data: Any, problems: list[Problem]) -> Iterator[Wanted]:
    """The usable entries of the object ``models``."""
    taken: dict[str, str] = {}
    lists = _object(data, "models", set(KINDS), problems)
    for name in KINDS:
        entries = lists.get(name, [])
        if not isinstance(entries, list):
            problems.append(Problem(f"models.{name}", "must be a list"))
            continue
        for index, entry in enumerate(entries):
            wanted = _wanted(name, f"models.{name}[{index}]", entry, problems)
            if wanted is None:
                continue
            if wanted.cache_key in taken:
                at = f"{wanted.path}.cache_key"
                problems.append(Problem(at, f"{wanted.cache_key!r} is the key of {taken[wanted.cache_key]} already; keys must differ"))
                continue
            taken[wanted.cache_key] = wanted.path
            yield wanted


def _wanted(list_name: str, path: str, data: Any, problems: list[Problem]) -> Wanted | None:
    kind, before = KINDS[list_name], len(problems)
    if not isinstance(data, dict):
        problems.append(Problem(path, "must be an object"))
        return None
    fields = kind.fields()
    entry = _checked(_object(data, path, set(fields), problems), path, fields, problems)
    if kind.file_field not in data:
        problems.append(Problem(f"{path}.{kind.file_field}", "is missing: name the file as the loader node lists it"))
    # An unknown field is said but does no harm; a wrong value does.
    if any(problem.path.startswith(path) and not isinstance(problem, _Unknown) for problem in problems[before:]):
        return None
    if not entry.get("enabled", True):
        return None
    named = entry[kind.file_field]
    files = tuple(named) if isinstance(named, list) else (named,)
    options = {name: entry[name] for name in kind.options if name in entry}
    key = entry.get("cache_key") or generated_key(kind.name, files, options)
    return Wanted(list_name, path, files, options, key, entry.get("description", ""))


def generated_key(kind: str, files: tuple[str, ...], options: Mapping[str, str]) -> str:
    """The key of an entry that gives none: the same in every start."""
    return " ".join((f"{kind}:", " + ".join(files), *(f"{name}={value}" for name, value in sorted(options.items()))))


class _Unknown(Problem):
    """A field that is not known, beside which the rest of its object still counts."""


def _object(data: Any, path: str, known: set[str], problems: list[Problem]) -> dict[str, Any]:
    """*data*'s known fields; whatever else it is or has becomes a problem."""
    if not isinstance(data, dict):
        problems.append(Problem(path, "must be an object"))
        return {}
    prefix = "" if path == "the file" else f"{path}."
    for name in data.keys() - known:
        problems.append(_Unknown(f"{prefix}{name}", f"is not a field here; allowed: {', '.join(sorted(known))}"))
    return {name: value for name, value in data.items() if name in known}


def _checked(data: Mapping[str, Any], path: str, fields: Mapping[str, _Field], problems: list[Problem]) -> dict[str, Any]:
    """The fields of *data* that have the type that *fields* want."""
    for name, value in data.items():
        if not fields[name].accepts(value):
            problems.append(Problem(f"{path}.{name}", f"must be {fields[name].said}, not {json.dumps(value)[:80]}"))
    return {name: value for name, value in data.items() if fields[name].accepts(value)}


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a config."""

    def entry(kind: Kind) -> dict[str, Any]:
        properties = {name: dict(one.schema) for name, one in kind.fields().items()}
        return {"type": "object", "properties": properties, "required": [kind.file_field], "additionalProperties": False}

    models = {name: {"type": "array", "items": entry(kind)} for name, kind in KINDS.items()}
    settings = {name: dict(one.schema) for name, one in _SETTINGS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Models to preload",
        "type": "object",
        "properties": {
            "version": {"enum": list(VERSIONS)},
            "description": dict(_TEXT.schema),
            "models": {"type": "object", "properties": models, "additionalProperties": False},
            "settings": {"type": "object", "properties": settings, "additionalProperties": False},
        },
        "additionalProperties": False,
    }
