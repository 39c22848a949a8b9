"""The node that saves text."""

from __future__ import annotations

import json
import os
from typing import Any

import folder_paths
from comfy_extras.node_inputs import combo, socket, text
from utils.whole_files import write_whole
from utils.whole_text import whole_text


class SaveTextNode:
    """Writes a text into the output folder."""

    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("text",)
    FUNCTION, OUTPUT_NODE = "execute", True
    CATEGORY = "text"
    DESCRIPTION = "Writes a text into the output folder."
    SEARCH_ALIASES = ["save text", "write text", "export text"]
    FORMATS = ["txt", "csv", "md", "json"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text": socket("STRING", multiline=False, forceInput=True),
                "filename_prefix": text("ComfyUI", False),
                "format": combo(cls.FORMATS, default="txt"),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def execute(cls, text: str, filename_prefix: str, format: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write *text* (valid JSON is indented); returns it and the file for the page. Raises ``ValueError`` for an unknown *format*."""
        if format not in cls.FORMATS:
            raise ValueError(f"text cannot be saved as {format!r}; choose one of {', '.join(cls.FORMATS)}")
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory(), 1, 1)
        file_name = f"{name}_{counter:05}.{format}"
        content = (_indented(text) if format == "json" else whole_text(text)).encode("utf-8")
        write_whole(os.path.join(folder, file_name), lambda opened: opened.write(content))
        saved = {"filename": file_name, "subfolder": subfolder, "type": "output"}
        return {"ui": {"text": (text,), "files": [saved]}, "result": (text,)}


def _indented(content: str) -> str:
    try:
        return whole_text(json.dumps(json.loads(content), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return whole_text(content)


NODE_CLASS_MAPPINGS = {"SaveText": SaveTextNode}

NODE_DISPLAY_NAME_MAPPINGS = {"SaveText": "Save Text"}
