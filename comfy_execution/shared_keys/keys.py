"""Keys under which results can be shared with other machines: they cover everything a result depends on, not only what the prompt says.

A node's key is a hash over the namespace, its input signature, the code of its pack, the contents of the files its inputs name, and the
keys of the nodes it is linked to. So another machine that has another file under the same name, another version of a pack or of a
library, or computes in another precision, has another key.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

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
# What stands before 64 hexadecimal digits in a row of ``framed`` texts.
_HEX_HEAD = framed(b"", b"0" * 64)[:-64].decode("ascii")


class _Code(NamedTuple):
    """The digest of a class's code, and what a node of it contributes to its key when it names no files."""

    digest: str
    alone: str


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
        self._links: dict[str, list[str]] = {}
        self._facts: dict[str, tuple[_Code | None, bool]] = {}
        # What each node itself contributes, with its signature; None when its result cannot be shared.
        self._own: dict[str, tuple[str, str] | None] = {}
        self._keys: dict[str, str | None] = {}
        # The hash over what all keys begin with.
        self._beginning: Any = None

    async def settle(self) -> None:
        """Work out, once per process, what all keys depend on; loads torch, so it is not counted as a provider's time."""
        if not self._world.is_settled:
            await asyncio.to_thread(self._world.settled)

    async def prepare(self, node_ids: Iterable[str]) -> None:
        """Read what the keys of *node_ids* and of all nodes above them depend on. Cancelled, it leaves off without harm."""
        nodes = [node_id for node_id in self._above(node_ids) if node_id not in self._own]
        if not nodes:
            return
        get_node = self._dynprompt.get_node
        class_types = {node_id: get_node(node_id)["class_type"] for node_id in nodes}
        await self._learn_code(set(class_types.values()))
        await self._files.survey(nodes)
        own_files = self._files.own
        files = {file for node_id in nodes for file in own_files(node_id) if file.kind != OUTSIDE}
        reading = {file: self._world.fingerprints.request(file.path, file.state) for file in files}
        # Shielded: reading goes on for a later prompt when this one does not wait any longer.
        contents = {file: await asyncio.shield(asyncio.wrap_future(future)) for file, future in reading.items()}
        for node_id in nodes:
            self._own[node_id] = self._settle(node_id, class_types[node_id], contents)
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

    async def _learn_code(self, class_types: Iterable[str]) -> None:
        """Work out the digests of classes that no prompt has used so far, on a worker thread."""
        digests = self._world.code_by_class
        unknown = {node_class for class_type in class_types if (node_class := self._node_class(class_type)) not in digests}
        if unknown:
            await self.settle()
            _, code = self._world.settled()
            for node_class in unknown:
                digests[node_class] = await asyncio.to_thread(code.of_class, node_class)

    def _settle(self, node_id: str, class_type: str, contents: Mapping[FoundFile, str | None]) -> tuple[str, str] | None:
        """The node's signature and what it contributes itself, its code and files; None when its result cannot be shared."""
        signature = self._outputs.external_key(node_id)
        if not isinstance(signature, str):
            return None
        facts = self._facts.get(class_type)
        if facts is None:
            facts = self._facts[class_type] = self._read_facts(class_type)
        code, is_asked = facts
        if not is_asked and self._files.are_none(node_id):
            return None if code is None else (signature, code.alone)
        files = self._files.own(node_id)
        if self._outputs.get_local(node_id) is not None:
            pinned = self._world.pins.get(signature)
            return None if pinned is None else (signature, pinned)
        named = [(file.kind, contents.get(file)) for file in files]
        if code is None or not self._files.is_known(node_id) or any(content is None for _, content in named):
            self._world.pins.pop(signature, None)
            self._tell_elsewhere(node_id)
            return None
        own = code.alone if not named else _hash([code.digest, *sorted(f"{kind}:{content}" for kind, content in named)])
        self._world.pin(signature, own)
        return signature, own

    def _read_facts(self, class_type: str) -> tuple[_Code | None, bool]:
        """The class's code, None when its results cannot be shared, and whether the class is asked what changed.

        A class that is not asked is found in this process under a key that covers the states of its files, so a result that is here was
        made from what they hold now.
        """
        node_class = self._node_class(class_type)
        digest = self._world.code_by_class[node_class]
        is_shareable = digest is not None and read_traits(node_class).is_hermetic
        code = _Code(digest, _hash([digest])) if digest is not None and is_shareable else None
        return code, hasattr(node_class, "IS_CHANGED")

    def _tell_elsewhere(self, node_id: str) -> None:
        for path in [file.path for file in self._files.own(node_id) if file.kind == OUTSIDE and file.path not in self._told]:
            self._told.add(path)
            log.info("%s is no file in a folder of this server, so results of node %s and of those below are not shared", path, node_id)

    def _combine_all(self, nodes: Iterable[str]) -> None:
        """Work out the keys of *nodes*, those above first. Nodes in a circle get none."""
        keys, opened = self._keys, set[str]()
        for start in nodes:
            if start in keys:
                continue
            path = [start]
            while path:
                current = path[-1]
                if current in keys:
                    path.pop()
                    continue
                parents = self._parents(current)
                if parents and current not in opened:
                    opened.add(current)
                    missing = [parent for parent in parents if parent not in keys and parent in self._own]
                    if missing:
                        path += missing
                        continue
                path.pop()
                keys[current] = self._combine(current, parents)

    def _combine(self, node_id: str, parents: list[str]) -> str | None:
        own = self._own.get(node_id)
        if own is None:
            return None
        parts = ["", *own]
        for parent in parents:
            key = self._keys.get(parent)
            if key is None:
                return None
            parts.append(key)
        if self._beginning is None:
            namespace, _ = self._world.settled()
            self._beginning = hashlib.sha256(_rows([FORMAT, namespace]))
        digest = self._beginning.copy()
        digest.update(_HEX_HEAD.join(parts).encode())
        return str(digest.hexdigest())

    def _parents(self, node_id: str) -> list[str]:
        """The nodes it is linked to, by the names of its inputs."""
        known = self._links.get(node_id)
        if known is None:
            inputs = self._dynprompt.get_node(node_id)["inputs"]
            links = [(name, value[0]) for name, value in inputs.items() if isinstance(value, list) and is_link(value)]
            known = self._links[node_id] = [parent for _, parent in sorted(links)] if links else []
        return known


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256(_rows(parts)).hexdigest()


def _rows(parts: Iterable[str]) -> bytes:
    return b"".join([framed(b"", part.encode("utf-8", "surrogatepass")) for part in parts])
