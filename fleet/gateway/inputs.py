"""The files that clients upload: kept by the gateway, known by content, and named to the server that needs them.

They lie in the input and temp folders of the gateway's own ``folder_paths``, so uploading, masks and ``/view`` work as on one server.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from blake3 import blake3

import folder_paths
from app.files.off_loop import off_loop
from app.files.path_guard import UnsafePath, contained_path
from fleet.gateway.file_marks import named_file, texts_in, unmark
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import Upstream
from fleet.values import InputFile
from utils.folder_walk import walk

DIGEST_PATH = "/fleet/inputs/"
MOST_NAMED = 1_000
HASH_LIMIT_S = 300.0
_PIECE_BYTES = 1 << 20
_OWN_KINDS = ("input", "temp")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of the gateway as it was when its content was read. *state*: size and time of its last change."""

    path: str
    state: tuple[int, int]
    digest: str


class Inputs:
    """Which files the gateway has. Paths in prompts are looked up without touching the disk; only what is named is read, once.

    On the gateway's loop; ``start`` looks through the folders, blocking work runs on worker threads.
    """

    def __init__(self, upstream: Upstream, servers: ServerList, own_url: str) -> None:
        """*own_url* is where servers reach this gateway."""
        self._upstream, self._servers, self._own_url = upstream, servers, own_url.rstrip("/")
        self._names: set[tuple[str, str]] = set()
        self._known: dict[str, KnownFile] = {}
        self._by_digest: dict[str, KnownFile] = {}
        self._reading = asyncio.Semaphore(2)

    async def start(self) -> None:
        """Find what was uploaded earlier."""
        self._names = await off_loop(_all_names, limit_s=HASH_LIMIT_S)

    def note(self, kind: str, subfolder: str, name: str) -> None:
        """A file was stored."""
        path = f"{subfolder}/{name}" if subfolder else name
        self._names.add((kind, os.path.normpath(path.replace("\\", "/"))))

    def names(self, kind: str) -> list[str]:
        """What was uploaded to that folder, sorted."""
        return sorted(name for known_kind, name in self._names if known_kind == kind)

    async def named_in(self, workflow: Mapping[str, Any]) -> tuple[InputFile, ...]:
        """The files of the gateway, and results of servers, that the inputs of *workflow* name."""
        wanted = dict.fromkeys(named_file(text) for text in texts_in(workflow))
        found = []
        for path, kind in wanted:
            file = await self._result(path, kind) if path.startswith("@") else await self._upload(path, kind)
            if file is not None:
                found.append(file)
        return tuple(found[:MOST_NAMED])

    async def _upload(self, path: str, kind: str) -> InputFile | None:
        plain = os.path.normpath(path.replace("\\", "/")) if path else ""
        if (kind, plain) not in self._names:
            return None
        root = folder_paths.get_directory_by_type(kind)
        try:
            known = await self.read(await off_loop(contained_path, root or "", plain))
        except (UnsafePath, OSError):
            self._names.discard((kind, plain))
            return None
        subfolder, _, name = plain.rpartition("/")
        return InputFile(name, subfolder, kind, known.digest, f"{self._own_url}{DIGEST_PATH}{known.digest}")

    async def _result(self, path: str, kind: str) -> InputFile | None:
        """A result that is to be an input: it is put on the server under the same marked name, wherever it was made."""
        subfolder, _, name = path.rpartition("/")
        server_id, folder = unmark(subfolder)
        base_url = self._servers.url_of(server_id) if server_id is not None else None
        if base_url is None or kind not in ("output", "temp", "input"):
            return None
        url = view_url(base_url, name, folder, kind)
        digest = blake3()
        async with self._upstream.session.get(url) as answer:
            if answer.status != 200:
                return None
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                digest.update(piece)
        return InputFile(name, subfolder, kind, digest.hexdigest(), url)

    async def read(self, path: str) -> KnownFile:
        """The content of a file, by its digest; read only if it is new or changed. Raises ``OSError``."""
        state = await off_loop(_state, path)
        known = self._known.get(path)
        if known is None or known.state != state:
            async with self._reading:
                known = KnownFile(path, state, await off_loop(digest_of, path, limit_s=HASH_LIMIT_S))
            self._known[path] = self._by_digest[known.digest] = known
        return known

    def with_digest(self, digest: str) -> KnownFile | None:
        """The file with that content (64 hexadecimal digits) among those that were named or read."""
        return self._by_digest.get(digest)


def view_url(base_url: str, name: str, subfolder: str, kind: str) -> str:
    """Where a server gives out a file."""
    return f"{base_url}/view?" + urlencode({"filename": name, "subfolder": subfolder, "type": kind}, quote_via=quote)


def digest_of(path: str) -> str:
    """The blake3 of a file's content, hexadecimal. Blocks. Raises ``OSError``."""
    digest = blake3()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _state(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _all_names() -> set[tuple[str, str]]:
    names = set()
    for kind in _OWN_KINDS:
        root = folder_paths.get_directory_by_type(kind)
        if root is not None and os.path.isdir(root):
            for visited in walk(root, follow_links=False):
                below = visited.below.replace(os.sep, "/")
                names |= {(kind, f"{below}/{entry.name}" if below else entry.name) for entry in visited.files}
    return names
