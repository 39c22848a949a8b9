"""``--save-preload-config FILE``: what was used since the start, as a config for the next one."""

import asyncio
import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping

from .usage import UsageLog, as_document

log = logging.getLogger(__name__)

INTERVAL_S = 30.0


class SavedConfig:
    """Writes *path* from *usage*: while the server runs after prompts that used models, and at its end. Without any use it writes nothing.

    *capacity* gives the room for models in bytes, *settings* those of the config that is in force. Any thread.
    """

    def __init__(self, path: str, usage: UsageLog, capacity: Callable[[], int | None], settings: Mapping[str, bool]) -> None:
        self.path = path
        self._usage, self._capacity, self._settings = usage, capacity, settings
        self._writing = threading.Lock()

    def save(self) -> bool:
        """Write the file if prompts ended that used models since the last call; whether it did. Blocks; says in the log why it cannot."""
        with self._writing:
            if not self._usage.look():
                return False
            document = as_document(self._usage.uses(), self._capacity(), self._settings)
            try:
                write_whole(self.path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            except OSError as error:
                log.error("--save-preload-config %s cannot be written: %s", self.path, error)
                return False
        return True

    async def keep_saving(self) -> None:
        """Save now and then, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await asyncio.to_thread(self.save)

    def save_at_end(self) -> None:
        """Save for the last time, and say what there is."""
        self.save()
        if uses := self._usage.uses():
            log.info("%s names the %d models that were used, most time saved first", self.path, len(uses))


def write_whole(path: str, text: str) -> None:
    """Replace *path* by *text* in one step. Raises ``OSError``."""
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False, encoding="utf-8") as file:
        file.write(text)
    try:
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)
        raise
