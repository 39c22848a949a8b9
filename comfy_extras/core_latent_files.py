"""Core nodes that keep latents in files."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from comfy.cli_args import args
from comfy.lazy_import import lazy_module
from comfy.weight_files.state_dicts import read_safetensors
from comfy_extras.image_writing import metadata_texts
from utils.folder_walk import regular_files_in
from utils.regular_files import open_regular

if TYPE_CHECKING:
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

SD1_SCALE = 0.18215  # files without a version entry hold latents as SD 1.x models scale them
VERSION_ENTRY = "latent_format_version_0"


class SaveLatent:
    """Writes latents into the output folder as safetensors, with the prompt and workflow in the header."""

    RETURN_TYPES, RETURN_NAMES = ("LATENT",), ("samples",)
    FUNCTION, OUTPUT_NODE = "save", True
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["export latent"]

    def __init__(self) -> None:
        self.output_dir = folder_paths.get_output_directory()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"samples": ("LATENT",), "filename_prefix": ("STRING", {"default": "latents/ComfyUI"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(self, samples: Latent, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write ``samples`` of the latent; returns the file for the page, and the latent unchanged."""
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, self.output_dir)
        file_name = f"{name}_{counter:05}_.latent"
        metadata = None if args.disable_metadata else {"prompt": "", **metadata_texts(prompt, extra_pnginfo)}
        tensors = {"latent_tensor": samples["samples"].contiguous(), VERSION_ENTRY: torch.tensor([])}
        comfy.utils.save_torch_file(tensors, os.path.join(folder, file_name), metadata=metadata)
        return {"ui": {"latents": [{"filename": file_name, "subfolder": subfolder, "type": "output"}]}, "result": (samples,)}


class LoadLatent:
    """Reads latents from a file of the input folder."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "load"
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["import latent", "open latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = (entry.name for entry in regular_files_in(folder_paths.get_input_directory()))
        return {"required": {"latent": [sorted(name for name in names if name.endswith(".latent"))]}}

    def load(self, latent: str) -> tuple[Latent]:
        """The latent as float32 on the CPU. Raises ``ValueError``, naming the file, when it is damaged or does not hold a latent."""
        path = folder_paths.get_annotated_filepath(latent)
        open_regular(path).close()
        tensors, _ = read_safetensors(path)
        if "latent_tensor" not in tensors:
            raise ValueError(f"{path} holds no latent but {sorted(tensors)[:5]}; choose a file written by Save Latent")
        scale = 1.0 if VERSION_ENTRY in tensors else 1.0 / SD1_SCALE
        return ({"samples": tensors["latent_tensor"].float() * scale},)

    @classmethod
    def IS_CHANGED(cls, latent: str) -> Any:
        """The SHA-256 of the file's contents."""
        with open_regular(folder_paths.get_annotated_filepath(latent)) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, latent: str) -> bool | str:
        """Whether the file exists inside its folder; otherwise the error text."""
        return True if folder_paths.exists_annotated_filepath(latent) else f"Invalid latent file: {latent}"


NODE_CLASS_MAPPINGS = {"SaveLatent": SaveLatent, "LoadLatent": LoadLatent}

NODE_DISPLAY_NAME_MAPPINGS = {"SaveLatent": "Save Latent", "LoadLatent": "Load Latent"}
