"""Keys under which results can be shared with other machines: they cover everything a result depends on, not only what the prompt says.

A node's key is a hash over the namespace, its input signature, the code of its pack, the contents of the files its inputs name, and the
keys of the nodes it is linked to. So another machine that has another file under the same name, another version of a pack or of a
library, or computes in another precision, has another key.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.prompt_files.named_files import OUTSIDE, NamedFiles
from comfy_execution.providers.traits import read_traits
from comfy_execution.shared_keys.world import HermeticWorld
from comfy_execution.signatures import framed

FORMAT = "keepwarm-key-1"


class HermeticKeys:
    """The ``ExternalKeys`` of one prompt. Awaited and called by the coroutine that runs the prompt."""

    def __init__(self, world: HermeticWorld, dynprompt: DynamicPrompt, outputs: Any, node_class: Callable[[str], Any]) -> None:
        """*outputs*: the cache of results, which knows signatures; *node_class*: node classes by type."""
        self._world = world
        self._dynprompt = dynprompt
        self._outputs = outputs
        self._node_class = node_class
        self._named: NamedFiles | None = None
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
        named, code = await asyncio.to_thread(self._survey, nodes)
        reading = {
            path: self._world.fingerprints.request(path)
            for path in {path for files in named.values() for kind, path in files if kind != OUTSIDE}
        }
        # Shielded: reading goes on for a later prompt when this one does not wait any longer.
        contents = {path: await asyncio.shield(asyncio.wrap_future(future)) for path, future in reading.items()}
        for node_id in nodes:
            self._own[node_id] = self._settle(node_id, named[node_id], code[node_id], contents)
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

    def _survey(self, nodes: list[str]) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str | None]]:
        """On a worker thread: the files that each node names, and a digest of its code."""
        _, code = self._world.settled()
        self._named = self._named or NamedFiles(self._world.roots())
        named: dict[str, list[tuple[str, str]]] = {}
        digests: dict[str, str | None] = {}
        of_class: dict[str, str | None] = {}
        for node_id in nodes:
            node = self._dynprompt.get_node(node_id)
            class_type = node["class_type"]
            if class_type not in of_class:
                of_class[class_type] = code.of_class(self._node_class(class_type))
            named[node_id] = [
                file
                for value in node["inputs"].values()
                if isinstance(value, str | list | dict) and not is_link(value)
                for file in self._named.behind(value)
            ]
            digests[node_id] = of_class[class_type]
        return named, digests

    def _settle(
        self, node_id: str, named: list[tuple[str, str]], code: str | None, contents: Mapping[str, str | None]
    ) -> tuple[str, str] | None:
        """The node's signature and what it contributes itself, its code and files; None when its result cannot be shared."""
        signature = self._outputs.external_key(node_id)
        if not isinstance(signature, str):
            return None
        if self._outputs.get_local(node_id) is not None:
            pinned = self._world.pins.get(signature)
            return None if pinned is None else (signature, pinned)
        is_hermetic = self._is_hermetic(self._dynprompt.get_node(node_id)["class_type"])
        if code is None or not is_hermetic or any(contents.get(path) is None for _, path in named):
            self._world.pins.pop(signature, None)
            return None
        own = self._hash_code(code) if not named else _hash([code, *sorted(f"{kind}:{contents[path]}" for kind, path in named)])
        self._world.pin(signature, own)
        return signature, own

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
