"""The server's folders and the files in them, under the names that node packs use.

Settings leaf: imports nothing of the layers above. Directories are plain module attributes because packs read and replace them.
"""

import mimetypes
import os
import re
import threading
from collections.abc import Collection
from typing import Any, Literal

from comfy.cli_args import args
from utils import file_listing, saved_names
from utils.folder_walk import walk
from utils.path_safety import ACTIVE_TYPES, is_dangerous_content_type, is_within_directory, renders_safely_as_image

__all__ = [
    "DANGEROUS_CONTENT_TYPES",
    "add_model_folder_path",
    "annotated_filepath",
    "base_path",
    "cache_helper",
    "configure",
    "exists_annotated_filepath",
    "extension_mimetypes_cache",
    "filename_list_cache",
    "filter_files_content_types",
    "filter_files_extensions",
    "folder_names_and_paths",
    "get_annotated_filepath",
    "get_directory_by_type",
    "get_filename_list",
    "get_folder_paths",
    "get_full_path",
    "get_full_path_or_raise",
    "get_input_directory",
    "get_input_subfolders",
    "get_output_directory",
    "get_public_user_directory",
    "get_save_image_path",
    "get_system_user_directory",
    "get_temp_directory",
    "get_user_directory",
    "input_directory",
    "is_dangerous_content_type",
    "is_within_directory",
    "map_legacy",
    "models_dir",
    "output_directory",
    "recursive_search",
    "renders_safely_as_image",
    "set_input_directory",
    "set_output_directory",
    "set_temp_directory",
    "set_user_directory",
    "supported_pt_extensions",
    "temp_directory",
    "user_directory",
]

supported_pt_extensions: set[str] = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

# key -> folder names below models/, the first being where new files go
_MODEL_FOLDERS: dict[str, tuple[str, ...]] = {
    "checkpoints": ("checkpoints",),
    "configs": ("configs",),
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "diffusers": ("diffusers",),
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "latent_upscale_models": ("latent_upscale_models",),
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
    "classifiers": ("classifiers",),
    "model_patches": ("model_patches",),
    "audio_encoders": ("audio_encoders",),
    "background_removal": ("background_removal",),
    "frame_interpolation": ("frame_interpolation",),
    "geometry_estimation": ("geometry_estimation",),
    "optical_flow": ("optical_flow",),
    "detection": ("detection",),
}
_OTHER_EXTENSIONS: dict[str, set[str]] = {"configs": {".yaml"}, "diffusers": {"folder"}, "classifiers": {""}}
_LEGACY_KEYS = {"unet": "diffusion_models", "clip": "text_encoders"}
_RESERVED_USER_PREFIX = "__"

base_path: str = ""
models_dir: str = ""
output_directory: str = ""
temp_directory: str = ""
input_directory: str = ""
user_directory: str = ""
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}
filename_list_cache: dict[str, file_listing.FileList] = {}
extension_mimetypes_cache: dict[str, str] = {"webp": "image", "fbx": "model"}
DANGEROUS_CONTENT_TYPES: set[str] = set(ACTIVE_TYPES)

recursive_search = file_listing.recursive_search
filter_files_extensions = file_listing.with_extensions


class CacheHelper:
    """While entered (``with cache_helper:``), a folder's list is read once per thread and not checked again."""

    def __init__(self) -> None:
        self._local = threading.local()

    def get(self, key: str, default: Any = None) -> Any:
        """The list stored for *key* in this thread's current block, or *default*."""
        return getattr(self._local, "lists", {}).get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Remember *value* for the rest of this thread's block; nothing happens outside one."""
        if getattr(self._local, "depth", 0):
            self._local.lists[key] = value

    def clear(self) -> None:
        """Forget this thread's lists."""
        self._local.lists = {}

    def __enter__(self) -> "CacheHelper":
        self._local.depth = getattr(self._local, "depth", 0) + 1
        if self._local.depth == 1:
            self.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._local.depth -= 1
        if not self._local.depth:
            self.clear()


cache_helper = CacheHelper()


