"""Reads extra model folders from a YAML file, so that models of another installation are found."""

import codecs
import logging
import os
from collections.abc import Iterator
from typing import Any

import yaml

import folder_paths

log = logging.getLogger(__name__)

# What PyYAML raises for values that do not fit their tags (``!!int x``), and for thousands of brackets.
_OF_ODD_TAGS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_KEPT_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null")


def load_extra_path_config(yaml_path: str) -> None:
    """Register every folder that the file at *yaml_path* names with ``folder_paths``.

    The file maps section names to ``{folder key: path or lines of paths, base_path: ..., is_default: bool}``. ``~`` and
    environment variables in ``base_path`` are expanded; relative paths start at ``base_path``, or else at the file's folder. Raises
    ``OSError`` when the file cannot be read and ``ValueError``, naming the file, when its content is anything else.
    """
    text = _text(yaml_path)
    try:
        sections = yaml.load(text, _TextsAsWritten)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, *_OF_ODD_TAGS) as error:
        raise ValueError(f"{yaml_path} is not valid YAML: {error}") from None
    if sections is None:
        return
    if not isinstance(sections, dict):
        raise ValueError(f"{yaml_path} must map section names to folders, not hold a {type(sections).__name__}")
    beside = os.path.dirname(os.path.abspath(yaml_path))
    for title, section in sections.items():
        if section is None:
            continue
        if not isinstance(section, dict):
            raise ValueError(f"{yaml_path}: the section {title!r} must map folder keys to paths")
        where = f"{yaml_path}: section {title!r}"
        start = _starting_folder(section.get("base_path"), beside, where)
        is_default = _is_true(section.get("is_default"), where)
        for key, path in _paths(section, where):
            folder = os.path.normpath(os.path.join(start, path))
            log.info("Extra folder for %s: %s", key, folder)
            folder_paths.add_model_folder_path(key, folder, is_default)


def _is_true(given: Any, where: str) -> bool:
    found = {None: False, "0": False, "1": True}.get(given, given) if isinstance(given, str | None) else given
    if not isinstance(found, bool):
        raise ValueError(f"{where}: 'is_default' must be true or false")
    return found


def _starting_folder(base: Any, beside: str, where: str) -> str:
    if base is None:
        return beside
    expanded = os.path.expandvars(os.path.expanduser(_checked(base, f"{where}: 'base_path'")))
    return expanded if os.path.isabs(expanded) else os.path.abspath(os.path.join(beside, expanded))


def _paths(section: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if key in ("base_path", "is_default") or value is None:
            continue
        lines = value.splitlines() if isinstance(value, str) else value if isinstance(value, list) else [value]
        paths = (_checked(line, f"{where}: {key!r}").strip() for line in lines)
        yield from ((str(key), path) for path in paths if path)


def _checked(path: Any, what: str) -> str:
    """*path* if it is a text that can be a path. Raises ``ValueError``, naming the entry *what*."""
    if not isinstance(path, str):
        kind = {dict: "mapping", bool: "truth value (put quotes around it)"}.get(type(path), type(path).__name__)
        raise ValueError(f"{what} must be a path, or lines of paths below a |, not a {kind}; write the paths themselves there")
    if "\0" in path or any("\ud800" <= letter <= "\udfff" for letter in path):
        raise ValueError(f"{what} must be a path, but has characters that no path can have: {path!a}")
    return path


def _text(yaml_path: str) -> str:
    """The file's text. Raises ``OSError``, and ``ValueError`` naming what to save it as when it is not UTF-8."""
    with open(yaml_path, "rb") as stream:
        content = stream.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        found = "UTF-16, as PowerShell's > writes it" if is_utf16 else "another encoding, such as Latin-1"
        raise ValueError(f"{yaml_path} is not UTF-8 but {found}; open it in an editor and save it as UTF-8") from None


class _TextsAsWritten(yaml.SafeLoader):
    """Reads a folder called ``0123`` or ``2024-01-01`` as the text that it is.

    It refuses a mapping that says one key twice; YAML itself would forget the first.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
        letter: [(tag, pattern) for tag, pattern in found if tag in _KEPT_TAGS]
        for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in lines:
                    problem = f"{key.value!r} is there twice, first in line {lines[key.value]}; join the two or rename one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)
