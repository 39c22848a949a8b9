"""The official templates: saved workflows in a folder with the index that describes them."""

import importlib.util
import json
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.workflow_pages.node_building import VIRTUAL_CLASSES

PACKAGE, VARIABLE = "comfyui_workflow_templates_json", "KEEPWARM_TEMPLATES"
INDEX = "index.json"


class NoTemplatesError(ValueError):
    """There is no folder of templates; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class Template:
    """One saved workflow. ``usage`` is the index's figure for how often it is opened, 0 where the index has none."""

    name: str
    workflow: dict[str, Any] = field(repr=False)
    usage: int = 0

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Its nodes as they are saved, those of its subgraphs too."""
        yield from self.workflow["nodes"]
        for graph in self._subgraphs():
            yield from graph["nodes"]

    def classes(self) -> frozenset[str]:
        """The node classes that it needs from a server, muted and bypassed nodes counted."""
        return frozenset(node["type"] for node in self.nodes()) - {graph["id"] for graph in self._subgraphs()} - VIRTUAL_CLASSES

    def listed_models(self) -> frozenset[tuple[str, str]]:
        """(folder, file) of the model files that it offers to download."""
        listed = (model for node in self.nodes() for model in (node.get("properties") or {}).get("models") or [])
        return frozenset((model["directory"], model["name"]) for model in listed)

    def _subgraphs(self) -> list[dict[str, Any]]:
        return (self.workflow.get("definitions") or {}).get("subgraphs") or []


def find_folder(given: str | None) -> pathlib.Path:
    """*given*, else what the environment names, else the installed package's. Raises :class:`NoTemplatesError`."""
    named = given or os.environ.get(VARIABLE)
    if named is None and (spec := importlib.util.find_spec(PACKAGE)) is not None and spec.submodule_search_locations:
        named = os.path.join(spec.submodule_search_locations[0], "templates")
    if named is None:
        raise NoTemplatesError(f"no templates: pip install comfyui-workflow-templates-json, or name a folder as argument or in {VARIABLE}")
    folder = pathlib.Path(named)
    if not (folder / INDEX).is_file():
        raise NoTemplatesError(f"{folder} holds no {INDEX}; name the folder of the templates themselves")
    return folder


def read_templates(folder: pathlib.Path) -> list[Template]:
    """The templates of *folder* that need no paid services, most used first; a template without its file is left out."""
    entries = [entry for group in json.loads((folder / INDEX).read_text(encoding="utf-8")) for entry in group["templates"]]
    own = [entry for entry in entries if entry.get("openSource") is not False and (folder / f"{entry['name']}.json").is_file()]
    own.sort(key=lambda entry: (-entry.get("usage", 0), entry["name"]))
    return [
        Template(entry["name"], json.loads((folder / f"{entry['name']}.json").read_text(encoding="utf-8")), entry.get("usage", 0))
        for entry in own
    ]
