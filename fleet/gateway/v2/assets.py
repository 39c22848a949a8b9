"""``/api/v2/assets``: files by content. They are inputs of the gateway, so prompts that name them find them on any server."""

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any

from aiohttp import web
from blake3 import blake3

import folder_paths
from app.files.active_content import file_headers
from app.files.atomic_file import write_atomic, write_atomic_with
from app.files.json_body import read_json_object
from app.files.off_loop import WRITE_LIMIT_S, off_loop
from app.files.path_guard import UnsafePath, check_relative_name, contained_path
from app.files.strict_json import json_answer
from app.routes.upload_form import read_form
from fleet.gateway.routes.files import FileRoutes
from fleet.gateway.v2.errors import V2Error
from fleet.gateway.v2.outputs import OutputFile, output_of

FOLDER = "assets"
_ASSETS = uuid.UUID("0b0f8d0e-7d3c-4b52-9c1b-3a0a6a3f5f0e")
_PIECE_BYTES = 1 << 20
_URL_KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that was uploaded: *path* is its place below the input folder."""

    id: str
    hash: str
    size_bytes: int
    content_type: str
    file_path: str
    path: str
    created_at: str

    def body(self, base: str, created_new: bool | None = None) -> dict[str, Any]:
        """The ``Asset`` of the API."""
        shown = {key: value for key, value in asdict(self).items() if key != "path"}
        url = f"{base}/api/v2/assets/{self.id}/content"
        shown |= {"url": url, "url_expires_at": (datetime.now(UTC) + _URL_KEPT).isoformat()}
        return shown if created_new is None else {**shown, "created_new": created_new}


class AssetStore:
    """A file and a small description of each asset, on the gateway's disk; several gateways may share the folder. Methods block."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def get(self, asset_id: str) -> Asset | None:
        """The asset with that id, if its file is still there."""
        try:
            name = str(uuid.UUID(asset_id))
            with open(os.path.join(self._folder, f"{name}.json"), encoding="utf-8") as file:
                asset = Asset(**json.load(file))
        except (ValueError, TypeError, OSError):
            return None
        return asset if os.path.isfile(self.path_of(asset)) else None

    def with_hash(self, digest: str) -> Asset | None:
        """The asset with that content, named ``blake3:<hex>``."""
        return self.get(id_of(digest))

    @staticmethod
    def path_of(asset: Asset) -> str:
        """Where its file is."""
        return contained_path(folder_paths.get_input_directory(), asset.path)

    def put(self, content: IO[bytes], digest: str, content_type: str, file_path: str) -> Asset:
        """Keep *content*, whose hash is *digest*. Raises ``UnsafePath`` for a path that no file may have, and ``OSError``."""
        check_relative_name(file_path)
        name = os.path.basename(file_path.replace("\\", "/"))
        if name in ("", ".", ".."):
            raise UnsafePath(f"not a file name: {file_path!r}", escapes=False)
        path = f"{FOLDER}/{digest.removeprefix('blake3:')[:32]}/{name}"
        size_bytes = content.seek(0, os.SEEK_END)
        content.seek(0)
        asset = Asset(id_of(digest), digest, size_bytes, content_type, file_path, path, datetime.now(UTC).isoformat())
        target = self.path_of(asset)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_atomic_with(target, lambda file: shutil.copyfileobj(content, file, _PIECE_BYTES))
        os.makedirs(self._folder, exist_ok=True)
        write_atomic(os.path.join(self._folder, f"{asset.id}.json"), json.dumps(asdict(asset)).encode())
        return asset

    def delete(self, asset: Asset) -> None:
        """Forget an asset and its file."""
        os.unlink(os.path.join(self._folder, f"{asset.id}.json"))
        os.unlink(self.path_of(asset))


def id_of(digest: str) -> str:
    """The id of the asset with that content."""
    return str(uuid.uuid5(_ASSETS, digest.lower()))


