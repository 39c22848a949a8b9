"""The two phases of a start for memory snapshots: models in host RAM first, whatever belongs to this machine after the restore."""

import asyncio
import importlib
import logging
import random
import signal
import threading
from typing import Any, Protocol

from .clocks import Clocks
from .file_marks import FileMarks
from .preloader import Entry, Preloader, State
from .quiet_moment import between_prompts, with_queue_locked

log = logging.getLogger(__name__)

WARM_UP_LIMIT_S = 600.0


class Loads(Protocol):
    """What the phases need of the process's preloading."""

    preloader: Preloader | None
    providers: list[Any]
    settings: dict[str, bool]

    async def warm_up(self) -> bool:
        """Run the prompt of ``--warmup-prompt``, on the server's loop."""


class Phases:
    """Takes anew what a snapshot froze. :meth:`restored` may be called from any thread but the server's loop, any number of times.

    It runs while no prompt does: one that runs is waited for, those that come wait.
    """

    def __init__(self, preloading: Loads) -> None:
        self._preloading = preloading
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waits = False
        self._one_at_a_time = threading.Lock()
        self._marks, self._clocks = FileMarks(), Clocks()
        self._beats: asyncio.Task[None] | None = None
        self._count = 0

    def join(self, server: Any, waits: bool) -> None:
        """Learn of the server; *waits*: the first phase ends with :meth:`begin`, the second waits to be asked for."""
        self._server, self._waits = server, waits
        if waits and hasattr(server, "add_on_prompt_handler"):
            server.add_on_prompt_handler(self._before_prompt)

    async def begin(self) -> None:
        """End the first phase: move to the device at once, or wait for the restore."""
        self._loop = asyncio.get_running_loop()
        self._listen()
        if not self._waits:
            if self._preloading.settings["auto_gpu_load"]:
                await self._loop.run_in_executor(None, self._move_to_device)
            return
        await self._loop.run_in_executor(None, self._marks.take, [path for entry in self._entries() for path in entry.call.files])
        self._beats = self._loop.create_task(self._clocks.keep_time())
        log.info("Ready for a snapshot: no accelerator was touched. After each restore: POST /keepwarm/restored, or SIGUSR1")

    def restored(self) -> dict[str, Any]:
        """The second phase. Blocks; returns what was done, as JSON data."""
        return self._restored(self._clocks_anew())

    def _restored(self, back_s: float, entered: threading.Event | None = None) -> dict[str, Any]:
        with self._one_at_a_time:
            was_waiting, queue = self._waits, self._server.prompt_queue
            # A prompt that is on its way to the queue must find it locked.
            anew = with_queue_locked(queue, self._begin_anew, entered.set) if entered else between_prompts(queue, self._begin_anew)
            told = {"restored": self._count, "clock_back_s": round(back_s, 3), **anew}
            if was_waiting and self._loop is not None:
                asyncio.run_coroutine_threadsafe(self._preloading.warm_up(), self._loop).result(WARM_UP_LIMIT_S)
            log.info("Restored: %s", told)
            return told

    def _begin_anew(self) -> dict[str, Any]:
        """All that must not happen beside a prompt; returns what was done."""
        self._count += 1
        anew = self._take_anew()
        self._waits = False
        if self._preloading.settings["auto_gpu_load"]:
            self._move_to_device()
        return anew

    def _take_anew(self) -> dict[str, Any]:
        """Random state, devices, limits, identities of files and connections; what does not fit any more is read again."""
        if (reader := getattr(self._server, "read_ahead", None)) is not None:
            reader.pause("a snapshot is restored")
        random.seed()
        importlib.import_module("numpy").random.seed()
        importlib.import_module("torch").seed()
        for provider in self._preloading.providers:
            provider.renew()
        process_models = getattr(importlib.import_module("comfy.model_management"), "process_models", None)
        suits = True
        if process_models is not None:
            suits = process_models().meet_devices()
            process_models().take_limits_anew(self._marks.renamed)
        again = []
        if (preloader := self._preloading.preloader) is not None:
            preloader.keeper.take_over(self._marks.is_same, self._marks.renamed)
            again = [entry for entry in preloader.plan.entries if entry.state is State.HELD and not preloader.keeper.holds(entry.call)]
            for entry in again:
                preloader.load(entry)
        self._marks.take([path for entry in self._entries() for path in entry.call.files])
        return {"device_as_expected": suits, "read_again": [entry.wanted.cache_key for entry in again]}

    def _clocks_anew(self) -> float:
        """Bring the server's loop up to date, from another thread, which must not keep the loop waiting meanwhile."""
        if self._loop is None:
            return 0.0

        async def on_loop() -> float:
            return self._clocks.take_anew(asyncio.get_running_loop())

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(WARM_UP_LIMIT_S)

    def _move_to_device(self) -> None:
        """Load the held models onto the device, as far as there is room. Blocks; called while no prompt runs."""
        management = importlib.import_module("comfy.model_management")
        for entry in self._entries():
            if entry.state is not State.HELD:
                continue
            try:
                management.load_models_gpu([patcher for patcher in map(_patcher, entry.call.run()) if patcher is not None])
            except Exception:
                log.warning("Preloaded, but not moved to the device: %s", entry.title, exc_info=True)

    def _before_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """A prompt before the restore was told begins the second phase: it must not run in the first. Called on the server's loop."""
        if self._waits:
            log.warning("A prompt came before POST /keepwarm/restored: the second phase begins now")
            entered = threading.Event()
            back_s = self._clocks.take_anew(asyncio.get_running_loop())
            threading.Thread(target=self._restored, args=(back_s, entered), name="preload-restored", daemon=True).start()
            entered.wait(1.0)
        return json_data

    def _listen(self) -> None:
        """Have SIGUSR1 begin the second phase too, unless something else listens to it."""
        number = getattr(signal, "SIGUSR1", None)
        if number is None or threading.current_thread() is not threading.main_thread() or signal.getsignal(number) is not signal.SIG_DFL:
            return

        def on_signal(*_: object) -> None:
            threading.Thread(target=self.restored, name="preload-restored", daemon=True).start()

        signal.signal(number, on_signal)

    def _entries(self) -> tuple[Entry, ...]:
        return self._preloading.preloader.plan.entries if self._preloading.preloader else ()


def _patcher(value: Any) -> Any:
    """What moves *value* between devices: its patcher, or itself."""
    return getattr(value, "patcher", None) or (value if hasattr(value, "load_device") else None)
