"""Naming the server that made a file, in the file's own reference.

Two servers call their first picture alike, so a name alone does not say which is meant. The gateway therefore puts the server into
the subfolder of every reference it passes on: ``{"filename": "x.png", "subfolder": "@s1/portraits", "type": "output"}``. Clients hand
references back as they got them, in ``/view`` and as inputs (``@s1/portraits/x.png [output]``), and the gateway finds the file.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from comfy_execution.prompts.job_outputs import has_3d_extension

_MARKED = re.compile(r"@([A-Za-z0-9_.%~-]{1,200})(?:/(.*))?", re.DOTALL)
_ANNOTATED = re.compile(r"(?P<name>.*\S)\s*\[(?P<kind>input|output|temp)\]\s*", re.DOTALL)
KINDS = frozenset({"input", "output", "temp"})


def mark(server_id: str, subfolder: str) -> str:
    """*subfolder* on the server *server_id*."""
    name = quote(server_id, safe="")
    return f"@{name}/{subfolder}" if subfolder else f"@{name}"


def unmark(subfolder: str) -> tuple[str | None, str]:
    """The server that a marked subfolder names and the subfolder there; ``(None, subfolder)`` for one without a mark."""
    found = _MARKED.fullmatch(subfolder)
    return (None, subfolder) if found is None else (unquote(found[1]), found[2] or "")


def marked_outputs(value: Any, server_id: str) -> Any:
    """A copy of *value* (what nodes output, of JSON kinds) with every file reference in it marked. The parts without one are shared."""
    if isinstance(value, dict):
        marked = {key: marked_outputs(item, server_id) for key, item in value.items()}
        if is_reference(value):
            subfolder = value.get("subfolder")
            marked["subfolder"] = mark(server_id, subfolder if isinstance(subfolder, str) else "")
        return marked
    if isinstance(value, list):
        return [_marked_item(item, server_id) for item in value]
    return value


def _marked_item(item: Any, server_id: str) -> Any:
    """An item of a list; among them, files of 3D models are named by their paths alone."""
    return mark(server_id, item) if isinstance(item, str) and has_3d_extension(item) else marked_outputs(item, server_id)


def is_reference(value: Mapping[str, Any]) -> bool:
    """Whether *value* names a file of the input, output or temp folder."""
    return isinstance(value.get("filename"), str) and value.get("type") in KINDS


def named_file(text: str) -> tuple[str, str]:
    """The path and the folder's kind that an input's text stands for: ``sub/x.png [output]`` or plain ``x.png`` (``input``)."""
    found = _ANNOTATED.fullmatch(text)
    return (found["name"], found["kind"]) if found is not None else (text, "input")


def texts_in(workflow: Mapping[str, Any]) -> Iterator[str]:
    """Every text among the inputs of the nodes, in lists and objects too. Links' node ids may be among them."""
    left: list[Any] = [node.get("inputs") for node in workflow.values() if isinstance(node, dict)]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
