"""What results depend on apart from prompts: the core, libraries, precision, packs and files of this installation."""

import importlib.metadata
import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field

import folder_paths
from comfy_execution.prompt_files.known_folders import FileRoots, server_roots
from comfy_execution.shared_keys.code_digest import CodeDigests, core_digest
from comfy_execution.shared_keys.file_fingerprints import FileFingerprints

MAX_PINNED = 20_000
# Libraries that compute; their versions are read from package metadata, so none is imported.
LIBRARIES = ("torch", "numpy", "diffusers", "transformers", "safetensors", "scipy", "Pillow", "torchsde")


@dataclass(slots=True)
class HermeticWorld:
    """What keys depend on apart from prompts; one per executor. *namespace* and *roots* are called on worker threads and may block.

    ``pins`` remembers by signature what the files of a node held when it ran here: its result may outlive a change of the file.
    """

    namespace: Callable[[], str]
    roots: Callable[[], FileRoots]
    code: Callable[[], CodeDigests]
    fingerprints: FileFingerprints
    pins: dict[str, str] = field(default_factory=dict)
    _known: tuple[str, CodeDigests] | None = None

    @property
    def is_settled(self) -> bool:
        """Whether ``settled`` answers at once."""
        return self._known is not None

    def settled(self) -> tuple[str, CodeDigests]:
        """The namespace and the code digests, worked out once. Blocks."""
        if self._known is None:
            self._known = self.namespace(), self.code()
        return self._known

    def pin(self, signature: str, own: str) -> None:
        """Remember what a node with *signature* is made from now."""
        self.pins.pop(signature, None)
        self.pins[signature] = own
        while len(self.pins) > MAX_PINNED:
            del self.pins[next(iter(self.pins))]

    def close(self) -> None:
        """Stop reading files."""
        self.fingerprints.close()


def make_world(deployment: Callable[[], str], own_name: str = "") -> HermeticWorld:
    """The world of this installation. *deployment* names what kind of device and precision computes here; *own_name* is the user's."""
    core_root = str(pathlib.Path(__file__).resolve().parents[2])

    def namespace() -> str:
        return "|".join((deployment(), f"core {core_digest(core_root)}", *map(_version, LIBRARIES), f"name {own_name}"))

    return HermeticWorld(
        namespace,
        server_roots,
        lambda: CodeDigests(core_root, folder_paths.get_folder_paths("custom_nodes")),
        FileFingerprints(os.path.join(folder_paths.get_system_user_directory(), "file_fingerprints.json")),
    )


def _version(library: str) -> str:
    try:
        return f"{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{library} missing"
