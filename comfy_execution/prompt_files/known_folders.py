"""Where names in prompts are looked up, and which names are not worth looking up."""

import itertools
import os
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import folder_paths

# Of a folder with more entries than this no list is kept: any name may be in it.
MAX_LISTED = 20_000
# A folder changed this shortly before could change again without its times showing it.
SETTLED_S = 0.1
# A folder that takes longer to answer counts as missing for those who come later.
STUCK_S = 1.0


@dataclass(frozen=True, slots=True)
class FileRoots:
    """Where names are looked up: model folders by kind, and the folders of pictures by name (``input``, ``output``, ``temp``)."""

    models: Mapping[str, tuple[str, ...]]
    directories: Mapping[str, str]


def server_roots() -> FileRoots:
    """The folders of this server as ``folder_paths`` has them now."""
    kinds = sorted(kind for kind in folder_paths.folder_names_and_paths if kind != "custom_nodes")
    return FileRoots(
        {kind: tuple(folder_paths.get_folder_paths(kind)) for kind in kinds},
        {
            "input": folder_paths.get_input_directory(),
            "output": folder_paths.get_output_directory(),
            "temp": folder_paths.get_temp_directory(),
        },
    )


class FolderNames:
    """What lies directly in each folder, listed again only after the folder changed. Any thread; blocks on the file system."""

    def __init__(self) -> None:
        self._listed: dict[str, tuple[tuple[int, int, int, int], frozenset[str] | None]] = {}
        self._entered_s: dict[str, float] = {}

    def of(self, folder: str) -> frozenset[str] | None:
        """The names in *folder*, each through :func:`folded`; none where it is missing or does not answer.

        None where there are too many to list.
        """
        entered_s = self._entered_s.get(folder)
        if entered_s is not None and time.monotonic() - entered_s > STUCK_S:
            return frozenset()
        self._entered_s[folder] = time.monotonic()
        try:
            return self._list(folder)
        except (OSError, ValueError):
            self._listed.pop(folder, None)
            return frozenset()
        finally:
            self._entered_s.pop(folder, None)

    def _list(self, folder: str) -> frozenset[str] | None:
        status = os.stat(folder)
        state = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        known = self._listed.get(folder)
        if known is not None and known[0] == state:
            return known[1]
        began_s = time.time()
        with os.scandir(folder) as entries:
            names = frozenset(folded(entry.name) for entry in itertools.islice(entries, MAX_LISTED + 1))
        listed = names if len(names) <= MAX_LISTED else None
        if abs(began_s - status.st_mtime_ns / 1e9) > SETTLED_S:
            self._listed[folder] = state, listed
        return listed


def folded(name: str) -> str:
    """*name* in a form that is the same for all names that some file system takes for one: case and composed letters do not count."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
