"""Textual-inversion embeddings: finding ``embedding:name`` below the embedding folders and reading its vectors."""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy.families.model_errors import ModelFileError
from comfy.weight_files.state_dicts import SAFETENSORS_EXTENSIONS, read_safetensors, unpickled
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

    *embed_key* ("clip_l", "clip_g") picks the part of a file for several text models. A file that cannot be read, or holds no vectors,
    is named in the log and counts as absent, whatever is wrong with it. Vectors of another width are given out; the text model says
    that they do not fit.
    """
    folders = [embedding_directory] if isinstance(embedding_directory, str) else embedding_directory
    path = find_embedding(embedding_name, expand_directory_list(folders))
    if path is None:
        return None
    try:
        content = read_safetensors(path)[0] if path.lower().endswith(SAFETENSORS_EXTENSIONS) else unpickled(path)
        return _vectors(content, embedding_size, embed_key, path)
    except (OSError, ModelFileError) as error:
        log.warning("the embedding %r is left out: %s", embedding_name, error)
        return None


def _vectors(content: Any, width: int, key: str | None, path: str) -> torch.Tensor:
    """The vectors in *content*; raises ``ModelFileError`` when it holds none."""
    if isinstance(content, torch.Tensor):
        content = {"": content}
    if isinstance(content, (list, tuple)):
        parts = [part for part in content if isinstance(part, Mapping)]
        fitting = [tensor for part in parts for tensor in part.values() if _is_vectors(tensor) and tensor.shape[-1] == width]
        if fitting:
            return torch.cat([tensor.reshape(-1, width) for tensor in fitting])
        raise ModelFileError(f"{path} holds no vectors of width {width}")
    content = _entries(content)
    if not isinstance(content, Mapping):
        raise ModelFileError(f"{path} holds a {type(content).__name__}, not an embedding")
    found = _first_vectors(_entries(content.get("string_to_param")), width)
    if found is None and key is not None and _is_vectors(content.get(key)):
        found = content[key]
    if found is None:
        found = _first_vectors(_bundled(content, key, width), width)
    if found is None and (found := _first_vectors(content, width)) is not None:
        _say_others(content, found, path)
    if found is None:
        raise ModelFileError(f"{path} holds no vectors: {len(content)} entries, such as {next(iter(content), None)!r}")
    return found.detach() if found.ndim < 3 else found.detach().flatten(0, -2)


def _entries(value: Any) -> Any:
    """*value*, or what a ``ParameterDict`` holds: early releases of torch wrote it without the fields that its methods need now."""
    return vars(value).get("_parameters", {}) if isinstance(value, torch.nn.ParameterDict) else value


def _is_vectors(value: Any) -> bool:
    """Whether *value* is one vector or rows of them."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type != "meta"
        and value.is_floating_point()
        and value.ndim > 0
        and value.numel() > 0
    )


def _first_vectors(candidates: Any, width: int) -> torch.Tensor | None:
    """The first vectors of *width* among the values, else the first of any width, else None."""
    values = [value for value in candidates.values() if _is_vectors(value)] if isinstance(candidates, Mapping) else []
    return next((value for value in values if value.shape[-1] == width), values[0] if values else None)


def _say_others(content: Mapping[Any, Any], found: torch.Tensor, path: str) -> None:
    """Name what else in *content* could be meant by the embedding; vectors of other widths are for other text models."""
    others = [name for name, value in content.items() if value is not found and _is_vectors(value) and value.shape[-1] == found.shape[-1]]
    if others:
        log.warning("%s: %d tensors are not used (embedding), such as %s", path, len(others), others[0])


def _bundled(content: Mapping[Any, Any], key: str | None, width: int) -> dict[str, torch.Tensor]:
    """Vectors that a LoRA file carries along under ``bundle_emb.<name>.…``, all names joined."""
    for suffix in (".string_to_param.*", f".{key}"):
        found = [
            tensor
            for name, tensor in content.items()
            if isinstance(name, str) and name.startswith("bundle_emb.") and name.endswith(suffix) and _is_vectors(tensor)
        ]
        fitting = [tensor.reshape(-1, width) for tensor in found if tensor.shape[-1] == width]
        if fitting:
            return {suffix: torch.cat(fitting, dim=0)}
    return {}
