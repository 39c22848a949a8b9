"""Waits for a server that is starting."""

import asyncio
import os
import pathlib
from dataclasses import dataclass

from serverless.server_api import ServerAnswer, ServerApi, ServerUnreachable

RETRIES_WITHOUT_PID = 500


@dataclass(frozen=True, slots=True)
class Availability:
    """How long to wait for a server: *retries* times *interval_s*; with 0 retries while the process in *pid_file* lives."""

    interval_s: float = 0.05
    retries: int = 0
    pid_file: str = "/tmp/comfyui.pid"

    async def wait(self, api: ServerApi) -> bool:
        """Ask until the server answers; whether it did."""
        tried = 0
        while True:
            try:
                await api.get_json("/system_stats")
                return True
            except ServerAnswer as error:
                if error.status == 404:
                    return True
            except (ServerUnreachable, ValueError):
                pass
            tried += 1
            if not self._goes_on(tried):
                return False
            await asyncio.sleep(self.interval_s)

    def _goes_on(self, tried: int) -> bool:
        if self.retries:
            return tried < self.retries
        pid = self._pid()
        return tried < RETRIES_WITHOUT_PID if pid is None else is_alive(pid)

    def _pid(self) -> int | None:
        try:
            return int(pathlib.Path(self.pid_file).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            return None


def is_alive(pid: int) -> bool:
    """Whether process *pid* runs; one that has ended and waits to be collected does not."""
    try:
        os.kill(pid, 0)
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except (PermissionError, OSError, IndexError):
        return True