def configure(base_directory: str | None = None, models_directory: str | None = None) -> None:
    """Lay out every folder below *base_directory* (default: where this file is). Nothing is made on disk."""
    base = os.path.abspath(base_directory) if base_directory else os.path.dirname(os.path.realpath(__file__))
    models = os.path.abspath(models_directory) if models_directory else os.path.join(base, "models")
    _replace(
        base_path=base, models_dir=models, **{f"{name}_directory": os.path.join(base, name) for name in ("output", "temp", "input", "user")}
    )
    filename_list_cache.clear()
    folder_names_and_paths.clear()
    for key, names in _MODEL_FOLDERS.items():
        folder_names_and_paths[key] = ([os.path.join(models, name) for name in names], _OTHER_EXTENSIONS.get(key, supported_pt_extensions))
    for key in ("custom_nodes", "datasets"):
        folder_names_and_paths[key] = ([os.path.join(base, key)], set())


def _replace(**directories: str) -> None:
    """Rebind the module attributes that hold directories."""
    globals().update(directories)


def set_output_directory(output_dir: str) -> None:
    """Let results go to *output_dir*."""
    _replace(output_directory=output_dir)


def set_temp_directory(temp_dir: str) -> None:
    """Let previews and other short-lived files go to *temp_dir*."""
    _replace(temp_directory=temp_dir)


def set_input_directory(input_dir: str) -> None:
    """Let uploads go to *input_dir*, and file inputs come from there."""
    _replace(input_directory=input_dir)


def set_user_directory(user_dir: str) -> None:
    """Keep settings and saved workflows in *user_dir*."""
    _replace(user_directory=user_dir)


def get_output_directory() -> str:
    """Where results go."""
    return output_directory


def get_temp_directory() -> str:
    """Where short-lived files go; emptied when the server starts and ends."""
    return temp_directory


def get_input_directory() -> str:
    """Where uploads go."""
    return input_directory


def get_user_directory() -> str:
    """Where users' settings and workflows are."""
    return user_directory


def get_directory_by_type(type_name: str) -> str | None:
    """The folder for ``output``, ``temp`` or ``input``; None for any other word."""
    readers = {"output": get_output_directory, "temp": get_temp_directory, "input": get_input_directory}
    return readers[type_name]() if type_name in readers else None


def get_system_user_directory(name: str = "system") -> str:
    """A folder for a pack's own data that no HTTP route serves: ``<user>/__<name>``. Raises ``ValueError`` on an unusable name."""
    if not name:
        raise ValueError("A system user name cannot be empty")
    if name.startswith("_"):
        raise ValueError(f"A system user name should not start with underscore: {name!r}; the prefix is added")
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(f"Invalid system user name: {name!r}; letters, digits and underscores only")
    return os.path.abspath(os.path.join(get_user_directory(), _RESERVED_USER_PREFIX + name))


def get_public_user_directory(user_id: str | None) -> str | None:
    """The folder of a user that HTTP clients may name; None for an empty or reserved name. The caller checks for traversal."""
    if not user_id or user_id.startswith(_RESERVED_USER_PREFIX):
        return None
    return os.path.join(get_user_directory(), user_id)


