"""Reading, writing and removing files of a checkout by name. Nothing leads outside it: no absolute name, no ``..``, no link."""

import contextlib
import os
import pathlib
import stat
import tempfile

from patchset.outcomes import PatchsetError

# Every file that is being written has such a name first; one that is left behind is known by it.
TEMPORARY_SUFFIX = ".keepwarm-patchset"


def place(root: pathlib.Path, name: str) -> pathlib.Path:
    """Where the file *name* lies below *root*. Raises ``PatchsetError`` for names that lead elsewhere and for links on the way."""
    parts = pathlib.PurePosixPath(name).parts
    if not parts or name.startswith("/") or {"..", "\0"} & {*parts, *name} or "\\" in name or ":" in name or parts[0].lower() == ".git":
        raise PatchsetError(f"{name!r} is no file of the checkout {root}; nothing was changed")
    path = root
    for part in parts:
        path = path / part
        if is_link(path):
            raise PatchsetError(
                f"{path} is a link to {os.readlink(path)}, and only plain files are changed. Replace the link by what it leads to, "
                "or name the checkout in which that lies; nothing was changed"
            )
    return path


def is_link(path: pathlib.Path) -> bool:
    """Whether *path* is a link (or a junction, on Windows)."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISLNK(state.st_mode) or bool(getattr(state, "st_reparse_tag", 0))


def read(root: pathlib.Path, name: str) -> bytes | None:
    """A file's bytes, or None when it does not exist. Raises ``PatchsetError`` as ``place`` does."""
    path = place(root, name)
    return path.read_bytes() if path.is_file() else None


def write(root: pathlib.Path, name: str, content: bytes | None) -> None:
    """Replace the file *name* in one step that survives a power cut (its permission bits stay), or remove it with all that only it
    needed. Raises ``OSError``."""
    path = place(root, name)
    if content is None:
        _remove(root, path)
    else:
        write_durably(path, content)


def write_durably(path: pathlib.Path, content: bytes) -> None:
    """Write beside *path*, down to the disk, then rename. Raises ``OSError``; then nothing has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o7777 if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Have the names in *folder* reach the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_left_over(root: pathlib.Path, name: str) -> None:
    """Remove what an interrupted write of *name* left behind: temporary files, and folders that nothing is in."""
    path = place(root, name)
    if path.parent.is_dir():
        for temporary in path.parent.glob(f".{path.name}.*{TEMPORARY_SUFFIX}"):
            temporary.unlink(missing_ok=True)
    _remove_empty(root, path.parent)


def _remove(root: pathlib.Path, path: pathlib.Path) -> None:
    """Delete *path*, its byte code, and the folders below *root* that are empty then."""
    path.unlink(missing_ok=True)
    compiled = path.parent / "__pycache__"
    if not is_link(compiled):
        for file in compiled.glob(f"{path.stem}.*.pyc"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty, or was never there
            compiled.rmdir()
    _remove_empty(root, path.parent)


def _remove_empty(root: pathlib.Path, folder: pathlib.Path) -> None:
    while folder != root:
        if folder.is_dir():
            if any(folder.iterdir()):
                return
            folder.rmdir()
        folder = folder.parent
