"""What a finished job shows: counting its outputs, choosing one to preview, and tidying the list for the detail view.

Outputs are ``{node_id: {media_key: [item, …]}}`` as nodes returned them; any shape may occur and none raises.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

PREVIEWABLE_MEDIA_TYPES = frozenset({"images", "video", "audio", "3d", "text"})
THREE_D_EXTENSIONS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
TEXT_EXTENSIONS = (".txt", ".md", ".json")
TEXT_PREVIEW_MAX_CHARS = 1024


class _Rank(IntEnum):
    """How good an item is as the job's preview; lower is better."""

    SAVED_MEDIA = 0
    OTHER_MEDIA = 1
    SAVED_TEXT = 2
    RAW_TEXT = 3


def _text_field(item: Mapping, name: str) -> str:
    value = item.get(name)
    return value.lower() if isinstance(value, str) else ""


def has_3d_extension(filename: str) -> bool:
    """Whether the name ends like a 3D model file, in any case."""
    return filename.lower().endswith(THREE_D_EXTENSIONS)


def _is_text_file(item: Mapping) -> bool:
    return _text_field(item, "filename").endswith(TEXT_EXTENSIONS)


def is_previewable(media_type: str, item: Mapping) -> bool:
    """Whether the frontend can preview this item: by its media key, its MIME ``format`` or its file extension."""
    return (
        media_type in PREVIEWABLE_MEDIA_TYPES
        or _text_field(item, "format").startswith(("video/", "audio/"))
        or _text_field(item, "filename").endswith(THREE_D_EXTENSIONS + TEXT_EXTENSIONS)
    )


def normalize_output_item(item: Any) -> dict | None:
    """The item as a file record; a bare name of a 3D file becomes one; None when the item stands for no file."""
    if isinstance(item, dict):
        return item
    if isinstance(item, str) and has_3d_extension(item):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return None


def normalize_outputs(outputs: Mapping) -> dict:
    """A copy for the detail view: 3D file names become records, nulls vanish, everything else stays as it is."""

    def tidy(media_type: str, items: Any) -> Any:
        if media_type == "animated" or not isinstance(items, list):
            return items
        return [normalize_output_item(item) or item for item in items if item is not None]

    return {
        node_id: {key: tidy(key, items) for key, items in node.items()} if isinstance(node, dict) else node
        for node_id, node in outputs.items()
    }


def _text_preview(item: Any) -> dict:
    text = str((item[0] if item else "") if isinstance(item, (tuple, list)) else item)
    if len(text) <= TEXT_PREVIEW_MAX_CHARS:
        return {"content": text}
    return {"content": text[:TEXT_PREVIEW_MAX_CHARS], "truncated": True}


def _rank(media_type: str, item: Mapping) -> _Rank:
    if media_type == "text" or (
        _is_text_file(item)
        and media_type not in PREVIEWABLE_MEDIA_TYPES
        and not _text_field(item, "format").startswith(("video/", "audio/"))
    ):
        return _Rank.SAVED_TEXT
    return _Rank.SAVED_MEDIA if item.get("type") == "output" else _Rank.OTHER_MEDIA


def _items(outputs: Mapping) -> Iterator[tuple[str, str, Any]]:
    """Each (node id, media key, raw item) of every list of outputs."""
    for node_id, node in outputs.items():
        if isinstance(node, Mapping):
            for media_type, items in node.items():
                if media_type != "animated" and isinstance(items, list):
                    for item in items:
                        yield str(node_id), str(media_type), item


def get_outputs_summary(outputs: Mapping) -> tuple[int, dict | None]:
    """How many files the job made, and the best one to preview.

    Saved media come first, then other media, then saved text files, then raw text. Raw text is not counted. The preview is the
    item with ``nodeId`` and ``mediaType`` added, or ``{content, truncated?}`` for raw text.
    """
    count = 0
    best: tuple[_Rank, dict] | None = None
    for node_id, media_type, raw in _items(outputs):
        item = normalize_output_item(raw)
        if item is not None:
            count += 1
            if not is_previewable(media_type, item):
                continue
            rank, shown = _rank(media_type, item), {"mediaType": media_type, **item, "nodeId": node_id}
        elif media_type == "text" and raw is not None:
            rank, shown = _Rank.RAW_TEXT, {**_text_preview(raw), "nodeId": node_id, "mediaType": media_type}
        else:
            continue
        if best is None or rank < best[0]:
            best = rank, shown
    return count, None if best is None else best[1]
