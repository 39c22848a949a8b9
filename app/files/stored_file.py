"""Finding the file that a request means in the input, output or temp folder."""

import os
from dataclasses import dataclass

import folder_paths
from app.files.path_guard import UnsafePath, check_relative_name, contained_path


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file as the page names it: ``name`` may end in `` [input]``, `` [output]`` or `` [temp]``, which overrules ``kind``."""

    name: str
    subfolder: str = ""
    kind: str = "output"

    def locate(self) -> str | None:
        """The path of the file, or None when there is no such regular file. Touches the disk.

        Raises ``UnsafePath``: malformed for a bad name or an unknown kind of folder, escaping for a subfolder outside.
        """
        name, root = folder_paths.annotated_filepath(self.name)
        if not name or name.startswith("/") or ".." in name:
            raise UnsafePath(f"not a file name: {self.name!r}", escapes=False)
        root = root or folder_paths.get_directory_by_type(self.kind)
        if root is None:
            raise UnsafePath(f"unknown type {self.kind!r}: use input, output or temp", escapes=False)
        folder = contained_path(root, self.subfolder) if self.subfolder else root
        base = os.path.basename(name)
        check_relative_name(base)
        path = os.path.join(folder, base)
        if not os.path.isfile(path):
            return None
        return contained_path(root, os.path.relpath(path, root))
