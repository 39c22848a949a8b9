"""Binary WebSocket frames: previews, previews with metadata, and text shown at a node."""

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.lazy_import import lazy_module
from protocol import BinaryEventTypes

pil_image = lazy_module("PIL.Image")
pil_image_ops = lazy_module("PIL.ImageOps")

_FORMAT_NUMBERS = {"JPEG": 1, "PNG": 2}
_JPEG_MODES = ("RGB", "L", "CMYK")
_QUALITY = 95


def encode_event(event: int, data: bytes | bytearray) -> bytes:
    """A frame: the event's number, then *data*. Raises ``TypeError`` for an event that is not a number."""
    if not isinstance(event, int):
        raise TypeError(f"a binary message needs a number of BinaryEventTypes as its event, not {event!r}")
    return struct.pack(">I", event) + bytes(data)


def _with_length(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """A preview as file bytes. *replaceable* when a later one of the same node makes it worthless."""

    format_name: str
    content: bytes
    replaceable: bool

    def plain_frame(self) -> bytes:
        """For clients that know only the picture."""
        return encode_event(BinaryEventTypes.PREVIEW_IMAGE, struct.pack(">I", _FORMAT_NUMBERS.get(self.format_name, 1)) + self.content)

    def frame_with(self, metadata: Mapping[str, Any]) -> bytes:
        """For clients that also take where the picture comes from."""
        described = {**metadata, "image_type": "image/png" if self.format_name == "PNG" else "image/jpeg"}
        return encode_event(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, _with_length(json.dumps(described).encode()) + self.content)


def encode_preview_image(image_data: tuple[str, Any, int | None]) -> EncodedPreview:
    """Encode ``(format, PIL image, longest side in pixels or None)``; blocks for milliseconds.

    A picture of unlimited size counts as a result that is delivered this way, so it is not replaceable.
    """
    format_name, image, max_size = image_data
    if max_size is not None:
        image = pil_image_ops.contain(image, (max_size, max_size), pil_image.Resampling.BILINEAR)
    if format_name == "JPEG" and image.mode not in _JPEG_MODES:
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, format=format_name, quality=_QUALITY, compress_level=1)
    return EncodedPreview(format_name, file.getvalue(), replaceable=max_size is not None)


@dataclass(frozen=True, slots=True)
class ProgressText:
    """Text to show at a node while it works."""

    node_id: str
    text: bytes
    prompt_id: str | None

    def frame(self, *, with_prompt: bool) -> bytes:
        """The frame; *with_prompt* puts the prompt's id first, for clients that negotiated it."""
        prompt = _with_length((self.prompt_id or "").encode()) if with_prompt else b""
        return encode_event(BinaryEventTypes.TEXT, prompt + _with_length(self.node_id.encode()) + self.text)
