"""Converting templates to prompts, and having the server's own checks look at them, with empty files in place of the models."""

import asyncio
import os
import pathlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

import folder_paths
import nodes
from app.packs.node_info import registered_node_info
from app.workflow_pages.conversion import page_to_prompt
from app.workflow_pages.errors import WorkflowFormatError
from comfy.text.combinations import find_combination
from comfy.text.kinds import KINDS
from comfy.text.te_models import TEModel
from comfy_execution.prompt_checks.walk import validate_prompt
from scripts.coverage.published import family_of
from scripts.coverage.templates import Template

MARK = "keepwarm_names_this_folder"
INPUT = "input"
LOADER = re.compile(r"(Dual|Triple|Quadruple)?CLIPLoader(GGUF)?")
INPUT_ENDINGS = (".png", ".mp4", ".wav", ".glb")


class Trial:
    """A folder that stands for a server's: each file that a prompt names is there, empty. *base* must be empty; it becomes the server's."""

    def __init__(self, base: pathlib.Path) -> None:
        self._base = base
        folder_paths.configure(str(base))
        for folder in folder_paths.folder_names_and_paths:
            self._put(folder, f"{MARK}.{folder}.safetensors")
        for ending in INPUT_ENDINGS:
            self._put(INPUT, MARK + ending)
        self._folders: dict[str, dict[str, str]] = {}

    def prompt_of(self, template: Template) -> dict[str, Any]:
        """The prompt that the page would send. Raises ``WorkflowFormatError``."""
        return page_to_prompt(template.workflow, registered_node_info, choose=lambda options: options[0])

    def files_of(self, prompt: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
        """(folder, file) for each file that a node of *prompt* chooses from a list of files."""
        return frozenset(
            (folder, node["inputs"][name])
            for node in prompt.values()
            for name, folder in self._lists_of(node["class_type"]).items()
            if isinstance(node["inputs"].get(name), str)
        )

    def problems(self, prompt: dict[str, Any]) -> list[str]:
        """What the server complains of when *prompt* is sent and its files are there."""
        for folder, name in self.files_of(prompt):
            self._put(folder, name)
        _, refusal, _, errors = asyncio.run(validate_prompt(str(uuid.uuid4()), prompt, None, nodes.NODE_CLASS_MAPPINGS))
        found = [
            f"{node['class_type']}: {problem['message']}: {problem['details']}" for node in errors.values() for problem in node["errors"]
        ]
        return found or ([refusal["message"]] if refusal else [])

    def try_template(self, template: Template) -> tuple[frozenset[tuple[str, str]], list[str]]:
        """The files that *template* loads, and what speaks against its prompt."""
        try:
            prompt = self.prompt_of(template)
        except WorkflowFormatError as error:
            return frozenset(), [f"not converted: {error}"]
        return self.files_of(prompt), [*self.problems(prompt), *unmade_encoders(prompt)]

    def _lists_of(self, class_type: str) -> dict[str, str]:
        """For each input of a class that offers a folder's files, the folder: told by the files put there for that."""
        if class_type not in self._folders:
            info = registered_node_info(class_type) or {"input": {}}
            offered = {name: str(spec) for section in info["input"].values() for name, spec in section.items()}
            self._folders[class_type] = {name: folder for name, text in offered.items() if (folder := _marked_folder(text)) is not None}
        return self._folders[class_type]

    def _put(self, folder: str, name: str) -> None:
        root = self._base / INPUT if folder == INPUT else pathlib.Path(folder_paths.get_folder_paths(folder)[0])
        path = root / name.replace("\\", "/").removesuffix(f" [{INPUT}]")
        if os.path.commonpath([root, os.path.normpath(path)]) == str(root):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def unmade_encoders(prompt: Mapping[str, Any]) -> list[str]:
    """Of each loader of text encoders in *prompt* whose files' text models are known but make nothing together for its type, that."""
    known, found = {kind.model.name for kind in KINDS}, []
    for node in prompt.values():
        given = node["inputs"]
        if not LOADER.fullmatch(node["class_type"]):
            continue
        names = [family_of("text_encoders", given[name]) for name in sorted(given) if name.startswith("clip_name")]
        if all(name in known for name in names):
            kind = str(given.get("type", ""))
            if find_combination([TEModel[str(name)] for name in names], kind) is None:
                found.append(f"{' and '.join(map(str, names))} make no text encoder for type {kind!r}")
    return found


def _marked_folder(offered: str) -> str | None:
    if MARK not in offered:
        return None
    marked = offered.partition(f"{MARK}.")[2].partition(".safetensors")[0]
    return marked if marked in folder_paths.folder_names_and_paths else INPUT
