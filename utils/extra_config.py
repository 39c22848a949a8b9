"""Extra model folders from a YAML file, so that models of another installation are found."""

import codecs
import logging
import os
from collections.abc import Iterator
from typing import Any

import yaml

import folder_paths

log = logging.getLogger(__name__)


def load_extra_path_config(yaml_path: str) -> None:
    """Register every folder that the file at *yaml_path* names with ``folder_paths``.

    The file maps section names to ``{folder key: path or lines of paths, base_path: ..., is_default: bool}``. ``~`` and
    environment variables in ``base_path`` are expanded; relative paths start at ``base_path``, or else at the file's folder. Raises
    ``OSError`` when the file cannot be read and ``ValueError`` when its content is something else.
    """
    try:
        sections = yaml.load(_text(yaml_path), _EachKeyOnce)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
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
        start = _starting_folder(section, beside)
        is_default = bool(section.get("is_default", False))
        for key, path in _paths(section, f"{yaml_path}: section {title!r}"):
            folder = os.path.normpath(os.path.join(start, path))
            log.info("Extra folder for %s: %s", key, folder)
            folder_paths.add_model_folder_path(key, folder, is_default)


def _starting_folder(section: dict[str, Any], beside: str) -> str:
    base = section.get("base_path")
    if base is None:
        return beside
    expanded = os.path.expandvars(os.path.expanduser(str(base)))
    return expanded if os.path.isabs(expanded) else os.path.abspath(os.path.join(beside, expanded))


def _paths(section: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if key in ("base_path", "is_default") or value is None:
            continue
        lines = value if isinstance(value, list) else str(value).splitlines()
        if isinstance(value, dict) or any(isinstance(line, dict | list) for line in lines):
            raise ValueError(
                f"{where}: {key!r} must be a path, or lines of paths below a |, not a mapping; write the paths themselves there"
            )
        yield from ((str(key), str(line).strip()) for line in lines if str(line).strip())


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


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a mapping that says one key twice; YAML itself would forget the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in lines:
                    problem = f"{key.value!r} is there twice, first in line {lines[key.value]}; join the two or rename one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)
