"""What a user's folder holds from the start, so that the page finds everything it asks for."""

import os

from app.files.atomic_file import write_atomic

FOLDERS = ("workflows", "subgraphs")
FILES = {"user.css": b"/* Styles of your own for the page. */\n", "comfy.templates.json": b"[]"}


def prepare_user_folder(path: str) -> None:
    """Make a user's folder at *path*, with what is missing in it; files that are there stay as they are. Blocks on the disk."""
    for name in FOLDERS:
        os.makedirs(os.path.join(path, name), exist_ok=True)
    for name, content in FILES.items():
        file = os.path.join(path, name)
        if not os.path.lexists(file):
            write_atomic(file, content)
