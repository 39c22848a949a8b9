"""Preloading as a part of the server's start: after every pack is loaded, before the port answers."""

import asyncio
import atexit
import functools
import importlib
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from ..write_guard import WriteGuard
from .config import ConfigUnreadable, Wanted, read_config
from .keepers import cache_capacity_bytes, keeper_for
from .loader_calls import loader_call
from .options import PreloadOptions, read_options
from .phases import Phases
from .preloader import Entry, Plan, Preloader, make_plan, plan_text
from .rest import missing_models
from .routes import add_preload_routes
from .saved_config import SavedConfig
from .usage import UsageLog
from .warmup import PausedProviders, WarmupFailed, warm_up

log = logging.getLogger(__name__)


class Preloading:
    """The process's preloading: nothing to do until a config is named. Its methods are called on the server's loop unless they say so."""

    def __init__(self) -> None:
        self.preloader: Preloader | None = None
        self.phases = Phases(self)
        self.providers: list[Any] = []
        self._options = PreloadOptions()
        self._server: Any = None
        self.settings = {"auto_gpu_load": False, "verbose": False}
        self._tasks: set[asyncio.Task[None]] = set()
        self._adding = threading.Lock()

    def join(self, args: Any, server: Any, environment: Mapping[str, str] | None = None) -> None:
        """Have *server* do at its start what flags and environment ask for, and add the routes. Raises ``SystemExit``."""
        self._options, self._server = read_options(args, environment), server
        options = self._options
        add_preload_routes(server.routes, self, WriteGuard(args, server, environment))
        self.phases.join(server, options.waits)

        async def at_start(app: web.Application) -> None:
            status = await self._start(server)
            if options.check_only or options.ends:
                raise SystemExit(status)
            reader = getattr(server, "read_ahead", None)
            if reader is not None and self.preloader is not None:
                reader.add_source(functools.partial(missing_models, self.preloader))

        if options != PreloadOptions():
            server.app.on_startup.append(at_start)

    async def _start(self, server: Any) -> int:
        """Do it all, in order; the exit status for starts that end with it."""
        options, is_warm = self._options, True
        if options.config is not None:
            self._plan(options.config)
        if options.check_only:
            return self._say_plan()
        if options.save_to is not None:
            self._save_to(options.save_to, server)
        await self._load()
        await self.phases.begin()
        if not options.waits:
            is_warm = await self.warm_up()
        return 0 if is_warm and self.preloader is not None and self.preloader.is_complete() else 1

    def _plan(self, path: str) -> None:
        """Read the config and find its loaders; what is wrong is logged."""
        try:
            config = read_config(path)
        except ConfigUnreadable as error:
            log.error("Nothing is preloaded. %s", error)
            return
        classes = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
        plan = make_plan(config, classes, importlib.import_module("folder_paths"))
        for problem in plan.problems:
            log.warning("Preload config %s: %s", path, problem)
        self.preloader = Preloader(plan, keeper_for(classes))
        self.settings = {"auto_gpu_load": config.auto_gpu_load, "verbose": config.verbose}

    def _say_plan(self) -> int:
        """Print what would be loaded; the exit status."""
        if self.preloader is None:
            return 1
        print(plan_text(self.preloader.plan, self.preloader.keeper.capacity_bytes()))
        return 1 if self.preloader.plan.problems else 0

    async def _load(self) -> None:
        preloader = self.preloader
        if preloader is None:
            return
        if self.settings["verbose"]:
            log.info("Preloading:\n%s", plan_text(preloader.plan, preloader.keeper.capacity_bytes()))
        try:
            await asyncio.get_running_loop().run_in_executor(None, preloader.run, _progress_bar(len(preloader.plan.entries)))
        except asyncio.CancelledError:
            preloader.stop()
            raise

    def _save_to(self, path: str, server: Any) -> None:
        """Keep *path* up to date from now on."""
        classes = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
        usage = UsageLog(server.prompt_queue, classes, importlib.import_module("folder_paths"), self.wanted)
        saved = SavedConfig(path, usage, cache_capacity_bytes, self.settings)
        atexit.register(saved.save_at_end)
        task = asyncio.get_running_loop().create_task(saved.keep_saving())
        self._tasks.add(task)  # the loop refers to its tasks weakly

    async def warm_up(self) -> bool:
        """Run the prompt of ``--warmup-prompt``, if there is one; whether that worked. The server starts all the same."""
        path = self._options.warmup
        if path is None:
            return True
        try:
            with PausedProviders(self.providers):
                seconds = await warm_up(path, self._server.prompt_queue)
        except WarmupFailed as error:
            log.error("Not warmed up: %s", error)
            return False
        log.info("Warmed up with %s in %.1f s", path, seconds)
        return True

    def wanted(self, key: str) -> Wanted | None:
        """The entry of the config with a *key*. Any thread."""
        entry = self.preloader.find(key) if self.preloader else None
        return entry.wanted if entry else None

    def add(self, wanted: Wanted) -> Entry:
        """Load and hold *wanted*, which the config does not name. Blocks; raises :class:`Unloadable`, or ``OSError`` for a lost file."""
        classes = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
        call = loader_call(wanted, classes, importlib.import_module("folder_paths"))
        with self._adding:
            if self.preloader is None:
                self.preloader = Preloader(Plan((), ()), keeper_for(classes))
            entry = self.preloader.add(wanted, call)
        self.preloader.load(entry)
        return entry

    def keys(self, *kinds: str) -> list[str]:
        """The keys of the config's models of *kinds*."""
        return [key for kind in kinds for key in self.preloader.keys(kind)] if self.preloader else []

    def described(self) -> dict[str, Any]:
        """Every entry, as JSON data. Any thread."""
        return self.preloader.described() if self.preloader else {"models": [], "problems": []}


def install(preloading: Preloading, providers: Iterable[Any] = ()) -> None:
    """Let *preloading* join the server of this process, if there is one; *providers* are the pack's cache providers."""
    server = getattr(importlib.import_module("server").PromptServer, "instance", None)
    if server is not None:
        preloading.providers = list(providers)
        preloading.join(importlib.import_module("comfy.cli_args").args, server)


def _progress_bar(total: int) -> Any:
    tqdm = importlib.import_module("tqdm").tqdm

    def show(entries: Iterable[Entry]) -> Iterable[Entry]:
        bar: Iterable[Entry] = tqdm(entries, total=total, desc="Preloading", unit="model", disable=None)
        return bar

    return show