def map_legacy(folder_name: str) -> str:
    """Today's key for an older folder key (``unet``, ``clip``)."""
    return _LEGACY_KEYS.get(folder_name, folder_name)


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Look for *folder_name* files in *full_folder_path* as well; first of all when *is_default*."""
    paths, _ = folder_names_and_paths.setdefault(map_legacy(folder_name), ([], set()))
    if full_folder_path in paths:
        if not is_default:
            return
        paths.remove(full_folder_path)
    paths.insert(0 if is_default else len(paths), full_folder_path)
    filename_list_cache.pop(map_legacy(folder_name), None)


def get_folder_paths(folder_name: str) -> list[str]:
    """The folders of a key, in search order. Raises ``KeyError`` for an unknown one."""
    return list(folder_names_and_paths[map_legacy(folder_name)][0])


def get_full_path(folder_name: str, filename: str) -> str | None:
    """The path of *filename* (relative, as listed) in the key's folders; None when it is in none of them or leads out of them."""
    folders = folder_names_and_paths.get(map_legacy(folder_name))
    if folders is None or "\0" in filename:
        return None
    relative = os.path.relpath(os.path.join("/", filename), "/")
    candidates = (os.path.join(folder, relative) for folder in folders[0])
    return next((path for path in candidates if os.path.isfile(path)), None)


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """As ``get_full_path``; raises ``FileNotFoundError`` that names the folders searched."""
    path = get_full_path(folder_name, filename)
    if path is None:
        searched = ", ".join(folder_names_and_paths.get(map_legacy(folder_name), ([], set()))[0]) or "no folder has that key"
        raise FileNotFoundError(f"No {folder_name} file named {filename!r} in: {searched}. Put it there, then refresh the page.")
    return path


def get_filename_list(folder_name: str) -> list[str]:
    """The key's files, sorted, relative to its folders. Read again only after one of the folders has changed. Blocks on disk."""
    key = map_legacy(folder_name)
    known = cache_helper.get(key)
    if known is None:
        known = filename_list_cache.get(key)
        if known is None or not known.is_current() or len(known.folder_times) < _existing(folder_names_and_paths[key][0]):
            known = _read_file_list(key)
            filename_list_cache[key] = known
        cache_helper.set(key, known)
    return list(known.names)


def _existing(folders: Collection[str]) -> int:
    return sum(os.path.isdir(folder) for folder in folders)


def _read_file_list(key: str) -> file_listing.FileList:
    folders, extensions = folder_names_and_paths[key]
    names: set[str] = set()
    times: dict[str, float] = {}
    for folder in folders:
        files, folder_times = recursive_search(folder, excluded_dir_names=[".git"])
        names.update(filter_files_extensions(files, extensions))
        times.update(folder_times)
    return file_listing.FileList(tuple(sorted(names)), times)


def filter_files_content_types(files: Collection[str], content_types: Collection[Literal["image", "video", "audio", "model"]]) -> list[str]:
    """Those of *files* whose extension stands for one of *content_types*."""
    return [name for name in files if _content_type(name) in content_types]


def _content_type(name: str) -> str | None:
    extension = name.rsplit(".", 1)[-1]
    if extension not in extension_mimetypes_cache:
        guessed, _ = mimetypes.guess_type(name, strict=False)
        if guessed is None:
            return None
        extension_mimetypes_cache[extension] = guessed.split("/", 1)[0]
    return extension_mimetypes_cache[extension]


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Split ``"a.png [output]"`` into the bare name and its folder; the folder is None without such an ending."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 2].rstrip(), get_directory_by_type(kind)
    return name, None


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """The absolute path of an annotated name (default folder: input). Raises ``ValueError`` when it leads out of its folder."""
    bare, folder = annotated_filepath(name)
    root = folder or default_dir or get_input_directory()
    path = os.path.abspath(os.path.join(root, bare))
    if "\0" in bare or not is_within_directory(root, path):
        raise ValueError(f"{name!r} leads out of {root!r}; name a file inside that folder")
    return path


def exists_annotated_filepath(name: str) -> bool:
    """Whether an annotated name is a file or folder that exists inside its own folder."""
    try:
        return os.path.exists(get_annotated_filepath(name))
    except ValueError:
        return False


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """(folder, file name, counter, subfolder, prefix) for the next file saved with this prefix; see ``utils.saved_names.save_path``."""
    return saved_names.save_path(filename_prefix, output_dir, image_width, image_height)


def get_input_subfolders() -> list[str]:
    """Every folder below the input folder, relative to it, with forward slashes. Blocks on disk."""
    root = get_input_directory()
    folders = (visited.below for visited in walk(root, follow_links=False)) if os.path.isdir(root) else ()
    return sorted(folder.replace(os.sep, "/") for folder in folders if folder)


configure(args.base_directory, args.models_directory)
