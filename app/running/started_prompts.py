"""A file that tells, after the server was killed, which prompts it had begun."""

import os


class StartedPrompts:
    """Appends ids to the file at *path*, which is there once this was made. Used by one thread at a time.

    What is written survives the death of the process, though not that of the machine.
    """

    def __init__(self, path: str) -> None:
        """Raises ``OSError``."""
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, prompt_id: str) -> None:
        """Add *prompt_id*, a line of its own. Raises ``OSError``: a prompt whose start cannot be noted must not run."""
        line = f"{prompt_id}\n".encode()
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path} takes no more: is the disk full? (--started-prompts names this file)")


def read_started(path: str) -> frozenset[str] | None:
    """The ids in the file at *path*; None when it cannot be read, so that nothing is certain. Blocks."""
    try:
        with open(path, encoding="utf-8") as file:
            return frozenset(file.read().split())
    except OSError:
        return None
