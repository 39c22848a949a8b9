"""Saved files in the form that the page knows, and the metadata that is written into them."""

import json
import os
from typing import Any

import folder_paths
from comfy.cli_args import args

from ._io_output import _UIOutput
from ._io_widgets import FolderType


class SavedResult(dict):
    """One saved file: its name, its root folder, and the folder below it; a dictionary, so that it can be sent."""

    def __init__(self, filename: str, subfolder: str, type: FolderType | str) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=FolderType(type).value)

    @property
    def filename(self) -> str:
        """The file's name."""
        return self["filename"]

    @property
    def subfolder(self) -> str:
        """The folder below the root, empty for the root itself."""
        return self["subfolder"]

    @property
    def type(self) -> FolderType:
        """The root folder."""
        return FolderType(self["type"])


class SavedImages(_UIOutput):
    """Saved images to show; *is_animated* plays them."""

    def __init__(self, results: list[SavedResult], is_animated: bool = False) -> None:
        self.results = results
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.results} | ({"animated": [True]} if self.is_animated else {})


class SavedAudios(_UIOutput):
    """Saved sound files to play."""

    def __init__(self, results: list[SavedResult]) -> None:
        self.results = results

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.results}


def folder_of(folder_type: FolderType) -> str:
    """The root folder that *folder_type* stands for."""
    folder = folder_paths.get_directory_by_type(FolderType(folder_type).value)
    if folder is None:
        raise ValueError(f"there is no folder for {folder_type!r}")
    return folder


def metadata_of(cls: Any) -> dict[str, str]:
    """The metadata for a file that node *cls* saves: {key: JSON text} with the prompt and the page's extra data.

    Empty with ``--disable-metadata``, without a node, and for a node that did not ask for these hidden values.
    """
    hidden = getattr(cls, "hidden", None)
    if args.disable_metadata or hidden is None:
        return {}
    given = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {key: json.dumps(value) for key, value in (given | (hidden.extra_pnginfo or {})).items()}


class SavePlan:
    """Names for a batch of files: ``<prefix>_<counter><ending>.<extension>`` in the folder that the prefix names."""

    def __init__(self, filename_prefix: str, folder_type: FolderType, width: int = 0, height: int = 0, ending: str = "_") -> None:
        self.folder_type, self.ending = FolderType(folder_type), ending
        place = folder_paths.get_save_image_path(filename_prefix, folder_of(self.folder_type), width, height)
        self.folder, self.filename, self.counter, self.subfolder, _ = place

    def next(self, extension: str, batch_number: int = 0) -> SavedResult:
        """The next file; ``%batch_num%`` in the prefix becomes *batch_number*."""
        stem = self.filename.replace("%batch_num%", str(batch_number))
        name = f"{stem}_{self.counter:05}{self.ending}.{extension}"
        self.counter += 1
        return SavedResult(name, self.subfolder, self.folder_type)

    def path_of(self, result: SavedResult) -> str:
        """The path of the file *result*."""
        return os.path.join(self.folder, result.filename)
