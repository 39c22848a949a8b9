"""Bounding boxes in the forms in which nodes and people give them.

*boxes* are dicts ``x, y, width, height`` in pixels, with ``metadata``: ``type`` ("obj" or "text"), ``text``, ``desc`` and the colours
``palette``. *regions* are the same in shares of the canvas: ``x, y, w, h`` beside what is in the metadata. *elements* are for prompts:
``type``, ``bbox`` as ``[ymin, xmin, ymax, xmax]`` in thousandths, ``text``, ``desc``, ``color_palette``.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

Box = dict[str, Any]

GRID = 1000
MOST_COLOURS = 5
_SIDES = ("x", "y", "width", "height")


def read_boxes(given: Any, width: int, height: int) -> list[Box]:
    """The boxes that *given* stands for on a canvas of *width* by *height*: boxes, those of the first frame, elements, or JSON of them.

    Raises ``ValueError`` for anything else.
    """
    if isinstance(given, str):
        given = _parsed(given)
    if given is None or given == []:
        return []
    items = [given] if isinstance(given, dict) else given
    if not isinstance(items, list):
        raise ValueError(f"bboxes input must be bounding boxes, elements, or a JSON string, got {type(given).__name__}")
    if isinstance(items[0], list):
        items = items[0]
    if not all(isinstance(item, dict) for item in items):
        raise ValueError("bboxes list must contain bounding boxes or elements only")
    if items and _is_element(items[0]):
        return [_box_of_element(element, width, height) for element in items]
    if items and not all(side in items[0] for side in _SIDES):
        raise ValueError(
            f"bboxes input must hold boxes ({', '.join(_SIDES)}) or elements (with a bbox of four numbers), got {items[0]!r:.120}"
        )
    return [_plain(box) for box in items]


def boxes_to_regions(boxes: Any, width: int, height: int) -> list[Box]:
    """The regions of *boxes* on a canvas of *width* by *height*; what is no box is left out."""
    return [_region(box, width or 1, height or 1) for box in boxes if isinstance(box, dict)] if isinstance(boxes, list) else []


def regions_to_frames(regions: Iterable[Box], width: int, height: int) -> list[list[Box]]:
    """One frame of boxes (sides only, rounded), or none at all where there are no regions."""
    frame = [_pixels(region, width, height) for region in regions]
    return [frame] if frame else []


def regions_to_elements(regions: Iterable[Box]) -> list[Box]:
    """The elements of a prompt."""
    return [_element(region) for region in regions]


def frames_of(boxes: Any) -> list[list[Box]]:
    """*boxes* as lists per frame: one box or one flat list is a single frame."""
    if isinstance(boxes, dict):
        return [[boxes]]
    if not isinstance(boxes, list) or not boxes:
        return [[]]
    return [boxes] if isinstance(boxes[0], dict) else boxes


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        raise ValueError(f"bboxes string input is not valid JSON: {error}") from error


def _is_element(item: Box) -> bool:
    return isinstance(item.get("bbox"), list | tuple) and len(item["bbox"]) == 4


def _plain(box: Box) -> Box:
    metadata = {"metadata": box["metadata"]} if isinstance(box.get("metadata"), dict) else {}
    return {side: box.get(side, 0) for side in _SIDES} | metadata


def _box_of_element(element: Box, width: int, height: int) -> Box:
    if not _is_element(element):
        raise ValueError("bboxes element is missing a valid 'bbox' [ymin, xmin, ymax, xmax]")
    try:
        top, left, bottom, right = (float(value) / GRID for value in element["bbox"])
    except (TypeError, ValueError):
        raise ValueError("bboxes element 'bbox' must contain four numbers") from None
    is_text = element.get("type") == "text"
    return {
        "x": round(min(left, right) * width),
        "y": round(min(top, bottom) * height),
        "width": round(abs(right - left) * width),
        "height": round(abs(bottom - top) * height),
        "metadata": {
            "type": "text" if is_text else "obj",
            "text": element.get("text", "") if is_text else "",
            "desc": element.get("desc", ""),
            "palette": element.get("color_palette") or [],
        },
    }


def _region(box: Box, width: int, height: int) -> Box:
    metadata = box.get("metadata") if isinstance(box.get("metadata"), dict) else {}
    shares = {"x": box.get("x", 0) / width, "y": box.get("y", 0) / height}
    shares |= {"w": box.get("width", 0) / width, "h": box.get("height", 0) / height}
    defaults = {"type": "obj", "text": "", "desc": "", "palette": []}
    return shares | {name: (metadata or {}).get(name, default) for name, default in defaults.items()}


def _pixels(region: Box, width: int, height: int) -> Box:
    left, right = sorted((region["x"], region["x"] + region["w"]))
    top, bottom = sorted((region["y"], region["y"] + region["h"]))
    return {
        "x": round(left * width),
        "y": round(top * height),
        "width": round((right - left) * width),
        "height": round((bottom - top) * height),
    }


def _element(region: Box) -> Box:
    is_text = region["type"] == "text"
    rows, columns = (sorted(_on_grid(region[start], region[start] + region[size])) for start, size in (("y", "h"), ("x", "w")))
    element: Box = {"type": "text" if is_text else "obj", "bbox": [rows[0], columns[0], rows[1], columns[1]]}
    if is_text:
        element["text"] = region["text"]
    element["desc"] = region["desc"]
    if colours := upper_case_colours(region["palette"]):
        element["color_palette"] = colours[:MOST_COLOURS]
    return element


def upper_case_colours(palette: Any) -> list[str]:
    """The texts of a list, or of a dict's values, that are not empty, in capitals."""
    listed: Sequence[Any] = list(palette.values()) if isinstance(palette, dict) else palette or []
    return [colour.upper() for colour in listed if isinstance(colour, str) and colour]


def _on_grid(*shares: float) -> list[int]:
    return [max(0, min(GRID, round(share * GRID))) for share in shares]
