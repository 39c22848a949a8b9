"""Keys under which results can be shared with other machines: they cover everything a result depends on, not only what the prompt says.

A node's key is a hash over the namespace, its input signature, the code of its pack, the contents of the files its inputs name, and the
keys of the nodes it is linked to. So another machine that has another file under the same name, another version of a pack or of a
library, or computes in another precision, has another key.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.prompt_files.known_folders import FolderNames
from comfy_execution.prompt_files.named_files import OUTSIDE
from comfy_execution.prompt_files.prompt_files import FoundFile, PromptFiles
from comfy_execution.providers.traits import read_traits
from comfy_execution.shared_keys.world import HermeticWorld
from comfy_execution.signatures import framed

log = logging.getLogger(__name__)

FORMAT = "keepwarm-key-1"


class HermeticKeys:
    """The ``ExternalKeys`` of one prompt. Awaited and called by the coroutine that runs the prompt."""

    def __init__(self, world: HermeticWorld, dynprompt: DynamicPrompt, outputs: Any, node_class: Callable[[str], Any]) -> None:
        """*outputs*: the cache of results, which knows signatures; *node_class*: node classes by type."""
        self._world = world
        self._dynprompt = dynprompt
        self._outputs = outputs
        self._node_class = node_class
        self._files: PromptFiles = outputs.files or PromptFiles(world.roots, FolderNames(), dynprompt, node_class)
        self._told: set[str] = set()
        self._hermetic: dict[str, bool] = {}
        self._links: dict[str, list[str]] = {}
        self._code_hashes: dict[str, str] = {}
        # What each node itself contributes, with its signature; None when its result cannot be shared.
        self._own: dict[str, tuple[str, str] | None] = {}
        self._keys: dict[str, str | None] = {}

    async def settle(self) -> None:
        """Work out, once per process, what all keys depend on; loads torch, so it is not counted as a provider's time."""
        if not self._world.is_settled:
            await asyncio.to_thread(self._world.settled)

    async def prepare(self, node_ids: Iterable[str]) -> None:
        """Read what the keys of *node_ids* and of all nodes above them depend on. Cancelled, it leaves off without harm."""
        nodes = [node_id for node_id in self._above(node_ids) if node_id not in self._own]
        if not nodes:
            return
        code = await asyncio.to_thread(self._code_of, nodes)
        await self._files.survey(nodes)
        files = {file for node_id in nodes for file in self._files.own(node_id) if file.kind != OUTSIDE}
        reading = {file: self._world.fingerprints.request(file.path, file.state) for file in files}
        # Shielded: reading goes on for a later prompt when this one does not wait any longer.
        contents = {file: await asyncio.shield(asyncio.wrap_future(future)) for file, future in reading.items()}
        for node_id in nodes:
            self._own[node_id] = self._settle(node_id, code.get(node_id), contents)
        self._combine_all(nodes)

    def key(self, node_id: str) -> str | None:
        """The node's key, None when it has none or was not prepared."""
        return self._keys.get(node_id)

    def _above(self, node_ids: Iterable[str]) -> list[str]:
        seen: dict[str, None] = {}
        waiting = list(node_ids)
        while waiting:
            node_id = waiting.pop()
            if node_id not in seen and self._dynprompt.has_node(node_id):
                seen[node_id] = None
                if node_id not in self._own:
                    waiting.extend(self._parents(node_id))
        return list(seen)

    def _code_of(self, nodes: list[str]) -> dict[str, str | None]:
        """On a worker thread: a digest of each node's code."""
        _, code = self._world.settled()
        class_types = {node_id: self._dynprompt.get_node(node_id)["class_type"] for node_id in nodes}
        digests = {class_type: code.of_class(self._node_class(class_type)) for class_type in set(class_types.values())}
        return {node_id: digests[class_type] for node_id, class_type in class_types.items()}

    def _settle(self, node_id: str, code: str | None, contents: Mapping[FoundFile, str | None]) -> tuple[str, str] | None:
        """The node's signature and what it contributes itself, its code and files; None when its result cannot be shared."""
        signature = self._outputs.external_key(node_id)
        if not isinstance(signature, str):
            return None
        if self._outputs.get_local(node_id) is not None:
            pinned = self._world.pins.get(signature)
            return None if pinned is None else (signature, pinned)
        is_hermetic = self._is_hermetic(self._dynprompt.get_node(node_id)["class_type"])
        named = [(file.kind, contents.get(file)) for file in self._files.own(node_id)]
        if code is None or not is_hermetic or not self._files.is_known(node_id) or any(content is None for _, content in named):
            self._world.pins.pop(signature, None)
            self._tell_elsewhere(node_id)
            return None
        own = self._hash_code(code) if not named else _hash([code, *sorted(f"{kind}:{content}" for kind, content in named)])
        self._world.pin(signature, own)
        return signature, own

    def _tell_elsewhere(self, node_id: str) -> None:
        for path in [file.path for file in self._files.own(node_id) if file.kind == OUTSIDE and file.path not in self._told]:
            self._told.add(path)
            log.info("%s is no file in a folder of this server, so results of node %s and of those below are not shared", path, node_id)

    def _hash_code(self, code: str) -> str:
        if code not in self._code_hashes:
            self._code_hashes[code] = _hash([code])
        return self._code_hashes[code]

    def _is_hermetic(self, class_type: str) -> bool:
        if class_type not in self._hermetic:
            self._hermetic[class_type] = read_traits(self._node_class(class_type)).is_hermetic
        return self._hermetic[class_type]

    def _combine_all(self, nodes: Iterable[str]) -> None:
        """Work out the keys of *nodes*, those above first. Nodes in a circle get none."""
        opened: set[str] = set()
        for start in nodes:
            path = [start]
            while path:
                current = path[-1]
                above = [] if current in opened or current in self._keys else self._parents(current)
                opened.add(current)
                missing = [parent for parent in above if parent in self._own and parent not in self._keys]
                if missing:
                    path.extend(missing)
                    continue
                path.pop()
                if current not in self._keys:
                    self._keys[current] = self._combine(current)

    def _combine(self, node_id: str) -> str | None:
        own = self._own.get(node_id)
        if own is None:
            return None
        parents = [self._keys.get(parent) for parent in self._parents(node_id)]
        known = [key for key in parents if key is not None]
        if len(known) < len(parents):
            return None
        namespace, _ = self._world.settled()
        return _hash([FORMAT, namespace, *own, *known])

    def _parents(self, node_id: str) -> list[str]:
        """The nodes it is linked to, by the names of its inputs."""
        known = self._links.get(node_id)
        if known is None:
            inputs = self._dynprompt.get_node(node_id)["inputs"]
            known = self._links[node_id] = [value[0] for _, value in sorted(inputs.items()) if is_link(value)]
        return known


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256(b"".join([framed(b"", part.encode("utf-8", "surrogatepass")) for part in parts])).hexdigest()
