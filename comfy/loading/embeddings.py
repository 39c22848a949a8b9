"""Textual-inversion embeddings: finding ``embedding:name`` below the embedding folders and reading its vectors."""

import logging
import os
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import safetensors.torch
import torch

from utils.folder_walk import walk

log = logging.getLogger(__name__)

EXTENSIONS = (".safetensors", ".pt", ".bin")


def expand_directory_list(directories: Iterable[str]) -> list[str]:
    """*directories* and every folder below them, links followed, each once."""
    found: dict[str, None] = {}
    for directory in directories:
        found[directory] = None
        if os.path.isdir(directory):
            found.update((visited.path, None) for visited in walk(directory))
    return list(found)


def find_embedding(name: str, directories: Iterable[str]) -> str | None:
    """The file for *name* (with or without extension) in the first of *directories* that has it; never outside them."""
    for directory in directories:
        folder = os.path.abspath(directory)
        path = os.path.abspath(os.path.join(folder, name))
        if not path.startswith(folder.rstrip(os.sep) + os.sep):
            continue
        for candidate in (path, *(path + extension for extension in EXTENSIONS)):
            if os.path.isfile(candidate):
                return candidate
    return None


def load_embed(
    embedding_name: str, embedding_directory: str | Iterable[str], embedding_size: int, embed_key: str | None = None
) -> torch.Tensor | None:
    """The vectors (rows, or one vector) of an embedding for a text model of width *embedding_size*, or None.

    *embed_key* ("clip_l", "clip_g") picks the part of a file for several text models. A file that cannot be read is reported in
    the log and counts as absent.
    """
    folders = [embedding_directory] if isinstance(embedding_directory, str) else embedding_directory
    path = find_embedding(embedding_name, expand_directory_list(folders))
    if path is None:
        return None
    try:
        if path.lower().endswith(".safetensors"):
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, weights_only=True, map_location="cpu")
        return _vectors(content, embedding_size, embed_key)
    except (OSError, ValueError, RuntimeError, KeyError, StopIteration, pickle.UnpicklingError, safetensors.SafetensorError):
        log.warning("the embedding %s cannot be read and is left out", path, exc_info=True)
        return None


def _vectors(content: Any, width: int, key: str | None) -> torch.Tensor:
    if isinstance(content, list):
        return torch.cat([tensor.reshape(-1, width) for part in content for tensor in part.values() if tensor.shape[-1] == width])
    if "string_to_param" in content:
        return next(iter(content["string_to_param"].values()))
    if key is not None and key in content:
        return content[key]
    bundled = _bundled(content, key)
    return next(iter(content.values())) if bundled is None else bundled


def _bundled(content: Mapping[str, torch.Tensor], key: str | None) -> torch.Tensor | None:
    """Vectors that a LoRA file carries along under ``bundle_emb.<name>.…``, all names joined."""
    for suffix in (".string_to_param.*", f".{key}"):
        found = [tensor for name, tensor in content.items() if name.startswith("bundle_emb.") and name.endswith(suffix)]
        if found:
            return torch.cat(found, dim=0)
    return None
