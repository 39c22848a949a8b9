"""Names that try to leave their folder, for every route that takes one."""

import os

import yarl

# Names that must neither read nor write anything outside the folder that they are used in.
HOSTILE_NAMES = (
    "../secret.txt",
    "../../secret.txt",
    "..",
    "a/../../secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "..\\secret.txt",
    "C:\\secret.txt",
    "C:/secret.txt",
    "\\\\host\\share\\secret.txt",
    "sub/\0.txt",
    "a\0",
    "x" * 300,
    "y/" * 3000 + "z",
    "link/secret.txt",
    "link_file.txt",
)


def encoded(path: str, *names: str) -> yarl.URL:
    """*path* with each ``{}`` replaced by a name in which every reserved character is percent-encoded."""
    escaped = ["".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in name.encode()) for name in names]
    return yarl.URL(path.format(*escaped), encoded=True)


def plant_links(folder, target):
    """In *folder*, a link to the folder *target* and a link to ``secret.txt`` in it."""
    os.symlink(target, folder / "link")
    os.symlink(target / "secret.txt", folder / "link_file.txt")
