"""The files that clients upload: kept by the gateway, known by content, and named to the server that needs them.

They lie in the input and temp folders of the gateway's own ``folder_paths``, so uploading, masks and ``/view`` work as on one server.
"""

import asyncio
import os
from collections import OrderedDict
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
from fleet.shared_uploads import SharedUploads
from fleet.values import InputFile
from utils.folder_walk import walk

INPUT_PATH = "/fleet/inputs/"
MOST_NAMED, MOST_KNOWN, MOST_CHARACTERS = 1_000, 10_000, 1_000
HASH_LIMIT_S = 300.0
OWN_KINDS = ("input", "temp")
_PIECE_BYTES = 1 << 20


NamedFiles = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of the gateway as it was when its content was read. *state*: size and time of its last change."""

    state: tuple[int, int]
    digest: str


class Inputs:
    """Which files of the gateway prompts name. Remembers nothing but digests, so several gateways may share a folder.

    On the gateway's loop; blocking work runs on worker threads.
    """

    def __init__(self, upstream: Upstream, servers: ServerList, own_url: str, shared: SharedUploads) -> None:
        """*own_url* is where servers reach this gateway; what they may find in *shared* is put there first."""
        self._upstream, self._servers, self._own_url, self._shared = upstream, servers, own_url.rstrip("/"), shared
        self._known: OrderedDict[str, KnownFile] = OrderedDict()
        self._reading = asyncio.Semaphore(2)

    async def found(self, wanted: NamedFiles) -> tuple[InputFile, ...]:
        """Those of the *wanted* files that the gateway or a server has."""
        if not wanted:
            return ()
        uploads = await off_loop(_found, [one for one in wanted if not one[0].startswith("@")])
        found = [await self._upload(kind, below, path) for kind, below, path in uploads]
        for path, kind in wanted:
            if path.startswith("@"):
                found.append(await self._result(path, kind))
        return tuple(file for file in found if file is not None)[:MOST_NAMED]

    async def _upload(self, kind: str, below: str, path: str) -> InputFile | None:
        try:
            known = await self._known_file(path)
        except OSError:
            return None
        digest, (subfolder, _, name) = known.digest, below.rpartition("/")
        is_shared = await self._shared.offer(digest, known.state[0], path)
        url = f"{self._own_url}{INPUT_PATH}{digest}/{kind}/{quote(below)}"
        return InputFile(name, subfolder, kind, digest, url, known.state[0] if is_shared else 0)

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

    async def digest(self, path: str) -> str:
        """The content of a file as blake3, hexadecimal; read only if the file is new or changed. Raises ``OSError``."""
        return (await self._known_file(path)).digest

    async def _known_file(self, path: str) -> KnownFile:
        state = await off_loop(_state, path)
        known = self._known.get(path)
        if known is None or known.state != state:
            async with self._reading:
                known = KnownFile(state, await off_loop(digest_of, path, limit_s=HASH_LIMIT_S))
        self._known[path] = known
        self._known.move_to_end(path)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return known


def named_files(workflow: Mapping[str, Any]) -> NamedFiles:
    """(path, kind of folder) of the files that the inputs of *workflow* might name, each once."""
    return list(dict.fromkeys(named_file(text) for text in texts_in(workflow) if may_name_a_file(text)))


def may_name_a_file(text: str) -> bool:
    """Whether a text of an input could be the name of a file: not the id of a node, not a page of prose."""
    return "." in text and len(text) <= MOST_CHARACTERS and "\n" not in text


def uploaded_names(kind: str) -> list[str]:
    """What is in the gateway's folder of that kind, sorted. Blocks on the disk."""
    root = folder_paths.get_directory_by_type(kind)
    names = []
    for visited in walk(root, follow_links=False) if root is not None and os.path.isdir(root) else ():
        below = visited.below.replace(os.sep, "/")
        names += [f"{below}/{entry.name}" if below else entry.name for entry in visited.files]
    return sorted(names)


def own_path(kind: str, below: str) -> str | None:
    """Where the gateway has that file, None where it has none. Touches the disk."""
    root = folder_paths.get_directory_by_type(kind) if kind in OWN_KINDS else None
    if root is None or not below:
        return None
    try:
        path = contained_path(root, below)
    except UnsafePath:
        return None
    return path if os.path.isfile(path) else None


def _found(wanted: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(kind, path below its folder, whole path) of those that are there."""
    found = []
    for given, kind in wanted:
        below = os.path.normpath(given.replace("\\", "/"))
        path = own_path(kind, below)
        if path is not None:
            found.append((kind, below, path))
    return found


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
