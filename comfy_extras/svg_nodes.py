"""The node that saves SVG drawings (part of ``nodes_images``)."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from typing import Any, BinaryIO

import folder_paths
from comfy.cli_args import args
from comfy_extras.node_inputs import socket, text
from utils.whole_files import write_whole

_OPENING_TAG = re.compile(r"<svg\b[^>]*>")


def with_metadata(drawing: str, entries: dict[str, Any]) -> str:
    """*drawing* with *entries* as JSON in a ``<metadata>`` element after its first ``<svg>`` tag."""
    content = json.dumps(entries, indent=2).replace("]]>", "]]\\u003e")  # means the same in JSON but does not end the CDATA section
    element = f"\n<metadata><![CDATA[\n{content}\n]]></metadata>\n"
    return _OPENING_TAG.sub(lambda tag: tag.group(0) + element, drawing, count=1)


def _write(content: bytes, opened: BinaryIO) -> None:
    opened.write(content)


class SaveSVGNode:
    """Writes drawings that contain the prompt and workflow into the output folder."""

    RETURN_TYPES, RETURN_NAMES = ("SVG",), ("svg",)
    FUNCTION, OUTPUT_NODE = "execute", True
    CATEGORY = "image"
    DESCRIPTION = "Writes SVG drawings into the output folder."
    SEARCH_ALIASES = ["export vector", "save vector graphics"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = text("svg/ComfyUI", False, tooltip="Start of the file name; tokens such as %date:yyyy-MM-dd% are replaced.")
        return {
            "required": {"svg": socket("SVG"), "filename_prefix": prefix},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def execute(cls, svg: Any, filename_prefix: str = "svg/ComfyUI", prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write each entry of ``svg.data`` (binary streams); returns the files for the page, and *svg* unchanged."""
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory())
        entries = {} if args.disable_metadata else {**({} if prompt is None else {"prompt": prompt}), **(extra_pnginfo or {})}
        saved = []
        for number, stream in enumerate(svg.data):
            stream.seek(0)
            drawing = stream.read().decode("utf-8")
            content = (with_metadata(drawing, entries) if entries else drawing).encode("utf-8")
            file_name = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.svg"
            write_whole(os.path.join(folder, file_name), partial(_write, content))
            saved.append({"filename": file_name, "subfolder": subfolder, "type": "output"})
        return {"ui": {"images": saved}, "result": (svg,)}
