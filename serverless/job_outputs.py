"""Collects the files and texts that a prompt made into a worker's result."""

import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from serverless.result_storage import ResultStorage, StorageError
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

# A node's output key → the list of the result it goes to. Files under any other key go to ``files``.
LISTS = {"images": "images", "gifs": "gifs", "audio": "audio", "video": "videos", "videos": "videos"}

View = Callable[[str, str, str], Awaitable[bytes]]


class Encoder(Protocol):
    """Puts a file into the result."""

    async def encode(self, filename: str, data: bytes) -> dict[str, str]:
        """The entry for a file. Raises ``StorageError``."""


class Base64Encoder:
    """Files within the result."""

    async def encode(self, filename: str, data: bytes) -> dict[str, str]:
        """The bytes as base64."""
        return {"filename": filename, "type": "base64", "data": base64.b64encode(data).decode("ascii")}


class BucketEncoder:
    """Files in a bucket, links in the result."""

    def __init__(self, storage: ResultStorage, job_id: str) -> None:
        self._storage = storage
        self._job_id = job_id

    async def encode(self, filename: str, data: bytes) -> dict[str, str]:
        """Upload the bytes."""
        return {"filename": filename, "type": "s3_url", "data": await self._storage.store(self._job_id, filename, data)}


@dataclass(slots=True)
class JobOutputs:
    """*lists*: name → entries. *errors*: what could not be returned."""

    lists: dict[str, list[Any]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    data_bytes: int = 0

    def add(self, name: str, entry: Any) -> None:
        """Append to one list."""
        self.lists.setdefault(name, []).append(entry)


class OutputCollector:
    """Fetches what a history entry names, one file after the other, in its order."""

    def __init__(self, view: View, encoder: Encoder, original_id: Callable[[str], str]) -> None:
        self._view = view
        self._encoder = encoder
        self._original_id = original_id

    async def collect(self, outputs: dict[str, Any]) -> JobOutputs:
        """Everything in *outputs*, a history entry's. A file that fails is named in ``errors``; the others are still collected."""
        found = JobOutputs()
        for node_id, output in outputs.items():
            for key, values in output.items() if isinstance(output, dict) else ():
                if isinstance(values, list) and key != "animated":
                    await self._collect_list(found, self._original_id(node_id), key, values)
        return found

    async def _collect_list(self, found: JobOutputs, node: str, key: str, values: list[Any]) -> None:
        ignored = 0
        for value in values:
            if isinstance(value, dict) and (key in LISTS or "filename" in value):
                await self._collect_file(found, node, key, value)
            elif key == "text" and isinstance(value, str):
                found.add("text", {"node": node, "text": value})
            else:
                ignored += 1
        if ignored:
            log.warning("Node %s produced output that has no place in a result: %s (%d values)", node, key, ignored)

    async def _collect_file(self, found: JobOutputs, node: str, key: str, file: dict[str, Any]) -> None:
        if file.get("type") == "temp":
            return
        filename = file.get("filename")
        if not filename:
            found.errors.append(f"Skipping image in node {node} due to missing filename: {file}")
            return
        try:
            data = await self._view(str(filename), str(file.get("subfolder") or ""), str(file.get("type") or "output"))
        except (ServerAnswer, ServerUnreachable) as error:
            found.errors.append(f"Failed to fetch image data for {filename} from /view endpoint. ({error})")
            return
        try:
            entry: dict[str, Any] = dict(await self._encoder.encode(str(filename), data))
        except StorageError as error:
            found.errors.append(f"Error uploading {filename} to S3: {error}")
            return
        found.data_bytes += len(data)
        if key == "images":
            found.add("images", entry)
        else:
            found.add(LISTS.get(key, "files"), {**entry, "node": node, **({} if key in LISTS else {"key": key})})