class AssetRoutes:
    """Uploads, look-ups and contents; outputs of jobs are assets too."""

    def __init__(self, store: AssetStore, files: FileRoutes) -> None:
        self._store, self._files = store, files

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes; they have no other twin."""
        routes.post("/api/v2/assets")(self._upload)
        routes.post("/api/v2/assets/from-hash")(self._from_hash)
        routes.head("/api/v2/assets/by-hash/{hash}")(self._has_hash)
        routes.get("/api/v2/assets/{id}")(self._describe)
        routes.get("/api/v2/assets/{id}/content")(self._content)
        routes.delete("/api/v2/assets/{id}")(self._delete)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await read_form(request, "file")
        if form.image is None:
            raise V2Error(400, "invalid_request", "The form has no part 'file' with a file name.")
        with form.image as content:
            digest = await off_loop(_digest, content, limit_s=WRITE_LIMIT_S)
            expected = form.texts.get("expected_hash", "").strip().lower()
            if expected and expected != digest:
                raise V2Error(409, "hash_mismatch", "The bytes that arrived do not have the hash that was declared.")
            known = await off_loop(self._store.with_hash, digest)
            if known is not None:
                return json_answer(known.body(base_of(request), created_new=False))
            file_path = (form.texts.get("file_path") or form.filename).strip()
            if file_path.replace("\\", "/").split("/")[0] == "models":
                raise V2Error(422, "invalid_request", "Models are not taken here: put them into the servers' model folders.")
            content_type = form.texts.get("content_type", "").strip() or "application/octet-stream"
            try:
                asset = await off_loop(self._store.put, content, digest, content_type, file_path, limit_s=WRITE_LIMIT_S)
            except UnsafePath as error:
                raise V2Error(422, "invalid_request", str(error)) from None
        return json_answer(asset.body(base_of(request), created_new=True), 201)

    async def _from_hash(self, request: web.Request) -> web.Response:
        digest = (await read_json_object(request)).get("hash")
        asset = await off_loop(self._store.with_hash, digest) if isinstance(digest, str) else None
        if asset is None:
            raise V2Error(404, "blob_not_found", "There is no file with that hash.")
        return json_answer(asset.body(base_of(request), created_new=False))

    async def _has_hash(self, request: web.Request) -> web.Response:
        known = await off_loop(self._store.with_hash, request.match_info["hash"])
        return web.Response(status=404 if known is None else 200)

    async def _find(self, request: web.Request) -> Asset | OutputFile:
        asset_id = request.match_info["id"]
        output = output_of(asset_id)
        found = output if output is not None else await self._uploaded(asset_id)
        if found is None:
            raise V2Error(404, "not_found", "There is no asset with that id.")
        return found

    async def _uploaded(self, asset_id: str) -> Asset | None:
        return await off_loop(self._store.get, asset_id)

    async def _describe(self, request: web.Request) -> web.Response:
        found = await self._find(request)
        if isinstance(found, Asset):
            return json_answer(found.body(base_of(request)))
        now = datetime.now(UTC)
        return json_answer(
            {
                "id": found.asset_id,
                "hash": None,
                "size_bytes": await self._files.size_of(found.filename, found.subfolder, found.kind) or 0,
                "content_type": found.content_type,
                "file_path": found.filename,
                "created_at": now.isoformat(),
                "url": f"{base_of(request)}/api/v2/assets/{found.asset_id}/content",
                "url_expires_at": (now + _URL_KEPT).isoformat(),
                "job_id": found.prompt_id,
            }
        )

    async def _content(self, request: web.Request) -> web.StreamResponse:
        found = await self._find(request)
        if isinstance(found, Asset):
            path = self._store.path_of(found)
            return web.FileResponse(path, headers=file_headers(os.path.basename(path), None))
        answer = await self._files.answer(request, found.filename, found.subfolder, found.kind)
        if answer.status == 404:
            raise V2Error(404, "output_unavailable", "The server that made this file is gone, or has the file no more. Run the job again.")
        return answer

    async def _delete(self, request: web.Request) -> web.Response:
        found = await self._find(request)
        if not isinstance(found, Asset):
            raise V2Error(403, "forbidden", "Outputs of jobs are deleted on their servers.")
        await off_loop(self._store.delete, found)
        return web.Response(status=204)


def base_of(request: web.Request) -> str:
    """Where the client reached the gateway."""
    return f"{request.scheme}://{request.host}"


def _digest(content: IO[bytes]) -> str:
    content.seek(0)
    digest = blake3()
    while piece := content.read(_PIECE_BYTES):
        digest.update(piece)
    return "blake3:" + digest.hexdigest()
