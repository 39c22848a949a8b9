"""Keeps one server running: starts it, starts it again when it dies, ends it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.server_http import ServerHttp
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
LOOK_EVERY_S = 0.05
STOP_PATIENCE_S = 8.0
# A server that dies sooner than this after its start is not started again at once.
SHORT_LIFE_S = 10.0
LONGEST_PAUSE_S = 30.0
START_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """How to start a server: *flags* of ``main.py``, *folder* for its log and notes, *address* to listen on, *environment* on top.

    *base_directory*: with a folder of models of its own; empty: this project's.
    """

    flags: tuple[str, ...]
    folder: Path
    address: str = "127.0.0.1"
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, port: int, started_path: Path) -> list[str]:
        """The command line."""
        own = ["--listen", self.address, "--port", str(port), "--started-prompts", str(started_path)]
        return [sys.executable, str(ROOT / "main.py"), *own, *self.flags]


class Supervisor:
    """One server of *plan*. ``start`` once, ``stop`` once, on one loop whose thread lives as long as the process.

    *on_up* is awaited each time the server answers, *on_death* each time it has died by itself, before it is started again.
    """

    def __init__(self, plan: ServerPlan, on_up: Callable[[], Awaitable[None]], on_death: Callable[[str], Awaitable[None]]) -> None:
        self._plan, self._on_up, self._on_death = plan, on_up, on_death
        plan.folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port(plan.address)
        self.base_url = f"http://{plan.address}:{self.port}"
        self.started_path = plan.folder / f"started-{os.getpid()}-{self.port}"
        self.log_path = plan.folder / f"server-{self.port}.log"
        self.restarts = 0
        self.is_up = False
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """The server's process, None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start the server and return when it answers. Raises ``RuntimeError`` with the end of its log when it ends before."""
        await self._spawn()
        if not await self._wait_until_up():
            raise RuntimeError(f"the server ended while it started, with status {await self._ended()}:\n{self.log_tail()}")
        self._keeper = asyncio.create_task(self._keep(), name="server-keeper")

    async def stop(self) -> None:
        """End the server as Ctrl-C does; kill it if that takes too long."""
        self._is_stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOP_PATIENCE_S):
                await process.wait()
        except TimeoutError:
            log.warning("The server on port %d does not end by itself; it is killed", self.port)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self.is_up = False

    def log_tail(self, lines: int = 20) -> str:
        """The end of what the server printed."""
        try:
            return "\n".join(self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError as error:
            return f"({self.log_path} cannot be read: {error})"

    async def _keep(self) -> None:
        pause_s = 0.0
        while True:
            up_s = time.monotonic()
            status = await self._ended()
            self.is_up = False
            reason = f"its server ended with status {status}" if status >= 0 else f"its server was killed by signal {-status}"
            log.warning("The server on port %d is gone (%s); it is started again. Its log: %s", self.port, reason, self.log_path)
            await self._on_death(reason)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2 or 0.5) if time.monotonic() - up_s < SHORT_LIFE_S else 0.0
            if pause_s > 0.5:
                await asyncio.sleep(pause_s)
            self.restarts += 1
            await self._spawn()
            await self._wait_until_up()

    async def _spawn(self) -> None:
        command = [sys.executable, "-m", "fleet.tether", str(os.getpid()), *self._plan.command(self.port, self.started_path)]
        environment = {**os.environ, **self._plan.environment, "PYTHONPATH": _python_path()}
        with open(self.log_path, "ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    async def _wait_until_up(self) -> bool:
        """Whether the server answers; False when it has ended, or does not within ten minutes."""
        http = ServerHttp(self.base_url)
        end_s = time.monotonic() + START_LIMIT_S
        try:
            while self._process is not None and self._process.returncode is None and time.monotonic() < end_s:
                try:
                    await http.summary()
                except (ServerUnreachable, ServerAnswer):
                    await asyncio.sleep(LOOK_EVERY_S)
                    continue
                self.is_up = True
                await self._on_up()
                return True
            return False
        finally:
            await http.close()

    async def _ended(self) -> int:
        assert self._process is not None
        return await self._process.wait()


def _free_port(address: str) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _python_path() -> str:
    """Where the server finds this project and what is installed beside it."""
    given: Sequence[str] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join(dict.fromkeys([str(ROOT), *given]))
