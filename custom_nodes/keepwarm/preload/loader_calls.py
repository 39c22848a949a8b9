"""From an entry of the config to a call of the server's own loader node, so that whoever loads the same later finds it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import KINDS, Problem, Wanted, generated_key

Folders = Any  # the module folder_paths
NODE_FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "DualCLIPLoader": "text_encoders",
    "TripleCLIPLoader": "text_encoders",
    "UNETLoader": "diffusion_models",
    "VAELoader": "vae",
}
_TEXT_LOADERS = {
    1: ("CLIPLoader", ("clip_name",)),
    2: ("DualCLIPLoader", ("clip_name1", "clip_name2")),
    3: ("TripleCLIPLoader", ("clip_name1", "clip_name2", "clip_name3")),
}
_KIND_OF_NODE = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "DualCLIPLoader": "text_encoders",
    "TripleCLIPLoader": "text_encoders",
    "UNETLoader": "diffusion_models",
    "VAELoader": "vaes",
    "KeepwarmCheckpointLoader": "checkpoints",
    "KeepwarmTextEncoderLoader": "text_encoders",
    "KeepwarmDiffusionModelLoader": "diffusion_models",
    "KeepwarmVAELoader": "vaes",
}
_NAMED_FILES = {"DualCLIPLoader": 2, "TripleCLIPLoader": 3}
_TEXT_TYPES = {"CLIPLoader": "stable_diffusion", "DualCLIPLoader": "sdxl"}


class Unloadable(Exception):
    """An entry that this server cannot load; *problem* says where and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class LoaderCall:
    """One call of the node class *node_class*, registered as *node*, and the files that it reads."""

    node: str
    node_class: type
    inputs: Mapping[str, str]
    files: tuple[str, ...]

    def run(self) -> tuple[Any, ...]:
        """The node's outputs. Blocks while files are read; raises what the node raises."""
        node_class: Any = self.node_class
        if is_v3(node_class):
            return tuple(node_class.execute(**self.inputs).args)
        return tuple(getattr(node_class(), node_class.FUNCTION)(**self.inputs))

    def asks_for(self) -> tuple[Any, ...]:
        """Equal for calls of the same node with the same inputs."""
        return self.node, tuple(sorted(self.inputs.items()))

    def file_bytes(self) -> int:
        """What its files take on the disk; 0 where one is missing."""
        try:
            return sum(map(os.path.getsize, self.files))
        except OSError:
            return 0

    def file_states(self) -> tuple[Any, ...] | None:
        """What tells its files as they are now from others under their names; None where one is missing."""
        try:
            return tuple(map(_file_identity, self.files))
        except OSError:
            return None


def is_v3(node_class: type) -> bool:
    """Whether *node_class* is written against ``comfy_api``."""
    from comfy_api.latest import io

    return issubclass(node_class, io.ComfyNode)


def loader_call(wanted: Wanted, classes: Mapping[str, type], folders: Folders) -> LoaderCall:
    """The call that loads *wanted*. Raises :class:`Unloadable` for a missing file, an impossible option or a node that is missing."""
    node, inputs = _node_and_inputs(wanted)
    node_class = classes.get(node)
    if node_class is None:
        raise Unloadable(Problem(wanted.path, f"this server has no node {node}, which would load it"))
    accepted = _accepted(node_class)
    for name, value in inputs.items():
        if name not in accepted and (name, value) != ("device", "default"):
            raise Unloadable(Problem(wanted.path, f"the node {node} of this server takes no {name}"))
        offered = _offered(accepted[name]) if name in accepted else None
        if offered is not None and value not in offered:
            raise Unloadable(_not_offered(wanted, node, name, offered, value))
    return call_of(node, node_class, inputs, folders)


def call_of(node: str, node_class: type, inputs: Mapping[str, str], folders: Folders) -> LoaderCall:
    """The call of *node* with *inputs*, and the files that those of its inputs called "…name…" name."""
    # "default" is what a loader without this input does: the two must be equal.
    inputs = {name: value for name, value in inputs.items() if (name, value) != ("device", "default")}
    found = [folders.get_full_path(NODE_FOLDERS[node], value) for name, value in inputs.items() if "name" in name]
    return LoaderCall(node, node_class, inputs, tuple(path for path in found if path))


def _node_and_inputs(wanted: Wanted) -> tuple[str, dict[str, str]]:
    if wanted.kind == "checkpoints":
        return "CheckpointLoaderSimple", {"ckpt_name": wanted.files[0]}
    if wanted.kind == "diffusion_models":
        return "UNETLoader", {"unet_name": wanted.files[0], "weight_dtype": wanted.options.get("weight_dtype", "default")}
    if wanted.kind == "vaes":
        return "VAELoader", {"vae_name": wanted.files[0]}
    node, inputs = _TEXT_LOADERS[len(wanted.files)]
    options = dict(wanted.options)
    if node in _TEXT_TYPES:
        options.setdefault("type", _TEXT_TYPES[node])
    else:
        options.pop("type", None)  # three text encoders go together in one way only
    return node, dict(zip(inputs, wanted.files)) | options


def wanted_of(node: str, inputs: Mapping[str, Any]) -> Wanted | None:
    """The entry of a config for a node of a prompt, with the generated key; None for other nodes, and where a value comes from a node.

    The standard loader nodes, and the pack's own, whose inputs are called otherwise.
    """
    kind = _KIND_OF_NODE.get(node)
    if kind is None or any(isinstance(inputs.get(name), list) for name in KINDS[kind].options):
        return None
    values = {name: value for name, value in sorted(inputs.items()) if isinstance(value, str)}
    files = tuple(value for name, value in values.items() if "name" in name and value != "none")
    if len(files) < _NAMED_FILES.get(node, 1):
        return None
    options = {name: values[name] for name in KINDS[kind].options if name in values and (name, values[name]) != ("device", "default")}
    return Wanted(kind, f"a prompt's {node}", files, options, generated_key(KINDS[kind].name, files, options))


def choices(node_class: type, name: str) -> list[Any]:
    """What the input *name* of *node_class* lets choose; nothing for other inputs."""
    declared = _accepted(node_class).get(name)
    return [] if declared is None else _offered(declared) or []


def _accepted(node_class: Any) -> dict[str, Any]:
    """The declared inputs, required and optional."""
    declared = node_class.INPUT_TYPES()
    return {**declared.get("required", {}), **declared.get("optional", {})}


def _offered(declared: Any) -> list[Any] | None:
    """The values of a choice, None for other inputs."""
    if isinstance(declared[0], list):
        return declared[0]
    options = declared[1] if len(declared) > 1 else {}
    return options.get("options") if declared[0] == "COMBO" else None


def _not_offered(wanted: Wanted, node: str, name: str, offered: list[Any], value: str) -> Problem:
    if value in wanted.files:
        shown = ", ".join(map(str, offered[:5])) or "none"
        return Problem(wanted.path, f"there is no file {value!r} in the folder {NODE_FOLDERS[node]}; found: {shown}")
    return Problem(f"{wanted.path}.{name}", f"{value!r} is not allowed; allowed: {', '.join(map(str, offered))}")


def _file_identity(path: str) -> tuple[Any, ...]:
    found = os.stat(path)
    return (os.path.realpath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
