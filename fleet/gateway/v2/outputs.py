"""Outputs of jobs as v2's assets: their ids say where they are, so nothing has to be remembered."""

import base64
import json
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.files.active_content import guessed_type

_KINDS = {"images": "image", "gifs": "video", "video": "video", "videos": "video", "audio": "audio", "latents": "latent", "text": "text"}
_PREFIX = "out-"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a job made: *subfolder* is marked with its server."""

    prompt_id: str
    node_id: str
    filename: str
    subfolder: str
    kind: str
    media: str = "file"

    @property
    def asset_id(self) -> str:
        """An id that holds everything by which the file is found."""
        parts = json.dumps([self.prompt_id, self.filename, self.subfolder, self.kind], separators=(",", ":"))
        return _PREFIX + base64.urlsafe_b64encode(parts.encode()).decode().rstrip("=")

    @property
    def content_type(self) -> str:
        """What the file's name says."""
        return guessed_type(self.filename)

    @property
    def as_input(self) -> str:
        """The text by which a node's input names the file."""
        path = f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename
        return f"{path} [{self.kind}]"


def output_of(asset_id: str) -> OutputFile | None:
    """The file behind an id, None for ids of another kind."""
    if not asset_id.startswith(_PREFIX):
        return None
    text = asset_id.removeprefix(_PREFIX)
    try:
        parts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return None
    if not isinstance(parts, list) or len(parts) != 4 or not all(isinstance(part, str) for part in parts):
        return None
    prompt_id, filename, subfolder, kind = parts
    return OutputFile(prompt_id, "", filename, subfolder, kind)


def output_files(prompt_id: str, outputs: dict[str, Any]) -> Iterator[OutputFile]:
    """The files in a job's (marked) outputs, in the order of nodes; previews are among them, as ``temp``."""
    for node_id, output in outputs.items():
        for key, items in output.items() if isinstance(output, dict) else ():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    filename = item["filename"]
                    media = _media(key, filename)
                    yield OutputFile(
                        prompt_id, str(node_id), filename, str(item.get("subfolder") or ""), str(item.get("type") or "output"), media
                    )


def _media(key: str, filename: str) -> str:
    """What kind of thing a file is: its type decides, for videos come under ``images`` too; then the name it came under."""
    major = (mimetypes.guess_type(filename)[0] or "").partition("/")[0]
    if major in ("image", "video", "audio", "text"):
        return major
    return _KINDS.get(key, "file")
